"""Layouts cannot be fooled: a net whose score reads one region only, and the map's peak is there.

The region of each image is where its last channel, the marker, is 1; the others are noise, as strong everywhere. A gate
lets the marked positions pass and nothing else, in whatever layout the net holds them, and the score is linear in the
mean over positions of what passes. So every map must be 0 beyond the region.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import Explainer
from seewhy.errors import LayerError, MethodError, ModelError
from seewhy.methods.registry import find_method

Grid = tuple[int, ...]
Arrange = Callable[[Tensor], Tensor]
CELL, WIDTH = 4, 10
ELSEWHERE = (
    "saliency",
    "guided_backprop",
    "deconvnet",
    "input_x_gradient",
    "full_grad",
    "occlusion",
    "smooth_grad",
    "integrated_gradients",
)  # of those that look at no layer; others like them have tests of their own
BUILT_IN = [
    name for name in seewhy.list_methods() if find_method(name).__module__.startswith("seewhy.")
    and (name in ELSEWHERE or find_method(name)().needs.layer or find_method(name)().needs.head)
]  # fmt: skip
CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
# Windows and noise as small as can be, so that what is beyond the region shows nothing of it.
OPTIONS: dict[str, dict[str, object]] = {
    "occlusion": {"window": CELL, "stride": CELL, "baseline": torch.zeros(1)},
    "integrated_gradients": {"baseline": torch.zeros(1), "steps": 5},
    "smooth_grad": {"samples": 2, "noise": 1e-7},
    "smooth_grad_cam_pp": {"samples": 2, "noise": 1e-7},
    "recipro_cam": {"gaussian": False},
    "sobol": {"baseline": torch.zeros(1), "designs": 4},
    "lime": {"baseline": torch.zeros(1), "ridge": 1e-9},
    "kernel_shap": {"baseline": torch.zeros(1)},
    "xrai": {"baselines": (torch.zeros(1),), "steps": 5},
}
# Differences of scores of about 1, and sums of them.
ROUNDING = {"occlusion": 1e-6, "recipro_cam": 1e-6, "lime": 1e-5, "kernel_shap": 1e-5}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning"),
    pytest.mark.filterwarnings("ignore:FullGrad. input and biases miss:seewhy.SeewhyWarning"),  # a layer norm bends
    pytest.mark.filterwarnings("ignore:Integrated gradients miss:seewhy.SeewhyWarning"),  # the marks have no gradient
]


class Gate(nn.Module):
    """What is marked passes, in the layout of its input."""

    def forward(self, x: Tensor, mark: Tensor) -> Tensor:
        return x * mark


class Form(NamedTuple):
    """How a net holds (N, C, *grid) at its gate, and back; `norm` tells tokens and channels from one another."""

    there: Arrange
    back: Callable[[Tensor, Grid], Tensor]
    norm: bool = False
    tokens_first: bool = False


def tokens(prefix: int) -> Form:
    def there(x: Tensor) -> Tensor:
        ones = x.new_ones(len(x), prefix, x.shape[1])
        return torch.cat([ones, x.flatten(2).transpose(1, 2)], 1)

    return Form(there, lambda t, grid: t[:, prefix:].transpose(1, 2).unflatten(2, grid), norm=True)


FIRST = Form(lambda x: x, lambda t, grid: t)
LAST = Form(lambda x: x.movedim(1, -1), lambda t, grid: t.movedim(-1, 1), norm=True)
TOKENS_FIRST = Form(
    lambda x: x.flatten(2).permute(2, 0, 1),
    lambda t, grid: t.permute(1, 2, 0).unflatten(2, grid),
    norm=True,
    tokens_first=True,
)
FORMS: dict[str, tuple[Form, Grid]] = {
    "NCHW": (FIRST, (6, 8)),
    "NCHW, square": (FIRST, (7, 7)),
    "NHWC": (LAST, (6, 8)),
    "NHWC, square": (LAST, (7, 7)),
    **{f"tokens, {k} before": (tokens(k), (6, 8)) for k in (0, 1, 2, 5)},
    "tokens, 1 before, square": (tokens(1), (7, 7)),
    "tokens, 5 before, high": (tokens(5), (9, 4)),
    "tokens first": (TOKENS_FIRST, (6, 8)),
    "NCL": (FIRST, (12,)),
    **{f"NLC, {k} before": (tokens(k), (12,)) for k in (0, 1, 2)},
    "NCTHW": (FIRST, (3, 4, 6)),
    "NTHWC": (LAST, (3, 4, 6)),
    "video's tokens, 0 before": (tokens(0), (3, 4, 6)),
    "video's tokens, 1 before": (tokens(1), (3, 4, 6)),
}


class Planted(nn.Module):
    """Patches of `CELL`, held as `form` says, through the gate; scores are linear in the mean over positions."""

    def __init__(self, form: Form, sides: int, width: int = WIDTH) -> None:
        super().__init__()
        self.form, self.sides = form, sides
        self.patch, self.relu, self.gate = CONVOLUTION[sides](2, width, CELL, CELL), nn.ReLU(), Gate()
        self.norm = nn.LayerNorm(width) if form.norm else nn.Identity()
        self.head = nn.Linear(width, 2)
        if form.tokens_first:
            self.gate.batch_first = False  # as a transformer's modules say it
        nn.init.uniform_(self.patch.weight, 0, 0.1)
        nn.init.uniform_(self.head.weight, 0.1, 1)
        if form.norm:
            nn.init.constant_(self.norm.bias, 4)

    def marks(self, x: Tensor) -> Tensor:
        """(N, 1, *grid), 1 where the image is marked."""
        return MAX_POOL[self.sides](x[:, -1:], CELL).detach()

    def embedded(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.patch(x[:, :2]))
        return out

    def gated(self, x: Tensor) -> Tensor:
        y, mark = self.embedded(x), self.marks(x)
        out: Tensor = self.gate(self.norm(self.form.there(y)), self.form.there(mark.expand_as(y)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        grid = tuple(side // CELL for side in x.shape[2:])
        out: Tensor = self.head(self.form.back(self.gated(x), grid).flatten(2).mean(2))
        return out


def starts(grid: Grid, count: int) -> list[Grid]:
    """For each image the first cell of its region: all different, off the centre."""
    return [tuple((2 * image + 3 * axis + 1) % max(side - 1, 1) for axis, side in enumerate(grid))
            for image in range(count)]  # fmt: skip


def marked(grid: Grid, count: int) -> tuple[Tensor, list[tuple[slice, ...]]]:
    """Images (count, 3, *sides) of noise, and the marked part of each: one cell, two along the last side."""
    rng = torch.Generator().manual_seed(2)
    images = torch.rand(count, 3, *(side * CELL for side in grid), generator=rng)
    images[:, 2] = 0
    parts = []
    for image, cell in zip(images, starts(grid, count), strict=True):
        long = [1] * (len(grid) - 1) + [2]
        part = tuple(slice(c * CELL, (c + n) * CELL) for c, n in zip(cell, long, strict=True))
        image[(2, *part)] = 1
        parts.append(part)
    return images, parts


def fitting(method: str, sides: Sequence[int]) -> dict[str, object]:
    """The options that make the parts that are hidden the cells of the net."""
    grid = tuple(side // CELL for side in sides)
    count = math.prod(grid)
    cells = np.kron(np.arange(count).reshape(grid), np.ones([CELL] * len(grid), int))
    fitted: dict[str, dict[str, object]] = {
        "sobol": {"grid": grid},
        "lime": {"segments": cells, "samples": count + 100},
        "kernel_shap": {"segments": cells, "samples": 2 * count + 100},
        "xrai": {"regions": cells},
    }
    return fitted.get(method, {})


def planted(explainer: Explainer, images: Tensor, method: str, **more: object) -> seewhy.Explanation:
    """The explanation; the maps of Recipro-CAM, whose zero is where the score is least, from what is beyond."""
    options = {**OPTIONS.get(method, {}), **fitting(method, images.shape[2:]), **more}
    found = explainer.explain(images, method, target=1, **options)
    if method == "xrai":  # whose maps are an order
        return dataclasses.replace(found, maps=found.values)
    if method != "recipro_cam":
        return found
    nothing = np.median(found.maps.reshape(len(images), -1), 1)
    return dataclasses.replace(found, maps=found.maps - nothing.reshape(-1, *(1 for _ in found.maps.shape[1:])))


def assert_found(maps: np.ndarray, parts: Sequence[tuple[slice, ...]], rounding: float = 0) -> None:
    """Each map has its peak in its part, and is 0 but for a cell around it."""
    for heat, part in zip(maps, parts, strict=True):
        heat = np.abs(heat)
        peak = np.unravel_index(heat.argmax(), heat.shape)
        assert heat.max() > 0
        assert all(within.start <= place < within.stop for place, within in zip(peak, part, strict=True))
        beyond = heat.copy()
        beyond[tuple(slice(max(within.start - CELL, 0), within.stop + CELL) for within in part)] = 0
        assert beyond.max() <= 1e-5 * heat.max() + rounding


@pytest.mark.parametrize("method", BUILT_IN)
@pytest.mark.parametrize("name", FORMS)
def test_every_method_finds_the_region_of_each_image(name: str, method: str) -> None:
    form, grid = FORMS[name]
    images, parts = marked(grid, 3)
    if method == "full_grad" and form.tokens_first:
        with pytest.raises(ModelError, match="tokens first"):
            planted(Explainer(Planted(form, len(grid)).eval()), images, method)
        return
    found = planted(Explainer(Planted(form, len(grid)).eval()), images, method)
    assert_found(found.maps, parts, ROUNDING.get(method, 0))
    assert found.layer in (None, "gate")


@pytest.mark.sweep
@pytest.mark.parametrize("method", ["sobol", "lime", "kernel_shap", "xrai"])
@pytest.mark.parametrize("name", ["NCHW", "NHWC, square", "tokens, 1 before", "NCL", "NCTHW"])
def test_those_that_hide_parts_find_it_too(name: str, method: str) -> None:
    test_every_method_finds_the_region_of_each_image(name, method)


@pytest.mark.parametrize("name", ["NCHW", "NHWC", "tokens, 1 before", "NCL", "NCTHW"])
def test_rise_which_expects_some_score_everywhere_has_its_peak_in_the_region(name: str) -> None:
    form, grid = FORMS[name]
    images, parts = marked(grid, 3)
    method = seewhy.methods.Rise(300, grid, baseline=torch.zeros(1))
    maps = Explainer(Planted(form, len(grid)).eval()).explain(images, method, target=1).maps
    for heat, part in zip(maps, parts, strict=True):
        peak = np.unravel_index(heat.argmax(), heat.shape)
        assert all(s.start - CELL / 2 <= place < s.stop + CELL / 2 for place, s in zip(peak, part, strict=True))


@pytest.mark.parametrize("method", ["grad_cam", "activations"])
@pytest.mark.parametrize("name", FORMS)
def test_the_values_are_on_the_grid_itself(name: str, method: str) -> None:
    """Each cell's own value, which no enlargement can hide."""
    form, grid = FORMS[name]
    images, _ = marked(grid, 3)
    values = Explainer(Planted(form, len(grid)).eval()).explain(images, method, target=1, layer="gate").values
    values = values if method == "grad_cam" else np.abs(values).sum(1)
    assert values.shape == (3, *grid)
    for cells, cell in zip(values, starts(grid, 3), strict=True):
        expected = np.zeros(grid, bool)
        expected[(*cell[:-1], slice(cell[-1], cell[-1] + 2))] = True
        assert np.array_equal(cells > 0, expected)


