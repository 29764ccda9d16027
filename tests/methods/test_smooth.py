"""SmoothGrad: the mean of its base over images with noise, as one gets it by explaining each of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import references
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn

import seewhy
from seewhy import Explainer, SeewhyWarning
from seewhy.errors import InputError, InputTypeError, LayerError, UnknownNameError
from seewhy.methods import GradCAM, IntegratedGradients, Occlusion, SmoothGrad
from seewhy.testing import check_method, small_cnn

BASES: list[Any] = ["saliency", "guided_backprop", IntegratedGradients(4, "mean"), "grad_cam", "guided_grad_cam"]
OTHERS: list[Any] = ["deconvnet", "cam", "activations", "ablation_cam", "score_cam", "recipro_cam", Occlusion(8, 8),
                     SmoothGrad(samples=2, seed=7)]  # fmt: skip
pytestmark = [
    pytest.mark.filterwarnings("ignore:Integrated gradients miss:seewhy.SeewhyWarning"),
    pytest.mark.filterwarnings("ignore:.*is 0 everywhere:seewhy.SeewhyWarning"),
]


def noisy(x: Tensor, number: int, noise: float, seed: int = 0) -> Tensor:
    """The image with the draw of that number, as the documentation of the method has it."""
    draw = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed * 1_000_003 + number))
    spread = torch.stack([image.max() - image.min() for image in x])
    return x + noise * spread.view(-1, 1, 1, 1) * draw.to(x)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_smoothed_saliency_is_the_mean_of_a_plain_loop(kind: str, seed: int) -> None:
    net, x = network(kind), images(size=SIZE)
    x[1] *= 3  # the noise follows the range of each image
    ours = explainer_of(net).explain(x, SmoothGrad(samples=5, noise=0.2, seed=seed), target=list(TARGETS))
    draws = [(noisy(x, number, 1, seed) - x)[:1] / (x[0].max() - x[0].min()) for number in range(5)]
    assert_equal(ours.values, references.smooth_grad(net, x, TARGETS, draws, 0.2))
    assert_equal(ours.maps, references.input_map(torch.tensor(ours.values)), 1e-6)


@pytest.mark.parametrize("base", [*BASES, *OTHERS], ids=lambda b: b if isinstance(b, str) else b.label)
def test_around_any_base_it_is_the_mean_of_what_that_says_of_each(base: Any) -> None:
    net, x = network("cnn"), images(size=SIZE)
    explainer, layer = explainer_of(net), None if base == "cam" else KINDS["cnn"].layer
    ours = explainer.explain(x, SmoothGrad(base, samples=3, noise=0.1), target=list(TARGETS), layer=layer)
    each = [explainer.explain(noisy(x, k, 0.1), base, target=list(TARGETS), layer=layer) for k in range(3)]
    mean = torch.tensor(np.mean([one.values for one in each], 0))
    assert_equal(ours.values, mean)
    assert ours.values.shape == each[0].values.shape
    assert ours.signed == each[0].signed
    assert ours.layer == each[0].layer
    assert ours.maps.shape == (2, *SIZE)


def test_around_cam_a_layer_where_cam_is_not_defined_is_refused() -> None:
    with pytest.raises(LayerError, match="CAM is defined at"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), SmoothGrad("cam"), target=1, layer="left")


@pytest.mark.parametrize("kind", KINDS)
def test_grad_cam_of_tokens_and_channels_last_is_smoothed_at_its_layer(kind: str) -> None:
    net, x = network(kind), images(size=SIZE)
    explainer = explainer_of(net)
    ours = explainer.explain(x, "smooth_grad", base="grad_cam", samples=3, noise=0.1, target=list(TARGETS))
    layer = ours.layer
    each = [explainer.explain(noisy(x, k, 0.1), target=list(TARGETS), layer=layer) for k in range(3)]
    assert_equal(ours.values, torch.tensor(np.mean([one.values for one in each], 0)))


def test_slow_guided_backprop_and_integrated_gradients_smoothed() -> None:
    net, x = network("cnn"), images(size=SIZE)
    start = torch.full((3, 1, 1), 0.25, dtype=torch.float64)
    draws = [(noisy(x[:1], k, 1) - x[:1]) / (x[0].max() - x[0].min()) for k in range(3)]

    def guided(image: Tensor, target: int) -> Tensor:
        return references.guided_backprop(net, image, [target])

    def integrated(image: Tensor, target: int) -> Tensor:
        return references.integrated_gradients(net, image, [target], start, 4)

    for slow, base in ((guided, "guided_backprop"), (integrated, IntegratedGradients(4, start))):
        ours = explainer_of(net).explain(x, SmoothGrad(base, samples=3, noise=0.1), target=list(TARGETS))
        assert_equal(ours.values, references.smoothed(slow, x, TARGETS, draws, 0.1))


def test_on_a_linear_network_noise_changes_nothing() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 4)).double()
    x = torch.rand(2, 3, 6, 8).double()
    ours = explainer_of(net).explain(x, "smooth_grad", target=2, samples=3, noise=5)
    assert_equal(ours.values, net[1].weight[2].view(3, 6, 8).expand(2, -1, -1, -1), 1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("base", ["saliency", "grad_cam"])
def test_chunks_change_nothing(base: str, batch_size: int) -> None:
    net, x = network("swin", torch.float32), images(3, SIZE, torch.float32)
    explainer, asked = explainer_of(net), {"base": base, "samples": 5, "target": [9, 4, 2], "layer": "layers.1"}
    usual = explainer.explain(x, "smooth_grad", **asked)
    ours = explainer.explain(x, "smooth_grad", batch_size=batch_size, **asked)
    assert_equal(ours.values, torch.tensor(usual.values), 1e-5)


def test_several_targets_of_an_image_share_their_draws() -> None:
    net, x = network("cnn"), images(size=SIZE)
    explainer, asked = explainer_of(net), {"base": "grad_cam", "samples": 3, "layer": "left"}
    pairs = explainer.explain(x, "smooth_grad", target=[[1, 2], [4, 0]], **asked)
    for row, (image, cls) in enumerate([(0, 1), (0, 2), (1, 4), (1, 0)]):
        alone = explainer.explain(x[image], "smooth_grad", target=cls, **asked)
        np.testing.assert_allclose(pairs.values[row], alone.values[0], atol=1e-4 * max(alone.values.max(), 1e-9))


def test_what_is_predicted_for_the_image_itself_is_followed_through_the_noise() -> None:
    """With noise as strong as here the greatest score is often another class's."""
    net, x = network("cnn"), images(1, SIZE) * 0.02
    best = int(net(x).argmax())
    others = {int(net(noisy(x, k, 30.0)).argmax()) for k in range(6)}
    assert others != {best}
    explainer = explainer_of(net)
    ours = explainer.explain(x, "smooth_grad", samples=6, noise=30.0)
    assert ours.targets.tolist() == [best]
    same = explainer.explain(x, "smooth_grad", samples=6, noise=30.0, target=best)
    assert_equal(ours.values, torch.tensor(same.values), 1e-6)


