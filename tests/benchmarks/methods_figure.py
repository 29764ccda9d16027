"""One picture of all methods: those of any network on one photo, those of transformers on one canvas of digits.

python tests/benchmarks/methods_figure.py --to docs/_static
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_methods import ATTENTION, BALANCED, FEW, digits
from matplotlib import pyplot as plt

import seewhy
from seewhy import Explanation, samples
from seewhy.methods.make import make_methods

COLUMNS = 8


def drawn(found: list[tuple[str, Explanation]], seen: np.ndarray, path: Path) -> None:
    """What the network saw, then every map with its name."""
    rows = -(-(len(found) + 1) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.75 * COLUMNS, 2.0 * rows), layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    axes.flat[0].imshow(seen, cmap="gray")
    axes.flat[0].set_title("the image", fontsize=8)
    for (name, one), ax in zip(found, axes.flat[1:], strict=False):
        ax.imshow(one.image())
        ax.set_title(name, fontsize=8)
    figure.savefig(path, dpi=110, **({"pil_kwargs": {"quality": 88}} if path.suffix == ".jpg" else {}))
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    explainer, photo = samples.explainer(), samples.photo("coffee")
    names = [name for name in seewhy.list_methods() if name not in ATTENTION]
    found: list[tuple[str, Any]] = [(name, explainer.explain(photo, name, **FEW.get(name, {}))) for name in names]
    drawn(found, found[0][1].images[0], asked.to / "methods.jpg")
    vit, mosaics, targets, _, _ = digits(asked.to)
    shown = [(name, {}) for name in ATTENTION]
    shown += [(name, {"libra": on}) for name in BALANCED for on in (False, True)]
    start = {"baseline": torch.zeros(1)}
    found = []
    for name, options in shown:
        declared = type(make_methods(name, {})[0]).__dataclass_fields__
        options = options | (start if "baseline" in declared else {})
        title = f"{name}\nlibra" if options.get("libra") else name
        found.append((title, vit.explain(mosaics[0], name, target=targets[0], **options)))
    drawn(found, mosaics[0, 0].numpy(), asked.to / "methods_digits.png")


if __name__ == "__main__":
    main()
