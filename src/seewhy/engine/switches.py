"""Settings of the whole process that passes need otherwise for a while, whoever else runs passes at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class Switch:
    """A setting of the whole process: the first who needs it sets it, and the last sets it back.

    Args:
        setting: makes a context manager that sets it for its block.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self._setting, self._users, self._lock = setting, 0, threading.Lock()
        self._set: AbstractContextManager[Any]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Have it set for the length of a ``with`` block."""
        with self._lock:
            if not self._users:
                self._set = self._setting()
                self._set.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._set.__exit__(None, None, None)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _eager() -> Iterator[None]:
    stance = torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        stance.__exit__(None, None, None)


fast_path_off = Switch(_no_fast_path)  # transformer encoder layers call their parts, also without gradients
plain_attention = Switch(lambda: sdpa_kernel(SDPBackend.MATH))  # attention is plain mathematics, which the graph shows
eager = Switch(_eager)  # compiled functions run as they were written, for compiled code shows autograd no activations
