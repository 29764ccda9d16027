"""Ablation-CAM, Score-CAM and Recipro-CAM: exact against slow loops and others' packages, and what they must obey."""

from __future__ import annotations

import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import references
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import Explainer, SeewhyWarning
from seewhy.errors import GradientError, InputError
from seewhy.methods import AblationCAM, ReciproCAM, ScoreCAM
from seewhy.testing import check_method, small_cnn

WRITTEN = {"left": "right"}  # what comes out of it is written to, which others do not see; this one is like it
pytestmark = pytest.mark.filterwarnings("ignore:.*is 0 everywhere for image:seewhy.SeewhyWarning")


def explained(net: nn.Module, x: Tensor, method: Any, **asked: Any) -> seewhy.Explanation:
    return explainer_of(net).explain(x, method, **{"target": list(TARGETS[: len(x)]), **asked})


# --- against others


@pytest.mark.parametrize("kind", KINDS)
def test_ablation_cam_equals_captums_ablation_of_each_channel(kind: str) -> None:
    """Captum's gives S - S_k for each channel; of tokens, only those of the grid are of the channel."""
    net, x, (_, layer, form) = network(kind), images(size=SIZE), KINDS[kind]
    layer = WRITTEN.get(layer, layer)
    native = references.activations(net, x[:1], layer)
    grid = form.there(native)
    channel = torch.arange(grid.shape[1]).view(1, -1, 1, 1).expand(grid.shape)
    features = form.back(torch.full_like(native, grid.shape[1]).long(), channel)
    ablation = captum.attr.LayerFeatureAblation(net, net.get_submodule(layer))
    with torch.no_grad():
        falls = ablation.attribute(x, target=[*TARGETS], layer_mask=features)
        scores = net(x)[[0, 1], [*TARGETS]].abs()
    a = form.there(references.activations(net, x, layer))
    weights = form.there(falls)[:, :, 0, 0] / scores[:, None]
    expected = torch.einsum("nc,nchw->nhw", weights, a).relu()
    assert_equal(explained(net, x, "ablation_cam", layer=layer).values, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_ablation_cam_equals_a_slow_loop(kind: str) -> None:
    net, x, (_, layer, form) = network(kind), images(size=SIZE), KINDS[kind]
    ours = explained(net, x, "ablation_cam", layer=layer)
    assert_equal(ours.values, references.ablation_cam(net, x, TARGETS, layer, form))
    assert_equal(ours.maps, references.layer_map(torch.tensor(ours.values), SIZE), 1e-5)


@pytest.mark.parametrize("channels", [None, 5, 1, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_score_cam_equals_a_slow_loop(kind: str, channels: int | None) -> None:
    net, x, (_, layer, form) = network(kind), images(size=SIZE), KINDS[kind]
    ours = explained(net, x, ScoreCAM(channels), layer=layer)
    assert_equal(ours.values, references.score_cam(net, x, TARGETS, layer, channels, form))


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_recipro_cam_equals_a_slow_loop(kind: str, gaussian: bool) -> None:
    net, x, (_, layer, form) = network(kind), images(size=SIZE), KINDS[kind]
    if kind == "cnn":  # its grid is the finest
        x = x[..., :16, :24]
    ours = explained(net, x, ReciproCAM(gaussian), layer=layer)
    assert_equal(ours.values, references.recipro_cam(net, x, TARGETS, layer, gaussian, form))
    np.testing.assert_allclose(ours.values.min((1, 2)), 0, atol=1e-7)
    np.testing.assert_allclose(ours.values.max((1, 2)), 1, atol=1e-7)


@pytest.fixture
def peer() -> Any:
    return pytest.importorskip("pytorch_grad_cam", reason="comes with the test extra")


def weights_of(cam: Any, net: nn.Module, x: Tensor, target: int, layer: str) -> tuple[np.ndarray, Tensor]:
    """The weights of the channels in pytorch-grad-cam, and the activation."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam.activations_and_grads(x)
    a = cam.activations_and_grads.activations[0]
    targets = [ClassifierOutputTarget(target)]
    return cam.get_cam_weights(x, net.get_submodule(layer), targets, a.numpy(), None), a


def test_ablation_cam_has_pytorch_grad_cams_weights_where_the_score_is_positive(peer: Any) -> None:
    """Where a layer gives anything below 0 that one puts -1e7 in the place of a channel; after a ReLU it puts 0."""
    net, x = network("cnn", torch.float32), images(1, SIZE, torch.float32)
    target = int(net(x).argmax())
    assert net(x)[0, target] > 0
    ours = explained(net, x, AblationCAM(), target=target, layer="stem")
    weights, a = weights_of(peer.AblationCAM(net, [net.stem]), net, x, target, "stem")
    weights = torch.as_tensor(np.asarray(weights)).reshape(1, -1)
    assert_equal(ours.values, torch.einsum("nc,nchw->nhw", weights.float(), a).relu())


def test_score_cam_has_pytorch_grad_cams_weights_but_for_where_corners_are(
    peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = network("cnn", torch.float32), images(1, SIZE, torch.float32)
    ours = explained(net, x, ScoreCAM(), target=3, layer="right")
    expected = {}
    for aligned in (False, True):
        monkeypatch.setattr(
            nn, "UpsamplingBilinear2d", lambda size, a=aligned: nn.Upsample(size, mode="bilinear", align_corners=a)
        )
        weights, a = weights_of(peer.ScoreCAM(net, [net.right]), net, x, 3, "right")
        expected[aligned] = torch.einsum("nc,nchw->nhw", torch.as_tensor(weights), a).relu()
    assert_equal(ours.values, expected[False])
    assert_equal(ours.values, expected[True], 0.2)


# --- what they must obey


class Backbone(nn.Module):
    """As those of Hugging Face: the positions and what was pooled of them, which alone the head reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.last(torch.tanh(self.first(x)))
        return a, a.tanh().mean((2, 3))


class Pooled(nn.Module):
    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.frozen = Backbone(), nn.Linear(8, 5), frozen
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.head(self.body(x)[1])


ASKED_AT_A_LAYER = ["ablation_cam", "recipro_cam"]


@pytest.mark.parametrize("method", ASKED_AT_A_LAYER)
def test_a_layer_is_chosen_whose_own_result_the_model_reads(method: str) -> None:
    x, explainer = images(2, (16, 24)), explainer_of(Pooled())
    found = explainer.explain(x, method, target=[1, 2])
    assert found.layer == "body.last"
    assert found.values.any((1, 2)).all()
    np.testing.assert_array_equal(
        found.values, explainer_of(Pooled()).explain(x, method, target=[1, 2], layer="body.last").values
    )
    again = explainer.explain(x[:1], method, target=1)
    np.testing.assert_array_equal(again.values, found.values[:1], err_msg="remembered")


def test_grad_cam_takes_the_last_layer_as_ever_before_and_after_and_has_the_same_values_beside() -> None:
    x, explainer = images(2, (16, 24)), explainer_of(Pooled())
    alone = explainer.explain(x, "grad_cam", target=[1, 2])
    beside = explainer.explain(x, ["ablation_cam", "grad_cam"], target=[1, 2])
    assert (alone.layer, beside["grad_cam"].layer) == ("body", "body.last")
    assert alone.values.any()
    np.testing.assert_allclose(beside["grad_cam"].values, alone.values, rtol=1e-6)
    assert explainer.explain(x, "grad_cam", target=[1, 2]).layer == "body"


@pytest.mark.parametrize("method", ASKED_AT_A_LAYER)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_named_layer_whose_result_nothing_reads_is_refused(method: str, frozen: bool) -> None:
    """Its gradient is not 0: what it returns is read inside it. A frozen network has none anywhere."""
    x = images(2, (16, 24))
    with pytest.raises(GradientError, match="No gradient of the score arrives at layer 'body'"):
        explainer_of(Pooled(frozen)).explain(x, method, target=[1, 2], layer="body")
    assert explainer_of(Pooled(frozen)).explain(x, method, target=[1, 2], layer="body.last").values.any()
    assert explainer_of(Pooled()).explain(x, "score_cam", target=[1, 2], layer="body").values.any(), "only looks there"


@pytest.mark.parametrize("method", ASKED_AT_A_LAYER)
def test_positions_that_a_class_token_does_not_read_are_refused(method: str) -> None:
    with pytest.raises(GradientError, match=r"blocks\.2"):
        explained(network("vit"), images(size=SIZE), method, layer="blocks.2")


class Heads(nn.Module):
    """Scores are linear in the means of `relu`'s channels: 0, 2 and 4 count, the others are not looked at."""

    def __init__(self, bias: float = 0.0, sign: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.relu, self.after = nn.ReLU(), nn.Identity()
        self.register_buffer("weight", sign * torch.tensor([1.0, 0, 2, 0, -1, 0]))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.after(self.relu(self.body(x))).mean((2, 3))
        score = pooled @ self.weight + self.bias
        return torch.stack([score, -score], 1)


def test_a_channel_that_nobody_looks_at_weighs_nothing() -> None:
    """A channel's weight here is its own share of the score, so the map is known."""
    net, x = Heads().double(), torch.rand(2, 3, 8, 12).double()
    ours = Explainer(net).explain(x, "ablation_cam", target=0, layer="relu")
    a = net.body(x).relu()
    score = net(x)[:, 0]
    shares = a.mean((2, 3)) * net.weight / score.abs()[:, None]
    assert (shares[:, 1::2] == 0).all()
    assert_equal(ours.values, torch.einsum("nc,nchw->nhw", shares, a).relu(), 1e-6)
    a[:, 1::2] = 1e6 * torch.rand(2, 3, 8, 12)
    with torch.no_grad():
        net.body.weight[1::2] *= 1e3
    loud = Explainer(net).explain(x, "ablation_cam", target=0, layer="relu")
    assert_equal(loud.values, torch.tensor(ours.values))


def test_where_the_score_is_negative_what_argues_for_it_still_weighs_positively() -> None:
    """The paper divides by S, which would turn the map upside down."""
    x = torch.rand(2, 3, 8, 12)
    net, low = Heads(), Heads(bias=-50.0)
    low.load_state_dict(net.state_dict())
    high_map, low_map = (Explainer(one).explain(x, "ablation_cam", target=0, layer="relu").values for one in (net, low))
    scores = net(x)[:, 0], low(x)[:, 0]
    assert (scores[1] < 0).all()
    factor = (scores[1].abs() / scores[0].abs()).view(-1, 1, 1).detach().numpy()
    np.testing.assert_allclose(low_map * factor, high_map, atol=2e-4 * high_map.max())


def test_where_the_score_is_zero_the_falls_are_not_divided_and_that_is_told() -> None:
    net, x = Heads(), torch.rand(3, 3, 8, 12)
    x[1] = 0
    with torch.no_grad():
        net.body.bias.zero_()  # so that the blank image scores 0 without any rounding
    with pytest.warns(SeewhyWarning, match="S is 0 for some image") as said:
        ours = Explainer(net).explain(x, "ablation_cam", target=0, layer="body")
    assert len([one for one in said if "S is 0" in str(one.message)]) == 1
    assert not ours.values[1].any()
    alone = Explainer(net).explain(x[:1], "ablation_cam", target=0, layer="body")
    assert_equal(ours.values[:1], torch.tensor(alone.values), 1e-5)

    level = float(net(x[:1]).detach()[0, 0])
    with pytest.warns(SeewhyWarning, match="S is 0"):
        undivided = Explainer(net).explain(x[:1], "ablation_cam", target=lambda s: s[:, 0] - level, layer="body")
    assert_equal(undivided.values, torch.tensor(alone.values) * abs(level), 1e-4)


def test_after_a_functional_relu_too() -> None:
    """The score is linear in the means of what the ReLU gives, so each channel's fall is its own share."""
    net, x = small_cnn().double(), torch.rand(2, 3, 16, 24).double()
    pooled = Explainer(net).explain(x, "activations", layer="body+relu")
    a = torch.tensor(pooled.values).double()
    for target in range(5):
        ours = Explainer(net).explain(x, "ablation_cam", target=target, layer="body+relu")
        shares = a.mean((2, 3)) * net.head.weight[target] / net(x)[:, target, None].abs()
        expected = torch.einsum("nc,nchw->nhw", shares, a).relu().detach().numpy()
        np.testing.assert_allclose(ours.values, expected, atol=1e-5 * max(expected.max(), 1e-3))


def test_channels_that_are_zero_anyway_are_not_run_without() -> None:
    net, x, seen = Heads(), torch.rand(1, 3, 8, 12), []
    with torch.no_grad():
        net.body.weight[2:] = 0
        net.body.bias[2:] = -1
    net.after.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    explainer = Explainer(net)
    explainer.explain(x, "ablation_cam", target=0, layer="relu")  # whether replays are right is tried once
    seen.clear()
    found = explainer.explain(x, "ablation_cam", target=0, layer="relu")
    assert sum(seen) == 1 + 2
    a = net.relu(net.body(x)).detach()
    shares = a.mean((2, 3)) * net.weight / net(x)[:, :1].detach().abs()
    assert_equal(found.values, torch.einsum("nc,nchw->nhw", shares, a).relu())


def test_channels_that_are_dead_or_flat_cost_score_cam_one_run_and_change_nothing() -> None:
    """Score-CAM's masks are 0 for them: the score is that of a blank image, which each of them is given."""
    net, x = network("cnn"), images(size=SIZE)
    with torch.no_grad():
        net.left.weight[1:9] = 0
        net.left.bias[1:9] = torch.tensor([0.0, 0, 0, 0, 0.7, -0.7, 2, 5])
    expected = references.score_cam(net, x, TARGETS, "left")
    seen: list[int] = []
    handle = net.stem.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    ours = explained(net, x, "score_cam", layer="left")
    handle.remove()
    assert_equal(ours.values, expected, 1e-5)
    assert sum(seen) == 2 + 2 * (16 - 8) + 2
    few = explained(net, x, ScoreCAM(channels=3), layer="left")
    assert_equal(few.values, references.score_cam(net, x, TARGETS, "left", 3))


def test_of_one_channel_score_cam_is_that_channel() -> None:
    """The softmax over one score is 1."""
    net, x = network("cnn"), images(size=SIZE)
    a = references.activations(net, x, "left")
    most = a.flatten(2).var(2).argmax(1)
    ours = explained(net, x, ScoreCAM(channels=1), layer="left")
    assert_equal(ours.values, a[[0, 1], most].relu(), 1e-6)


def test_a_layer_that_is_flat_everywhere_gives_score_cam_equal_weights() -> None:
    net, x = network("cnn"), images(1, SIZE)
    with torch.no_grad():
        net.left.weight.zero_()
        net.left.bias.copy_(torch.linspace(0, 3, 16))
    ours = explained(net, x, "score_cam", layer="left")
    assert_equal(ours.values, torch.full((1, 16, 24), 1.5).double()[:, : ours.values.shape[1], : ours.values.shape[2]])


def test_recipro_cam_of_a_network_that_reads_one_place_has_its_peak_there() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 1)
            nn.init.constant_(self.body.weight, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.body(x)[..., 2, 5]
            return torch.stack([a.sum(1), -a.sum(1)], 1)

    x = torch.rand(1, 3, 6, 8) + 0.5
    plain = Explainer(Reader()).explain(x, ReciproCAM(gaussian=False), target=0, layer="body").values[0]
    assert plain[2, 5] == 1
    assert np.count_nonzero(plain) == 1
    soft = Explainer(Reader()).explain(x, "recipro_cam", target=0, layer="body").values[0]
    around = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    np.testing.assert_allclose(soft[1:4, 4:7], around, atol=1e-6)
    assert np.count_nonzero(soft) == 9
    against = Explainer(Reader()).explain(x, ReciproCAM(gaussian=False), target=1, layer="body").values[0]
    assert against[2, 5] == 0
    assert (np.delete(against.ravel(), 2 * 8 + 5) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("units", "shown"), [(1, False), (2, False), (32, True)])
def test_recipro_cam_does_not_make_a_map_of_rounding(units: int, shown: bool, dtype: torch.dtype) -> None:
    """Stretched to 0..1, units in the last place of the scores would be a picture like any other."""

    class Nearly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 1)
            nn.init.constant_(self.body.weight, 1)

        def forward(self, x: Tensor) -> Tensor:
            there = (self.body(x)[:, :, 2, 5].abs().sum(1) > 0).to(x)
            return torch.stack([-1 - there * units * torch.finfo(dtype).eps, there], 1)

    x = torch.rand(1, 3, 6, 8) + 0.5
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SeewhyWarning)
        found = Explainer(Nearly().to(dtype)).explain(x, ReciproCAM(gaussian=False), target=[[0, 1]], layer="body")
    assert any("equal but for rounding" in str(one.message) for one in said) == (not shown)
    assert np.count_nonzero(found.values[0]) == (47 if shown else 0)
    assert np.count_nonzero(found.values[1]) == 1, "each target by itself"


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv3d])
@pytest.mark.parametrize("method", ["ablation_cam", "score_cam", "recipro_cam"])
@pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")
def test_signals_and_volumes(method: str, convolution: Any) -> None:
    sides = 1 if convolution is nn.Conv1d else 3
    torch.manual_seed(4)
    net = nn.Sequential(convolution(2, 5, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    x = torch.rand(2, 2, *(12,) if sides == 1 else (4, 6, 8))
    net(x)
    found = Explainer(net).explain(x, method, target=[1, 2], layer="1")
    assert found.maps.shape == (2, *x.shape[2:])
    a = net[1](net[0](x)).detach()
    score = net(x)[[0, 1], [1, 2]].detach()
    if method == "ablation_cam":
        total = torch.zeros_like(a[:, 0])
        for k in range(5):
            without = a.clone()
            without[:, k] = 0
            fall = (score - net[2:](without)[[0, 1], [1, 2]].detach()) / score.abs()
            total += fall.view(-1, *(1 for _ in range(sides))) * a[:, k]
        assert_equal(found.values, total.relu())
    if method == "recipro_cam" and sides == 1:
        middle, beside = 0.5, 0.25
        rows = []
        for i in range(a.shape[2]):
            kept = torch.zeros_like(a)
            kept[..., i] = middle * a[..., i]
            for j in {max(i - 1, 0), min(i + 1, a.shape[2] - 1)} - {i}:
                kept[..., j] = beside * a[..., j]
            rows.append(net[2:](kept)[[0, 1], [1, 2]].detach())
        scores = torch.stack(rows, 1)
        low, high = scores.amin(1, True), scores.amax(1, True)
        assert_equal(found.values, (scores - low) / (high - low))
    if method == "score_cam":
        mode = "linear" if sides == 1 else "trilinear"
        masks = F.interpolate(a, x.shape[2:], mode=mode, align_corners=False).flatten(2)
        low, high = masks.amin(2, True), masks.amax(2, True)
        masks = ((masks - low) / (high - low).clamp(min=1e-12)).unflatten(2, x.shape[2:])
        scores = torch.stack([net(x * masks[:, k : k + 1])[[0, 1], [1, 2]].detach() for k in range(5)], 1)
        assert_equal(found.values, torch.einsum("nc,nc...->n...", scores.softmax(1), a).relu())


# --- chunks, kinds of targets, mistakes


@pytest.mark.sweep
@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ablation_cam", "score_cam", "recipro_cam"])
def test_chunks_change_nothing(method: str, kind: str, batch_size: int) -> None:
    net, x, layer = network(kind), images(3, SIZE), KINDS[kind].layer
    asked = {"target": [9, 4, 2], "layer": layer}
    usual = explained(net, x, method, **asked)
    ours = explained(net, x, method, batch_size=batch_size, **asked)
    np.testing.assert_allclose(ours.values, usual.values, atol=1e-5 * usual.values.max())


@pytest.mark.parametrize("method", ["ablation_cam", "score_cam", "recipro_cam"])
def test_the_predicted_class_is_that_of_the_image_itself(method: str) -> None:
    net, x = network("cnn"), images(size=SIZE)
    explainer = explainer_of(net)
    for given in (None, seewhy.Probability(), seewhy.Contrast()):
        ours = explainer.explain(x, method, target=given, layer="left")
        best = net(x).argsort(1, descending=True)
        assert ours.targets.tolist() == best[:, 0].tolist()
        fixed: list[Any] = [int(cls) for cls in best[:, 0]]
        if isinstance(given, seewhy.Probability):
            fixed = [seewhy.Probability(cls) for cls in fixed]
        if isinstance(given, seewhy.Contrast):
            fixed = [seewhy.Contrast(int(one), int(other)) for one, other in best[:, :2]]
        same = explainer.explain(x, method, target=fixed, layer="left")
        np.testing.assert_allclose(ours.values, same.values, atol=1e-6)


@pytest.mark.parametrize("method", ["ablation_cam", "score_cam", "recipro_cam"])
def test_in_bfloat16_the_maps_resemble_those_of_float32(method: str) -> None:
    net, x = network("cnn", torch.float32), images(size=SIZE, dtype=torch.float32)
    full = explained(net, x, method, layer="body")
    half = explained(network("cnn", torch.bfloat16), x, method, layer="body")
    assert np.corrcoef(full.maps.ravel(), half.maps.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("channels", [0, -1, 1.5, "3", True])
def test_channels_are_a_whole_number(channels: Any) -> None:
    with pytest.raises(InputError, match="channels"):
        ScoreCAM(channels)


@pytest.mark.parametrize("method", ["ablation_cam", "score_cam", "recipro_cam"])
def test_a_layer_without_positions_is_refused(method: str) -> None:
    with pytest.raises(seewhy.SeewhyError, match="head"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), method, target=1, layer="head")


@pytest.mark.parametrize("method", [AblationCAM(), ScoreCAM(), ScoreCAM(channels=2), ReciproCAM(), ReciproCAM(False)])
def test_each_keeps_what_is_promised_of_every_method(method: seewhy.Method) -> None:
    check_method(method)
