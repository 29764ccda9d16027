"""What explaining costs against the bare passes of the same network, and against other libraries.

    pip install ".[bench]"
    python tests/benchmarks/bench_passes.py [--network resnet50] [--rounds 9] [--json FILE]

One image, random weights, one thread. Everything is run in turns within one process; a row is a ratio of medians.
The maps are checked to be equal before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from timing import timed

from seewhy import Explainer, SeewhyWarning

TARGET = 3
LAYERS = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
METHODS = ["saliency", "guided_backprop", "grad_cam", "guided_grad_cam", "activations"]


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description="Cost against the bare passes and against other libraries.")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore", SeewhyWarning)
    model = torchvision.models.get_model(arguments.network, weights=None).eval()
    image = torch.rand(1, 3, 224, 224)
    jobs = {**bare(model, image), **ours(model, image), **captum(model, image), **pytorch_grad_cam(model, image)}
    check_equal(model, image)
    seconds = timed(jobs, arguments.rounds)
    rows = [(what, base, seconds[what] / seconds[base]) for what, base in COMPARISONS if {what, base} <= seconds.keys()]
    title = f"{arguments.network}, 1 image of 224 px, torch {torch.__version__}, 1 thread, {platform.machine()}"
    print(title, *(f"{what:32s} / {base:32s} {ratio:6.2f}" for what, base, ratio in rows), sep="\n")
    for name, value in memory(model, image).items():
        print(f"{name:67s} {value:6.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"title": title, "seconds": seconds, "ratios": rows}, indent=2))


COMPARISONS = [
    ("seewhy Grad-CAM", "forward"),
    ("seewhy Grad-CAM, layer chosen", "seewhy Grad-CAM"),
    ("seewhy Grad-CAM, first choice", "seewhy Grad-CAM"),
    ("seewhy saliency", "forward + backward"),
    ("seewhy 5 methods x 5 layers", "forward + 2 backwards"),
    ("Captum 5 methods x 5 layers", "seewhy 5 methods x 5 layers"),
    ("Captum Grad-CAM", "seewhy Grad-CAM"),
    ("pytorch-grad-cam Grad-CAM", "seewhy Grad-CAM"),
]


def bare(model: torch.nn.Module, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The passes themselves, without parameter gradients."""

    def forward() -> None:
        with torch.no_grad():
            model(image)

    def backwards(count: int) -> None:
        model.requires_grad_(False)
        leaf = image.clone().requires_grad_()
        score = model(leaf)[0, TARGET]
        for _ in range(count):
            torch.autograd.grad(score, leaf, retain_graph=True)
        model.requires_grad_(True)

    return {
        "forward": forward,
        "forward + backward": lambda: backwards(1),
        "forward + 2 backwards": lambda: backwards(2),
    }


def ours(model: torch.nn.Module, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The same jobs as a user would write them."""
    explainer = Explainer(model)
    return {
        "seewhy Grad-CAM": lambda: explainer.explain(image, target=TARGET, layer="layer4"),
        "seewhy Grad-CAM, layer chosen": lambda: explainer.explain(image, target=TARGET),
        "seewhy Grad-CAM, first choice": lambda: Explainer(model).explain(image, target=TARGET),
        "seewhy saliency": lambda: explainer.explain(image, "saliency", target=TARGET),
        "seewhy 5 methods x 5 layers": lambda: explainer.explain(image, METHODS, target=TARGET, layer=LAYERS),
    }


def captum(model: torch.nn.Module, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Captum's usual calls; it deprecates nothing of these, but warns at each guided backprop."""
    try:
        from captum.attr import GuidedBackprop, GuidedGradCam, LayerActivation, LayerGradCam, Saliency
    except ImportError:
        return {}
    layers = [model.get_submodule(name) for name in LAYERS]

    def everything() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            leaf = image.clone().requires_grad_()
            Saliency(model).attribute(leaf, TARGET)
            GuidedBackprop(model).attribute(leaf, TARGET)
            for layer in layers:
                LayerGradCam(model, layer).attribute(leaf, TARGET)
                GuidedGradCam(model, layer).attribute(leaf, TARGET)
                LayerActivation(model, layer).attribute(leaf)

    one = LayerGradCam(model, layers[-1])
    return {"Captum 5 methods x 5 layers": everything, "Captum Grad-CAM": lambda: one.attribute(image, TARGET)}


def pytorch_grad_cam(model: torch.nn.Module, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """pytorch-grad-cam's usual call."""
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        return {}

    def grad_cam() -> Any:
        with GradCAM(model, [model.get_submodule("layer4")]) as cam:
            return cam(image, [ClassifierOutputTarget(TARGET)])

    return {"pytorch-grad-cam Grad-CAM": grad_cam}


def check_equal(model: torch.nn.Module, image: torch.Tensor) -> None:
    """The maps that are compared must be the same maps."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        return
    theirs = LayerGradCam(model, model.get_submodule("layer4")).attribute(image, TARGET, relu_attributions=True)
    mine = Explainer(model).explain(image, target=TARGET, layer="layer4").values
    np.testing.assert_allclose(mine, theirs[:, 0].detach().numpy(), atol=1e-4 * np.abs(mine).max())


def memory(model: torch.nn.Module, image: torch.Tensor) -> dict[str, float]:
    """Peak live tensor bytes of Grad-CAM at a given layer, in units of inference's."""
    explainer = Explainer(model)

    def infer() -> None:
        with torch.no_grad():
            model(image)

    ratio = peak_bytes(lambda: explainer.explain(image, target=TARGET, layer="layer4")) / peak_bytes(infer)
    return {"live bytes of Grad-CAM at layer4 / live bytes of a forward": ratio}


def peak_bytes(job: Callable[[], Any]) -> int:
    """The highest sum of the allocations of PyTorch's CPU allocator that are alive while `job` runs."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        job()
    alive = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


if __name__ == "__main__":
    main()
