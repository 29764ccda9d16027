"""The figures of the documentation, from what `bench_speed.py` and `growth.py` have written.

python tests/benchmarks/figure.py [--speed speed.json] [--growth growth.json] [--to docs/_static]
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = {"Captum": "#3b6fb6", "pytorch-grad-cam": "#c8553d", "TorchCAM": "#5a9367", "bare passes": "#6b6b6b"}
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white"}
SHORT = {"methods": "every method\nat 5 layers", "top_classes": "top 5 classes\nat 4 layers", "saliency": "saliency",
         "grad_cam": "Grad-CAM", "ablation_cam": "Ablation-CAM", "score_cam": "Score-CAM",
         "score_cam_trained": "Score-CAM,\ntrained network", "occlusion": "occlusion",
         "integrated_gradients": "integrated\ngradients", "loader": "Grad-CAM of\nmany images"}  # fmt: skip
SAID = {"accelerated": "accelerate=True", "accelerated, bfloat16": "accelerate=True, bfloat16"}
TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]


def main() -> None:
    """Draw what there is."""
    parser = argparse.ArgumentParser(description="Draw the benchmarks' figures.")
    parser.add_argument("--speed", type=Path)
    parser.add_argument("--growth", type=Path)
    parser.add_argument("--to", type=Path, default=Path("docs/_static"))
    arguments = parser.parse_args()
    with plt.rc_context(STYLE):
        if arguments.speed:
            speed(json.loads(arguments.speed.read_text()), arguments.to / "speed.png")
        if arguments.growth:
            growth(json.loads(arguments.growth.read_text()), arguments.to / "growth.png")


def speed(found: dict[str, Any], path: Path) -> None:
    """How many times as long each of the others takes, job by job; on a logarithmic axis."""
    groups = {key: bars(job) for key, job in found["jobs"].items()}
    groups = {key: rows for key, rows in groups.items() if rows}
    count = sum(len(rows) + 1 for rows in groups.values())
    figure, axes = plt.subplots(figsize=(8, 0.24 * count + 1), layout="constrained")
    axes.set_xscale("log")
    ends = [row["ratio"] for rows in groups.values() for row in rows]
    axes.set_xlim(min(0.8, 0.9 * min(ends)), 3 * max(ends))  # room for the numbers
    place, marks = 0.0, []
    for key, rows in groups.items():
        marks.append((place + (len(rows) - 1) / 2, f"{SHORT[key.split(',')[0]]}\n{key.split(', ')[1]}"))
        for row in rows:
            bar(axes, place, row)
            place += 1
        place += 1
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([y for y, _ in marks], [text for _, text in marks])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - 0.5, -1)
    logarithmic(axes)
    axes.set_xlabel(f"seconds, as a multiple of seewhy's   ({machine(found['machine'])})")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def bars(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The ratios of a job in which seewhy is the measure."""
    return [row for row in job["ratios"] if row["base"].startswith("seewhy")]


def bar(axes: Axes, place: float, row: dict[str, Any]) -> None:
    """One of the others, with the quartiles over the rounds and what is compared."""
    ratio, (low, _, high) = row["ratio"], row["quartiles"]
    name, _, how = row["what"].partition(", ")
    axes.barh(place, ratio - 1, left=1, height=0.8, color=COLOURS[name])
    axes.hlines(place, low, high, color="black", linewidth=0.8)
    label = f"{ratio:.2f} × {name}" if ratio < 9.95 else f"{ratio:.0f} × {name}"
    label += f" ({how})" if how else ""
    ours = row["base"].removeprefix("seewhy").strip(", ")
    label += f", seewhy with {SAID.get(ours, ours)}" if ours else ""
    axes.annotate(label, (max(ratio, high, 1), place), (4, 0), textcoords="offset points", va="center", fontsize=7)


def logarithmic(axes: Axes) -> None:
    """Ticks with plain numbers."""
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def growth(found: dict[str, Any], path: Path) -> None:
    """A small panel for each way in which the work may grow."""
    panels = found["panels"]
    figure, row = plt.subplots(1, len(panels), figsize=(2.5 * len(panels), 2.9), layout="constrained", squeeze=False)
    for axes, panel in zip(row[0], panels.values(), strict=True):
        for name, times in panel["seconds"].items():
            low, middle, high = zip(*times, strict=True)
            colour, width = COLOURS.get(name, "#d48a00"), 2 if name == "seewhy" else 1.2
            style = "--" if name == "bare passes" else "-"
            axes.plot(panel["values"], middle, style, color=colour, lw=width, marker="o", markersize=3, label=name)
            axes.fill_between(panel["values"], low, high, color=colour, alpha=0.2, linewidth=0)
        what, _, of = panel["title"].partition(": ")
        axes.set_xlabel(what)
        axes.set_title(textwrap.fill(of, 30), fontsize=7)
        axes.set_xticks(panel["values"])
        axes.set_ylim(0)
    row[0][0].set_ylabel("seconds")
    handles, labels = row[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel(f"{found['machine']['network']}, {machine(found['machine'])}", fontsize=7, color="#555555")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def machine(about: dict[str, Any]) -> str:
    """On what it was measured."""
    threads = f"{about['threads']} thread{'s' * (about['threads'] != 1)}"
    return f"{about['cpu']}, {threads}, torch {about['versions']['torch']}"


if __name__ == "__main__":
    main()
