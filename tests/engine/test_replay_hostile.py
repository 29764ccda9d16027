"""Models that keep, hide, write over or return odd things: replays are right, or whole runs are made and said so."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from replaying import Convolutions, Hostile, ask, assert_right, evaluations, many_relus, pixels
from torch import Tensor, nn

import seewhy
from seewhy.engine.switches import fast_path_off


class Giving(nn.Module):
    """Returns two things, put together in some way."""

    def __init__(self, together: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.together = together

    def forward(self, x: Tensor) -> Any:
        return self.together(x * 2, x + 1)


class Odd(tuple):
    """A tuple that is not made of a list."""

    def __new__(cls, one: Tensor, two: Tensor) -> Odd:
        return super().__new__(cls, (one, two))


class Sealed(dict):
    """A dictionary that cannot be copied."""

    def __copy__(self) -> Sealed:
        raise RuntimeError("sealed")


@dataclass
class Data:
    one: Tensor
    two: Tensor


Fields = namedtuple("Fields", "one two")
GIVEN: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], Tensor]]] = {
    "numbers as keys": (lambda a, b: OrderedDict([(0, a), (1, b)]), lambda given: given[0]),
    "a default": (lambda a, b: defaultdict(list, {0: a, 1: b}), lambda given: given[0]),
    "sealed": (lambda a, b: Sealed(one=a, two=b), lambda given: given["one"]),
    "an odd tuple": (Odd, lambda given: given[0]),
    "a named tuple": (Fields, lambda given: given.one),
    "a dataclass": (Data, lambda given: given.one),
    "a tensor and a dataclass": (lambda a, b: (a, Data(a, b)), lambda given: given[1].one),
    "a tensor and numbers": (lambda a, b: (a, tuple(b.shape[2:]), None), lambda given: given[0]),
    "a list of lists": (lambda a, b: [[a], [b, 3]], lambda given: given[0][0]),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("before", [True, False])
def test_whatever_modules_return_is_handed_on(name: str, before: bool) -> None:
    together, one = GIVEN[name]

    def first(m: Any, x: Tensor) -> Tensor:
        return m.c(m.b(one(m.giving(m.a(x)))))

    def last(m: Any, x: Tensor) -> Tensor:
        return m.c(one(m.giving(m.b(m.a(x)))))

    assert_right(ask(Hostile(first if before else last, giving=Giving(together)), "b", pixels(2)))


@pytest.mark.parametrize("name", ["numbers as keys", "an odd tuple", "a named tuple", "a list of lists"])
def test_the_first_tensor_of_whatever_the_layer_returns_is_exchanged(name: str) -> None:
    together, one = GIVEN[name]
    if name == "a list of lists":
        together, one = (lambda a, b: [a, b]), lambda given: given[0]

    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(one(m.giving(m.b(m.a(x)))))

    asked = ask(Hostile(run, giving=Giving(together)), "giving", pixels(2))
    assert_right(asked)
    assert asked.found.std(1).min() > 0


def only_sometimes(write: Callable[[Tensor], Any]) -> Callable[[Any, Tensor], Tensor]:
    """Writes to what was there before the layer, or to the image, where a changed activation leads it there."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y)
        if float(z.mean()) > m.limit:
            write(x if m.image else y)
        return m.c(z) + y + x.mean((1, 2, 3)).view(-1, 1, 1, 1)

    return run


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda t: t.add_(1),
    "fill where": lambda t: t.masked_fill_(t > 0, 2),
    "put": lambda t: t.index_put_((torch.arange(len(t)),), t * 2 + 1),
}


@pytest.mark.filterwarnings("ignore:Use of .* on expanded tensors is deprecated:UserWarning")
@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("image", [True, False])
def test_what_is_overwritten_only_sometimes_is_seen(name: str, together: int, image: bool) -> None:
    model, x = Hostile(only_sometimes(WRITES[name])), pixels()
    model.limit, model.image = 5.0, image
    with evaluations(model, "b", x, most=together) as record:
        value = record.activation

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            return value[rows] + (numbers + 10).view(-1, 1, 1, 1)  # all of them lead to where it writes

        found = record.evaluations.layer_scores(change, 12)[0]
        expected = []
        for number in range(12):
            new = change(torch.tensor([0]), torch.tensor([number]))
            handle = model.b.register_forward_hook(lambda *_, new=new: new)
            with torch.no_grad():
                expected.append(model(x.clone())[0, 1].double())
            handle.remove()
    assert not record.evaluations.warnings, "it can be replayed where nothing is overwritten"
    assert torch.allclose(found, torch.stack(expected), rtol=1e-4)


