"""What `maximize` promises, measured on the trained sample network."""

import time

import numpy as np
import pytest
import torch

from seewhy import samples
from seewhy.engine.ascent import Ascent
from seewhy.engine.borrow import borrowed
from seewhy.engine.inputs import ModelInputs
from seewhy.inside.maximize import maximize
from seewhy.inside.objectives import Channel, Seen
from seewhy.layers import find_layers

pytestmark = pytest.mark.sweep
SIZE = 96
CHANNELS = {"_blocks.1": 24, "_blocks.5": 64, "_blocks.12": 64}  # early, middle, late


@pytest.fixture(scope="module")
def explainer():
    return samples.explainer()


@pytest.fixture(scope="module")
def crops():
    """500 natural crops, uint8 (500, 96, 96, 3), half of them of twice the size."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    photos = [np.asarray(samples.photo(name)) for name in samples.PHOTOS]
    photos += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    photos += [skimage.data.astronaut(), skimage.data.rocket()]
    draw, found = np.random.default_rng(0), []
    for i in range(500):
        photo, step = photos[i % len(photos)], 1 + i % 2
        top, left = (draw.integers(0, side - SIZE * step + 1) for side in photo.shape[:2])
        found.append(photo[top : top + SIZE * step : step, left : left + SIZE * step : step])
    return np.stack(found)


def excitement(explainer, layer, pictures):
    """The objective of every channel for pictures (n, s, s, 3): (n, C)."""
    mean, std = 127 / 255, 128 / 255
    batch = (torch.tensor(pictures).movedim(-1, 1).float() / 255 - mean) / std
    model, parts = explainer.model, []
    with borrowed(model), torch.no_grad():
        ascent = Ascent(model, find_layers(model, layer), None, ModelInputs(), output=False)
        for chunk in batch.split(50):
            activations, _ = ascent(chunk)
            width = activations[layer].shape[1]
            parts.append(torch.stack([Channel(layer, i).value(Seen(activations)) for i in range(width)], 1))
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("layer", CHANNELS)
def test_what_is_found_excites_its_channel_more_than_any_of_500_natural_crops(explainer, crops, layer):
    found = maximize(explainer, layer, channels=range(CHANNELS[layer]), size=SIZE, steps=64)
    risen = found.history[-1] > found.history[0]
    reached = excitement(explainer, layer, found.images).diagonal()
    natural = excitement(explainer, layer, crops)[:, : CHANNELS[layer]].max(0)
    print(f"\n{layer}: {risen.mean():.1%} rose, {(reached > natural).mean():.1%} above every crop")
    assert risen.mean() >= 0.95
    assert (reached > natural).mean() >= 0.8


def test_a_batch_of_64_gives_what_single_runs_give_and_costs_less(explainer):
    started = time.perf_counter()
    batch = maximize(explainer, "_blocks.5", channels=range(64), size=64, steps=48)
    together = (time.perf_counter() - started) / 64
    alone = [maximize(explainer, "_blocks.5", channels=[i], size=64, steps=48) for i in range(0, 64, 16)]
    each = (time.perf_counter() - started - 64 * together) / 4
    print(f"\none filter of a batch of 64 costs {together / each:.2f} of a single run")
    for single, i in zip(alone, range(0, 64, 16), strict=True):
        assert single.history[-1, 0] == pytest.approx(batch.history[-1, i], rel=0.02)
