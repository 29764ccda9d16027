"""The methods: one module per family, each method the few lines of its mathematics."""

from .activation import Activations
from .attention import AttentionCAM, AttentionRollout, GradAttentionRollout, LeGrad, RawAttention
from .base import Method
from .cam import CAM
from .eigen_cam import EigenCAM, EigenGradCAM
from .extremal import ExtremalPerturbation
from .forgrad import ForGrad
from .full_grad import FullGrad
from .gradient import DeconvNet, GradientMethod, GuidedBackprop, InputXGradient, Saliency
from .gradient_cam import (
    ElementWiseGradCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    HiResCAM,
    LayerCAM,
    ShapleyCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from .masked_cam import AblationCAM, ReciproCAM, ScoreCAM
from .occlusion import Occlusion
from .path import IDGI, BlurIG, GradientShap, GuidedIG, IntegratedGradients
from .registry import list_methods, register
from .repeating import Perturbing, Repeating
from .rise import Rise
from .smooth import SmoothGrad, SquareGrad, VarGrad
from .sobol import Sobol
from .superpixels import KernelSHAP, Lime
from .xrai import XRAI

__all__ = [
    "CAM",
    "IDGI",
    "XRAI",
    "AblationCAM",
    "Activations",
    "AttentionCAM",
    "AttentionRollout",
    "BlurIG",
    "DeconvNet",
    "EigenCAM",
    "EigenGradCAM",
    "ElementWiseGradCAM",
    "ExtremalPerturbation",
    "FinerCAM",
    "ForGrad",
    "FullGrad",
    "GradAttentionRollout",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientMethod",
    "GradientShap",
    "GuidedBackprop",
    "GuidedGradCAM",
    "GuidedIG",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LayerCAM",
    "LeGrad",
    "Lime",
    "Method",
    "Occlusion",
    "Perturbing",
    "RawAttention",
    "ReciproCAM",
    "Repeating",
    "Rise",
    "Saliency",
    "ScoreCAM",
    "ShapleyCAM",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "Sobol",
    "SquareGrad",
    "VarGrad",
    "XGradCAM",
    "list_methods",
    "register",
]
