"""A bare network in the place of an explainer is told, by every function."""

import pytest
import torch

from seewhy import Explainer, inside
from seewhy.errors import InputTypeError
from seewhy.testing import small_cnn

IMAGES = torch.rand(4, 3, 16, 16)
CALLS = {
    "channels": lambda given: inside.channels(given, IMAGES[0], "left"),
    "maximize": lambda given: inside.maximize(given, "left", steps=1, size=16),
    "deep_dream": lambda given: inside.deep_dream(given, (IMAGES[0].movedim(0, -1)).numpy(), "left", steps=1),
    "embed": lambda given: inside.embed(given, IMAGES),
    "top_images": lambda given: inside.top_images(given, IMAGES, "left"),
    "cka": lambda given: inside.cka(given, IMAGES, "left"),
    "cka, other": lambda given: inside.cka(Explainer(small_cnn()), IMAGES, "left", other=given),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_bare_network(call):
    with pytest.raises(InputTypeError, match=r"an Explainer, not SmallCNN: wrap the network in Explainer\(model"):
        CALLS[call](small_cnn())


@pytest.mark.parametrize("call", CALLS)
def test_an_explainer(call):
    assert CALLS[call](Explainer(small_cnn()))
