"""CAMs of gradients: equal to the papers' equations and to pytorch-grad-cam where that is right, in three layouts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import references
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn

import seewhy
from seewhy import Contrast, Explainer, SeewhyWarning
from seewhy.engine.record import LayerRecord
from seewhy.errors import InputError, TargetError
from seewhy.methods import (
    ElementWiseGradCAM,
    FinerCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from seewhy.methods.gradient_cam import Finer, ReST
from seewhy.testing import check_method, small_cnn

NAMES = ["grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "element_wise_grad_cam", "shapley_cam", "finer_cam"]
Objective = Callable[[Tensor, Tensor], Tensor] | None
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*0 everywhere:seewhy.SeewhyWarning"),
    pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning"),
]
POLE = pytest.mark.filterwarnings("ignore:.*CAM.. divides by 2:seewhy.SeewhyWarning")  # of layers without a ReLU


def caught(kind: str, x: Tensor, target: int, objective: Objective = None, net: Any = None) -> tuple[Tensor, Tensor]:
    """The activation and the gradient ``(1, C, h, w)`` of one image at the layer of a kind of network."""
    net, kept = net or network(kind), list[Tensor]()
    handle = net.get_submodule(KINDS[kind].layer).register_forward_hook(
        lambda _, __, out: kept.append(out) or out.clone()
    )
    scores = net(x.clone().requires_grad_())
    handle.remove()
    score = scores[:, target] if objective is None else objective(scores, torch.full((len(x),), target))
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    there = KINDS[kind].form.there
    return there(kept[0]).detach(), there(gradient)


def plus_plus(a: Tensor, g: Tensor, g2: Tensor, g3: Tensor) -> Tensor:
    """Equation 19 in loops."""
    heat = torch.zeros(a.shape[1:], dtype=a.dtype)
    for k in range(len(a)):
        weight = 0.0
        for i, j in itertools.product(*map(range, a.shape[1:])):
            below = 2 * g2[k, i, j] + a[k].sum() * g3[k, i, j]
            if g2[k, i, j] != 0 and below != 0:
                weight += g2[k, i, j] / below * max(g[k, i, j], 0)
        heat += weight * a[k]
    return heat.clamp(min=0)


def grad_cam(a: Tensor, g: Tensor) -> Tensor:
    return torch.einsum("k,khw->hw", g.mean((1, 2)), a).clamp(min=0)


EQUATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam_pp": lambda a, g: plus_plus(a, g, g**2, g**3),
    "xgrad_cam": lambda a, g: torch.einsum("k,khw->hw", (a * g).sum((1, 2)) / a.sum((1, 2)), a).clamp(min=0),
    "hires_cam": lambda a, g: sum(a[k] * g[k] for k in range(len(a))),
    "layer_cam": lambda a, g: sum(a[k] * g[k].clamp(min=0) for k in range(len(a))).clamp(min=0),
    "element_wise_grad_cam": lambda a, g: sum((a[k] * g[k]).clamp(min=0) for k in range(len(a))),
}


@POLE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EQUATIONS)
def test_equal_to_the_equation(name: str, kind: str) -> None:
    x = images(size=SIZE)
    found = explainer_of(network(kind)).explain(x, name, target=list(TARGETS), layer=KINDS[kind].layer)
    pairs = [caught(kind, x[i : i + 1], target) for i, target in enumerate(TARGETS)]
    assert_equal(found.values, torch.stack([EQUATIONS[name](a[0], g[0]) for a, g in pairs]))
    assert found.signed == (name == "hires_cam")


THEIRS = {"hires_cam": "HiResCAM", "layer_cam": "LayerCAM", "xgrad_cam": "XGradCAM",
          "element_wise_grad_cam": "GradCAMElementWise"}  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_pytorch_grad_cam(name: str, kind: str) -> None:
    """To its map before it is clamped, scaled and resized."""
    x = images(size=SIZE)
    net = network(kind)
    with getattr(pytorch_grad_cam, THEIRS[name])(net, [net.get_submodule(KINDS[kind].layer)]) as theirs:
        parts = [caught(kind, x[i : i + 1], target) for i, target in enumerate(TARGETS)]
        expected = [theirs.get_cam_image(None, None, None, a.numpy(), g.numpy(), False) for a, g in parts]
    found = explainer_of(net).explain(x, name, target=list(TARGETS), layer=KINDS[kind].layer)
    wanted = torch.tensor(np.concatenate(expected))
    assert_equal(found.values, wanted if name == "hires_cam" else wanted.clamp(min=0))


@pytest.mark.parametrize("kind", KINDS)
def test_finer_cam_is_grad_cam_of_a_difference(kind: str) -> None:
    x, net = images(size=SIZE), network(kind)
    scores = net(x).detach()
    wanted = []
    for i, target in enumerate(TARGETS):
        order = (scores[i] - scores[i, target]).abs().argsort()
        like = [int(k) for k in order if k != target][:2]
        a, g = caught(kind, x[i : i + 1], target,
                      lambda s, _, t=target, n=like: s[:, t] - 0.6 * (s[:, n[0]] + s[:, n[1]]) / 2)  # fmt: skip
        wanted.append(grad_cam(a[0], g[0]))
    found = explainer_of(net).explain(x, FinerCAM(0.6, 2), target=list(TARGETS), layer=KINDS[kind].layer)
    assert_equal(found.values, torch.stack(wanted))


def test_finer_cam_of_one_class_is_the_contrast_with_it() -> None:
    x, net = images(1, SIZE), network("cnn")
    scores = net(x)[0].detach()
    nearest = int((scores - scores[9]).abs().argsort()[1])
    explainer = explainer_of(net)
    contrast = explainer.explain(x, "grad_cam", target=Contrast(9, nearest), layer="left")
    found = explainer.explain(x, "finer_cam", target=9, layer="left", classes=1, weight=1)
    np.testing.assert_allclose(found.values, contrast.values, rtol=1e-5, atol=1e-7)
    plain = explainer.explain(x, "grad_cam", target=9, layer="left")
    none = explainer.explain(x, "finer_cam", target=9, layer="left", weight=0)
    np.testing.assert_allclose(none.values, plain.values, rtol=1e-5, atol=1e-7)
    every = explainer.explain(x, "finer_cam", target=9, layer="left", classes=1000, weight=1.0)
    others = [k for k in range(12) if k != 9]
    mean = explainer.explain(x, "grad_cam", target=lambda s: s[:, 9] - s[:, others].mean(1), layer="left")
    np.testing.assert_allclose(every.values, mean.values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_shapley_cam_equals_autograds_hessian(kind: str) -> None:
    """For the score and the logarithm of its probability, written out once more."""

    def rest(scores: Tensor, target: int) -> Tensor:
        return 2 * scores[:, target] - scores.exp().sum(1).log()

    x, wanted = images(size=SIZE), []
    for i, target in enumerate(TARGETS):
        net = network(kind)
        layer, form = net.get_submodule(KINDS[kind].layer), KINDS[kind].form
        output = references.activations(net, x[i : i + 1], KINDS[kind].layer)

        def end(a: Tensor, net: Any = net, layer: Any = layer, i: int = i, target: int = target) -> Tensor:
            handle = layer.register_forward_hook(lambda *_: a.clone())  # which the network may write into
            try:
                return rest(net(x[i : i + 1]), target).sum()
            finally:
                handle.remove()

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            slope = torch.autograd.functional.jacobian(end, output)
            _, curved = torch.autograd.functional.hvp(end, output, output)
        weights = form.there(slope - curved / 2)[0].mean((1, 2))
        wanted.append(torch.einsum("k,khw->hw", weights, form.there(output)[0]).clamp(min=0))
    found = explainer_of(network(kind)).explain(x, "shapley_cam", target=list(TARGETS), layer=KINDS[kind].layer)
    assert_equal(found.values, torch.stack(wanted))


def test_rest_and_difference_of_scores_that_are_known() -> None:
    scores = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 3.0]])
    classes = torch.tensor([1, 2])
    torch.testing.assert_close(
        ReST()(scores, classes), scores.gather(1, classes[:, None])[:, 0] + scores.log_softmax(1)[[0, 1], classes]
    )
    torch.testing.assert_close(Finer(0.5, 1)(scores, classes), torch.tensor([2 - 0.5, 3.0]))
    torch.testing.assert_close(Finer(1.0, 2)(scores, classes), torch.tensor([2 - 2.5, 3.0]))


class Head(nn.Module):
    """Features with ReLU, pooled by their mean, and a linear layer."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU()), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def test_hires_cam_adds_up_to_the_score_without_its_bias() -> None:
    model, x = Head().double(), images(size=(17, 23))
    found = Explainer(model).explain(x, "hires_cam", target=[1, 3], layer="body")
    expected = model(x)[[0, 1], [1, 3]] - model.head.bias[[1, 3]]
    np.testing.assert_allclose(found.values.sum((1, 2)), expected.detach(), rtol=1e-5)
    cam = Explainer(model).explain(x, "cam", target=[1, 3])
    np.testing.assert_allclose(found.values * 8 * 11, cam.values, rtol=1e-4, atol=1e-6)


