"""Where the positions are, in every layout, square and not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import swin_t, vit_b_16

from seewhy import Explainer, SeewhyError
from seewhy.layouts import Layout, Layouts

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")


def see(size, *steps, batch=2):
    """The layout of the last of `steps`, (module, shape) pairs."""
    layouts = Layouts(batch, size)
    for module, shape in steps:
        found = layouts.see(module, torch.zeros(shape))
    return found


BLOCK, CONV = nn.Sequential(), nn.Conv2d(3, 8, 1)


@pytest.mark.parametrize(
    ("size", "steps", "expected"),
    [
        ((224, 224), [(CONV, (2, 64, 7, 7))], Layout("NCHW", (7, 7))),
        ((64, 96), [(BLOCK, (2, 128, 8, 12))], Layout("NCHW", (8, 12))),
        ((64, 96), [(CONV, (2, 128, 7, 11)), (BLOCK, (2, 128, 7, 11))], Layout("NCHW", (7, 11))),
        ((224, 224), [(CONV, (2, 96, 56, 56)), (BLOCK, (2, 56, 56, 96))], Layout("NHWC", (56, 56))),
        ((224, 320), [(CONV, (2, 96, 56, 80)), (BLOCK, (2, 28, 40, 192))], Layout("NHWC", (28, 40))),
        ((224, 224), [(nn.LayerNorm(96), (2, 56, 56, 96))], Layout("NHWC", (56, 56))),
        ((8, 8), [(CONV, (2, 8, 8, 8)), (BLOCK, (2, 8, 8, 8))], Layout("NCHW", (8, 8))),
        ((224, 224), [(CONV, (2, 768, 14, 14)), (BLOCK, (2, 197, 768))], Layout("tokens", (14, 14), 1)),
        ((224, 320), [(CONV, (2, 768, 14, 20)), (nn.LayerNorm(768), (2, 285, 768))], Layout("tokens", (14, 20), 5)),
        (
            (224, 224),
            [(CONV, (2, 64, 56, 56)), (nn.LayerNorm(128), (2, 784, 128)), (BLOCK, (2, 784, 128))],
            Layout("tokens", (28, 28)),
        ),
        ((32, 48), [(nn.LayerNorm(64), (2, 25, 64)), (BLOCK, (2, 25, 64))], Layout("tokens", (4, 6), 1)),
        # of two grids that would fit, the one whose channels are as many as the tokens' is theirs
        (
            (32, 48),
            [(CONV, (2, 24, 4, 6)), (CONV, (2, 7, 5, 5)), (nn.LayerNorm(24), (2, 25, 24)), (BLOCK, (2, 25, 24))],
            Layout("tokens", (4, 6), 1),
        ),
        # merged tokens are wider; as many queries beside the tokens are no grid
        (
            (64, 64),
            [(CONV, (2, 32, 8, 8)), (nn.LayerNorm(32), (2, 64, 32)), (nn.LayerNorm(64), (2, 16, 64))],
            Layout("tokens", (4, 4)),
        ),
        ((64, 64), [(CONV, (2, 32, 8, 8)), (nn.LayerNorm(32), (2, 64, 32)), (nn.LayerNorm(32), (2, 16, 32))], None),
        # (N, heads, tokens, d) looks like NCHW
        ((224, 224), [(CONV, (2, 192, 8, 8)), (BLOCK, (2, 3, 64, 64))], None),
        ((224, 224), [(CONV, (2, 768, 14, 14)), (BLOCK, (2, 12, 197, 64))], None),
        ((224, 224), [(CONV, (2, 24, 56, 56)), (BLOCK, (2, 197, 384)), (BLOCK, (2, 6, 197, 197))], None),
        ((224, 224), [(CONV, (2, 24, 56, 56)), (nn.LayerNorm(384), (2, 197, 384))], Layout("tokens", (14, 14), 1)),
        # a grid that fits at its own resolution and as half of a finer one
        (
            (224, 224),
            [(CONV, (2, 64, 14, 14)), (CONV, (2, 64, 7, 7)), (nn.LayerNorm(96), (2, 49, 96))],
            Layout("tokens", (7, 7)),
        ),
        # tokens of all images in a row, normalised by a batch norm
        (
            (128, 160),
            [(CONV, (2, 64, 8, 10)), (nn.BatchNorm1d(96), (40, 96)), (BLOCK, (2, 20, 96))],
            Layout("tokens", (4, 5)),
        ),
        # a linear patch embedding
        ((128, 160), [(nn.Linear(768, 64), (2, 80, 64)), (BLOCK, (2, 80, 64))], Layout("tokens", (8, 10))),
        (
            (128, 160),
            [(nn.Linear(768, 64), (2, 80, 64)), (nn.LayerNorm(64), (2, 84, 64))],
            Layout("tokens", (8, 10), 4),
        ),
        ((128, 160), [(nn.Linear(700, 64), (2, 80, 64)), (BLOCK, (2, 80, 64))], None),
        # as many as there are rows: rows, perhaps
        ((64, 64), [(nn.Linear(192, 8), (2, 64, 8)), (nn.LayerNorm(8), (2, 64, 8))], None),
        ((64, 64), [(nn.LayerNorm(8), (2, 65, 8))], None),
        # sequences that are no tokens of a grid
        ((16, 16), [(nn.GRU(3, 8), (2, 16, 8))], None),
        ((16, 16), [(BLOCK, (2, 16, 8))], None),
        ((32, 48), [(CONV, (2, 8, 4, 6)), (BLOCK, (2, 29, 8))], None),
        ((32, 48), [(CONV, (2, 25, 4, 6)), (BLOCK, (2, 25, 24))], None),
        ((32, 48), [(CONV, (2, 24, 4, 6)), (nn.Conv1d(24, 24, 1), (2, 24, 24))], None),
        # windows: the first dimension is not the batch
        ((224, 224), [(CONV, (2, 96, 56, 56)), (BLOCK, (128, 49, 96))], None),
        ((224, 224), [(CONV, (2, 256, 14, 14)), (BLOCK, (2, 100, 256))], None),
        ((224, 224), [(CONV, (2, 512, 1, 1))], None),
        ((224, 224), [(BLOCK, (2, 512))], None),
    ],
)
def test_layouts(size, steps, expected):
    assert see(size, *steps) == expected


def test_an_ambiguous_shape_is_refused_by_name_when_it_is_asked_for():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm, self.body, self.head = (
                nn.Conv2d(3, 8, 1),
                nn.LayerNorm(8),
                nn.Softplus(),
                nn.Linear(8, 2),
            )

        def forward(self, x):
            x = self.norm(self.conv(x).permute(0, 2, 3, 1))
            return self.head(self.body(x).mean((1, 2)))

    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(SeewhyError, match=r"'body'.*\(1, 8, 8, 8\) is ambiguous"):
        Explainer(Both()).explain(images, "grad_cam", target=1, layer="body")
    assert Explainer(Both()).explain(images, "grad_cam", target=1).layer == "norm"
    assert Explainer(Both()).explain(torch.rand(1, 3, 8, 12), "grad_cam", target=1, layer="body").values.shape == (
        1,
        8,
        12,
    )


class Planted(nn.Module):
    """Reads one region of a 6x8 grid of patches only, in the layout `form`."""

    def __init__(self, form):
        super().__init__()
        self.patch = nn.Conv2d(3, 5, 8, 8)
        nn.init.constant_(self.patch.weight, 0.01)
        self.norm, self.form = nn.LayerNorm(5), form
        self.spot = torch.zeros(6, 8)
        self.spot[1, 6] = 1
        self.body = nn.ReLU() if form == "NCHW" else nn.Softplus()
        self.block = nn.Sequential(self.body)

    def forward(self, x):
        x = self.patch(x)
        if self.form == "NCHW":
            y = self.block(x) * self.spot
        elif self.form == "NHWC":
            y = (self.block(x.permute(0, 2, 3, 1)) * self.spot[..., None]).permute(0, 3, 1, 2)
        else:
            prefix = torch.ones(len(x), 2, 5)
            tokens = self.block(torch.cat([prefix, x.flatten(2).transpose(1, 2)], 1))
            y = (tokens[:, 2:] * self.spot.flatten()[:, None]).transpose(1, 2)
        return torch.stack([y.flatten(1).sum(1), y.flatten(1).mean(1)], 1)


@pytest.mark.parametrize("form", ["NCHW", "NHWC", "tokens"])
@pytest.mark.parametrize("method", ["saliency", "grad_cam", "activations"])
def test_planted_evidence_is_found_where_it_is(form, method):
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    images[:, :, 8:16, 48:56] += 1
    found = Explainer(Planted(form)).explain(images, method, target=0)
    for picture in found.maps:
        y, x = np.unravel_index(picture.argmax(), picture.shape)
        assert 8 <= y < 16
        assert 48 <= x < 56


def reference_grad_cam(model, layer, images, target, to_nchw):
    """By hand: the layer's output and its gradient, rearranged, for one image at a time."""
    maps = []
    for image in images:
        kept = []
        handle = layer.register_forward_hook(lambda m, i, o, kept=kept: (kept.append(o), o.clone())[1])
        score = model(image[None])[0, target]
        handle.remove()
        gradient = to_nchw(torch.autograd.grad(score, kept[0])[0])
        maps.append((gradient.mean((2, 3), keepdim=True) * to_nchw(kept[0])).sum(1).relu()[0])
    return torch.stack(maps).detach().numpy()


