"""Many evaluations: each as a whole run gives it, whatever the chunks, the targets, and what is left out."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from replaying import evaluations, pixels
from torch import Tensor, nn

import seewhy
from seewhy import Explainer
from seewhy.engine import evaluations as engine
from seewhy.engine.chunks import Chunks
from seewhy.engine.record import LayerRecord, Needs
from seewhy.methods import Method
from seewhy.scoring import Scoring, find_targets
from seewhy.testing import small_cnn, unchanged

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
]


def scores_by_hand(model: nn.Module, images: Tensor, cls: int = 1) -> Tensor:
    with torch.no_grad():
        return torch.stack([model(image[None].clone())[0, cls] for image in images]).double()


def darker(x: Tensor, count: int) -> Any:
    def change(rows: Tensor, numbers: Tensor) -> Tensor:
        return x[rows] * (1 - numbers.view(-1, 1, 1, 1) / count)

    return change


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("most", [None, 1, 2, 7])
def test_scores_are_those_of_single_images(most: int | None) -> None:
    model, x = small_cnn(), pixels(3)
    with evaluations(model, "body", x, most=most) as record:
        found = record.evaluations.scores(darker(x, 10), 10)
    expected = [scores_by_hand(model, torch.stack([image * (1 - k / 10) for k in range(10)])) for image in x]
    assert close(found, torch.stack(expected))


@pytest.mark.parametrize("layer", [False, True])
def test_what_is_not_asked_for_is_not_run(layer: bool) -> None:
    model, x = small_cnn(), pixels(3)
    where = torch.tensor([[True, False, True, False], [False] * 4, [False, False, False, True]])
    asked: list[tuple[int, int]] = []
    with evaluations(model, "body", x) as record:
        start = record.activation if layer else x

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            asked.extend(zip(rows.tolist(), numbers.tolist(), strict=True))
            return start[rows] * (1 - numbers.view(-1, 1, 1, 1) / 4)

        ask = record.evaluations.layer_scores if layer else record.evaluations.scores
        some = ask(change, 4, where)
        asked_for = list(asked)
        every = ask(change, 4)
    assert sorted(asked_for) == [(0, 0), (0, 2), (2, 3)]
    assert torch.equal(some.isnan(), ~where)
    assert close(some[where], every[where])


@pytest.mark.parametrize("layer", [False, True])
def test_several_targets_share_the_runs(layer: bool) -> None:
    model, x, classes = small_cnn(), pixels(2), [[0, 1, 4], [2, 3, 1]]
    targets = [target for row in classes for target in find_targets(row, 3)]
    asked = []
    with evaluations(model, "body", x, Scoring(targets, each=3)) as record:
        paired = record.activation if layer else record.input
        assert len(paired) == 6

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            asked.extend(rows.tolist())
            return paired[rows] * (1 - numbers.view(-1, 1, 1, 1) / 5)

        ask = record.evaluations.layer_scores if layer else record.evaluations.scores
        where = torch.ones(6, 5, dtype=torch.bool)
        where[3:, 0] = False
        found = ask(change, 5, where)
    assert sorted(asked) == [0] * 5 + [3] * 4, "the first row of each image"
    assert torch.equal(found.isnan(), ~where)
    assert found.shape == (6, 5)
    for row, cls in enumerate(itertools.chain(*classes)):
        with evaluations(model, "body", x[row // 3 : row // 3 + 1], Scoring(find_targets(cls, 1))) as single:
            value = single.activation if layer else single.input
            one = single.evaluations
            alone = (one.layer_scores if layer else one.scores)(
                lambda rows, numbers, value=value: value[rows] * (1 - numbers.view(-1, 1, 1, 1) / 5), 5
            )
        assert close(found[row][where[row]], alone[0][where[row]])


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__ + str(error)[:9])
@pytest.mark.parametrize("layer", [False, True])
def test_where_memory_runs_out_all_is_there_once_and_in_order(error: BaseException, layer: bool) -> None:
    model, x, sizes = small_cnn(), pixels(2), []

    def scarce(_: nn.Module, args: tuple[Tensor]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 3:
            raise error

    with evaluations(model, "body", x) as record:
        start = record.activation if layer else x
        ask = record.evaluations.layer_scores if layer else record.evaluations.scores

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            return start[rows] * (1 - numbers.view(-1, 1, 1, 1) / 40)

        expected = ask(change, 40)
        record.evaluations._request.memory.clear()
        handle = model.head.register_forward_pre_hook(scarce)
        found = ask(change, 40)
        handle.remove()
    assert close(found, expected)
    tried = [size for size in sizes if size > 3]
    assert tried == sorted(tried, reverse=True), "it never grows again"
    assert max(sizes[sizes.index(tried[-1]) + 1 :]) <= tried[-1] // 2


def test_what_does_not_fit_even_alone_is_passed_on() -> None:
    model, x = small_cnn(), pixels()

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with evaluations(model, "body", x) as record:
        handle = model.head.register_forward_pre_hook(fail)
        try:
            with pytest.raises(torch.OutOfMemoryError):
                record.evaluations.scores(darker(x, 9), 9)
        finally:
            handle.remove()


@pytest.mark.filterwarnings("ignore:.*is 0 everywhere:seewhy.SeewhyWarning")
def test_no_chunk_is_larger_than_the_batch_that_the_user_allows() -> None:
    model, sizes = small_cnn(), []
    model.stem[0].register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    model.head.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    explainer = Explainer(model)
    for method in ("ablation_cam", "score_cam", "recipro_cam"):
        explainer.explain(pixels(), method, target=1, layer="body", batch_size=3)
    explainer.explain(pixels(), ["occlusion", "smooth_grad"], target=1, batch_size=3)
    assert max(sizes) == 3


@pytest.mark.filterwarnings("ignore:.*is 0 everywhere:seewhy.SeewhyWarning")
def test_tails_after_different_layers_learn_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Noted(Chunks):
        def run(self, *args: Any) -> Any:
            made.append(self)
            return super().run(*args)

    monkeypatch.setattr(engine, "Chunks", Noted)
    Explainer(small_cnn()).explain(pixels(), "ablation_cam", target=1, layer=["stem", "body"])
    assert len(made) == 2
    assert made[0] is not made[1]


class Shown:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.bars: list[tuple[int, list[int]]] = []

    def __call__(self, progress: Any, total: int, **_: Any) -> Shown:
        self.bars.append((total, []))
        return self

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def update(self, count: int) -> None:
        self.bars[-1][1].append(count)


def test_the_progress_bar_counts_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    monkeypatch.setattr(engine, "bar", shown)
    model, x = small_cnn(), pixels(3)
    with evaluations(model, "body", x) as record:
        value, again = record.activation, record.evaluations
        where = torch.ones(3, 20, dtype=torch.bool)
        where[1, :5] = False
        again.scores(darker(x, 20), 20, where)
        again.layer_scores(darker(value, 20), 20, where)
        list(again.records(darker(x, 20), 20, Needs(input_gradient="plain")))
    assert [(total, sum(parts)) for total, parts in shown.bars] == [(55, 55), (55, 55), (60, 60)]
    assert all(len(parts) > 1 for _, parts in shown.bars)


@pytest.mark.parametrize("most", [None, 1, 3])
def test_records_of_changed_images_at_a_layer(most: int | None) -> None:
    model, x = small_cnn(), pixels(2)
    needs = Needs(activation=True, gradient=True, input_gradient="plain")
    seen = {}
    with evaluations(model, "body", x, most=most) as record:
        for rows, numbers, passed in record.evaluations.records(darker(x, 6), 6, needs):
            assert passed.layer == "body"
            for place, (row, number) in enumerate(zip(rows.tolist(), numbers.tolist(), strict=True)):
                assert (row, number) not in seen
                seen[row, number] = [t[place] for t in (passed.activation, passed.gradient, passed.input_gradient)]
    assert len(seen) == 12
    for (row, number), found in seen.items():
        leaf = (x[row : row + 1] * (1 - number / 6)).requires_grad_()
        stem = model.stem(leaf * 1)
        value = model.body((model.left(stem) + model.right(stem)).relu())
        score = model.head(value.relu().mean((2, 3)))[0, 1]
        expected = value, *torch.autograd.grad(score, [value, leaf])
        assert all(torch.allclose(one, other[0], atol=1e-6) for one, other in zip(found, expected, strict=True))


def test_records_have_a_row_for_each_target() -> None:
    model, x = small_cnn(), pixels(2)
    scoring = Scoring([target for row in ([0, 1], [2, 3]) for target in find_targets(row, 2)], each=2)
    with evaluations(model, "body", x, scoring) as record:
        paired = record.input
        found = {}
        for rows, numbers, passed in record.evaluations.records(
            lambda rows, numbers: paired[rows] * (1 - numbers.view(-1, 1, 1, 1) / 3), 3, Needs(input_gradient="plain")
        ):
            assert len(rows) == len(numbers) == len(passed.input_gradient) == len(passed.scores)
            found |= {(r, n): s for r, n, s in zip(rows.tolist(), numbers.tolist(), passed.scores, strict=True)}
    assert sorted(found) == list(itertools.product(range(4), range(3)))
    for (row, number), score in found.items():
        by_hand = scores_by_hand(model, x[row // 2 : row // 2 + 1] * (1 - number / 3), cls=row)
        assert close(score.double(), by_hand[0])


class Overwriting(nn.Module):
    """Writes to the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x *= 3
        out: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return out


