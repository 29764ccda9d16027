"""What looking inside a network costs against its bare passes.

    pip install ".[demo,inside]"
    python tests/benchmarks/bench_inside.py [--rounds 3] [--json FILE]

The sample network, one thread. Everything is run in turns within one process; a row is a ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import timed

from seewhy import inside, samples

COUNT, SIZE, STEPS, LAYER = 128, 128, 8, "_blocks.5"
LAYERS = ["_blocks.1", "_blocks.5", "_blocks.12"]
COMPARISONS = [
    ("64 filters in one batch, per filter", "one filter alone"),
    ("64 filters in one batch", "64 bare forwards and backwards, per step"),
    ("embed", "bare forwards"),
    ("top images of 64 channels", "bare forwards"),
    ("CKA of three layers", "bare forwards"),
    ("channels of three layers, one image", "a bare forward of one image"),
]


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description="Cost of looking inside against the bare passes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds = timed(jobs(), arguments.rounds)
    seconds["64 filters in one batch, per filter"] = seconds["64 filters in one batch"] / 64
    rows = [(what, base, seconds[what] / seconds[base]) for what, base in COMPARISONS]
    title = f"EfficientNet-Lite0, {SIZE} px, torch {torch.__version__}, 1 thread, {platform.machine()}"
    print(title, *(f"{what:40s} / {base:42s} {ratio:6.2f}" for what, base, ratio in rows), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"title": title, "seconds": seconds, "ratios": rows}, indent=2))


def jobs() -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    explainer = samples.explainer()
    model, images = explainer.model, torch.randn(COUNT, 3, SIZE, SIZE)
    how: dict[str, Any] = {"size": SIZE, "steps": STEPS}
    return {
        "bare forwards": lambda: forwards(model, images),
        "a bare forward of one image": lambda: forwards(model, images[:1]),
        "64 bare forwards and backwards, per step": lambda: climbs(model, images[:64]),
        "64 filters in one batch": lambda: inside.maximize(explainer, LAYER, range(64), **how),
        "one filter alone": lambda: inside.maximize(explainer, LAYER, [0], **how),
        "embed": lambda: inside.embed(explainer, images, method=None),
        "top images of 64 channels": lambda: inside.top_images(explainer, images, LAYER, k=5),
        "CKA of three layers": lambda: inside.cka(explainer, images, LAYERS),
        "channels of three layers, one image": lambda: inside.channels(explainer, images[:1], LAYERS),
    }


def forwards(model: torch.nn.Module, images: torch.Tensor) -> None:
    """All images, 16 at a time, without a graph."""
    with torch.no_grad():
        for batch in images.split(16):
            model(batch)


def climbs(model: torch.nn.Module, images: torch.Tensor) -> None:
    """As many passes to the layer and back as the ascent has steps, with no parameter's gradient."""
    blocks = torch.nn.Sequential(model._conv_stem, model._bn0, model._act0, *model._blocks[:6]).requires_grad_(False)
    for _ in range(STEPS):
        batch = images.clone().requires_grad_()
        torch.autograd.grad(blocks(batch).mean((2, 3)).diagonal().sum(), batch)
    blocks.requires_grad_(True)


if __name__ == "__main__":
    main()