def test_at_a_linear_head_they_agree_with_grad_cam() -> None:
    """There the gradient of a channel is the same everywhere: XGrad-CAM is Grad-CAM."""
    model, x = Head().double(), images(size=(17, 23))
    found = Explainer(model).explain(x, ["grad_cam", "xgrad_cam", "hires_cam"], target=1, layer="body")
    np.testing.assert_allclose(found["xgrad_cam"].values, found["grad_cam"].values, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found["hires_cam"].values.clip(min=0), found["grad_cam"].values, rtol=1e-5, atol=1e-8)


class Scaled(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.net(x)


def test_grad_cam_pp_depends_on_the_scale_of_the_logits_and_on_no_epsilon() -> None:
    """Tiny gradients are no 0: the share g² / (2 g² + sum(A) g³) tends to 1/2, and so does the whole map."""
    x = images(1, (17, 23))
    one, large, small, tiny = (
        Explainer(Scaled(Head().double(), factor)).explain(x, "grad_cam_pp", target=1, layer="net.body").values / factor
        for factor in (1.0, 100.0, 1e-6, 1e-9)
    )
    assert np.abs(large / large.max() - one / one.max()).max() > 1e-3
    np.testing.assert_allclose(tiny, small, rtol=1e-3, atol=1e-6 * small.max())
    g = Explainer(Head().double()).explain(x, "hires_cam", target=1, layer="body")
    assert g.values.shape == tiny.shape


def test_channels_without_activation_or_gradient_are_no_nan() -> None:
    model = Head()
    with torch.no_grad():
        model.body[0].weight[:3] = 0
        model.body[0].bias[:3] = -1  # three channels are 0
        model.head.weight[1, 3:5] = 0  # two have no gradient
    found = Explainer(model).explain(images(size=(17, 23)).float(), NAMES, target=1, layer="body")
    assert all(np.isfinite(one.values).all() for one in found.values())


@POLE
@pytest.mark.parametrize("kind", KINDS)
def test_smooth_grad_cam_pp_is_made_of_mean_powers_and_the_images_own_activation(kind: str) -> None:
    x, samples, noise = images(size=SIZE), 3, 0.2
    draws = [torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(7 * 1_000_003 + n)) for n in range(samples)]
    wanted = []
    for i, target in enumerate(TARGETS):
        image = x[i : i + 1]
        spread = noise * (image.max() - image.min())
        gradients = [caught(kind, image + spread * draw, target)[1][0] for draw in draws]
        g, g2, g3 = (torch.stack([one**power for one in gradients]).mean(0) for power in (1, 2, 3))
        wanted.append(plus_plus(caught(kind, image, target)[0][0], g, g2, g3))
    method = SmoothGradCAMPlusPlus(samples, noise, seed=7)
    found = explainer_of(network(kind)).explain(x, method, target=list(TARGETS), layer=KINDS[kind].layer)
    assert_equal(found.values, torch.stack(wanted))


