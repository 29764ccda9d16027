"""Where the positions are, in every layout, square and not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import swin_t, vit_b_16

from seewhy import Explainer, SeewhyError
from seewhy.layers import Layout, Layouts, find_layers, tensors, with_first_tensor

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
        # (N, heads, tokens, d) looks like NCHW
        ((224, 224), [(CONV, (2, 192, 8, 8)), (BLOCK, (2, 3, 64, 64))], None),
        ((224, 224), [(CONV, (2, 768, 14, 14)), (BLOCK, (2, 12, 197, 64))], None),
        ((224, 224), [(CONV, (2, 24, 56, 56)), (BLOCK, (2, 197, 384)), (BLOCK, (2, 6, 197, 197))], None),
        ((224, 224), [(CONV, (2, 24, 56, 56)), (nn.LayerNorm(384), (2, 197, 384))], Layout("tokens", (14, 14), 1)),
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


def test_a_resampling_pool_gives_way_to_its_input():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(36, 2),
    )
    assert Explainer(model).explain(torch.rand(1, 3, 12, 16), target=1).layer == "0"


def test_first_tensors_are_found_and_replaced_in_what_modules_return():
    a, b = torch.zeros(1), torch.ones(1)
    from collections import OrderedDict, namedtuple

    pair = namedtuple("pair", "x y")
    for value in (a, (None, a), [1, [a]], {"k": 1, "t": a}, OrderedDict(t=a), pair(None, a)):
        replaced = with_first_tensor(value, b)
        assert type(replaced) is type(value)
        assert next(tensors(replaced)) is b
        assert next(tensors(value)) is a
    assert next(tensors((None, "x")), None) is None


def test_close_matches_are_offered():
    model = nn.Sequential()
    model.add_module("layer4", nn.Conv2d(3, 3, 1))
    with pytest.raises(KeyError, match="'layer4'"):
        find_layers(model, "layer5")
