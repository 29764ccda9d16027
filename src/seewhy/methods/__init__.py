"""The methods: one module per family, each method the few lines of its mathematics."""

from .activation import Activations
from .base import Method
from .cam import CAM, GradCAM, GuidedGradCAM
from .gradient import DeconvNet, GuidedBackprop, Saliency
from .registry import list_methods, register

__all__ = [
    "CAM",
    "Activations",
    "DeconvNet",
    "GradCAM",
    "GuidedBackprop",
    "GuidedGradCAM",
    "Method",
    "Saliency",
    "list_methods",
    "register",
]
