"""What a run over a data set costs against the bare passes on the same decoded batches, and how memory grows.

    pip install ".[datasets,demo]"
    python tests/benchmarks/bench_datasets.py [--rounds 3] [--memory 20000] [--json FILE]

The sample network at 224 px, one thread. Everything is run in turns within one process; a row is a ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from timing import timed
from torch.utils.data import DataLoader, Dataset, TensorDataset

from seewhy import Explainer, samples, testing

COUNT, SIZE, BATCH = 128, 224, 16
COMPARISONS = [
    ("evaluate", "bare forwards"),
    ("explain, batch by batch", "bare Grad-CAM"),
    ("run Grad-CAM into a store", "explain, batch by batch"),
    ("run Grad-CAM into a store, no pictures", "explain, batch by batch"),
    ("run Grad-CAM into a store", "bare Grad-CAM"),
    ("evaluate with Grad-CAM, temporary store", "bare Grad-CAM"),
]


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description="Cost of evaluate and run against the bare passes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=20_000, help="images of 64 px for the growth of memory")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds = timed(jobs(), arguments.rounds)
    rows = [(what, base, seconds[what] / seconds[base]) for what, base in COMPARISONS]
    where = f"torch {torch.__version__}, 1 thread, {platform.machine()}"
    title = f"EfficientNet-Lite0, {SIZE} px, batches of {BATCH}, {where}"
    print(title, *(f"{what:40s} / {base:24s} {ratio:6.3f}" for what, base, ratio in rows), sep="\n")
    inside = {what: within(*jobs_with_model(what)) for what in ("evaluate", "run Grad-CAM into a store")}
    print(*(f"{what:40s} / {'its own forwards':24s} {ratio:6.3f}" for what, ratio in inside.items()), sep="\n")
    grown = {what: growth(what, arguments.memory) for what in ("evaluate", "run")}
    print(*(f"{what}: {mb:+.1f} MB from image 2,000 to {arguments.memory:,}" for what, mb in grown.items()), sep="\n")
    if arguments.json:
        found = {"title": title, "seconds": seconds, "ratios": rows, "of its forwards": inside, "megabytes": grown}
        arguments.json.write_text(json.dumps(found, indent=2))


def jobs_with_model(what: str) -> tuple[torch.nn.Module, Callable[[], Any]]:
    """One of the jobs, and the network that it runs."""
    explainer = samples.explainer()
    return explainer.model, jobs(explainer)[what]


def within(model: torch.nn.Module, job: Callable[[], Any]) -> float:
    """The time of a job as a multiple of that in the network's own forward: nothing else of the machine is in it."""
    spent, begun = 0.0, 0.0

    def before(module: torch.nn.Module, args: Any) -> None:
        nonlocal begun
        begun = time.perf_counter()

    def after(module: torch.nn.Module, args: Any, output: Any) -> None:
        nonlocal spent
        spent += time.perf_counter() - begun

    job()
    handles = model.register_forward_pre_hook(before), model.register_forward_hook(after)
    start = time.perf_counter()
    job()
    total = time.perf_counter() - start
    for handle in handles:
        handle.remove()
    return total / spent


def jobs(explainer: Explainer | None = None) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    explainer = explainer or samples.explainer()
    model, images, labels = explainer.model, torch.randn(COUNT, 3, SIZE, SIZE), torch.zeros(COUNT, dtype=torch.long)
    loader = DataLoader(TensorDataset(images, labels), BATCH)

    def store(**how: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            explainer.run(loader, "grad_cam", "_act1", to=f"{folder}/maps.zarr", **how)

    return {
        "bare forwards": lambda: forwards(model, images),
        "bare Grad-CAM": lambda: grad_cams(model, images),
        "explain, batch by batch": lambda: [explainer.explain(batch, layer="_act1") for batch, _ in loader],
        "evaluate": lambda: explainer.evaluate(loader),
        "evaluate with Grad-CAM, temporary store": lambda: explainer.evaluate(loader, "grad_cam", "_act1"),
        "run Grad-CAM into a store": store,
        "run Grad-CAM into a store, no pictures": lambda: store(pictures=False),
    }


def forwards(model: torch.nn.Module, images: torch.Tensor) -> None:
    """All images in batches, without a graph."""
    with torch.no_grad():
        for batch in images.split(BATCH):
            model(batch)


def grad_cams(model: torch.nn.Module, images: torch.Tensor) -> None:
    """A forward and the backward to the last activation, which is a leaf: nothing before it is in the graph."""
    held: dict[str, torch.Tensor] = {}

    def leaf(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        held["a"] = output.detach().requires_grad_()
        return held["a"].clone()

    handle = model._act1.register_forward_hook(leaf)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for batch in images.split(BATCH):
        scores = model(batch)
        (gradient,) = torch.autograd.grad(scores.amax(1).sum(), held["a"])
        (gradient.mean((2, 3), keepdim=True) * held["a"]).sum(1).relu()
    handle.remove()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


class Noise(Dataset[Any]):
    """Images that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(number)), number % 5


def growth(what: str, count: int) -> float:
    """By how many megabytes the process grows after the first 2,000 images."""
    explainer, process = Explainer(testing.small_cnn()), psutil.Process()
    seen: list[float] = []

    def look(module: torch.nn.Module, args: Any, output: Any) -> None:
        seen.append(process.memory_info().rss / 1e6)

    handle = explainer.model.register_forward_hook(look)
    with tempfile.TemporaryDirectory() as folder:
        if what == "evaluate":
            explainer.evaluate(Noise(count), progress=False)
        else:
            explainer.run(Noise(count), to=f"{folder}/maps.zarr", progress=False)
    handle.remove()
    return max(seen[-20:]) - max(seen[: 2000 // BATCH])


if __name__ == "__main__":
    main()
