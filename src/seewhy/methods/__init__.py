"""The methods: one module per family, each method the few lines of its mathematics."""

from .activation import Activations
from .base import Method
from .cam import CAM, GradCAM, GuidedGradCAM
from .gradient import DeconvNet, GuidedBackprop, Saliency
from .masked_cam import AblationCAM, ReciproCAM, ScoreCAM
from .occlusion import Occlusion
from .path import IntegratedGradients
from .registry import list_methods, register
from .repeating import Perturbing, Repeating
from .smooth import SmoothGrad

__all__ = [
    "CAM",
    "AblationCAM",
    "Activations",
    "DeconvNet",
    "GradCAM",
    "GuidedBackprop",
    "GuidedGradCAM",
    "IntegratedGradients",
    "Method",
    "Occlusion",
    "Perturbing",
    "ReciproCAM",
    "Repeating",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "list_methods",
    "register",
]
