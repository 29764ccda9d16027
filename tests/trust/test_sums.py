"""Infidelity against Captum and in closed form, µFidelity and completeness on linear networks."""

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import infidelity_perturb_func_decorator
from trust_known import Linear, bright

from seewhy import Explainer, trust
from seewhy.errors import InputError
from seewhy.testing import small_cnn
from seewhy.trust.sums import draw

IMAGES = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))
ZERO = torch.zeros(1)


def unit_range(images):
    """Images whose values go from 0 to 1, so that a share of the range is the noise itself."""
    images = images.clone()
    images[:, 0, 0, 0], images[:, 0, 0, 1] = 0, 1
    return images


@pytest.mark.parametrize("normalise", [False, True])
def test_equal_to_captum_with_the_same_draws(normalise):
    model, images, count = small_cnn(), unit_range(IMAGES), 12
    explainer = Explainer(model)
    found = explainer.explain(images, "saliency", target=[1, 2])
    turn = iter(range(count))

    def perturb(inputs):
        noise = 0.1 * draw(images.shape[1:], 3, next(turn)).expand_as(inputs)
        return noise, inputs - noise

    expected = captum_infidelity(
        model, perturb, images, torch.tensor(found.values), target=torch.tensor([1, 2]), n_perturb_samples=count,
        max_examples_per_batch=2, normalize=normalise,
    )  # fmt: skip
    score = trust.infidelity(
        explainer, found, perturbation="noise", noise=0.1, samples=count, seed=3, normalise=normalise
    )
    np.testing.assert_allclose(score.values, expected.detach(), rtol=2e-3, atol=1e-7)


def test_equal_to_captum_where_shares_of_the_score_are_attributed():
    model, images, count = small_cnn(), unit_range(IMAGES), 12
    explainer = Explainer(model)
    found = explainer.explain(images, "input_x_gradient", target=[1, 2])
    turn = iter(range(count))

    @infidelity_perturb_func_decorator(multiply_by_inputs=True)
    def perturb(inputs):
        return inputs - 0.1 * draw(images.shape[1:], 3, next(turn)).expand_as(inputs)

    expected = captum_infidelity(
        model, perturb, images, torch.tensor(found.values), target=torch.tensor([1, 2]), n_perturb_samples=count,
        max_examples_per_batch=2,
    )  # fmt: skip
    score = trust.infidelity(
        explainer, found, perturbation="noise", noise=0.1, samples=count, seed=3, normalise=False, baseline=ZERO
    )
    np.testing.assert_allclose(score.values, expected.detach(), rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("perturbation", ["square", "noise"])
@pytest.mark.parametrize("method", ["saliency", "input_x_gradient"])
def test_a_linear_networks_gradient_is_right_to_the_last_bit(method, perturbation):
    explainer, images = Explainer(Linear().double()), bright(2, (8, 10)).double()
    found = explainer.explain(images, method, target=1)
    score = trust.infidelity(explainer, found, perturbation=perturbation, baseline=ZERO, normalise=False, samples=20)
    assert score.numbers["worst"].min() > 0.1
    assert score.values.max() < 1e-8
    wrong = trust.infidelity(
        explainer, -found.values.sum(1), images=images, target=1, perturbation=perturbation, baseline=ZERO,
        normalise=False, samples=20,
    )  # fmt: skip
    assert wrong.values.min() > score.numbers["worst"].min()


def test_scaling_the_map_changes_nothing_where_it_is_normalised():
    explainer = Explainer(small_cnn())
    maps = torch.rand(2, 16, 20)
    one, other = (
        trust.infidelity(explainer, scale * maps, images=IMAGES, target=1, samples=20, baseline=ZERO)
        for scale in (1, 1000)
    )
    np.testing.assert_allclose(one.values, other.values, rtol=1e-4)
    assert (one.values <= one.numbers["worst"] + 1e-9).all()


@pytest.mark.parametrize("window", [1, 100])
def test_windows_of_a_pixel_and_beyond_the_image(window):
    explainer, images = Explainer(Linear().double()), bright(1, (8, 10)).double()
    found = explainer.explain(images, "input_x_gradient", target=1)
    score = trust.infidelity(explainer, found, window=window, baseline=ZERO, normalise=False, samples=10)
    assert score.values.max() < 1e-8
    if window == 100:  # everything goes, each time
        difference = float(images.flatten() @ explainer.model.weight[1].detach().flatten())
        assert score.numbers["worst"][0] == pytest.approx(difference**2, rel=1e-5)


def test_mufidelity_of_a_linear_network_is_1_and_of_its_opposite_minus_1():
    explainer, images = Explainer(Linear().double()), bright(2, (8, 10)).double()
    found = explainer.explain(images, "input_x_gradient", target=1)
    options = {"grid": 3, "samples": 40, "baseline": ZERO}
    np.testing.assert_allclose(trust.mufidelity(explainer, found, **options).values, 1, atol=1e-6)
    opposite = trust.mufidelity(explainer, -found.values.sum(1), images=images, target=1, **options)
    np.testing.assert_allclose(opposite.values, -1, atol=1e-6)


def test_mufidelity_by_hand():
    model = small_cnn()
    explainer = Explainer(model)
    found = explainer.explain(IMAGES, "saliency", target=1)
    score = trust.mufidelity(explainer, found, grid=4, subset=0.25, samples=15, baseline=ZERO)
    drawn = torch.rand(15, 16, generator=torch.Generator().manual_seed(0)).argsort(1).argsort(1) < 4
    for i in range(2):
        sums, falls = [], []
        for cells in drawn:
            where = cells.view(4, 4).repeat_interleave(4, 0).repeat_interleave(5, 1)
            changed = torch.where(where, 0, IMAGES[i])
            with torch.no_grad():
                falls.append(float(model(IMAGES[i : i + 1])[0, 1] - model(changed[None])[0, 1]))
            sums.append(float(found.values[i].sum(0)[where.numpy()].sum()))
        assert score.values[i] == pytest.approx(np.corrcoef(sums, falls)[0, 1], abs=1e-3)


def test_completeness_in_closed_form():
    explainer, images = Explainer(Linear().double()), bright(2, (8, 10)).double()
    found = explainer.explain(images, "input_x_gradient", target=1)
    np.testing.assert_allclose(trust.completeness(explainer, found, baseline=ZERO).values, 0, atol=1e-6)
    double = trust.completeness(explainer, 2 * found.values.sum(1), images=images, target=1, baseline=ZERO)
    np.testing.assert_allclose(double.values, 1, rtol=1e-5)
    np.testing.assert_allclose(double.numbers["sum"], 2 * double.numbers["difference"], rtol=1e-5)


def test_completeness_takes_the_methods_own_baseline():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "integrated_gradients", target=1, baseline="blur", steps=200)
    own, other = trust.completeness(explainer, found), trust.completeness(explainer, found, baseline=ZERO)
    assert own.mean < 0.05
    assert other.mean > 2 * own.mean


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (trust.infidelity, {"perturbation": "circle"}),
        (trust.infidelity, {"noise": 0}),
        (trust.mufidelity, {"subset": 1}),
        (trust.mufidelity, {"grid": 0}),
        (trust.completeness, {"baseline": "grey"}),
    ],
)
def test_options_out_of_range_are_refused(metric, options):
    explainer = Explainer(small_cnn())
    with pytest.raises(InputError):
        metric(explainer, explainer.explain(IMAGES[:1], "saliency", target=1), **options)