def test_vit_and_swin_equal_a_hand_written_reference():
    torch.manual_seed(0)
    vit = vit_b_16(weights=None, image_size=64).eval()
    nn.init.normal_(vit.heads.head.weight)
    swin = swin_t(weights=None).eval()
    for model, name, size, to_nchw in (
        (
            vit,
            "encoder.layers.encoder_layer_11.ln_1",
            (64, 64),
            lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (4, 4)),
        ),
        (swin, "features.7", (64, 96), lambda t: t.permute(0, 3, 1, 2)),
        (swin, "features.3", (64, 96), lambda t: t.permute(0, 3, 1, 2)),
    ):
        images = torch.rand(2, 3, *size)
        found = Explainer(model).explain(images, "grad_cam", target=3, layer=name)
        expected = reference_grad_cam(model, model.get_submodule(name), images, 3, to_nchw)
        np.testing.assert_allclose(found.values, expected, atol=1e-4 * np.abs(expected).max())
        maps = F.interpolate(torch.from_numpy(expected)[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        np.testing.assert_allclose(found.maps, maps, atol=1e-4 * np.abs(expected).max())
    assert Explainer(vit).explain(torch.rand(1, 3, 64, 64), target=3).layer == "encoder.layers.encoder_layer_11.ln_1"


def test_a_layer_after_the_last_attention_has_no_gradient_and_says_so():
    torch.manual_seed(0)
    vit = vit_b_16(weights=None, image_size=64).eval()
    nn.init.normal_(vit.heads.head.weight)
    with pytest.raises(SeewhyError, match=r"No gradient.*'encoder.ln'"):
        Explainer(vit).explain(torch.rand(1, 3, 64, 64), "grad_cam", target=3, layer="encoder.ln")


class Sideways(nn.Module):
    """Reads one region of a 6x8 grid of patches, which its body holds in an order of its own."""

    def __init__(self, there, back):
        super().__init__()
        self.patch, self.body, self.there, self.back = nn.Conv2d(3, 5, 8, 8), nn.Tanh(), there, back
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, x):
        x = self.patch(x)
        return self.head(self.back(self.body(self.there(x)))).mean((2, 3))


ORDERS = {
    "tokens first": (lambda x: x.flatten(2).permute(2, 0, 1), lambda t: t.permute(1, 2, 0).unflatten(2, (6, 8))),
    "columns first": (lambda x: x.transpose(2, 3).flatten(2), lambda t: t.unflatten(2, (8, 6)).transpose(2, 3)),
    "in the batch": (lambda x: x.permute(0, 2, 3, 1).flatten(0, 1), lambda t: t.unflatten(0, (-1, 6)).movedim(3, 1)),
    "class token last": (
        lambda x: torch.cat([x.flatten(2), torch.ones(len(x), 5, 1)], 2).transpose(1, 2),
        lambda t: t[:, :-1].transpose(1, 2).unflatten(2, (6, 8)),
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_layout_of_ones_own(order):
    """The function used by the network to undo its order is the layout; the map is that of the layer before."""
    model, images = Sideways(*ORDERS[order]), torch.rand(2, 3, 48, 64)
    explainer = Explainer(model, layout=lambda t: ORDERS[order][1](t) if t.dim() == 3 or len(t) > 2 else None)
    found = explainer.explain(images, ["grad_cam", "activations"], target=1, layer="body")
    x = model.patch(images).tanh()
    weights = model.head.weight[1, :, 0, 0] / 48
    assert found["activations"].values.shape == (2, 5, 6, 8)
    np.testing.assert_allclose(found["activations"].values, x.detach(), atol=1e-6)
    expected = (x * weights[:, None, None]).sum(1).relu().detach()
    np.testing.assert_allclose(found["grad_cam"].values, expected, atol=1e-6)
    assert [info.layout for info in explainer.layers(images)] == ["NCHW", "given", "NCHW"]


class Mixed(nn.Module):
    """Channels last after a convolution, with as many channels as rows and columns: only its linear layer tells."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 2)
        self.mix = nn.Sequential(nn.Linear(8, 8), nn.GELU())

    def forward(self, x):
        return self.head(self.mix(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_a_square_that_a_linear_layer_mixes_is_not_taken_for_channels_first():
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(SeewhyError, match=r"'mix'.*ambiguous.*layout=\"NCHW\"\) or \"NHWC\""):
        Explainer(Mixed()).explain(images, target=1, layer="mix")
    values = Explainer(Mixed(), layout="NHWC").explain(images, "activations", layer="mix").values
    assert values.shape == (2, 8, 8, 8)
    assert Explainer(Mixed()).explain(images, target=1).layer == "patches"


class Square(nn.Module):
    """As many channels as rows and columns, in an order that nothing tells."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Softplus(), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def test_a_name_settles_what_is_ambiguous():
    images = torch.rand(2, 3, 3, 3)
    with pytest.raises(SeewhyError, match=r"'body'.*ambiguous"):
        Explainer(Square()).explain(images, target=1, layer="body")
    first, last = (
        Explainer(Square(), layout=name).explain(images, "activations", layer="body").values
        for name in ("NCHW", "NHWC")
    )
    assert np.array_equal(np.moveaxis(first, 3, 1), last)


@pytest.mark.parametrize("channels", [8, 12])
@pytest.mark.parametrize("name", ["NCHW", "NHWC", "tokens"])
def test_a_name_changes_nothing_that_is_certain(name, channels):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)
    model = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Sigmoid(), *head)
    images = torch.rand(2, 3, 12, 12)
    plain = Explainer(model).explain(images, "activations", layer="1")
    named = Explainer(model, layout=name).explain(images, "activations", layer="1")
    assert np.array_equal(plain.values, named.values)


def test_as_many_tokens_as_rows_are_of_a_grid_if_the_user_says_so():
    model = nn.Sequential(nn.Unfold(4, stride=4), Turned(), nn.Linear(48, 8), nn.LayerNorm(8), Sum())
    images = torch.rand(2, 3, 16, 16)
    assert {info.layout for info in Explainer(model).layers(images)} == {"-"}
    found = Explainer(model, layout="tokens").explain(images, "activations", layer="3")
    assert found.values.shape == (2, 8, 4, 4)


class Turned(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_a_name_needs_a_likely_grid():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 60), nn.Unflatten(1, (12, 5, 1)), nn.Flatten(), nn.Linear(60, 2))
    for name in ("NCHW", "NHWC"):
        with pytest.raises(SeewhyError, match="no positions"):
            Explainer(model, layout=name).explain(torch.rand(1, 3, 8, 8), target=1, layer="2")


