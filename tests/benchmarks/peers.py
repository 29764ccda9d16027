"""The same jobs with other libraries, each as its own documentation shows it, and the bare passes.

All of them take a model in eval mode whose parameters require grad, as users have it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    IntegratedGradients,
    LayerActivation,
    LayerGradCam,
    Occlusion,
    Saliency,
)
from networks import Setting
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor


def forward(setting: Setting, images: Tensor | None = None) -> Callable[[], Any]:
    """A bare forward pass without a graph."""

    def job() -> Any:
        with torch.no_grad():
            return setting.frozen(setting.image if images is None else images)

    return job


def backwards(setting: Setting, count: int, images: Tensor | None = None) -> Callable[[], Any]:
    """A bare forward pass and `count` backward passes to the input, the last of which frees the graph."""

    def job() -> Any:
        leaf = (setting.image if images is None else images).clone().requires_grad_()
        score = setting.frozen(leaf)[:, setting.target].sum()
        return [torch.autograd.grad(score, leaf, retain_graph=turn < count - 1)[0] for turn in range(count)]

    return job


def captum_methods(setting: Setting, layers: list[str], target: int) -> dict[Any, Tensor]:
    """Saliency and, where they fit, guided backprop, and Grad-CAM, guided Grad-CAM and activations at each layer."""
    model, found = setting.model, dict[Any, Tensor]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one at each guided backprop, of the hooks that it sets
        image = setting.image.clone().requires_grad_()
        found["saliency"] = Saliency(model).attribute(image, target)
        if setting.relu:
            found["guided_backprop"] = GuidedBackprop(model).attribute(image, target)
        for name in layers:
            layer = model.get_submodule(name)
            found["activations", name] = LayerActivation(model, layer).attribute(image)
            if setting.relu:
                found["grad_cam", name] = LayerGradCam(model, layer).attribute(image, target, relu_attributions=True)
                guided = GuidedGradCam(model, layer).attribute(image, target, interpolate_mode="bilinear")
                found["guided_grad_cam", name] = guided
    return found


def captum_saliency(setting: Setting, target: int) -> Any:
    """`Saliency`, the absolute value of the gradient."""
    return Saliency(setting.model).attribute(setting.image.clone().requires_grad_(), target)


def captum_each(setting: Setting, methods: Iterable[str], target: int, images: Tensor | None = None) -> list[Tensor]:
    """Each of these methods in its turn; those that look at a layer at the last."""
    model, layer = setting.model, setting.module
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "saliency": lambda image: Saliency(model).attribute(image, target),
        "guided_backprop": lambda image: GuidedBackprop(model).attribute(image, target),
        "deconvnet": lambda image: Deconvolution(model).attribute(image, target),
        "grad_cam": lambda image: LayerGradCam(model, layer).attribute(image, target, relu_attributions=True),
        "guided_grad_cam": lambda image: GuidedGradCam(model, layer).attribute(image, target),
        "activations": lambda image: LayerActivation(model, layer).attribute(image),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = (setting.image if images is None else images).clone().requires_grad_()
        return [ways[name](image) for name in methods]


def captum_grad_cam(setting: Setting, layers: list[str], targets: Iterable[int]) -> list[Tensor]:
    """`LayerGradCam` of each class at each layer, in a loop: it explains one class at one layer."""
    cams = [LayerGradCam(setting.model, setting.model.get_submodule(name)) for name in layers]
    return [cam.attribute(setting.image, target, relu_attributions=True) for target in targets for cam in cams]


def captum_occlusion(setting: Setting, target: int, window: int, stride: int, **how: int) -> Any:
    """`Occlusion` with a baseline of 0, its default."""
    window_and_stride = (3, window, window), (3, stride, stride)
    with torch.no_grad():
        return Occlusion(setting.model).attribute(setting.image, *window_and_stride, target=target, **how)


def captum_integrated_gradients(setting: Setting, target: int, steps: int, **how: int) -> Any:
    """`IntegratedGradients` with a baseline of 0, its default; all steps are one batch unless told."""
    return IntegratedGradients(setting.model).attribute(setting.image, target=target, n_steps=steps, **how)


def grad_cam_of(name: str, setting: Setting, batches: Iterable[Tensor], target: int | None) -> list[np.ndarray]:
    """A method of pytorch-grad-cam, as in ``"GradCAM"``, of the predicted class where the target is None."""
    found = []
    method = getattr(pytorch_grad_cam, name)
    with quiet(), method(model=setting.model, target_layers=[setting.module], **setting.reshape) as cam:
        for batch in batches:
            targets = None if target is None else [ClassifierOutputTarget(target)] * len(batch)
            found.append(cam(input_tensor=batch, targets=targets))
    return found


def torchcam_of(name: str, setting: Setting, batches: Iterable[Tensor], target: int | None) -> list[Tensor]:
    """A method of TorchCAM, as in ``"GradCAM"``, of the predicted class where the target is None."""
    found = []
    without_gradients = name == "ScoreCAM"  # whose page runs the model under inference_mode
    with getattr(torchcam.methods, name)(setting.model, setting.last, **setting.reshape) as cam:
        for batch in batches:
            with torch.inference_mode() if without_gradients else contextlib.nullcontext():
                scores = setting.model(batch)
            classes = scores.argmax(1).tolist() if target is None else [target] * len(batch)
            found.append((cam(classes) if without_gradients else cam(classes, scores))[0])
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Progress bars that cannot be switched off go nowhere."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