def test_a_flat_image_has_no_range_and_so_no_noise() -> None:
    net, x = small_cnn(), torch.full((1, 3, 16, 24), 0.4)
    explainer = Explainer(net)
    ours, plain = (explainer.explain(x, name, target=1) for name in ("smooth_grad", "saliency"))
    assert_equal(ours.values, torch.tensor(plain.values), 1e-5)


def test_what_the_base_warns_of_is_told() -> None:
    x = torch.rand(1, 3, 16, 24)
    with pytest.warns(SeewhyWarning, match="Integrated gradients miss") as said:
        Explainer(small_cnn()).explain(x, SmoothGrad(IntegratedGradients(1, "mean"), samples=9), target=1)
    assert len([one for one in said if "miss" in str(one.message)]) == 1
    odd = Explainer(small_cnn(), transform=lambda _: torch.rand(3, 16, 24) ** 2)
    with pytest.warns(SeewhyWarning, match="baseline='black' is 0"):
        odd.explain(x, SmoothGrad(IntegratedGradients(9), samples=2), target=1)


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"samples": 0}, InputError, "samples"),
    ({"samples": 2.5}, InputError, "samples"),
    ({"noise": 0}, InputError, "noise"),
    ({"noise": -0.1}, InputError, "noise"),
    ({"noise": float("nan")}, InputError, "noise"),
    ({"noise": float("inf")}, InputError, "noise"),
    ({"noise": "0.1"}, InputError, "noise"),
    ({"base": "salency"}, UnknownNameError, "saliency"),
    ({"base": 3}, InputTypeError, "method"),
    ({"base": ["saliency", "grad_cam"]}, InputTypeError, "one method, not 2"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        SmoothGrad(**options)


def test_what_was_asked_is_with_the_result() -> None:
    ours = Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), SmoothGrad(GradCAM(), samples=2), target=1)
    assert "base=GradCAM(name=None, libra=False, fuse=None), samples=2" in ours.provenance["options"]
    assert "_method" not in ours.provenance["options"]
    assert SmoothGrad("grad_cam", samples=np.int64(2), noise=np.float32(0.5)).needs.activation
    assert seewhy.methods.SmoothGrad() == SmoothGrad("saliency")


@pytest.mark.sweep
@pytest.mark.parametrize("base", BASES, ids=lambda b: b if isinstance(b, str) else b.label)
def test_around_each_base_it_keeps_what_is_promised_of_every_method(base: Any) -> None:
    check_method(SmoothGrad(base, samples=2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["saliency", "grad_cam"])
def test_squares_and_variances_are_those_of_the_samples(base: str, kind: str) -> None:
    """Each sample alone is smooth_grad's of it: of one copy the mean is the value."""
    net, x, layer = network(kind), images(size=SIZE), KINDS[kind].layer
    options = {"base": base, "noise": 0.2, "samples": 3}
    explainer = explainer_of(net)
    draws = [torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(n)).double() for n in range(3)]
    spread = 0.2 * (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True))
    each = np.stack([
        explainer.explain(x + spread * draw, base, target=list(TARGETS), layer=layer).values for draw in draws
    ]).astype(float)  # fmt: skip
    square = explainer.explain(x, "square_grad", target=list(TARGETS), layer=layer, **options)
    assert_equal(square.values, torch.tensor((each**2).mean(0)))
    variance = explainer.explain(x, "var_grad", target=list(TARGETS), layer=layer, **options)
    assert_equal(variance.values, torch.tensor(each.var(0)))
    assert not square.signed
    assert not variance.signed


def test_of_a_linear_network_squares_are_those_of_the_weights_and_nothing_varies() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 12, 2))
    x, explainer = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)), Explainer(model)
    weight = model[1].weight[1].detach().view(1, 3, 8, 12).numpy()
    square = explainer.explain(x, "square_grad", target=1, samples=4)
    np.testing.assert_allclose(square.values, weight**2, rtol=1e-5)
    with pytest.warns(SeewhyWarning, match="0 everywhere"):
        assert explainer.explain(x, "var_grad", target=1, samples=4).values.max() < 1e-12