def test_one_pass_for_all_but_those_that_ask_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: runs.append(1) or real(*a, **k))
    Explainer(small_cnn()).explain(images(2, (16, 24)).float(), ["grad_cam", *NAMES[:5], "eigen_grad_cam"], target=1,
                                   layer=["left", "body"])  # fmt: skip
    assert len(runs) == 1


@pytest.mark.parametrize("name", ["shapley_cam", "finer_cam"])
def test_those_that_compare_classes_need_one(name: str) -> None:
    with pytest.raises(TargetError, match="must be a class"):
        Explainer(small_cnn()).explain(images(1, (16, 24)).float(), name, target=Contrast(0, 1), layer="body")


@pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")
def test_finer_cam_needs_two_classes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(TargetError, match="single score"):
        Explainer(model).explain(images(1, (16, 24)).float(), "finer_cam", target=0, layer="1")


@pytest.mark.parametrize(("method", "options", "says"), [
    ("finer_cam", {"classes": 0}, "classes"),
    ("finer_cam", {"weight": "1"}, "weight"),
    ("finer_cam", {"weight": float("nan")}, "weight"),
    ("smooth_grad_cam_pp", {"noise": 0}, "noise"),
    ("smooth_grad_cam_pp", {"samples": 0}, "samples"),
    ("smooth_grad_cam_pp", {"seed": 1.5}, "seed"),
])  # fmt: skip
def test_mistakes_are_told(method: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Explainer(small_cnn()).explain(images(1, (16, 24)).float(), method, target=1, **options)


@pytest.mark.parametrize("name", [*NAMES, "smooth_grad_cam_pp"])
def test_it_keeps_what_is_promised_of_every_method(name: str) -> None:
    check_method(name, **({"samples": 3} if name.startswith("smooth") else {}))


@pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")
@pytest.mark.parametrize("name", ["grad_cam", *NAMES[:5], "finer_cam", "eigen_grad_cam"])
def test_libra_reaches_the_gradient(name: str) -> None:
    x = images(1, SIZE)
    explainer = explainer_of(network("vit"))
    plain, balanced = (explainer.explain(x, name, target=1, layer="blocks.1", libra=on).values for on in (False, True))
    assert np.abs(plain - balanced).max() > 0.01 * np.abs(plain).max()
    assert issubclass(SeewhyWarning, Warning)
    assert "libra=True" in seewhy.Explainer(network("cnn")).explain(x, name, target=1, libra=True).provenance["options"]


# --- TorchCAM, and what they must obey


@pytest.mark.parametrize("name", ["LayerCAM", "XGradCAM", "FinerCAM"])
def test_equal_to_torchcam(name: str) -> None:
    """On a network that changes nothing in place, which that does not see; it clamps and does not scale here."""
    theirs = pytest.importorskip("torchcam.methods")
    x, net = images(size=SIZE), Head(12).double()
    found = Explainer(net).explain(x, name.replace("CAM", "_cam").lower(), target=list(TARGETS), layer="body.1")
    extractor = getattr(theirs, name)(net, "body.1", input_shape=(3, *SIZE))
    with extractor:
        scores = net(x.clone().requires_grad_())
        arguments = (list(TARGETS), scores)
        (expected,) = extractor(*arguments, normalized=False)
    assert_equal(found.values, expected)


def record(a: list[list[float]], g: list[list[float]]) -> LayerRecord:
    """One image, with channels of two positions."""
    return LayerRecord(activation=torch.tensor(a)[None, :, None], gradient=torch.tensor(g)[None, :, None])


def test_by_hand() -> None:
    one = record([[1.0, 3.0], [2.0, -1.0]], [[2.0, -1.0], [0.5, -4.0]])
    assert HiResCAM().compute(one).tolist() == [[[3.0, 1.0]]]  # 2 + 1, -3 + 4
    assert LayerCAM().compute(one).tolist() == [[[3.0, 0.0]]]  # 2 + 1, 0 + 0
    assert ElementWiseGradCAM().compute(one).tolist() == [[[3.0, 4.0]]]
    # (2 - 3) / 4 = -1/4 and (1 + 4) / 1 = 5: -1/4 + 10, -3/4 - 5
    assert XGradCAM().compute(one).tolist() == [[[9.75, 0.0]]]
    # alpha 1 / (2 + 2 * 4) = 1/10 and 1 / (2 + 0.5 * 1) = 2/5: weights 1/5 and 1/5
    torch.testing.assert_close(GradCAMPlusPlus().compute(one), torch.tensor([[[0.6, 0.4]]]))


def test_where_the_gradient_is_positive_layer_cam_is_hires_cam() -> None:
    a = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).abs()
    g = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))
    positive = LayerRecord(activation=a, gradient=g.abs())
    torch.testing.assert_close(LayerCAM().compute(positive), HiResCAM().compute(positive))
    mixed = LayerRecord(activation=a, gradient=g)
    torch.testing.assert_close(LayerCAM().compute(mixed), ElementWiseGradCAM().compute(mixed))
    assert (LayerCAM().compute(mixed) >= HiResCAM().compute(mixed)).all()


