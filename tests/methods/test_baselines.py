"""What is put in the place of an image: colours by the model's own transform, or whatever is given."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from seewhy import Explainer, SeewhyWarning
from seewhy.colours import to_input
from seewhy.engine.record import Record
from seewhy.errors import InputError, InputTypeError, NonFiniteError
from seewhy.methods import IntegratedGradients, Occlusion, SmoothGrad
from seewhy.methods.baselines import make_baseline
from seewhy.testing import small_cnn

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
NORMALISED = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def record(transform: Any = NORMALISED, channels: int = 3, x: Tensor | None = None) -> Record:
    explainer = Explainer(nn.Sequential(nn.Conv2d(channels, 2, 1), nn.Flatten()), transform=transform)
    x = torch.randn(2, channels, 20, 30, generator=torch.Generator().manual_seed(0)) if x is None else x
    return Record(input=x, to_input=partial(to_input, explainer._preprocessing, explainer._sides))


def flat(colour: float) -> Tensor:
    return NORMALISED(Image.fromarray(np.full((20, 30, 3), round(255 * colour), np.uint8)))


@pytest.mark.parametrize(("name", "colour"), [("black", 0), ("white", 1)])
def test_black_and_white_are_what_the_transform_makes_of_them(name: str, colour: float) -> None:
    torch.testing.assert_close(make_baseline(name, record()), flat(colour).expand(2, -1, -1, -1), atol=1e-4, rtol=0)


def test_colours_in_another_order_are_followed() -> None:
    bgr = transforms.Compose([NORMALISED, transforms.Lambda(lambda t: t.flip(0))])
    found = make_baseline("black", record(bgr))
    torch.testing.assert_close(found[0], flat(0).flip(0), atol=1e-4, rtol=0)


def test_the_mean_is_the_images_own() -> None:
    x = record().input
    torch.testing.assert_close(make_baseline("mean", record()), x.mean((2, 3), keepdim=True).expand_as(x))


def test_the_blur_keeps_flat_parts_and_the_order_of_normalising() -> None:
    torch.testing.assert_close(make_baseline("blur", record(x=torch.full((1, 3, 20, 30), 0.7))),
                               torch.full((1, 3, 20, 30), 0.7))  # fmt: skip
    x = record().input
    shifted = make_baseline("blur", record(x=x * 2 + 1))
    torch.testing.assert_close(shifted, make_baseline("blur", record()) * 2 + 1)
    assert make_baseline("blur", record()).std() < 0.6 * x.std()


def test_noise_is_of_pictures_and_by_its_seed() -> None:
    one, same, other = (make_baseline("noise", record(), seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one[0], one[1])
    pictures = one * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert -0.001 < pictures.min() < 0.05
    assert 0.95 < pictures.max() < 1.001


@pytest.mark.parametrize("shape", [(3, 20, 30), (3, 1, 1), (1,), ()])
def test_arrays_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    given = torch.rand(shape)
    torch.testing.assert_close(make_baseline(given, record()), given.expand(2, 3, 20, 30))
    torch.testing.assert_close(make_baseline(given.numpy(), record()), given.expand(2, 3, 20, 30))


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="Did you mean 'black'"):
        Occlusion(baseline="blak")
    with pytest.raises(InputTypeError, match="not float"):
        IntegratedGradients(baseline=0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shape \(3, 21, 30\); expected .* \(3, 20, 30\)"):
        make_baseline(torch.zeros(3, 21, 30), record())
    odd = transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda t: t**2)])
    with pytest.raises(InputError, match="white"):
        make_baseline("white", record(odd))


def test_black_that_is_unknown_is_zero_and_told() -> None:
    asked = record(transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda t: t**2)]))
    assert not make_baseline("black", asked).any()
    assert "baseline='black' is 0" in asked.warnings[0]


def test_without_a_transform_what_is_assumed_is_told() -> None:
    asked = record(None)
    with pytest.warns(SeewhyWarning, match="No transform was given"):
        found = make_baseline("black", asked)
    torch.testing.assert_close(found[0, :, 0, 0], -torch.tensor([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225]))
    with pytest.warns(SeewhyWarning, match="No transform was given"):
        plain = make_baseline("black", record(None, x=torch.rand(2, 3, 20, 30)))
    assert not plain.any(), "inputs within 0..1 are pictures as they are"


@pytest.mark.parametrize("shape", [(2, 40), (2, 6, 10, 12)])
@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_signals_and_volumes_have_means_and_blurs(shape: tuple[int, ...], baseline: str) -> None:
    convolution = {2: nn.Conv1d, 4: nn.Conv3d}[len(shape)]
    model = nn.Sequential(convolution(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    x = torch.rand(2, *shape)
    model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)  # how volumes are shown
        found = Explainer(model).explain(x, "occlusion", target=1, window=4, stride=2, baseline=baseline)
    assert found.maps.shape == (2, *shape[1:])
    assert found.maps.any()


@pytest.mark.parametrize("options", [{"window": 4, "stride": 5}, {"window": (4, 4, 4)}, {"window": 0}, {"stride": 1.5}])
def test_windows_that_do_not_fit_are_told(options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match=r"window|stride"):
        Explainer(model).explain(torch.rand(1, 3, 16, 16), "occlusion", target=1, **options)


def test_windows_that_change_nothing_are_not_asked_about() -> None:
    model, seen = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), []
    model[0].register_forward_hook(lambda _, __, output: seen.append(len(output)))
    x = torch.zeros(1, 3, 16, 20)
    x[..., :4, :4] = 0.5
    found = Explainer(model).explain(x, "occlusion", target=1, window=4, stride=4, baseline=torch.zeros(1))
    assert sum(seen) == 1 + 1
    assert np.count_nonzero(found.map) == 16


def test_arrays_among_the_options_are_said_briefly() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = Explainer(model).explain(torch.rand(1, 3, 16, 16), "occlusion", target=1, baseline=torch.zeros(3, 16, 16))
    assert "baseline=Tensor of shape (3, 16, 16)" in found.provenance["options"]


@pytest.mark.parametrize("name", ["black", "white", "noise", "mean", "blur"])
def test_networks_of_one_channel_get_what_their_transform_makes_of_colours(name: str) -> None:
    grey = transforms.Compose([transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize(0.4, 0.2)])
    asked = record(grey, channels=1)
    found = make_baseline(name, asked, 3)
    assert found.shape == asked.input.shape
    if name in ("black", "white"):
        torch.testing.assert_close(
            found, torch.full_like(found, (float(name == "white") - 0.4) / 0.2), atol=0.02, rtol=0
        )
    if name == "noise":
        draw = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(found[1], (draw - 0.4) / 0.2, atol=0.02, rtol=0)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_without_a_transform_have_no_colours(channels: int) -> None:
    asked = record(None, channels)
    assert not make_baseline("black", asked).any()
    assert "baseline='black' is 0" in asked.warnings[0]
    for name in ("white", "noise"):
        with pytest.raises(InputError, match="baseline='mean'"):
            make_baseline(name, asked)


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "smooth_grad"])
def test_networks_of_bgr_are_explained_as_those_of_rgb(method: str) -> None:
    """The same network with its channels turned, behind a transform that turns them: the same maps."""
    rgb = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))
    bgr = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))
    bgr.load_state_dict(rgb.state_dict())
    with torch.no_grad():
        bgr[0].weight.copy_(rgb[0].weight.flip(1))
    turned = transforms.Compose([NORMALISED, transforms.Lambda(lambda t: t.flip(0))])
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8))
    options: dict[str, Any] = {
        "occlusion": {"window": 4, "stride": 4},
        "integrated_gradients": {"steps": 30},
        "smooth_grad": {"base": IntegratedGradients(9, torch.zeros(1)), "samples": 1, "noise": 1e-6},
    }[method]
    for name in ("black", "white", "mean", "blur"):
        asked = options if method == "smooth_grad" else options | {"baseline": name}
        one = Explainer(rgb, transform=NORMALISED).explain(photo, method, target=2, **asked)
        other = Explainer(bgr, transform=turned).explain(photo, method, target=2, **asked)
        # What a transform makes of colours is measured by sending pictures through it, so it is exact to a level.
        np.testing.assert_allclose(other.maps, one.maps, atol=1e-3 * np.abs(one.maps).max())
        assert one.maps.any()


@pytest.mark.parametrize("name", ["black", "white", "noise"])
def test_signals_and_volumes_have_no_colours(name: str) -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 4))
    x = torch.rand(1, 2, 40)
    if name == "black":
        with pytest.warns(SeewhyWarning, match="baseline='black' is 0"):
            found = Explainer(model).explain(x, "occlusion", target=1, window=4, stride=4, baseline="black")
        zero = Explainer(model).explain(x, Occlusion(4, 4, torch.zeros(1)), target=1)
        np.testing.assert_array_equal(found.values, zero.values)
        return
    with pytest.raises(InputError, match="mean"):
        Explainer(model).explain(x, "occlusion", target=1, window=4, stride=4, baseline=name)


def test_the_blur_is_a_gaussian_along_each_side() -> None:
    """A spot becomes a Gaussian whose standard deviation is a 20th of the shorter side."""
    x = torch.zeros(1, 1, 60, 90)
    x[..., 30, 40] = 1
    found = make_baseline("blur", Record(input=x))[0, 0].double()
    rows, columns = torch.arange(60) - 30.0, torch.arange(90) - 40.0
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert (found.sum(1) * rows**2).sum().sqrt() == pytest.approx(3, abs=0.1)
    assert (found.sum(0) * columns**2).sum().sqrt() == pytest.approx(3, abs=0.1)
    assert (found.sum(0) * columns).sum() == pytest.approx(0, abs=1e-5)
    video = make_baseline("blur", Record(input=torch.rand(1, 1, 4, 30, 40)))
    assert video.shape == (1, 1, 4, 30, 40)


def test_baselines_are_in_the_models_precision_and_belong_to_each_image() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        x = torch.rand(3, 3, 20, 30).to(dtype)
        for given in ("mean", "blur", "white", torch.rand(3, 1, 1)):
            found = make_baseline(given, record(x=x))
            assert found.dtype == dtype
            assert found.shape == x.shape
        assert not torch.equal(make_baseline("mean", record(x=x))[0], make_baseline("mean", record(x=x))[1])


@pytest.mark.parametrize(("given", "error", "says"), [
    ("Black", InputError, "Did you mean 'black'"),
    ("grey", InputError, "Known: black, white, mean, blur, noise"),
    (None, InputTypeError, "not NoneType"),
    ([0.0, 0.0, 0.0], InputTypeError, "not list"),
    (torch.zeros(3, 16, 24, dtype=torch.uint8), InputTypeError, "uint8; expected floats"),
    (np.zeros((3, 16, 24), np.int64), InputTypeError, "int64; expected floats"),
    (np.array(["black"]), InputTypeError, "expected floats"),
    (torch.zeros(3, 1, 1, dtype=torch.complex64), InputTypeError, "complex64"),
    (torch.zeros(1, 3, 16, 24), InputError, r"\(1, 3, 16, 24\); expected"),
    (torch.zeros(4, 1, 1), InputError, r"\(4, 1, 1\); expected"),
    (torch.zeros(0), InputError, r"\(0,\); expected"),
    (torch.zeros(16, 24, 3), InputError, r"\(16, 24, 3\); expected"),
    (torch.full((3, 1, 1), torch.nan), NonFiniteError, "nan"),
])  # fmt: skip
@pytest.mark.parametrize("method", [Occlusion, IntegratedGradients])
def test_what_is_no_baseline_is_refused(method: Any, given: Any, error: type[Exception], says: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(error, match=says):
        Explainer(model).explain(torch.rand(1, 3, 16, 24), method(baseline=given), target=1)


@pytest.mark.parametrize("method", [Occlusion, IntegratedGradients, SmoothGrad])
def test_a_seed_is_any_whole_number(method: Any) -> None:
    for seed in ("a", None, 1.5):
        with pytest.raises(InputError, match="seed is a whole number"):
            method(seed=seed)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    explainer, x = Explainer(model, transform=NORMALISED), torch.rand(1, 3, 16, 24)
    options: dict[str, Any] = {"samples": 2} if method is SmoothGrad else {"baseline": "noise"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)  # of too few steps
        maps = [explainer.explain(x, method(seed=seed, **options), target=1).map
                for seed in (0, -1, 2**70 + 7, np.int32(2**30), 2**30)]  # fmt: skip
    np.testing.assert_array_equal(maps[3], maps[4])
    assert not any(np.array_equal(one, other) for i, one in enumerate(maps[:4]) for other in maps[:i])


def test_noise_does_not_change_what_black_is():
    """Without a transform, inputs within 0..1 are pictures, and so are these with noise, which goes beyond."""
    explainer, images = Explainer(small_cnn()), torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    images[:, :, 0, :2] = torch.tensor([0.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)
        plain = explainer.explain(images, "integrated_gradients", target=1, steps=12).values
        base = IntegratedGradients(steps=12)
        noisy = explainer.explain(images, SmoothGrad(base=base, noise=0.02, samples=4), target=1).values
    assert np.corrcoef(plain.ravel(), noisy.ravel())[0, 1] > 0.98
    assert np.linalg.norm(noisy) == pytest.approx(np.linalg.norm(plain), rel=0.05)