def test_a_model_that_writes_to_its_images_writes_to_nobody_elses() -> None:
    model, x = Overwriting(), pixels()
    with evaluations(model, "conv", x) as record:
        blank = torch.zeros(1, 3, 32, 32)
        first, second = (record.evaluations.scores(lambda *_: blank, 1) for _ in range(2))
        again = record.evaluations.scores(lambda *_: record.input, 1)
        changed = record.evaluations.layer_scores(lambda rows, _: record.activation[rows], 1)
        assert not blank.any()
        assert torch.equal(record.input, x)
    assert not record.evaluations.warnings, "it is replayed all the same"
    assert torch.equal(first, second)
    assert close(again[0], record.scores.double())
    assert close(changed[0], record.scores.double())


def test_a_change_may_give_a_view_of_the_record() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(6, 4))  # fmt: skip
    with evaluations(model, "0", pixels()) as record:
        before = record.activation.clone()
        found = record.evaluations.layer_scores(lambda rows, _: record.activation.expand(len(rows), -1, -1, -1), 5)
        assert torch.equal(record.activation, before)
    assert close(found[0], record.scores.double().expand(5))


def test_a_view_is_safe_where_the_model_writes_to_it_only_sometimes() -> None:
    class Sometimes(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = self[0](x)
            if float(y.mean()) > 5:
                y += 1
            out: Tensor = self[1](y.mean((2, 3)))
            return out

    model = Sometimes(nn.Conv2d(3, 6, 3), nn.Linear(6, 4))
    with evaluations(model, "0", pixels()) as record:
        high = record.activation + 20
        before = high.clone()
        found = record.evaluations.layer_scores(lambda rows, _: high.expand(len(rows), -1, -1, -1), 5)
        assert torch.equal(high, before)
    assert close(found[0], model[1]((before + 1).mean((2, 3)))[0, 1].detach().double().expand(5))


@dataclass(frozen=True)
class Halved(Method):
    """The fall of the score where the layer's activation is halved."""

    needs = Needs(activation=True, evaluations=True)

    def compute(self, record: LayerRecord) -> Tensor:
        falls = record.scores.double()[:, None] - record.evaluations.layer_scores(
            lambda rows, _: record.activation[rows] * 0.5, 1
        )
        return falls[..., None].float().expand(-1, 2, 2)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("where", ["stem.0", "left", "body", "drop", "head"])
def test_the_model_comes_back_after_an_error_in_any_run(where: str, turn: int, error: BaseException) -> None:
    model, turns = small_cnn(), itertools.count()
    module = model.get_submodule(where)
    own = type(module).forward

    def failing(*args: Any) -> Any:
        if next(turns) == turn:
            raise error
        return own(module, *args)

    module.forward = failing
    before = torch.backends.mha.get_fastpath_enabled()
    with unchanged(model), suppress(RuntimeError, KeyboardInterrupt, seewhy.SeewhyWarning):
        Explainer(model).explain(pixels(2), Halved(), target=1, layer="left")
    assert next(turns) > turn or where != "head", "it was reached"
    assert module.forward is failing
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_asking_at_a_layer_that_was_not_declared() -> None:
    model, x = small_cnn(), pixels()
    with evaluations(model, "body", x) as record:
        record.evaluations._captured = None
        with pytest.raises(seewhy.SeewhyError, match="declare activation=True"):
            record.evaluations.layer_scores(darker(x, 2), 2)


@pytest.mark.sweep
def test_many_images_of_a_real_network_in_any_chunks() -> None:
    model, x = torchvision.models.resnet18(num_classes=5).eval(), pixels(3, (64, 64))
    explainer, asked = Explainer(model), {"target": [0, 1, 2], "layer": "layer3.0.conv2"}
    whole = explainer.explain(x, "recipro_cam", **asked).values
    for size in (1, 2, 5):
        found = explainer.explain(x, "recipro_cam", batch_size=size, **asked).values
        assert torch.allclose(torch.tensor(found), torch.tensor(whole), atol=1e-3)
