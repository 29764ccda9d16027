"""How the cost of explaining grows: with layers, methods, targets, the image's size and the batch.

    pip install ".[bench]"
    python tests/benchmarks/growth.py [--panels layers batch] [--network resnet50] [--rounds 7] [--threads 1] [--quick]
        [--json FILE]

Seconds of seewhy, of the bare passes that it cannot do without, and of Captum where it does the same, in turns within
one process after a run that is not counted. `figure.py` draws what is written.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
import torch
from networks import Setting, make_setting
from timing import in_turns, machine, quartiles

import seewhy
from seewhy import SeewhyWarning

Work = dict[str, Callable[[], Any]]
METHODS = ["saliency", "grad_cam", "activations", "guided_backprop", "guided_grad_cam", "deconvnet"]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="How the cost of explaining grows.")
    parser.add_argument("--panels", nargs="+", choices=PANELS, default=list(PANELS))
    parser.add_argument("--network", choices=["resnet18", "resnet50"], default="resnet50")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the first and the last but one of each, 2 rounds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", SeewhyWarning)
    about = machine() | {"network": arguments.network, "rounds": 2 if arguments.quick else arguments.rounds}
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    found: dict[str, Any] = {}
    for name in arguments.panels:
        found[name] = panel(name, arguments.network, about["rounds"], arguments.quick)
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": about, "panels": found}, indent=2))


def panel(name: str, network: str, rounds: int, quick: bool) -> dict[str, Any]:
    """The quartiles of the seconds of each line at each value."""
    title, values, make = PANELS[name]
    values = values[::2] if quick else values
    lines: dict[str, list[list[float]]] = {}
    print(f"\n{name}: {title}", flush=True)
    for value in values:
        work = make(make_setting(network, side=value if name == "size" else 224), value)
        for job in work.values():
            job()
        seconds = {what: quartiles(times) for what, times in in_turns(work, rounds).items()}
        for what, times in seconds.items():
            lines.setdefault(what, []).append(times)
        shown = ", ".join(f"{what} {1000 * times[1]:.0f} ms" for what, times in seconds.items())
        print(f"  {value}: {shown}", flush=True)
    return {"title": title, "values": values, "seconds": lines}


def layers(at: Setting, count: int) -> Work:
    """Saliency, and Grad-CAM at the last few blocks."""
    blocks = [
        name for name, module in at.model.named_modules() if type(module).__name__ in ("Bottleneck", "BasicBlock")
    ]
    names = blocks[-count:]
    return {
        "seewhy": lambda: at.explainer.explain(at.image, ["saliency", "grad_cam"], target=at.target, layer=names),
        "bare passes": peers.backwards(at, 1),
        "Captum": lambda: [peers.captum_saliency(at, at.target), *peers.captum_grad_cam(at, names, [at.target])],
    }


def methods(at: Setting, count: int) -> Work:
    """The first few methods, at the last stage where they look at one."""
    names = METHODS[:count]
    rules = 1 + ("guided_backprop" in names) + ("deconvnet" in names)
    return {
        "seewhy": lambda: at.explainer.explain(at.image, names, target=at.target, layer=at.last),
        "bare passes": peers.backwards(at, rules),
        "Captum": lambda: peers.captum_each(at, names, at.target),
    }


def targets(at: Setting, count: int) -> Work:
    """Saliency of the classes with the greatest scores."""
    return {
        "seewhy": lambda: at.explainer.explain(at.image, "saliency", target=seewhy.Top(count)),
        "bare passes": peers.backwards(at, count),
        "Captum": lambda: [peers.captum_saliency(at, target) for target in range(count)],
    }


def size(at: Setting, _: int) -> Work:
    """One saliency map of an image of this many pixels a side."""
    return one(at, at.image)


def batch(at: Setting, count: int) -> Work:
    """So many images at once."""
    return one(at, torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(0)))


def one(at: Setting, images: torch.Tensor) -> Work:
    """Saliency and Grad-CAM in one go."""
    both = ["saliency", "grad_cam"]
    return {
        "seewhy": lambda: at.explainer.explain(images, both, target=at.target, layer=at.last, batch_size=len(images)),
        "bare passes": peers.backwards(at, 1, images),
        "Captum": lambda: peers.captum_each(at, both, at.target, images),
    }


PANELS: dict[str, tuple[str, list[int], Callable[[Setting, int], Work]]] = {
    "layers": ("layers: saliency, and Grad-CAM at each", [1, 2, 4, 6, 8], layers),
    "methods": (
        "methods: saliency, Grad-CAM, activations, guided, guided Grad-CAM, deconvnet",
        [1, 2, 3, 4, 5, 6],
        methods,
    ),
    "targets": ("targets: saliency", [1, 2, 3, 5, 8], targets),
    "size": ("pixels a side: saliency and Grad-CAM", [96, 160, 224, 320, 448], size),
    "batch": ("images at once: saliency and Grad-CAM", [1, 2, 4, 8, 16], batch),
}


if __name__ == "__main__":
    main()
