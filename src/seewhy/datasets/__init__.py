"""Many images: judge a classifier, explain all of a data set, keep the maps.

`Explainer.evaluate` and `Explainer.run` begin here; this module has what they return, and what goes beyond one machine.
"""

from .batches import BatchExplainer
from .calibration import Calibration
from .evaluation import Evaluation
from .gallery import gallery
from .on_ray import run_on_ray
from .single import Skipped
from .store import Store
from .store import open_store as open  # noqa: A004
from .work import TrueClass

__all__ = [
    "BatchExplainer",
    "Calibration",
    "Evaluation",
    "Skipped",
    "Store",
    "TrueClass",
    "gallery",
    "open",
    "run_on_ray",
]
