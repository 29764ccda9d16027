"""Which images a torch `DataLoader` takes, and what it draws them with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler

WORKING = ("num_workers", "worker_init_fn", "multiprocessing_context", "timeout", "prefetch_factor")  # of its processes


def is_shuffled(loader: DataLoader[Any]) -> bool:
    """Whether it takes each image of its data set once, in a random order."""
    sampler: Any = loader.sampler
    if loader.batch_size is None or not isinstance(sampler, RandomSampler) or sampler.replacement:
        return False
    return len(sampler) == len(loader.dataset)  # type: ignore[arg-type]


def loader_count(loader: DataLoader[Any]) -> int | None:
    """How many images it takes before any are dropped; None where only the end will tell."""
    sampler: Any = loader.sampler
    return None if loader.batch_size is None or not hasattr(sampler, "__len__") else len(sampler)


def order_of(loader: DataLoader[Any], count: int | None, size: int) -> list[int]:
    """The numbers of the images that it takes, at most `count`; whole batches of `size` where it drops the last."""
    if loader.batch_size is None and loader.batch_sampler is not None:  # the user's own batches
        return [number for batch in loader.batch_sampler for number in batch]
    order = list(islice(loader.sampler, count))
    return order[: len(order) - len(order) % size] if loader.drop_last else order


def generators_of(data: Any) -> list[torch.Generator]:
    """Those that a loader draws from."""
    samplers = (getattr(data, "sampler", None), getattr(data, "batch_sampler", None))
    parts = (data, *samplers, getattr(samplers[1], "sampler", None))
    found = (getattr(part, "generator", None) for part in parts)
    return [one for one in found if isinstance(one, torch.Generator)] if isinstance(data, DataLoader) else []


@contextmanager
def as_before(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Give their states back at the end."""
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
