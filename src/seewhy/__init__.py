"""seewhy explains any PyTorch vision network: why did it answer that, and what has it learned?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import datasets, errors, inside, methods, notebook, render, samples, testing, trust, video
    from .engine.record import LayerRecord, Needs, Record
    from .engine.rules import BackwardRule
    from .errors import SeewhyError, SeewhyWarning
    from .explainer import Explainer, Prediction
    from .explanation import Explanation
    from .explanations import Explanations
    from .methods import Method, list_methods, register
    from .regions import Detection, Region
    from .similarity import Similarity
    from .targets import Class, Contrast, LogProbability, Probability, Target, Top, Value

# Where each public name lives: torch, which most of them need, is imported when the first is used.
_MODULES = {
    "engine.record": ("LayerRecord", "Needs", "Record"),
    "engine.rules": ("BackwardRule",),
    "errors": ("SeewhyError", "SeewhyWarning"),
    "explainer": ("Explainer", "Prediction"),
    "explanation": ("Explanation",),
    "explanations": ("Explanations",),
    "methods": ("Method", "list_methods", "register"),
    "regions": ("Detection", "Region"),
    "similarity": ("Similarity",),
    "targets": ("Class", "Contrast", "LogProbability", "Probability", "Target", "Top", "Value"),
}
_SUBMODULES = ("datasets", "errors", "inside", "methods", "notebook", "render", "samples", "testing", "trust", "video")

__all__ = [
    "BackwardRule",
    "Class",
    "Contrast",
    "Detection",
    "Explainer",
    "Explanation",
    "Explanations",
    "LayerRecord",
    "LogProbability",
    "Method",
    "Needs",
    "Prediction",
    "Probability",
    "Record",
    "Region",
    "SeewhyError",
    "SeewhyWarning",
    "Similarity",
    "Target",
    "Top",
    "Value",
    "__version__",
    "datasets",
    "errors",
    "inside",
    "list_methods",
    "methods",
    "notebook",
    "register",
    "render",
    "samples",
    "testing",
    "trust",
    "video",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
