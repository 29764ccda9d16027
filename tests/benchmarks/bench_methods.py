"""Every method on images whose right answer is known, before and after the classifier is shuffled, and what it costs.

    python tests/benchmarks/bench_methods.py --to docs/_static

Mosaics: four photographs in 2 x 2 at 448 pixels, on the trained sample network, and four digits in 2 x 2 at 32 pixels,
on a small transformer that is trained here for two minutes. Each class is explained, and what is measured is the share
of the map's positive part in that class's quarter (a quarter would be chance), and whether its peak is there (Böhle
2021).
Shuffled: the correlation of the map with that of the same network whose classes are in another order (Adebayo 2018).
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import Explainer, samples
from seewhy.engine import evaluations, passes
from seewhy.methods.make import make_methods, options_of
from seewhy.methods.registry import find_method

SIDE = 224
PHOTOS = {"cat": "tiger cat", "coffee": "espresso", "camera": "tripod", "motorcycle": "moped"}
HALF = {"dtype": "bfloat16"}
FEW: dict[str, dict[str, Any]] = {  # options with which none takes more than some minutes; others have their defaults
    "blur_ig": {"steps": 16},
    "extremal_perturbation": {"steps": 60, "areas": 0.1},
    "gradient_shap": {"samples": 16},
    "guided_ig": {"steps": 16},
    "idgi": {"steps": 16},
    "integrated_gradients": {"steps": 16},
    "kernel_shap": {"samples": 120, "segments": 30, **HALF},
    "lime": {"samples": 120, "segments": 30, **HALF},
    "occlusion": {"window": 64, "stride": 32, **HALF},
    "rise": {"masks": 240, **HALF},
    "score_cam": {"channels": 48, **HALF},
    "smooth_grad": {"samples": 8},
    "smooth_grad_cam_pp": {"samples": 8},
    "sobol": {"grid": 6, "designs": 6, **HALF},
    "square_grad": {"samples": 8},
    "var_grad": {"samples": 8},
    "xrai": {"steps": 8},
}
ATTENTION = ["raw_attention", "attention_rollout", "grad_attention_rollout", "attention_cam", "legrad"]
BALANCED = ["saliency", "input_x_gradient", "integrated_gradients", "grad_cam", "hires_cam", "full_grad"]
FAILS = 0.9  # the correlation with the map of shuffled classes from which on it does not show the class
DIGITS, CANVAS, CASES = 16, 32, 24


def photos() -> tuple[Explainer, Tensor, list[Any], Explainer]:
    """The sample network, a mosaic for each of its four classes, and the same network with its classes shuffled."""
    one, two, three, four = (samples.transform()(samples.photo(name)) for name in PHOTOS)
    mosaic = torch.cat([torch.cat([one, two], 2), torch.cat([three, four], 2)], 1)
    explainer = samples.explainer()
    net = copy.deepcopy(explainer.model)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in net.get_submodule("_fc").parameters():
            parameter.copy_(parameter[order].clone())
    shuffled = Explainer(net, transform=samples.transform(), class_names=samples.class_names())
    return explainer, mosaic.expand(4, -1, -1, -1), list(PHOTOS.values()), shuffled


def canvases(count: int, generator: np.random.Generator, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Four digits, or fewer: images ``(n, 1, 32, 32)``, which digits are there ``(n, 10)``, in which quarter."""
    digits, labels = load_digits(return_X_y=True)
    here = np.arange(len(labels)) % 5 == 0
    here = here if full else ~here  # the others are kept for the mosaics
    digits = F.interpolate(torch.tensor(digits[here] / 16).view(-1, 1, 8, 8).float(), (DIGITS, DIGITS), mode="bilinear")
    labels = labels[here]
    images, present, where = torch.zeros(count, 1, CANVAS, CANVAS), torch.zeros(count, 10), torch.zeros(count, 4).long()
    for row in range(count):
        classes = generator.permutation(10)[:4]
        for quarter, cls in enumerate(classes):
            if full or generator.random() < 0.6:
                down, right = divmod(quarter, 2)
                chosen = generator.choice(np.flatnonzero(labels == cls))
                images[row, :, DIGITS * down : DIGITS * (down + 1), DIGITS * right : DIGITS * (right + 1)] = digits[
                    chosen
                ]
                present[row, cls], where[row, quarter] = 1, int(cls)
    return images, present, where


