"""Is a map to be believed? Metrics of faithfulness, localisation and sanity, for any method and for plain arrays.

Each takes an `Explainer` and an `Explanation` (or maps with ``images=`` and ``target=``) and returns a `Score` with a
number for each map. The network comes back as it was, and no result depends on the size of chunks.
"""

from __future__ import annotations

from .check import check
from .compare import Comparison, compare
from .faithful import deletion, insertion, pixel_flipping, road
from .finding import Check, Finding
from .localisation import energy_in_mask, mass_accuracy, pointing_game, rank_accuracy
from .masked import adcc, average_drop, average_increase
from .mosaic import grid_pointing
from .sanity import mprt, random_logit
from .score import Score
from .shape import complexity, sparseness
from .stability import max_sensitivity
from .subject import Common
from .sums import completeness, infidelity, mufidelity

__all__ = [
    "Check",
    "Common",
    "Comparison",
    "Finding",
    "Score",
    "adcc",
    "average_drop",
    "average_increase",
    "check",
    "compare",
    "completeness",
    "complexity",
    "deletion",
    "energy_in_mask",
    "grid_pointing",
    "infidelity",
    "insertion",
    "mass_accuracy",
    "max_sensitivity",
    "mprt",
    "mufidelity",
    "pixel_flipping",
    "pointing_game",
    "random_logit",
    "rank_accuracy",
    "road",
    "sparseness",
]
