"""Jobs timed in turns, and what they allocate."""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("seewhy", "torch", "torchvision", "captum", "grad-cam", "torchcam")


def timed(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of each job, run in turns after one round of warming up."""
    for job in work.values():
        job()
    return {name: statistics.median(seconds) for name, seconds in in_turns(work, rounds).items()}


def in_turns(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each job in each round; each round begins with another, and nobody pays for others' garbage."""
    names = list(work)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start = time.perf_counter()
            result = work[name]()
            seconds[name].append(time.perf_counter() - start)
            del result
    return seconds


def quartiles(numbers: list[float]) -> list[float]:
    """The quartiles, the median in the middle; of one number three times that."""
    return statistics.quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1 else numbers * 3


def machine() -> dict[str, Any]:
    """What was measured on what."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "cpu": _cpu(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.processor()}, {platform.machine()}"


def peak_bytes(job: Callable[[], Any]) -> int:
    """The highest sum of the allocations of PyTorch's CPU allocator that are alive while `job` runs."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it talks of devices that are not there
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        job()
    alive = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def peak_of_process(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
    """By how many bytes a new process grows at most in a job that `prepare` makes there; None where Linux is not.

    `prepare` is a function of a module, and also loads what the job needs, which is not counted.
    """
    if not Path("/proc/self/status").exists():
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_grown, prepare, arguments, torch.get_num_threads()).result()


def _grown(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], threads: int) -> int:
    torch.set_num_threads(threads)
    job = prepare(*arguments)
    before = _status("VmRSS")
    job()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A number of bytes of this process; its high-water mark begins with the process itself, getrusage's does not."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