@pytest.mark.parametrize("name", ["NCHW", "NHWC", "tokens"])
def test_a_name_says_nothing_of_signals_and_of_single_numbers(name):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.signal, self.total = nn.Conv2d(3, 16, 8, 8), nn.Conv1d(16, 16, 1), Sum()
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            x = self.patch(x)
            return self.head(self.signal(x.flatten(2)).mean(2)) + 0 * self.total(x)

    images = torch.rand(2, 3, 32, 32)
    found = {info.name: info.layout for info in Explainer(Odd(), layout=name).layers(images)}
    assert (found["patch"], found["signal"], found["total"]) == ("NCHW", "-", "-")


class Sum(nn.Module):
    def forward(self, x):
        return x.sum()


def test_tokens_first_are_not_taken_for_tokens_by_name():
    """Where there are as many images as tokens, nothing but the module's own flag tells."""

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.block = nn.Conv2d(3, 8, 8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.block(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0))

    for layout in (None, "tokens"):
        with pytest.raises(SeewhyError, match=r"'block'.*batch or tokens first.*takes a function"):
            Explainer(First(), layout=layout).explain(torch.rand(4, 3, 16, 16), target=1, layer="block")


def test_tokens_are_no_grid_where_there_is_one_only():
    """As the class token alone in the last blocks of CaiT."""

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.norm, self.last, self.head = (
                nn.Conv2d(3, 6, 8, 8),
                nn.LayerNorm(6),
                nn.LayerNorm(6),
                nn.Linear(6, 2),
            )

        def forward(self, x):
            x = self.norm(self.patch(x).flatten(2).transpose(1, 2))
            return self.head(self.last(x.square().mean(1, keepdim=True))[:, 0])

    found = Explainer(Alone(), layout="tokens").explain(torch.rand(2, 3, 32, 32), target=1)
    assert (found.layer, found.values.shape) == ("norm", (2, 4, 4))