@pytest.mark.parametrize("write", [
    lambda t: t.data.add_(1), lambda t: t.detach().numpy().__iadd__(1),
])  # fmt: skip
@pytest.mark.parametrize("most", [None, 1])
def test_what_is_overwritten_behind_autograds_back_is_run_whole(write: Any, most: int | None) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y)
        write(y)
        return m.c(z) + y

    assert_right(ask(Hostile(run), "b", pixels(2), most=most), short=False)


class Features(nn.Module):
    """Takes what an early layer gave from a hook of its own, as some U-Nets do."""

    def __init__(self) -> None:
        super().__init__()
        early = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.encoder = nn.Sequential(early, *(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2)))
        self.decoder, self.head, self.kept = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4), {}
        early[0].register_forward_hook(lambda _, __, output: self.kept.update(early=output))

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)
        out: Tensor = self.head(self.decoder(y + self.kept["early"]).mean((2, 3)))
        return out


@pytest.mark.parametrize("most", [None, 1, 2])
def test_what_a_model_keeps_beside_its_outputs_is_never_of_another_run(most: int | None) -> None:
    assert_right(ask(Features(), "encoder.1", pixels(2), most=most), short=False)


@pytest.mark.filterwarnings("ignore:.*cannot be run alone:seewhy.SeewhyWarning")
def test_what_a_model_keeps_is_not_of_a_masked_image_either() -> None:
    model, x = Features().eval(), pixels()
    explainer = seewhy.Explainer(model)
    alone = explainer.explain(x, "ablation_cam", target=1, layer="encoder.1")
    after = explainer.explain(x, ["score_cam", "ablation_cam"], target=1, layer="encoder.1")["ablation_cam"]
    assert torch.allclose(torch.tensor(alone.values), torch.tensor(after.values), rtol=1e-4)


def test_a_module_that_keeps_its_output_for_later() -> None:
    class Keeping(nn.Module):
        kept: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.kept = x.tanh()
            return self.kept

    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(m.b(m.keeping(m.a(x)))) + m.keeping.kept

    model = Hostile(run, keeping=Keeping())
    model.keeping.kept = torch.zeros(1)
    assert_right(ask(model, "b", pixels(2)), short=False)


class One(nn.Module):
    """Takes one image."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 1
        return x.sin()


def test_what_takes_one_image_need_not_run_again_before_the_layer() -> None:
    assert_right(ask(Hostile(lambda m, x: m.c(m.b(m.one(m.a(x)))), one=One()), "b"))


def test_what_takes_one_image_after_the_layer_is_given_one_at_a_time() -> None:
    assert_right(ask(Hostile(lambda m, x: m.c(m.one(m.b(m.a(x)))), one=One()), "b"), short=False)


def test_a_model_that_goes_through_its_images_is_given_one_at_a_time() -> None:
    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Hostile(many_relus)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.net(image[None]) for image in x])

    assert_right(ask(Looping(), "net.b"), short=False)


def test_a_hook_of_the_users_at_the_layer_is_not_applied_twice() -> None:
    model = Hostile(many_relus)
    assert_right(ask(model, "b"))
    model.b.register_forward_hook(lambda _, __, output: output * 3)
    assert_right(ask(model, "b"), short=False)  # though it was tried before, without the hook


def test_parts_that_run_in_another_thread() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        out: list[Tensor] = []
        thread = threading.Thread(target=lambda: out.append(m.relu(m.a(x))))
        thread.start()
        thread.join()
        return m.c(m.b(m.relu(out[0]))) + out[0]

    asked = ask(Hostile(run), "b", pixels(2))
    assert_right(asked, short=asked.short)


def test_noise_before_the_layer_is_the_same_each_time() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(m.b(m.noisy(m.a(x))))

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    assert_right(ask(Hostile(run, noisy=Noisy()), "b", pixels(2)))


def test_noise_after_it_means_whole_runs() -> None:
    model = Hostile(lambda m, x: m.c(m.b(m.a(x)) + torch.randn(len(x), 6, 32, 32)))
    assert not ask(model, "b").short


class Recurrent(nn.Module):
    """Its state has the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.rnn, self.b = nn.Conv2d(3, 6, 4, 4), nn.LSTM(6, 6, batch_first=True), nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        _, (state, _) = self.rnn(y.flatten(2).transpose(1, 2))
        out: Tensor = self.head(torch.cat([self.b(y).mean((2, 3)), state[-1]], 1))
        return out


