"""seewhy explains any PyTorch vision network: why did it answer that, and what has it learned?"""

from . import samples
from ._version import __version__
from .engine.record import LayerRecord, Needs, Record
from .engine.rules import BackwardRule
from .errors import SeewhyError, SeewhyWarning
from .explainer import Explainer, Prediction
from .explanation import Explanation, Explanations
from .methods import Method, list_methods, register
from .targets import Target

__all__ = [
    "BackwardRule",
    "Explainer",
    "Explanation",
    "Explanations",
    "LayerRecord",
    "Method",
    "Needs",
    "Prediction",
    "Record",
    "SeewhyError",
    "SeewhyWarning",
    "Target",
    "__version__",
    "list_methods",
    "register",
    "samples",
]
