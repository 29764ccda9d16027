"""Chunks: everything once and in order, of the size that is quickest, and smaller where memory runs out."""

from __future__ import annotations

import pytest
import torch

from seewhy.engine import chunks
from seewhy.engine.chunks import Chunks


class Clock:
    """Time goes on as work says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(chunks.time, "perf_counter", lambda: self.now)


def sizes(cut: Chunks, count: int, seconds=lambda size: 0.0, clock: Clock | None = None) -> list[int]:
    def work(start: int, stop: int) -> int:
        if clock:
            clock.now += seconds(stop - start)
        return stop - start

    found = list(cut.run(count, work))
    stops = [stop for _, stop, _ in found]
    assert [start for start, _, _ in found] == [0, *stops[:-1]]
    assert found[-1][1] == count
    return [size for _, _, size in found]


def test_it_grows_while_that_is_quicker_and_then_stays(monkeypatch):
    each = {4: 4.0, 8: 3.0, 16: 2.0, 32: 2.5}
    found = sizes(Chunks(4), 400, lambda n: n * each.get(n, 9), Clock(monkeypatch))
    assert found[:8] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert set(found[8:-1]) == {16}


def test_it_shrinks_while_that_is_quicker(monkeypatch):
    each = {16: 4.0, 8: 4.0, 4: 3.0, 2: 1.0, 1: 2.0}
    found = sizes(Chunks(8), 100, lambda n: n * each.get(n, 9), Clock(monkeypatch))
    assert found[:10] == [8, 8, 16, 16, 4, 4, 2, 2, 1, 1]
    assert set(found[10:-1]) == {2}


def test_a_gain_that_is_noise_is_none(monkeypatch):
    found = sizes(Chunks(4), 60, lambda n: n * (1 - n / 1000), Clock(monkeypatch))
    assert set(found[6:-1]) == {4}


def test_no_more_than_the_user_says():
    assert max(sizes(Chunks(32, 3), 50)) == 3


def test_paused_it_learns_nothing(monkeypatch):
    cut = Chunks(4)
    cut.paused = True
    assert set(sizes(cut, 40, lambda n: 1 / n, Clock(monkeypatch))) == {4}


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
])  # fmt: skip
def test_where_memory_runs_out_it_halves_and_never_grows_again(error):
    tried = []

    def work(start: int, stop: int) -> int:
        tried.append(stop - start)
        if stop - start > 5:
            raise error
        return stop - start

    found = [size for _, _, size in Chunks(16).run(64, work)]
    assert tried[:3] == [16, 8, 4]
    assert found == [4] * 16


def test_what_is_too_large_alone_and_other_errors_are_passed_on():
    def fails(start: int, stop: int) -> None:
        raise MemoryError(stop - start)

    with pytest.raises(MemoryError, match="1"):
        list(Chunks(4).run(8, fails))

    def wrong(start: int, stop: int) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Chunks(4).run(8, wrong))


def test_the_last_chunk_may_be_the_one_that_is_too_large():
    def work(start: int, stop: int) -> tuple[int, int]:
        if stop > 9 and stop - start > 2:
            raise MemoryError
        return start, stop

    found = [result for _, _, result in Chunks(4).run(11, work)]
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == 11
    assert max(stop - start for start, stop in found if stop > 9) <= 2


def test_after_memory_ran_out_a_later_run_begins_small(monkeypatch):
    def scarce(start: int, stop: int) -> int:
        if stop - start > 3:
            raise MemoryError
        return stop - start

    cut = Chunks(8)
    list(cut.run(16, scarce))
    assert set(sizes(cut, 40, lambda n: 1.0, Clock(monkeypatch))) == {2}, "though larger ones would be quicker now"


def test_what_failed_is_let_go_before_it_is_tried_again():
    class Big:
        alive = 0

        def __init__(self):
            Big.alive += 1

        def __del__(self):
            Big.alive -= 1

    def work(start: int, stop: int) -> int:
        assert Big.alive == 0, "the memory of the failed chunk is still held"
        held = Big()
        if stop - start > 2:
            raise MemoryError
        del held
        return stop - start

    assert [size for _, _, size in Chunks(8).run(8, work)] == [2, 2, 2, 2]


def test_nothing_is_run_where_nothing_is_asked():
    assert not list(Chunks(4).run(0, lambda start, stop: 1 / 0))


def test_interruptions_are_no_want_of_memory():
    tried = []

    def stop_it(start: int, stop: int) -> None:
        tried.append(stop - start)
        raise KeyboardInterrupt("out of memory")

    with pytest.raises(KeyboardInterrupt):
        list(Chunks(4).run(8, stop_it))
    assert tried == [4]