def test_tokens_by_name():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.head = nn.Parameter(torch.rand(192, 5)), nn.Softplus(), nn.Linear(5, 2)

        def forward(self, x):  # patches of 8x8 without a module, and no norm that tells tokens
            return self.head(self.body(torch.nn.functional.unfold(x, 8, stride=8).transpose(1, 2) @ self.embed).mean(1))

    images = torch.rand(2, 3, 32, 48)
    with pytest.raises(SeewhyError, match=r"'body' has no positions.*Explainer\(\.\.\., layout="):
        Explainer(Mixer()).explain(images, target=1, layer="body")
    found = Explainer(Mixer(), layout="tokens").explain(images, "activations", layer="body")
    assert found.values.shape == (2, 5, 4, 6)


@pytest.mark.parametrize(
    ("layout", "error", "message"),
    [
        ("NWHC", ValueError, "got 'NWHC'. Did you mean 'NHWC'"),
        (3, TypeError, "not int"),
        (lambda t: t.relu() * 2, ValueError, "It may only pick"),
        (lambda t: t - t.mean(), ValueError, "It may only pick"),
        (lambda t: t + 1, ValueError, "It may only pick"),
        (lambda t: -t, ValueError, "It may only pick"),
        (lambda t: t + 0.3, ValueError, "It may only pick"),
        (lambda t: t[:, :0], ValueError, r"into shape \(2, 0, 6, 8\)"),
        (lambda t: t.flip(0), ValueError, "mixes the 2 images"),
        (lambda t: t.transpose(0, 1).reshape(2, 4, 6, 8), ValueError, "mixes the 2 images"),
        (lambda t: t[:1], ValueError, r"into shape \(1, 4, 6, 8\); expected \(2, C, h, w\)"),
        (lambda t: t.repeat(1, 1, 2, 2), ValueError, "It may only pick"),
        (lambda t: t[0], ValueError, r"into shape \(4, 6, 8\); expected \(2, C, h, w\)"),
        (lambda t: 3, ValueError, "into int"),
        (lambda t: t.reshape(7), RuntimeError, "invalid for input"),
    ],
)
def test_a_layout_that_is_none(layout, error, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(error, match=message) as caught:
        Explainer(model, layout=layout).explain(torch.rand(2, 3, 48, 64), target=1, layer="0")
    assert isinstance(caught.value, SeewhyError) or "given as layout=" in caught.value.__notes__[0]


def test_a_layout_that_takes_tokens_for_images_is_refused_whatever_the_batch():
    """Right for one image by chance; for four, (16, 4, 5) regrouped would mix them."""
    there, _ = ORDERS["tokens first"]
    model = Sideways(lambda x: there(F.adaptive_avg_pool2d(x, 4)), lambda t: t.permute(1, 2, 0).unflatten(2, (4, 4)))
    wrong = Explainer(model, layout=lambda t: t.reshape(-1, 4, 4, 5).permute(0, 3, 1, 2) if t.dim() == 3 else None)
    assert wrong.explain(torch.rand(1, 3, 48, 64), target=1, layer="body").values.shape == (1, 4, 4)
    with pytest.raises(SeewhyError, match="mixes the 4 images"):
        wrong.explain(torch.rand(4, 3, 48, 64), target=1, layer="body")


def test_a_given_layout_is_a_candidate_like_any_other():
    there, back = ORDERS["tokens first"]
    model = Sideways(there, back)
    model.head = nn.Linear(5, 2)
    model.back = lambda t: t.mean(0)
    model.body = nn.Sequential(nn.LayerNorm(5))
    model.forward = lambda x: model.head(model.back(model.body(there(model.patch(x)))))
    images = torch.rand(1, 3, 48, 64)
    explainer = Explainer(model, layout=lambda t: back(t) if t.dim() == 3 else None)
    assert explainer.explain(images, "grad_cam", target=1, layer="body").values.shape == (1, 6, 8)
    assert explainer(images).layer == "body"
