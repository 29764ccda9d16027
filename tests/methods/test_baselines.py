"""What is put in the place of an image: colours by the model's own transform, or whatever is given."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from seewhy import Explainer, SeewhyWarning
from seewhy.engine.record import Record
from seewhy.errors import InputError, InputTypeError
from seewhy.methods import IntegratedGradients, Occlusion
from seewhy.methods.baselines import make_baseline

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
NORMALISED = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def record(transform: Any = NORMALISED, channels: int = 3, x: Tensor | None = None) -> Record:
    explainer = Explainer(nn.Sequential(nn.Conv2d(channels, 2, 1), nn.Flatten()), transform=transform)
    x = torch.randn(2, channels, 20, 30, generator=torch.Generator().manual_seed(0)) if x is None else x
    return Record(input=x, to_input=explainer._to_input)


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
