"""Images that climb: against closed forms, one another, and a network in odd states."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from seewhy import Explainer, SeewhyError, SeewhyWarning
from seewhy.errors import GradientError, InputError, InputTypeError, LayerError, NonFiniteError, UnknownNameError
from seewhy.inside.maximize import Maximized, maximize
from seewhy.inside.objectives import Channel, Direction, Diversity, Logit, Neuron
from seewhy.inside.parametrisation import Fourier, Phase, magnitude_of
from seewhy.inside.wobble import Wobble
from seewhy.testing import small_cnn, unchanged

METHODS = ["fourier", "maco", "classic"]
FEW = {"size": 24, "steps": 6}


@pytest.fixture
def explainer():
    return Explainer(small_cnn(), class_names=["a", "b", "c", "d", "e"])


class Colour(nn.Module):
    """Three channels: red, minus green, and the left half's blue."""

    def __init__(self):
        super().__init__()
        self.colours, self.head = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 2)
        self.colours.weight.data = torch.diag(torch.tensor([1.0, -1.0, 1.0]))[..., None, None]

    def forward(self, x):
        y = self.colours(x)
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_returned(explainer, method):
    found = maximize(explainer, "left", [0, 3, 5], method=method, **FEW)
    assert found.images.shape == (3, 24, 24, 3)
    assert found.images.dtype == np.uint8
    assert found.alpha.shape == (3, 24, 24)
    assert found.alpha.dtype == np.float32
    assert 0 <= found.alpha.min() < found.alpha.max() == 1
    assert found.history.shape == (7, 3)
    assert found.history.dtype == np.float32
    assert (found.history[-1] > found.history[0]).all()
    assert found.names == tuple(f"channel {i} of left" for i in (0, 3, 5))
    assert (found.layer, found.method, len(found)) == ("left", method, 3)


@pytest.mark.parametrize("method", ["fourier", "classic"])
def test_red_without_green_is_found_red_and_not_green(method):
    """Channel 0 is red, channel 1 minus green."""
    explainer = Explainer(Colour(), transform=lambda image: torch.zeros(3, 8, 8))
    objective = Direction("colours", [1.0, 1.0, 0.0])
    with pytest.warns(SeewhyWarning, match="normalisation"):
        found = maximize(explainer, objective=objective, method=method, size=16, steps=40, rate=0.3)
    red, green, _ = found.images[0].mean((0, 1))
    assert red > green + 60


@pytest.mark.parametrize("method", METHODS)
def test_rows_know_nothing_of_one_another(explainer, method):
    """Whatever is asked besides, in whatever batches: the same image."""
    together = maximize(explainer, "left", range(6), method=method, **FEW)
    for alone in (
        maximize(explainer, "left", [4], method=method, **FEW),
        maximize(explainer, "left", 4, method=method, **FEW),
        maximize(explainer, objective=Channel("left", 4), method=method, **FEW),
        maximize(explainer, explainer.model.left, [4], method=method, **FEW),
        maximize(explainer, objective=Channel(explainer.model.left, 4), method=method, **FEW),
    ):  # fmt: skip
        np.testing.assert_allclose(alone.history[:, 0], together.history[:, 4], rtol=1e-5, atol=1e-6)
        assert np.abs(alone.images[0].astype(int) - together.images[4]).max() <= 1
    small = maximize(explainer, "left", range(6), method=method, batch_size=2, **FEW)
    assert np.abs(small.images.astype(int) - together.images).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_is_an_image(explainer, method):
    one, two = (maximize(explainer, "left", [1], method=method, seed=3, **FEW) for _ in range(2))
    assert (one.images == two.images).all()
    assert (one.history == two.history).all()
    other = maximize(explainer, "left", [1], method=method, seed=4, **FEW)
    assert (one.images != other.images).any()


def test_the_first_and_the_last_of_the_history_are_of_the_image_as_it_is(explainer):
    found = maximize(explainer, "left", [2], method="fourier", size=32, steps=20)
    picture = torch.tensor(found.images).movedim(-1, 1).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    kept = []
    model = explainer.model.eval()
    handle = model.left.register_forward_hook(lambda *a: kept.append(a[2].clone()))
    model((picture - mean) / std)
    handle.remove()
    inner = kept[0][:, 2, 2:-2, 2:-2].mean((1, 2))
    assert found.history[-1, 0] == pytest.approx(inner.item(), rel=0.02)