def test_a_state_with_the_batch_second() -> None:
    assert_right(ask(Recurrent(), "b", pixels(2)), short=False)


class Encoded(nn.Module):
    """A transformer encoder, whose fast path calls none of its parts."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.axis, self.patch = int(batch_first), nn.Conv2d(3, 24, 8, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 2, 32, batch_first=batch_first), 2)
        self.head = nn.Linear(24, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).movedim(2, self.axis)
        out: Tensor = self.head(self.encoder(tokens).mean(self.axis))
        return out


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layer", ["patch", "encoder.layers.0.norm1", "encoder.layers.1.linear1",
                                   "encoder.layers.1.self_attn"])  # fmt: skip
def test_the_parts_of_transformer_layers(layer: str, batch_first: bool) -> None:
    assert_right(ask(Encoded(batch_first), layer, pixels(2)))


def test_threads_that_switch_the_fast_path_off_at_once_leave_it_as_it_was() -> None:
    before, entered, left = torch.backends.mha.get_fastpath_enabled(), threading.Event(), threading.Event()

    def other() -> None:
        with fast_path_off():
            entered.set()
            left.wait(10)
            assert not torch.backends.mha.get_fastpath_enabled(), "the one that left must not switch it on"

    thread = threading.Thread(target=other)
    with fast_path_off():
        thread.start()
        entered.wait(10)
    off_in_the_other = not torch.backends.mha.get_fastpath_enabled()
    left.set()
    thread.join()
    assert off_in_the_other
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_compiled_and_wrapped_parts() -> None:
    model = Hostile(many_relus)
    model.a, model.c = torch.compile(model.a, backend="eager"), nn.DataParallel(model.c)
    assert_right(ask(model, "b", pixels(2)))


def test_classes_that_override_calling_and_setting() -> None:
    class Twice(nn.Conv2d):
        def __call__(self, x: Tensor) -> Tensor:
            out: Tensor = super().__call__(x) * 2
            return out

    class Closed(nn.Conv2d):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "forward":
                raise AttributeError(name)
            super().__setattr__(name, value)

    model = Hostile(many_relus)
    model.a, model.b = Twice(3, 6, 3, padding=1), Closed(6, 6, 3, padding=1)
    own = functools.partial(nn.Conv2d.forward, model.b)
    vars(model.b)["forward"] = own
    assert_right(ask(model, "b", pixels(2)))
    assert vars(model.b)["forward"] is own


@pytest.mark.parametrize("swallows", [True, False])
def test_a_model_that_begins_to_run_otherwise_is_followed(swallows: bool) -> None:
    turns = itertools.count()

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        if next(turns) > 4:  # after it was recorded and tried
            try:
                y = y + m.a(x)
            except Exception:
                if not swallows:
                    raise
                y = y * 0
        return m.c(m.b(y)) + m.relu(m.a(x)) + y

    assert_right(ask(Hostile(run), "b", most=1))


def test_a_layer_that_does_not_run_again_is_told() -> None:
    turns = itertools.count()

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.c(y if next(turns) > 4 else m.b(y))

    with pytest.raises(seewhy.SeewhyError, match="'b' ran at first, and did not"):
        ask(Hostile(run), "b", most=1)


def test_nothing_before_the_layer_runs_again() -> None:
    model = Hostile(many_relus).eval()
    explainer = seewhy.Explainer(model)
    explainer.explain(pixels(), "ablation_cam", target=1, layer="b")
    with Convolutions() as ran:
        explainer.explain(pixels(), "ablation_cam", target=1, layer="b")
    assert ran.count == 3 + 1, "the image itself, and `c` for all six channels"


def test_running_whole_is_said_once_and_names_the_layer() -> None:
    with pytest.warns(seewhy.SeewhyWarning, match="'encoder.1' cannot be run alone") as said:
        seewhy.Explainer(Features()).explain(pixels(3), "ablation_cam", target=1, layer="encoder.1", batch_size=1)
    assert len([one for one in said if "run alone" in str(one.message)]) == 1
