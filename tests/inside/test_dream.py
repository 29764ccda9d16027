"""Deep dream: the photo comes back changed as a layer would have it, and the network unchanged."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import Explainer, SeewhyWarning, samples
from seewhy.errors import GradientError, InputError, InputTypeError, NonFiniteError, UnknownNameError
from seewhy.inside.dream import Dream, deep_dream
from seewhy.testing import small_cnn, unchanged


@pytest.fixture
def explainer():
    return Explainer(small_cnn())


PHOTO = np.asarray(samples.photo("cat").resize((90, 70)))
FEW = {"octaves": 2, "steps": 4}


def test_what_is_returned(explainer):
    dream = deep_dream(explainer, PHOTO, "left", **FEW)
    assert dream.image.shape == dream.original.shape == (70, 90, 3)
    assert dream.image.dtype == np.uint8
    assert (dream.original == PHOTO).all()
    assert dream.history.shape == (1, 4)  # half the size would be below 64 pixels
    assert (dream.history[:, -1] > dream.history[:, 0]).all()
    change = np.abs(dream.image.astype(int) - PHOTO)
    assert 1 < change.mean() < 60


def test_the_layer_answers_more_than_it_did(explainer):
    dream = deep_dream(explainer, PHOTO, "body", channels=[1, 3], octaves=1, steps=8)
    answers = []
    for picture in (dream.original, dream.image):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        values = explainer.explain(
            (torch.tensor(picture).movedim(-1, 0).float() / 255 - mean) / std, "activations", layer="body"
        ).values
        answers.append((values[0, [1, 3]] ** 2).mean())
    assert answers[1] > 1.5 * answers[0]
    assert dream.history[0, 0] == pytest.approx(answers[0], rel=0.05)  # but for the shift


def test_a_seed_is_a_dream(explainer):
    one, two, other = (deep_dream(explainer, PHOTO, "left", seed=seed, **FEW) for seed in (0, 0, 1))
    assert (one.image == two.image).all()
    assert (one.image != other.image).any()


def test_octaves_go_from_small_to_the_photo(explainer):
    photo = samples.photo("cat").resize((200, 150))
    dream = deep_dream(explainer, photo, "left", octaves=9, scale=1.5, steps=1)
    assert dream.history.shape == (3, 1)  # 150, 100, 67 pixels high
    assert dream.image.shape == (150, 200, 3)


def test_the_photo_loses_no_detail_on_its_way_through_the_octaves(explainer):
    photo = samples.photo("cat").resize((200, 150))
    dream = deep_dream(explainer, photo, "left", octaves=3, steps=1, strength=1e-4)
    assert np.abs(dream.image.astype(int) - dream.original).mean() < 0.5


def test_a_large_photo_is_reduced(explainer):
    photo = np.full((300, 1024, 3), 128, np.uint8)
    assert deep_dream(explainer, photo, "left", octaves=1, steps=1).image.shape == (150, 512, 3)


def test_a_grey_network_dreams_in_grey():
    grey = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    with pytest.warns(SeewhyWarning, match="normalisation"):
        dream = deep_dream(Explainer(grey, transform=lambda image: torch.zeros(1, 16, 16)), PHOTO, "0", **FEW)
    assert (dream.image[..., 0] == dream.image[..., 1]).all()


def test_a_network_of_one_size_dreams_too():
    from torchvision.transforms import v2

    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 18 * 18, 3))
    steps = [v2.ToImage(), v2.Resize((20, 20)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
    dream = deep_dream(Explainer(fixed, transform=v2.Compose(steps)), PHOTO, "0", **FEW)
    assert dream.image.shape == PHOTO.shape
    assert dream.history[-1, -1] > dream.history[-1, 0]


def test_the_network_is_as_it_was():
    model = small_cnn().train()
    explainer = Explainer(model)
    with unchanged(model):
        deep_dream(explainer, PHOTO, "left", **FEW)
    model.left.register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        deep_dream(explainer, PHOTO, "left", **FEW)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"layer": "lefd"}, UnknownNameError, "Did you mean 'left'"),
        ({"layer": ["left", "body"]}, InputError, "one layer"),
        ({"channels": [8]}, InputError, "the layer has 8, 0 to 7"),
        ({"channels": []}, InputError, "empty"),
        ({"channels": [0.5]}, InputTypeError, "whole numbers"),
        ({"seed": -1}, InputError, "seed must be"),
        ({"scale": 1}, InputError, "scale must be above 1"),
        ({"strength": 0}, InputError, "strength above 0"),
        ({"scale": "a"}, InputError, "scale must be above 1"),
        ({"octaves": 0}, InputError, "octaves must be"),
        ({"steps": 0}, InputError, "steps must be"),
        ({"image": "nope.png"}, FileNotFoundError, "nope.png"),
    ],
)
def test_mistakes(explainer, asked, error, message):
    given = {"image": PHOTO, "layer": "left", **FEW, **asked}
    with unchanged(explainer.model), pytest.raises(error, match=message):
        deep_dream(explainer, given.pop("image"), given.pop("layer"), **given)


def test_a_layer_that_does_not_see_the_photo():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x.detach()).mean((2, 3))

    with pytest.raises(GradientError, match="nothing to dream of"):
        deep_dream(Explainer(Cut()), PHOTO, "conv", **FEW)


def test_dead_channels_and_broken_weights_give_no_dream():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    model[0].bias.data[1] = -1000
    with unchanged(model), pytest.raises(GradientError, match="these channels are dead"):
        deep_dream(Explainer(model), PHOTO, "1", channels=1, **FEW)
    assert (deep_dream(Explainer(model), PHOTO, "1", **FEW).image != PHOTO).any()
    model[0].bias.data[1] = torch.nan
    with unchanged(model), pytest.raises(NonFiniteError, match="NaN or infinity"):
        deep_dream(Explainer(model), PHOTO, "1", **FEW)


def test_pictures_and_files(explainer, tmp_path):
    dream = deep_dream(explainer, PHOTO, "left", **FEW)
    assert dream._repr_png_()
    dream.save(tmp_path / "dream")
    again = Dream.load(tmp_path / "dream")
    assert (again.image == dream.image).all()
    assert repr(again) == "Dream(layer='left', image=(70, 90, 3), 1 octave of 4 steps)"