def test_other_objectives(explainer):
    found = maximize(
        explainer,
        objective=[
            Neuron("body", 1),
            Logit("b"),
            Direction("left", np.ones(8)) - 0.5 * Channel("body", 2),
        ],
        **FEW,
    )
    assert found.layer == "body, left"
    assert found.names[1] == "b"
    assert (found.history[-1] > found.history[0]).all()
    function = maximize(explainer, "left", objective=lambda a: a[:, 0].amax((1, 2)), **FEW)
    assert function.history[-1, 0] > function.history[0, 0]
    by_module = maximize(explainer, explainer.model.left, np.int64(4), **FEW)
    assert by_module.names == ("channel 4 of left",)
    neuron = maximize(explainer, objective=Neuron("left", 1), size=160, steps=1)
    assert (neuron.alpha > 0).mean() < 0.01
    assert neuron.alpha.max() == 1
    unit = maximize(explainer, "head", **FEW)
    assert len(unit) == 5
    assert (unit.history[-1] > unit.history[0]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [16, 17, 26, 33, 64])
def test_images_have_the_size_that_was_asked_for(explainer, method, size):
    found = maximize(explainer, "left", [0], method=method, size=size, steps=1)
    assert found.images.shape == (1, size, size, 3)
    assert found.alpha.shape == (1, size, size)


@pytest.mark.parametrize("method", METHODS)
def test_the_usual_size(explainer, method):
    assert maximize(explainer, "left", [0], method=method, steps=1).images.shape == (1, 128, 128, 3)


def test_classic_images_are_evened_and_lose_their_borders(explainer):
    seen = []
    handle = explainer.model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    found = maximize(explainer, "left", [0], method="classic", size=48)
    handle.remove()
    assert set(seen) == {(64, 64)}
    assert 120 < found.images.mean() < 136
    assert 50 < found.images.std() < 70


def test_the_history_of_copies_is_their_mean(explainer):
    near_three = maximize(explainer, "left", objective=lambda a: 3 + a.mean((1, 2, 3)).tanh() / 100, copies=3, **FEW)
    np.testing.assert_allclose(near_three.history, 3, atol=0.02)


def test_diverse_copies(explainer):
    alike = maximize(explainer, objective=Channel("left", 0), copies=3, **FEW)
    diverse = maximize(explainer, objective=Channel("left", 0) + 100 * Diversity("left"), copies=3, **FEW)
    assert alike.images.shape == diverse.images.shape == (3, 24, 24, 3)
    assert alike.history.shape == (7, 1)
    assert (alike.images[0] != alike.images[1]).any()

    def likeness(pictures):
        return np.corrcoef(pictures.reshape(3, -1))[np.triu_indices(3, 1)].mean()

    assert likeness(diverse.images) < likeness(alike.images)


def test_all_channels_are_the_first_64_or_as_many_as_there_are():
    wide = nn.Sequential(nn.Conv2d(3, 70, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert len(maximize(Explainer(wide), "0", size=16, steps=1)) == 64
    assert len(maximize(Explainer(small_cnn()), "left", size=16, steps=1)) == 8


def test_a_grey_network_without_a_transform_is_given_0_to_1():
    grey = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.warns(SeewhyWarning, match="normalisation"):
        found = maximize(Explainer(grey), "0", [0], **FEW)
    assert (found.images[..., 0] == found.images[..., 1]).all()


def test_grey_networks():
    grey = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    explainer = Explainer(grey, transform=lambda image: torch.zeros(1, 16, 16))
    for method in METHODS:
        with pytest.warns(SeewhyWarning, match="normalisation") if method == METHODS[0] else _nothing():
            found = maximize(explainer, "0", [0, 1], method=method, size=16, steps=8)
        assert (found.images[..., 0] == found.images[..., 2]).all()
        assert (found.history[-1] > found.history[0]).all()


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


NORMAL = v2.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
TRANSFORMS = {
    "usual": [NORMAL],
    "then scaled": [NORMAL, v2.Lambda(lambda x: 3 * x)],
    "BGR": [v2.Lambda(lambda x: x.flip(0)), NORMAL],
    "BGR at last": [NORMAL, v2.Lambda(lambda x: x.flip(0))],
    "0 to 255, BGR": [v2.Lambda(lambda x: 255 * x.flip(0)), v2.Normalize([103, 116, 123], [1, 1, 1])],
    "inverted": [v2.RandomInvert(1), NORMAL],
    "grey": [v2.Grayscale(3), NORMAL],
    "HF-like": [v2.Lambda(lambda x: (x - 0.5) / 0.5)],
}


@pytest.mark.filterwarnings("ignore:Pictures are shown stretched")
@pytest.mark.parametrize("steps", TRANSFORMS)
def test_the_image_found_is_what_it_was_taken_for_when_it_goes_through_the_transform(steps):
    """Whatever the transform does to colours."""
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), *TRANSFORMS[steps]])
    explainer = Explainer(small_cnn(), transform=transform)
    found = maximize(explainer, "left", [0, 5], size=32, steps=20)
    seen = explainer.explain(found.images, "activations", layer="left").values[:, :, 2:-2, 2:-2].mean((2, 3))
    np.testing.assert_allclose([seen[0, 0], seen[1, 5]], found.history[-1], rtol=0.02, atol=0.02)