def test_attributions_are_held_against_what_they_were_measured_against():
    explainer = Explainer(Linear((3, 9, 9)))
    images = bright(2, (9, 9))
    found = explainer.explain(images, "integrated_gradients", target=1, baseline="mean")  # exact, from the mean colour
    np.testing.assert_allclose(trust.mufidelity(explainer, found, samples=40).values, 1, atol=1e-6)
    assert trust.infidelity(explainer, found, samples=20, normalise=False).mean < 1e-6
    assert trust.infidelity(explainer, found, samples=20, normalise=False, baseline=ZERO).mean > 1
    several = explainer.explain(images, "gradient_shap", target=1, baseline=[ZERO, ZERO + 1], samples=4)
    with pytest.raises(InputError, match="several baselines"):
        trust.completeness(explainer, several)


def test_superpixels_add_up_once_each():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "kernel_shap", target=1, segments=6)
    assert found.measures["completeness_error"].max() < 1e-5
    assert explainer.check(found)["complete"].answer == "yes"
    np.testing.assert_array_equal(trust.completeness(explainer, found).values, found.measures["completeness_error"])
    with pytest.raises(InputError, match="pixels do not add up"):
        trust.completeness(explainer, explainer.explain(IMAGES, "lime", target=1, segments=6, samples=40))


def test_a_constant_map_has_no_correlation_with_anything():
    explainer = Explainer(small_cnn())
    given = {"images": IMAGES, "target": 1, "baseline": "mean", "samples": 20}
    assert trust.mufidelity(explainer, torch.ones(2, 16, 20), grid=3, **given).undefined == 2  # cells of unequal sizes
