"""How many evaluations run together: the number that measured fastest, within memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
_WORTH = 0.97  # of the time for each, below which another size is better
_TRIES = 2  # of each size; the quicker one counts
_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "status_alloc_failed",
    "bad_alloc",
)  # fmt: skip


class Chunks:
    """Cuts many evaluations into chunks, whose size it learns from how long they take; no result depends on it.

    Larger is not faster on a CPU, whose cache holds few images; so it begins with a few, doubles while that is quicker
    for each, or else halves while that is, and then stays. Where memory runs out it halves, and never grows again.

    Args:
        first: the size to begin with.
        most: the greatest; None for no limit.
        device: whose queue must have run dry before the time is taken.
    """

    def __init__(self, first: int, most: int | None = None, device: torch.device | None = None) -> None:
        self._most = most
        self.size = first if most is None else min(first, most)
        self._cuda = device is not None and device.type == "cuda"
        self._times: dict[int, list[float]] = {}  # seconds for each evaluation, by size
        self._best = 0  # the quickest of the sizes so far
        self._settled = False
        self.paused = False  # whether times say nothing yet, as different models take turns

    def run(self, count: int, work: Callable[[int, int], T]) -> Iterator[tuple[int, int, T]]:
        """What `work` gives for each chunk from `start` to before `stop` of `count` evaluations, in order."""
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            result = self._try(start, stop, work)
            if result is not None:
                yield start, stop, result[0]
                start = stop

    def _try(self, start: int, stop: int, work: Callable[[int, int], T]) -> tuple[T] | None:
        """The result of a chunk; None where memory ran out, and a smaller one is to be tried."""
        try:
            began = time.perf_counter()
            result = work(start, stop)
            if self._cuda:
                torch.cuda.synchronize()
        except (RuntimeError, MemoryError) as error:
            if stop - start == 1 or not ran_out(error):
                raise
        else:
            self._note(stop - start, (time.perf_counter() - began) / (stop - start))
            return (result,)
        # Only now is the failed chunk's memory free: the error held it.
        self._settled, self._most = True, (stop - start) // 2
        self.size = self._most
        if self._cuda:
            torch.cuda.empty_cache()
        return None

    def _note(self, size: int, seconds: float) -> None:
        """Take in how long each of `size` evaluations took, and choose the size of the next chunk."""
        if self._settled or self.paused or size != self.size:  # the last chunk of all may be smaller
            return
        times = self._times.setdefault(size, [])
        times.append(seconds)
        if len(times) >= _TRIES:
            self.size = self._next()

    def _next(self) -> int:
        quickest = {size: min(times) for size, times in self._times.items()}
        if quickest[self.size] < _WORTH * quickest.get(self._best, torch.inf):
            self._best = self.size
        best = self._best
        if best == max(quickest) and (self._most is None or 2 * best <= self._most):
            return 2 * best
        if best == min(quickest) and best > 1:
            return best // 2
        self._settled = True
        return best


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in _OUT_OF_MEMORY
    )
