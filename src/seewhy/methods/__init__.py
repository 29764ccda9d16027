"""The methods: one module per family, each method the few lines of its mathematics."""

from .activation import Activations
from .base import Method, list_methods, register
from .cam import CAM, GradCAM, GuidedGradCAM
from .gradient import DeconvNet, GuidedBackprop, Saliency

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