def train(seed: int = 0, steps: int = 1500) -> tuple[nn.Module, float]:
    """A small transformer that says which digits there are, and the share of digits that it gets right."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    net: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=CANVAS, patch_size=4, embed_dim=64, depth=4, num_heads=4, in_chans=1,
        num_classes=10,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    images, present, _ = canvases(12_000, generator, full=False)
    for step in range(steps):
        some = torch.randint(len(images), (64,))
        shifted = torch.roll(images[some], tuple(np.random.default_rng(step).integers(-1, 2, 2)), (2, 3))
        loss = F.binary_cross_entropy_with_logits(net(shifted), present[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    images, present, _ = canvases(400, generator, full=True)
    with torch.no_grad():
        right = float(((net(images) > 0) == (present > 0)).float().mean())
    return net, right


def digits(folder: Path) -> tuple[Explainer, Tensor, list[int], Explainer, float]:
    """As `photos`, with digits; how often the network is right."""
    net, right = train()
    images, _, where = canvases(CASES, np.random.default_rng(1), full=True)
    shuffled = copy.deepcopy(net)
    order = torch.tensor([3, 7, 0, 9, 1, 8, 2, 4, 5, 6])
    with torch.no_grad():
        for parameter in shuffled.get_submodule("head").parameters():
            parameter.copy_(parameter[order].clone())
    mosaics = images.repeat_interleave(4, 0)
    np.save(folder / "digits.npy", images[0, 0].numpy())
    return Explainer(net), mosaics, where.flatten().tolist(), Explainer(shuffled), right


def in_quarter(maps: np.ndarray) -> tuple[float, float]:
    """The mean share of the positive part in the right quarter, and how often the peak is there."""
    shares, peaks = [], []
    for row, heat in enumerate(maps):
        down, right = divmod(row % 4, 2)
        h, w = (side // 2 for side in heat.shape)
        positive = heat.clip(min=0)
        part = positive[h * down : h * (down + 1), w * right : w * (right + 1)]
        shares.append(part.sum() / positive.sum() if positive.any() else 0.25)
        peaks.append(positive.any() and part.max() == positive.max())
    return float(np.mean(shares)), float(np.mean(peaks))


class Passes:
    """How many images go forward through a network, or a copy of it, and backward to its head."""

    def __init__(self, net: nn.Module, last: str) -> None:
        self.forward = self.backward = 0
        self._handle = net.get_submodule(last).register_full_backward_hook(self._back)
        self._real = passes.run
        passes.run = evaluations.run = self._run

    def _run(self, model: nn.Module, batch: Tensor, inputs: Any) -> Any:
        self.forward += len(batch)
        return self._real(model, batch, inputs)

    def _back(self, _: nn.Module, __: Any, gradients: Any) -> None:
        self.backward += len(gradients[0]) if gradients[0] is not None else 1

    def stop(self) -> dict[str, int]:
        """What was counted."""
        self._handle.remove()
        passes.run = evaluations.run = self._real
        return {"forwards": self.forward, "backwards": self.backward}


def measured(
    name: str,
    options: dict[str, Any],
    explainer: Explainer,
    mosaics: Tensor,
    targets: list[Any],
    shuffled: Explainer,
    last: str,
) -> dict[str, float]:
    """All numbers of one method on one network."""
    began = time.perf_counter()
    maps = explainer.explain(mosaics, name, target=targets, batch_size=4, **options).maps
    share, peak = in_quarter(maps)
    few, wanted = mosaics[:4], targets[:4]
    other = shuffled.explain(few, name, target=wanted, batch_size=4, **options).maps
    alike = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] if a.any() and b.any() else 0 for a, b in zip(maps, other, strict=False)
    ]
    seen = Passes(explainer.model, last)
    explainer.explain(few[:1], name, target=wanted[0], **options)
    return {"share": share, "peak": peak, "shuffled": float(np.mean(alike)), "shuffled_share": in_quarter(other)[0],
            "seconds": time.perf_counter() - began, **seen.stop()}  # fmt: skip


def jobs(only: list[str], folder: Path) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """Which method on which network, with which options."""
    net = photos()
    for name in seewhy.list_methods():
        if name not in ATTENTION and (not only or name in only):
            yield "photos", name, FEW.get(name, {}), (*net, "_fc")
    if only and not set(only) & {"digits", *ATTENTION, *BALANCED}:
        return
    *net, right = digits(folder)
    print(f"digits: {right:.1%} right")
    start = {"baseline": torch.zeros(1)}
    for name in [*ATTENTION, *BALANCED]:
        options = start if "baseline" in options_of(find_method(name)) else {}
        yield "digits", name, options, (*net, "head")
        if name in BALANCED:
            yield "digits", f"{name} libra", options | {"libra": True}, (*net, "head")


def write_table(rows: dict[str, Any], path: Path) -> None:
    """What was measured on one network, the best share first, for the page that says which method to take."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "signed", "in its quarter", "peak", "shuffled", "forwards", "backwards", "options"])
        for name, row in sorted(rows.items(), key=lambda item: -item[1].get("share", -1)):
            if "refused" in row:
                table.writerow([f"``{name}``", "", "refused"])
                continue
            shuffled = f"{row['shuffled']:.2f}" + (" fails" if row["shuffled"] > FAILS else "")
            options = ", ".join(f"{key}={value}" for key, value in row["options"].items() if key != "libra")
            passes = [row["forwards"], row["backwards"]]
            table.writerow([f"``{name}``", "yes" if row["signed"] else "", f"{row['share']:.2f}", f"{row['peak']:.2f}",
                            shuffled, *passes, options])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path(), help="folder of methods.json")
    parser.add_argument("--only", nargs="*", default=[], help="methods to measure anew; the others stay")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = asked.to / "methods.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"photos": {}, "digits": {}}
    found["versions"] = {"seewhy": seewhy.__version__, "torch": torch.__version__}
    for network, name, options, where in jobs(asked.only, asked.to):
        try:
            numbers = measured(name.split()[0], options, *where)
        except seewhy.SeewhyError as error:
            numbers = {"refused": str(error)}
        cls = make_methods(name.split()[0], {})[0]
        said = {key: value for key, value in options.items() if not isinstance(value, Tensor)}
        row = {key: round(value, 3) if isinstance(value, float) else value for key, value in numbers.items()}
        found[network][name] = row | {"options": said, "signed": cls.signed}
        print(network, name, row, flush=True)
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        write_table(found[network], asked.to / f"methods_{network}.csv")


if __name__ == "__main__":
    main()