# --- attempts to fool the layout: each is right or refused


class Sideshow(Planted):
    """Before or after its patches it looks at the image on another grid too, whose result is not used."""

    def __init__(self, form: Form, other: Grid, *, before: bool, width: int = WIDTH) -> None:
        super().__init__(form, len(other), width)
        pools = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
        self.side, self.before = pools[len(other)](other), before

    def embedded(self, x: Tensor) -> Tensor:
        if self.before:
            self.side(x)
        y = super().embedded(x)
        if not self.before:
            self.side(x)
        return y


class Unpadded(Planted):
    """One patch more on each side, and a convolution that takes it off again."""

    def __init__(self, form: Form, sides: int) -> None:
        super().__init__(form, sides)
        self.next = CONVOLUTION[sides](WIDTH, WIDTH, 2)
        nn.init.uniform_(self.next.weight, 0, 0.1)

    def embedded(self, x: Tensor) -> Tensor:
        out: Tensor = self.next(super().embedded(F.pad(x, [0, CELL] * self.sides)))
        return out


class Sideways(Planted):
    """It turns the image over its diagonal before anything else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(2, 3))


class Unfolded(Planted):
    """(N, C, pixels of a patch, patches), through a 1x1 convolution, as MobileViTv2 has it."""

    def __init__(self) -> None:
        inner = windows(2, 2)
        super().__init__(
            Form(lambda x: inner.there(x).permute(0, 3, 1, 2), lambda t, grid: inner.back(t.permute(0, 2, 3, 1), grid)),
            2,
        )
        self.norm = nn.Conv2d(WIDTH, WIDTH, 1)


class Merged(Planted):
    """Channels last; four neighbours become one by a linear layer, as Swin's do, with no norm that would tell."""

    def __init__(self, width: int) -> None:
        super().__init__(bare(LAST), 2, width // 2)
        self.patch = nn.Conv2d(2, width // 2, CELL // 2, CELL // 2)
        self.merge, self.head = nn.Linear(2 * width, width), nn.Linear(width, 2)
        for weight in (self.patch.weight, self.merge.weight, self.head.weight):
            nn.init.uniform_(weight, 0, 0.1)

    def gated(self, x: Tensor) -> Tensor:
        y = super().embedded(x).permute(0, 2, 3, 1)
        y = torch.cat([y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]], -1)
        y = self.merge(y)
        out: Tensor = self.gate(y, self.marks(x).permute(0, 2, 3, 1))
        return out


def bare(form: Form) -> Form:
    """The form without a norm that tells."""
    return form._replace(norm=False)


def windows(axis: int, size: int) -> Form:
    """(N, windows, size * size, C), as in MaxViT; with `axis` 2 transposed, as where it attends over a grid."""

    def there(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // size, size, w // size, size).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(n, h * w // size**2, size**2, c).transpose(1, axis)

    def back(t: Tensor, grid: Grid) -> Tensor:
        n, c, (h, w) = len(t), t.shape[-1], grid
        t = t.transpose(1, axis).reshape(n, h // size, w // size, size, size, c)
        return t.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)

    return Form(there, back, norm=True)


def in_the_batch(size: int) -> Form:
    """(N * windows, size * size, C), as in Swin."""
    inner = windows(1, size)
    return Form(
        lambda x: inner.there(x).flatten(0, 1),
        lambda t, grid: inner.back(t.unflatten(0, (-1, math.prod(grid) // size**2)), grid),
        norm=True,
    )


def in_windows_order(size: int) -> Form:
    """(N, positions, C), but window by window, as in Hiera."""
    inner = windows(1, size)
    return Form(
        lambda x: inner.there(x).flatten(1, 2),
        lambda t, grid: inner.back(t.unflatten(1, (-1, size**2)), grid),
        norm=True,
    )


COLUMNS = Form(
    lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2),
    lambda t, grid: t.transpose(1, 2).unflatten(2, grid[::-1]).transpose(2, 3),
    norm=True,
)
CLASS_LAST = Form(
    lambda x: torch.cat([x.flatten(2).transpose(1, 2), x.new_ones(len(x), 1, x.shape[1])], 1),
    lambda t, grid: t[:, :-1].transpose(1, 2).unflatten(2, grid),
    norm=True,
)
ROWS_FIRST = Form(lambda x: x.permute(2, 3, 0, 1), lambda t, grid: t.permute(2, 3, 0, 1), norm=True)
CHANNELS_BEFORE = Form(lambda x: x.flatten(2), lambda t, grid: t.unflatten(2, grid))


class Attack(NamedTuple):
    """A net, the grid of its patches, and how many images."""

    build: Callable[[], Planted]
    grid: Grid
    count: int = 3


def of(form: Form, grid: Grid, *, width: int = WIDTH, count: int = 3) -> Attack:
    return Attack(lambda: Planted(form, len(grid), width), grid, count)


def beside(name: str, form: Form, grid: Grid, other: Grid) -> dict[str, Attack]:
    def attack(before: bool) -> Attack:
        return Attack(lambda: Sideshow(form, other, before=before), grid)

    name = f"{name} on {grid} beside {other}"
    return {f"{name}, before": attack(True), f"{name}, after": attack(False)}


UNSAID = {"tokens first, unsaid": TOKENS_FIRST._replace(tokens_first=False), "rows first": ROWS_FIRST}
ALIKE = {(4, 6): (24,), (4, 4): (4, 16)}  # how many images are as many as something else, so that no shape tells them
BESIDE: list[tuple[str, Form, Grid, Grid]] = [
    ("tokens after 1", tokens(1), (4, 6), (5, 5)),
    ("tokens after 2", tokens(2), (4, 6), (5, 5)),
    ("tokens after 0", tokens(0), (4, 6), (6, 4)),
    ("tokens after 1", tokens(1), (4, 6), (6, 4)),
    ("tokens after 4", tokens(4), (4, 6), (4, 7)),
    ("tokens after 5", tokens(5), (4, 6), (4, 7)),
    ("bare tokens after 1", bare(tokens(1)), (4, 6), (5, 5)),
    ("tokens after 0", tokens(0), (5, 5), (4, 6)),
    ("tokens after 1", tokens(1), (4, 6), (2, 12)),
    ("channels first", FIRST, (4, 6), (6, 4)),
    ("channels last", LAST, (4, 6), (6, 10)),
    ("bare channels last", bare(LAST), (4, 6), (6, 10)),
    ("tokens after 1", tokens(1), (8,), (9,)),
    ("tokens after 2", tokens(2), (16,), (18,)),
    ("tokens after 0", tokens(0), (9,), (8,)),
    ("tokens after 1", tokens(1), (2, 3, 4), (1, 5, 5)),
    ("tokens after 0", tokens(0), (2, 3, 4), (4, 3, 2)),
    ("channels last", LAST, (3, 4, 6), (4, 6, 10)),
    ("bare channels last", bare(LAST), (3, 4, 6), (4, 6, 10)),
]  # the grid of the patches, and another one
ATTACKS: dict[str, Attack] = {
    **{f"{name} of {width} channels on {grid}": of(form, grid, width=width)
       for grid in ((6, 8), (8, 6), (6, 6)) for width in {*grid, math.prod(grid), math.prod(grid) + 1}
       for name, form in {"NCHW": FIRST, "NHWC": LAST, "bare NHWC": bare(LAST), "tokens": tokens(0),
                          "bare tokens": bare(tokens(0)), "tokens after 1": tokens(1),
                          "bare tokens after 1": bare(tokens(1)), "channels before tokens": CHANNELS_BEFORE}.items()},
    **{f"{count} images, {name} on {grid}": of(form, grid, count=count)
       for grid, counts in {(4, 6): (4, 6, 24, 25), (4, 4): (4, 16, 17)}.items() for count in counts
       for name, form in {"NCHW": FIRST, "NHWC": LAST, "tokens": tokens(0), "tokens after 1": tokens(1),
                          "tokens first": TOKENS_FIRST, **({} if count in ALIKE[grid] else UNSAID)}.items()},
    **{f"{name} of {width} channels, {count} images": of(form, (12,), width=width, count=count)
       for width, count in ((12, 3), (13, 3), (10, 12), (10, 13), (12, 12))
       for name, form in {"NCL": FIRST, "NLC": tokens(0), "bare NLC": bare(tokens(0)), "NLC after 1": tokens(1),
                          "LNC": TOKENS_FIRST}.items()},
    **{name: attack for row in BESIDE for name, attack in beside(*row).items()},
    "one position less and a token more": Attack(lambda: Unpadded(tokens(1), 1), (8,)),
    "one position less and a token more, bare": Attack(lambda: Unpadded(bare(tokens(1)), 1), (8,)),
    "a row and a column less and tokens more": Attack(lambda: Unpadded(tokens(6), 2), (2, 3)),
    "turned, NCHW": Attack(lambda: Sideways(FIRST, 2), (6, 8)),
    "turned, NHWC": Attack(lambda: Sideways(LAST, 2), (6, 8)),
    "turned, tokens": Attack(lambda: Sideways(tokens(1), 2), (6, 8)),
    "windows in the batch": of(in_the_batch(4), (8, 8)),
    "windows in the batch, one image": of(in_the_batch(4), (8, 8), count=1),
    "unfolded": Attack(Unfolded, (6, 8)),
    **{f"merged to {width} channels": Attack(lambda width=width: Merged(width), grid)
       for grid, width in (((4, 8), 16), ((4, 4), 8), ((4, 8), 8))},
}  # fmt: skip


def maps_or_refused(attack: Attack, method: str, layer: str | None) -> np.ndarray | None:
    """The maps; None where the attack is refused, or another layer chosen, or the activations are not laid out.

    What has no positions is told by activations in maps that are the same everywhere.
    """
    images, _ = marked(attack.grid, attack.count)
    net = attack.build().eval()
    try:
        found = Explainer(net).explain(images, method, target=1, layer=layer, batch_size=attack.count)
    except (LayerError, MethodError):
        return None
    flat = method == "activations" and np.ptp(found.maps.reshape(len(images), -1), 1).max() < 1e-5
    return None if flat or found.layer != "gate" else found.maps


@pytest.mark.parametrize(("method", "layer"), [("grad_cam", "gate"), ("activations", "gate"), ("grad_cam", None)])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_right_or_refused(name: str, method: str, layer: str | None) -> None:
    attack = ATTACKS[name]
    maps = maps_or_refused(attack, method, layer)
    if maps is not None:
        assert_found(maps, marked(attack.grid, attack.count)[1])


def laid_out(form: Form, grid: Grid, count: int) -> Callable[[Tensor], Tensor | None]:
    """What the net itself does to come back from its layout, for outputs of that shape."""
    shapes = {form.there(torch.zeros(n, WIDTH, *grid)).shape for n in range(1, count + 1)}  # chunks may be smaller
    return lambda output: form.back(output, grid) if output.shape in shapes else None


UNTOLD: dict[str, tuple[Form, Grid, int]] = {
    "columns first": (COLUMNS, (6, 8), 3),
    "class token last": (CLASS_LAST, (6, 8), 3),
    "windows in the order of tokens": (in_windows_order(2), (4, 6), 3),
    "windows, as many as tokens in each": (windows(1, 4), (16, 16), 3),
    "windows, grid attention": (windows(2, 4), (16, 16), 3),
    "windows, grid attention, not square": (windows(2, 4), (16, 24), 3),
    "as many images as tokens": (UNSAID["tokens first, unsaid"], (4, 6), 24),
    "as many images as rows and columns": (ROWS_FIRST, (4, 4), 4),
}


@pytest.mark.parametrize(
    "method",
    ["grad_cam", "hires_cam", "activations", "ablation_cam", "score_cam", "recipro_cam", "cam", "guided_grad_cam"],
)
@pytest.mark.parametrize("name", UNTOLD)
def test_what_no_shape_tells_is_right_once_it_is_said(name: str, method: str) -> None:
    form, grid, count = UNTOLD[name]
    images, parts = marked(grid, count)
    explainer = Explainer(Planted(form, 2).eval(), layout=laid_out(form, grid, count))
    found = planted(explainer, images, method, batch_size=count)
    assert_found(found.maps, parts, ROUNDING.get(method, 0))
    assert found.layer in (None, "gate")


def test_a_net_that_turns_its_input_is_right_once_it_is_said() -> None:
    for grid in ((6, 8), (7, 7)):
        images, parts = marked(grid, 3)
        explainer = Explainer(Sideways(FIRST, 2).eval(), layout=lambda t: t.transpose(2, 3) if t.dim() == 4 else None)
        assert_found(explainer.explain(images, target=1, layer="gate").maps, parts)
