"""A private copy of a model that gives the same scores sooner, tried against the model, and used where it does."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from .fold import fold_batch_norms
from .inputs import ModelInputs
from .speed import Speed

T = TypeVar("T")
_PAIRS = 3  # of timed chunks, the model's and the copy's in turns
_GAIN = 1.1  # how many times faster the copy must be
LONG = 32  # evaluations, below which trying costs more than it saves
COMPILED = 8  # images of the chunks for which it is compiled
_ERROR, _COSINE = 1e-3, 0.999  # by which a copy in the model's own precision may differ


class Faster:
    """Runs work on a private copy of a borrowed `model` where that is as right, and faster; else on the model itself.

    Args:
        model: borrowed; it stays as it is.
        speed: what is to be tried.
        count: how many evaluations are to come.
        batch: one image of them, ``(1, C, *sides)``, to see what follows what in the model.
        inputs: what else the model is called with for it.

    Attributes:
        said: what was used, in words; empty where nothing was asked for.
    """

    def __init__(self, model: nn.Module, speed: Speed, count: int, batch: Tensor, inputs: ModelInputs) -> None:
        self._model, self._speed, self._compiled = model, speed, False
        self._copy: nn.Module | None = None
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        self._compared = False
        self.said = ""
        if speed == Speed():
            return
        if count < LONG and speed.dtype is None:
            self.said = f"nothing, as there are only {count} evaluations"
            return
        try:
            self._copy = self._made(batch, inputs)
        except Exception as error:  # of whatever kind: not every model can be copied or compiled
            self._give_up(f"the model cannot be copied or compiled: {type(error).__name__}: {_line(error)}")

    @property
    def deciding(self) -> bool:
        """Whether it is still to be seen if the copy is faster."""
        if self._copy is None:
            return False
        return not self._compared or (self._timed and len(self._seconds[True]) < _PAIRS)

    @property
    def _timed(self) -> bool:
        """Whether the copy has to earn its place; what was asked for by name is used without that."""
        return self._speed.dtype is None and not self._speed.compile

    def __call__(self, work: Callable[[nn.Module, Tensor], T], batch: Tensor, alike: Callable[[T, T], str]) -> T:
        """What `work` gives with the model or with its copy, and the `batch` as that takes it.

        `alike` says why two results are not the same; nothing where they are. What is compiled is for one shape.
        """
        if self._copy is None or (self._compiled and self._compared and batch.shape != self._shape):
            return work(self._model, batch)
        if not self._compared:
            return self._compare(work, batch, alike)
        own = self._timed and self.deciding and len(self._seconds[False]) == len(self._seconds[True])
        began = time.perf_counter()
        result = work(self._model, batch) if own else self._by_copy(work, batch)
        if self.deciding:
            if batch.is_cuda:
                torch.cuda.synchronize()
            self._seconds[not own].append((time.perf_counter() - began) / len(batch))
            self._decide()
        return result

    def _compare(self, work: Callable[[nn.Module, Tensor], T], batch: Tensor, alike: Callable[[T, T], str]) -> T:
        expected = work(self._model, batch)
        try:
            got = self._by_copy(work, batch)
            why = "" if self._speed.dtype else alike(expected, got)
        except Exception as error:  # what the model can do, its copy may not, as in another precision
            why = f"it fails: {type(error).__name__}: {_line(error)}"
        self._compared, self._shape = True, batch.shape
        if why:
            self._give_up(why)
        else:
            self.said = self._words()
        return expected

    def _by_copy(self, work: Callable[[nn.Module, Tensor], T], batch: Tensor) -> T:
        assert self._copy is not None
        changed = batch.to(self._speed.dtype or batch.dtype)
        if self._speed.accelerate and batch.dim() == 4:
            changed = changed.contiguous(memory_format=torch.channels_last)
        if not self._compiled:
            return work(self._copy, changed)
        with torch.compiler.set_stance("default"):
            return work(self._copy, changed)

    def _decide(self) -> None:
        if not self._timed or self.deciding:
            return
        gain = statistics.median(self._seconds[False]) / statistics.median(self._seconds[True])
        if gain < _GAIN:
            self._give_up(f"it is {gain:.2f} times as fast, and {_GAIN} is worth it")
        else:
            self.said = f"{self._words()}: {gain:.2f} times as fast"

    def _give_up(self, why: str) -> None:
        self._copy, self.said = None, f"nothing: {why}"

    def _made(self, batch: Tensor, inputs: ModelInputs) -> nn.Module:
        made = copy.deepcopy(self._model)
        self._folded = 0
        if self._speed.accelerate:
            self._folded = fold_batch_norms(made, batch, inputs)
            made = made.to(memory_format=torch.channels_last) if batch.dim() == 4 else made
        if self._speed.dtype:
            made = made.to(self._speed.dtype)
        if self._speed.compile:
            self._compiled = True
            return cast(nn.Module, torch.compile(made, dynamic=False, options={"freezing": True}))
        return made

    def _words(self) -> str:
        parts = [f"{self._folded} batch norms folded, channels last"] if self._speed.accelerate else []
        parts += [str(self._speed.dtype).removeprefix("torch.")] if self._speed.dtype else []
        return ", ".join(parts + ["compiled"] * self._compiled)


def alike_scores(expected: Tensor, got: Tensor) -> str:
    """Why scores of a copy are not those of the model; nothing where they are, but for the copy's rounding."""
    expected, got = expected.double(), got.double()
    scale = expected.abs().max().clamp(min=1e-12)
    error = float((expected - got).abs().max() / scale)
    return "" if error <= _ERROR else f"the scores differ by {error:.1%} of the greatest"


def alike_gradients(expected: Tensor, got: Tensor) -> str:
    """The same of gradients at the input."""
    cosine = float(torch.nn.functional.cosine_similarity(expected.double().flatten(), got.double().flatten(), dim=0))
    return "" if cosine >= _COSINE or not expected.any() else f"the gradients agree only to {cosine:.4f} (cosine)"


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
