"""Max-sensitivity against Captum, and what it must be."""

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from captum.metrics import sensitivity_max
from trust_known import Linear, bright

from seewhy import Explainer, trust
from seewhy.errors import InputError
from seewhy.testing import small_cnn
from seewhy.trust.stability import noise

IMAGES = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))
IMAGES[:, 0, 0, 0], IMAGES[:, 0, 0, 1] = 0, 1  # so that the radius is a share of 1


def attribute(inputs, saliency, **options):
    """Captum gives the image in a tuple and its changes without, and wants the like back."""
    found = saliency.attribute((inputs[0] if isinstance(inputs, tuple) else inputs).clone().requires_grad_(), **options)
    return (found,) if isinstance(inputs, tuple) else found


def test_equal_to_captum_with_the_same_draws():
    model, count = small_cnn(), 6
    turn = iter(range(count))

    def perturb(inputs):
        return inputs + 0.05 * noise(IMAGES.shape[1:], 7, next(turn)).expand_as(inputs)

    expected = sensitivity_max(
        partial(attribute, saliency=Saliency(model)), IMAGES, perturb, n_perturb_samples=count,
        max_examples_per_batch=2, target=torch.tensor([1, 2]), abs=False,
    )  # fmt: skip
    explainer = Explainer(model)
    found = explainer.explain(IMAGES, "saliency", target=[1, 2])
    score = trust.max_sensitivity(explainer, found, radius=0.05, samples=count, seed=7)
    np.testing.assert_allclose(score.values, expected, rtol=1e-3)
    assert score.values.min() > 0


def test_a_linear_networks_gradient_never_changes():
    explainer = Explainer(Linear())
    found = explainer.explain(bright(2, (8, 10)), "saliency", target=1)
    np.testing.assert_array_equal(trust.max_sensitivity(explainer, found).values, 0)


def test_more_samples_and_a_wider_radius_find_no_less():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=1)
    few, many, wide = (
        trust.max_sensitivity(explainer, found, samples=n, radius=r).values for n, r in ((2, 0.01), (5, 0.01), (2, 0.3))
    )
    assert (many >= few).all()
    assert (wide > few).all()


def test_the_same_for_any_chunk():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=1)
    one, other = (trust.max_sensitivity(explainer, found, batch_size=size).values for size in (1, 16))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_a_radius_of_0_is_refused():
    explainer = Explainer(small_cnn())
    with pytest.raises(InputError, match="radius"):
        trust.max_sensitivity(explainer, explainer.explain(IMAGES, "saliency", target=1), radius=0)
