"""Integrated gradients: exact against Captum and a slow loop, complete, and honest where the steps are too few."""

from __future__ import annotations

import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import references
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, named_baseline, network
from torch import Tensor, nn

import seewhy
from seewhy import Explainer, SeewhyWarning
from seewhy.errors import InputError
from seewhy.methods import IntegratedGradients
from seewhy.testing import check_method, small_cnn

MISS = "Integrated gradients miss"
pytestmark = pytest.mark.filterwarnings(f"ignore:{MISS}:seewhy.SeewhyWarning")


def explained(net: nn.Module, x: Tensor, method: Any, **asked: Any) -> seewhy.Explanation:
    return explainer_of(net).explain(x, method, **{"target": list(TARGETS[: len(x)]), **asked})


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_captum_from_a_baseline_of_many_values(kind: str, steps: int) -> None:
    net, x = network(kind), images(size=SIZE)
    start = images(3, SIZE)[2]
    ours = explained(net, x, IntegratedGradients(steps, start))
    theirs = captum.attr.IntegratedGradients(net).attribute(
        x, start.expand_as(x).contiguous(), target=[*TARGETS], n_steps=steps
    )
    assert_equal(ours.values, theirs)
    assert_equal(ours.maps, theirs.sum(1))


@pytest.mark.parametrize("name", ["black", "white", "mean", "blur", "noise"])
def test_equal_to_a_slow_loop_from_each_named_baseline(name: str) -> None:
    net, x = network("cnn"), images(1, SIZE)
    start = named_baseline(name, x)
    ours = explained(net, x, IntegratedGradients(6, name, seed=5))
    assert_equal(ours.values, references.integrated_gradients(net, x, TARGETS[:1], start, 6), 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_add_up_to_the_difference_of_the_scores(kind: str) -> None:
    net, x = network(kind), images(size=SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SeewhyWarning)
        ours = explained(net, x, IntegratedGradients(100, "blur"))
    assert ours.measures["completeness_error"].max() < 0.05


def test_the_completeness_error_is_what_the_values_miss() -> None:
    net, x = network("cnn"), images(size=SIZE)
    start = torch.full((3, 1, 1), 0.3, dtype=torch.float64)
    ours = explained(net, x, IntegratedGradients(2, start))
    with torch.no_grad():
        change = net(x) - net(start.expand_as(x).contiguous())
    change = change[[0, 1], [*TARGETS]].numpy()
    missing = np.abs(ours.values.sum((1, 2, 3), dtype=np.float64) - change) / np.abs(change)
    assert missing.max() > 0.01
    np.testing.assert_allclose(ours.measures["completeness_error"], missing, rtol=1e-3)


def test_a_warning_over_five_percent_and_none_below() -> None:
    net, x = network("cnn"), images(1, SIZE)
    for steps in (1, 2, 3, 200):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", SeewhyWarning)
            error = float(explained(net, x, IntegratedGradients(steps, "mean")).measures["completeness_error"][0])
        assert any(MISS in str(one.message) for one in said) == (error > 0.05), (steps, error)
    assert error < 0.05


def test_of_many_images_one_warning_says_it() -> None:
    net, x = network("cnn"), images(6, SIZE)
    with pytest.warns(SeewhyWarning, match=MISS) as said:
        ours = explained(net, x, IntegratedGradients(1, "mean"), target=3, batch_size=1)
    assert (ours.measures["completeness_error"] > 0.05).sum() > 1
    assert len(said) == 1


def test_one_step_is_exact_on_a_linear_network() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 4)).double()
    x, start = torch.rand(2, 3, 6, 8).double(), torch.rand(3, 6, 8).double()
    ours = explainer_of(net).explain(x, "integrated_gradients", target=2, steps=1, baseline=start)
    assert_equal(ours.values, net[1].weight[2].view(3, 6, 8) * (x - start), 1e-6)
    assert ours.measures["completeness_error"].max() < 1e-6


def test_of_a_cube_two_points_are_exact_and_one_is_not() -> None:
    """n points integrate polynomials of degree 2n - 1: of x³ the derivative is of degree 2."""

    class Cube(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1), (x**3).flatten(1).sum(1)], 1)

    x, zero = torch.rand(1, 3, 4, 6).double() + 0.5, torch.zeros(1)
    two, one = (Explainer(Cube()).explain(x, IntegratedGradients(n, zero), target=1) for n in (2, 1))
    assert_equal(two.values, x**3, 1e-6)
    assert_equal(one.values, x * 3 * (x / 2) ** 2, 1e-6)
    assert one.measures["completeness_error"][0] == pytest.approx(0.25, abs=1e-5)


def test_an_image_that_is_its_own_baseline_has_nothing_and_misses_nothing() -> None:
    x = torch.rand(1, 3, 16, 24)
    with pytest.warns(SeewhyWarning, match="0 everywhere"):
        ours = Explainer(small_cnn()).explain(x, "integrated_gradients", target=1, steps=3, baseline=x[0])
    assert not ours.values.any()
    assert ours.measures["completeness_error"].tolist() == [0]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_chunks_change_nothing(batch_size: int) -> None:
    net, x = network("vit", torch.float32), images(3, SIZE, torch.float32)
    usual = explained(net, x, IntegratedGradients(7, "blur"), target=[9, 4, 2])
    ours = explained(net, x, IntegratedGradients(7, "blur"), target=[9, 4, 2], batch_size=batch_size)
    assert_equal(ours.values, torch.tensor(usual.values), 1e-5)
    np.testing.assert_allclose(ours.measures["completeness_error"], usual.measures["completeness_error"], atol=1e-4)


def test_the_class_predicted_for_the_image_is_followed_to_a_baseline_of_another() -> None:
    net, x = network("cnn"), images(1, SIZE)
    start = images(3, SIZE)[2] * 0.01
    best, other = int(net(x).argmax()), int(net(start[None]).argmax())
    assert best != other
    whole = explainer_of(net).explain(x, IntegratedGradients(5, start))
    assert whole.targets.tolist() == [best]
    assert_equal(whole.values, references.integrated_gradients(net, x, [best], start, 5))


@pytest.mark.parametrize("steps", [0, -3, 2.5, "7", True])
def test_steps_are_a_whole_number(steps: Any) -> None:
    with pytest.raises(InputError, match="steps"):
        IntegratedGradients(steps)


def test_it_keeps_what_is_promised_of_every_method() -> None:
    check_method("integrated_gradients", steps=4, baseline="mean")