def test_a_transform_that_does_more_to_colours_is_told():
    square = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Lambda(lambda x: x * x)])
    with pytest.warns(SeewhyWarning, match="normalisation of the model's transform is unknown, or more"):
        maximize(Explainer(small_cnn(), transform=square), "left", [0], **FEW)


def test_a_size_that_nobody_takes_is_said():
    said = "neither images of 128 pixels nor what its transform gives, 224: say which"
    with pytest.warns(SeewhyWarning, match="No transform was given"), pytest.raises(InputError, match=said):
        maximize(Explainer(Fixed()), "conv", [0], steps=2)
    assert maximize(Explainer(Fixed()), "conv", [0], steps=2, size=20).images.shape == (1, 20, 20, 3)


class Fixed(nn.Module):
    """Takes 20 x 20 pixels and nothing else."""

    def __init__(self):
        super().__init__()
        self.conv, self.flat = nn.Conv2d(3, 4, 3), nn.Linear(4 * 18 * 18, 3)

    def forward(self, x):
        return self.flat(self.conv(x).flatten(1))


def test_a_network_of_one_size_is_given_that():
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.Resize((20, 20)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
    explainer = Explainer(Fixed(), transform=v2.Compose(steps))
    assert maximize(explainer, "conv", [0], steps=2).images.shape == (1, 20, 20, 3)
    with pytest.raises(RuntimeError):
        maximize(explainer, objective=Logit(0), size=24, steps=2)


class Dead(nn.Module):
    """Channel 0 never answers; channel 1 is dead at first, behind a ReLU; channel 2 always answers; 3 cannot."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        nn.init.constant_(self.conv.weight, 0.2)
        self.conv.weight.data[0] = 0
        self.conv.bias.data = torch.tensor([-1.0, -4.0, 5.0, -1000.0])

    def forward(self, x):
        return self.relu(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("method", METHODS)
def test_dead_units_are_woken_or_told(method):
    with pytest.warns(SeewhyWarning, match="No gradient reaches channel 0 of relu, channel 3 of relu: dead"):
        found = maximize(Explainer(Dead()), "relu", method=method, size=16, steps=40, rate=None)
    assert found.history[0, 1] < 0.1
    assert found.history[-1, 1] > found.history[0, 1]
    assert (found.history[-1, [0, 3]] == 0).all()
    assert (found.images[[0, 3]] == 128).all()
    assert (found.alpha[[0, 3]] == 0).all()
    assert (found.images[[1, 2]].std((1, 2, 3)) > 1).all()
    assert [text.get_text() for text in found.plot().texts] == ["0 dead", "1", "2", "3 dead"]


def test_what_wakes_at_the_top_of_a_relu6_is_no_dead_unit():
    """Its own gradient is 0 at the start, behind the ReLU, and 0 again at 6."""

    class Sharp(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 1, 1), nn.ReLU6()
            nn.init.constant_(self.conv.weight, 1e4)
            nn.init.constant_(self.conv.bias, -2e4)

        def forward(self, x):
            return self.relu(self.conv(x)).mean((2, 3))

    found = maximize(Explainer(Sharp()), "relu", size=16, steps=16, rate=0.5)
    assert found.history[0, 0] == 0
    assert found.history[-1, 0] > 0
    assert found.images.std() > 1
    assert "dead" not in found.plot().texts[0].get_text()


def test_the_network_is_as_it_was():
    model = small_cnn().train()
    explainer = Explainer(model)
    with unchanged(model):
        maximize(explainer, "body", [0], **FEW)
    with unchanged(model), torch.no_grad():
        maximize(explainer, "body", [0], **FEW)
    with unchanged(model), torch.inference_mode():
        maximize(explainer, "body", [0], **FEW)
    state = torch.get_rng_state()
    maximize(explainer, "body", [0], **FEW)
    assert torch.equal(state, torch.get_rng_state())

    calls = []

    def interrupted(activation):
        calls.append(0)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return activation.mean((1, 2, 3))

    with unchanged(model), pytest.raises(KeyboardInterrupt):
        maximize(explainer, "body", objective=interrupted, **FEW)


def test_only_what_is_needed_runs():
    """The run ends with the last layer that is asked for."""
    model = small_cnn()
    ran = []
    model.body.register_forward_hook(lambda *_: ran.append("body"))
    maximize(Explainer(model), "left", [0], size=16, steps=5)
    looks = len(ran)
    ran.clear()
    maximize(Explainer(model), "left", [0], size=16, steps=25)
    assert len(ran) == looks


def test_memory_that_does_not_suffice_halves_the_batch(explainer, monkeypatch):
    from seewhy.inside.climb import Climber

    climb, sizes = Climber.climb, []

    def short(self, objectives, start):
        sizes.append(len(objectives))
        if len(objectives) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return climb(self, objectives, start)

    whole = maximize(explainer, "left", range(5), **FEW)
    monkeypatch.setattr(Climber, "climb", short)
    halved = maximize(explainer, "left", range(5), **FEW)
    assert sizes == [5, 2, 3, 1, 2]
    np.testing.assert_allclose(halved.history, whole.history, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(Climber, "climb", lambda *_: (_ for _ in ()).throw(RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        maximize(explainer, "left", range(5), **FEW)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"layer": "lefd"}, UnknownNameError, "Did you mean 'left'"),
        ({"layer": "left", "channels": [8]}, InputError, "no channel 8: the layer has 8, 0 to 7"),
        ({"layer": "left", "channels": [-1]}, InputError, "no channel -1"),
        ({"layer": "left", "channels": [True]}, InputError, "no channel True"),
        ({"layer": "left", "channels": []}, InputError, "empty"),
        ({"layer": "left", "channels": ["a"]}, InputTypeError, "whole numbers"),
        ({}, InputError, "Say what to maximize"),
        ({"layer": ["left", "body"]}, InputError, "one layer"),
        ({"layer": "left", "method": "furier"}, UnknownNameError, "Did you mean 'fourier'"),
        ({"layer": "left", "steps": 0}, InputError, "steps must be"),
        ({"layer": "left", "size": 0}, InputError, "size must be"),
        ({"layer": "left", "copies": 0}, InputError, "copies must be"),
        ({"layer": "left", "rate": 0}, InputError, "rate must be"),
        ({"layer": "left", "rate": "fast"}, InputError, "rate must be"),
        ({"objective": Logit(None)}, InputTypeError, "not None"),
        ({"objective": Channel("left", [3])}, InputTypeError, "whole number"),
        ({"objective": Channel("left", 1.5)}, InputTypeError, "whole number"),
        ({"objective": Channel("left", True)}, InputTypeError, "whole number"),
        ({"objective": Diversity("head"), "copies": 2}, InputError, "at a layer with positions"),
        ({"layer": "left", "seed": -1}, InputError, "seed must be"),
        ({"layer": "left", "seed": 0.5}, InputError, "seed must be"),
        ({"layer": "left", "objective": Channel("left", 0)}, InputError, "leave layer= out"),
        ({"objective": Channel("left", 0), "channels": [0]}, InputError, "give one of them"),
        ({"layer": "left", "photos": np.zeros((8, 8, 3), np.uint8)}, InputError, "photos= gives maco"),
        ({"objective": Logit("f")}, SeewhyError, "f"),
        ({"objective": 3}, InputTypeError, "objective is an Objective"),
    ],
)
def test_mistakes(explainer, asked, error, message):
    with unchanged(explainer.model), pytest.raises(error, match=message):
        maximize(explainer, **{**FEW, **asked})


def test_what_cannot_climb():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x.detach()).mean((2, 3))

    with pytest.raises(GradientError, match="does not depend on the image"):
        maximize(Explainer(Cut()), "conv", size=16, steps=2)

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x).relu().mean((2, 3))

    with pytest.raises(LayerError, match=r"without '\+relu'"):
        maximize(Explainer(Functional()), "conv+relu", size=16, steps=2)
    broken = small_cnn()
    broken.left.bias.data[0] = torch.nan
    with pytest.raises(NonFiniteError, match="channel 0 of left is NaN"):
        maximize(Explainer(broken), "left", size=16, steps=2)
    with pytest.raises(InputError, match="1 or 3 channels"):
        maximize(Explainer(nn.Sequential(nn.Conv2d(5, 2, 3))), "0", size=16, steps=2)
    with pytest.raises(InputError, match="1 or 3 channels"):
        maximize(Explainer(nn.Sequential(nn.Conv1d(3, 2, 3))), "0", size=16, steps=2)


def test_maco_keeps_the_magnitudes():
    phase = Phase(["a", "b"], 1, 32, 0, None, torch.device("cpu"))
    images = phase.images()
    grey = (images / (1 - images)).log()  # what the sigmoid squeezed
    assert torch.allclose(grey.mean((1, 2, 3)), torch.zeros(2), atol=1e-2)
    spectrum = torch.fft.rfft2(grey).abs()[:, 0, 1:16, 1:16]
    frequency = (torch.fft.fftfreq(32)[1:16, None] ** 2 + torch.fft.rfftfreq(32)[1:16] ** 2).sqrt()
    flat = spectrum * frequency
    assert torch.allclose(flat / flat.mean((1, 2), keepdim=True), torch.ones_like(flat), atol=0.05)
    photos = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    assert magnitude_of(photos, 32, 3).shape == (3, 32, 17)
    with pytest.warns(SeewhyWarning, match="No transform was given"):
        found = maximize(Explainer(small_cnn()), "left", [0], method="maco", photos=photos, **FEW)
    usual = maximize(Explainer(small_cnn()), "left", [0], method="maco", **FEW)
    assert (found.images != usual.images).any()


def test_a_fourier_image_begins_as_soft_grey():
    images = Fourier(["a"], 3, 64, 0, torch.device("cpu")).images()
    assert images.shape == (1, 3, 64, 64)
    assert 0.3 < images.mean() < 0.7
    assert 0 < images.std() < 0.25


def test_wobbling_is_the_same_for_all_images_of_a_step_and_none_at_nothing():
    images = torch.rand(2, 3, 16, 16)
    same = Wobble(0, (1, 1), 0)(images, 3, 0)
    assert torch.allclose(same, images, atol=1e-5)
    twins = Wobble(noise=0.1)(images[:1].expand(2, -1, -1, -1), 3, 0)
    assert torch.equal(twins[0], twins[1])
    assert not torch.equal(twins, Wobble(noise=0.1)(images[:1].expand(2, -1, -1, -1), 4, 0))
    assert not torch.equal(twins, Wobble(noise=0.1)(images[:1].expand(2, -1, -1, -1), 3, 1))
    moved = Wobble(0.25, (1, 1), 0)(images, 1, 0)
    assert (moved - images).abs().max() > 0.1


def test_pictures_and_files(explainer, tmp_path):
    found = maximize(explainer, "left", range(8), **FEW)
    ax = found.plot()
    assert [text.get_text() for text in ax.texts] == [str(i) for i in range(8)]
    assert found._repr_png_()
    found.save(tmp_path / "found")
    again = Maximized.load(tmp_path / "found")
    assert (again.images == found.images).all()
    assert again.names == found.names
    assert repr(again) == repr(found)
    assert repr(found).startswith("Maximized(fourier at left")


def test_a_bar_counts_the_steps(explainer, capsys):
    maximize(explainer, "left", range(5), batch_size=2, progress=True, **FEW)
    assert "18/18" in capsys.readouterr().err