def test_a_channel_that_adds_up_to_0_weighs_nothing_in_xgrad_cam() -> None:
    one = record([[1.0, -1.0], [2.0, 1.0]], [[7.0, -9.0], [3.0, 3.0]])
    assert XGradCAM().compute(one).tolist() == [[[6.0, 3.0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_rounding_leaves_of_a_sum_of_0_weighs_nothing_in_xgrad_cam(dtype: torch.dtype) -> None:
    """After an instance norm each channel adds up to 0; only the last one is another."""
    source = torch.Generator().manual_seed(0)
    a = nn.functional.instance_norm(torch.randn(2, 8, 6, 7, generator=source).to(dtype))
    a[:, -1] += 0.1
    g = torch.randn(a.shape, generator=source).to(dtype)
    last = (g[:, -1:] * a[:, -1:]).double().sum((2, 3)) / a[:, -1:].double().sum((2, 3))
    expected = (last[..., None] * a[:, -1]).relu().float()
    torch.testing.assert_close(
        XGradCAM().compute(LayerRecord(activation=a, gradient=g)), expected, rtol=0.02, atol=1e-5
    )


def test_grad_cam_pp_tells_where_the_papers_shares_are_below_0() -> None:
    told = record([[-3.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 2.0]])  # 2 - 3 < 0
    assert np.isfinite(GradCAMPlusPlus().compute(told)).all()
    assert len(told.warnings) == 1
    pole = record([[-2.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 2.0]])  # 2 - 2: no share at all
    torch.testing.assert_close(GradCAMPlusPlus().compute(pole), torch.full((1, 1, 2), 1 / 3))
    fine = record([[-1.0, 0.0], [1.0, 1.0]], [[-3.0, 1.0], [0.0, 2.0]])  # 2 + 3 and 2 - 1 and 2 + 4
    GradCAMPlusPlus().compute(fine)
    assert not fine.warnings


class Quadratic(nn.Module):
    """A score that is 1/2 a Q a + b a of what `body` gives, a; the other classes' are far below."""

    def __init__(self, positions: int = 6) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Conv2d(2, 3, 1)
        q = torch.randn(3 * positions, 3 * positions)
        self.register_buffer("q", q + q.T)
        self.register_buffer("b", torch.randn(3 * positions))

    def forward(self, x: Tensor) -> Tensor:
        a = self.body(x).flatten(1)
        score = (a @ self.q * a).sum(1) / 2 + a @ self.b
        return torch.stack([score, score.detach() - 1e4], 1)


def test_shapley_cam_of_a_quadratic_is_known() -> None:
    """Where the class is certain the utility's gradient is the score's; Q a + b - Q a / 2 is left of it."""
    net, x = Quadratic().double(), torch.rand(2, 2, 2, 3).double()
    found = Explainer(net).explain(x, "shapley_cam", target=0, layer="body")
    a = net.body(x).detach()
    weights = (a.flatten(1) @ net.q / 2 + net.b).view(a.shape).mean((2, 3))
    assert_equal(found.values, torch.einsum("nc,nchw->nhw", weights, a).relu(), 1e-6)


def test_shapley_cam_where_nothing_bends_but_the_softmax() -> None:
    """Of a linear network the Hessian is that of log softmax alone; with many classes and p = 1 there is none."""
    net, x = Head().double(), images(size=(17, 23))
    with torch.no_grad():
        net.head.bias[1] += 1e3
    both = Explainer(net).explain(x, ["shapley_cam", "grad_cam"], target=1, layer="body.1")
    np.testing.assert_allclose(both["shapley_cam"].values, both["grad_cam"].values, rtol=1e-5, atol=1e-9)


def test_rests_gradient_is_that_of_both_its_parts() -> None:
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    classes = torch.tensor([0, 3, 2])
    (gradient,) = torch.autograd.grad(ReST()(scores, classes).sum(), scores)
    torch.testing.assert_close(gradient, 2 * torch.eye(4).double()[classes] - scores.softmax(1))
    assert ReST() == ReST()
    assert Finer(0.6, 3) == Finer(0.6, 3) != Finer(0.5, 3)


def test_finer_cam_does_not_depend_on_far_classes() -> None:
    net, x = Head(6).double(), images(1, (17, 23))
    explainer = Explainer(net)
    scores = net(x)[0].detach()
    order = (scores - scores[2]).abs().argsort()
    plain = explainer.explain(x, "finer_cam", target=2, layer="body.1", classes=2).values
    with torch.no_grad():
        net.head.bias[order[3:]] += 1e3 * (scores[order[3:]] - scores[2]).sign()  # farther still
    again = explainer.explain(x, "finer_cam", target=2, layer="body.1", classes=2).values
    np.testing.assert_allclose(again, plain, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["shapley_cam", "finer_cam", "smooth_grad_cam_pp", "eigen_grad_cam"])
@POLE
def test_several_targets_are_as_if_asked_alone(name: str, kind: str) -> None:
    x, layer = images(size=SIZE), KINDS[kind].layer
    explainer, options = explainer_of(network(kind)), {"samples": 2} if name.startswith("smooth") else {}
    found = explainer.explain(x, name, target=[[3, 1], [2, 4]], layer=layer, batch_size=1, **options)
    for row, (image, target) in enumerate([(0, 3), (0, 1), (1, 2), (1, 4)]):
        alone = explainer.explain(x[image], name, target=target, layer=layer, **options)
        scale = np.abs(alone.values).max()
        np.testing.assert_allclose(found.values[row], alone.values[0], atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_noise_is_that_of_the_seed(kind: str) -> None:
    x, layer = images(1, SIZE), KINDS[kind].layer

    def ask(**options: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeewhyWarning)
            found = explainer_of(network(kind)).explain(x, "smooth_grad_cam_pp", target=9, layer=layer, **options)
        return found.values

    few = ask(samples=2, seed=3)
    assert np.array_equal(few, ask(samples=2, seed=3))
    assert np.abs(few - ask(samples=2, seed=4)).max() > 1e-3 * few.max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)
        plain = explainer_of(network(kind)).explain(x, "grad_cam_pp", target=9, layer=layer).values
    np.testing.assert_allclose(ask(samples=2, noise=1e-9), plain, atol=1e-4 * plain.max())


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv3d])
def test_signals_and_volumes(convolution: Any) -> None:
    torch.manual_seed(4)
    net = nn.Sequential(convolution(2, 5, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    x = torch.rand(2, 2, *(12,) if convolution is nn.Conv1d else (4, 6, 8))
    net(x)
    names = [*NAMES, SmoothGradCAMPlusPlus(2), "eigen_cam", "eigen_grad_cam"]
    found = Explainer(net).explain(x, names, target=[1, 2], layer="1")
    for one in found.values():
        assert one.maps.shape == (2, *x.shape[2:])
        assert one.values.shape == (2, *net[0](x).shape[2:])
        assert one.values.any()


@pytest.mark.parametrize("libra", [False, True])
def test_guided_grad_cam_takes_libra_for_its_place(libra: bool) -> None:
    """A network with both: ReLU for the one, a gate for the other."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.norm = nn.Conv2d(3, 6, 3, 2), nn.LayerNorm(6)
            self.relu, self.head = nn.ReLU(), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.body(x)).mean((2, 3))
            return self.head(self.norm(y))

    x, explainer = images(size=(17, 23)), Explainer(Gated().double())
    found = explainer.explain(
        x, ["guided_grad_cam", "guided_backprop", "grad_cam"], target=1, layer="relu", libra=libra
    )
    heat = references.layer_map(torch.tensor(found["grad_cam"].values), (17, 23))
    expected = torch.tensor(found["guided_backprop"].values) * heat[:, None]
    assert_equal(found["guided_grad_cam"].values, expected.double(), 1e-5)
    other = explainer.explain(x, "grad_cam", target=1, layer="relu", libra=not libra)
    assert np.abs(other.values - found["grad_cam"].values).max() > 1e-3 * other.values.max()
