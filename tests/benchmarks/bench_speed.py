"""What explaining costs against other libraries, and against the bare passes of the same network.

    pip install ".[bench,demo]"
    python tests/benchmarks/bench_speed.py [--jobs grad_cam occlusion] [--network resnet50] [--rounds 9]
        [--threads 1] [--quick] [--json FILE]

Everything of a job is run in turns within one process, after a first run that is not counted and whose maps are checked
to be the same; how nearly they are is printed with the times. A ratio is of medians. Each library is used as its own
documentation shows. `figure.py` draws what is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jobs import JOBS, Job
from networks import LAYERS, make_setting
from timing import in_turns, machine, quartiles

from seewhy import SeewhyWarning

NETWORKS = {"ablation_cam": "resnet18", "score_cam": "resnet18", "score_cam_trained": "sample"}


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", SeewhyWarning)  # of networks with random weights
    about = machine() | {"rounds": arguments.rounds, "quick": arguments.quick}
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    found: dict[str, Any] = {}
    failed = ""
    for name in arguments.jobs:
        network = arguments.network or NETWORKS.get(name, "resnet50")
        network = "sample" if name == "score_cam_trained" else network  # whose weights are trained
        if arguments.network == "vit_b_16" and name not in FIT_FOR_TOKENS:
            print(f"\n{name}: no other library does this with {network}, or it is measured on another network")
            continue
        try:
            found[f"{name}, {network}"] = measured(name, network, arguments)
        except AssertionError as error:
            failed = f"{name}, {network}: not the same maps, so nothing is timed: {error}"
            print(failed)
        if arguments.json:  # after each, for a run may be cut short
            arguments.json.write_text(json.dumps({"machine": about, "jobs": found}, indent=2))
    if failed:
        sys.exit(failed)


FIT_FOR_TOKENS = ("methods", "saliency", "grad_cam", "occlusion", "integrated_gradients", "loader", "score_cam")


def parsed() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Cost against other libraries and against the bare passes.")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--network", choices=[name for name in LAYERS if name != "sample"])
    parser.add_argument("--rounds", type=int, default=9, help="of the short jobs; the long ones have a third")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer windows, steps, channels and images, and 2 rounds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.rounds = 2 if arguments.quick else arguments.rounds
    return arguments


def measured(name: str, network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One job: its maps compared, its times, ratios and whatever else it measures."""
    job = JOBS[name](make_setting(network, arguments.quick))
    print(f"\n{name}: {job.title}, {network}", flush=True)
    agreement = compared(job)
    rounds = max(2, arguments.rounds // 3) if job.long else arguments.rounds
    seconds = in_turns(job.work, rounds)
    ratios = [ratio(seconds, *row) for row in job.rows] + [best(seconds, *row) for row in job.best]
    numbers = job.numbers() if job.numbers else {}
    print("  medians: " + ", ".join(f"{what} {quartiles(times)[1]:.3f} s" for what, times in seconds.items()))
    for row in ratios:
        low, _, high = row["quartiles"]
        print(f"  {row['what']:44s} / {row['base']:34s} {row['ratio']:7.2f}  ({low:.2f} to {high:.2f})")
    print(*(f"  {what:81s} {value:7.2f}" for what, value in numbers.items()), sep="\n", end="\n" if numbers else "")
    print(*(f"  {what}: {value}" for what, value in agreement.items()), sep="\n", flush=True)
    return {
        "title": job.title, "network": network, "rounds": rounds, "agreement": agreement, "ratios": ratios,
        "numbers": numbers, "seconds": {what: quartiles(times) for what, times in seconds.items()},
    }  # fmt: skip


def compared(job: Job) -> dict[str, Any]:
    """How nearly the maps of a first run, which warms up, are the same; an AssertionError where they are not."""
    return job.agreement({what: work() for what, work in job.work.items()})


def ratio(seconds: dict[str, list[float]], what: str, base: str) -> dict[str, Any]:
    """How many times as long one takes as the other: of the medians, and the quartiles over the rounds."""
    pairs = [a / b for a, b in zip(seconds[what], seconds[base], strict=True)]
    medians = quartiles(seconds[what])[1], quartiles(seconds[base])[1]
    return {"what": what, "base": base, "ratio": medians[0] / medians[1], "quartiles": quartiles(pairs)}


def best(seconds: dict[str, list[float]], start: str, base: str) -> dict[str, Any]:
    """The same of the quickest of those whose names have this start."""
    median: Callable[[str], float] = lambda name: quartiles(seconds[name])[1]  # noqa: E731
    return ratio(seconds, min((name for name in seconds if name.startswith(start)), key=median), base)


if __name__ == "__main__":
    main()
