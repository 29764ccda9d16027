"""Extremal perturbation: the smooth mask of a given area that keeps, or takes away, most of the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import whole
from ..engine.evaluations import Evaluations
from ..engine.record import Needs, Record
from ..errors import InputError, close_matches
from .baselines import blurred
from .registry import register
from .repeating import Repeating

GAMES = ("preserve", "delete")
_GRADIENT = Needs(input_gradient="plain")
_LEVELS = 8  # of the pyramid of blurs
_BLUR = 20 / 224  # the greatest standard deviation, as a share of the shorter side
_STEPS = 3  # of the lattice in a mask's `smoothness`
_REACH = 5  # steps, beyond which the kernel is nothing (less than .02)
_TEMPERATURE = 1 / 20  # of the smooth maximum
_RATE, _MOMENTUM = 0.01, 0.9  # of the ascent
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by the number of sides
_EQUAL = 1e-12  # by which values that are the same differ for rounding
_OFF = 0.02  # of the image, by which a mask's area may be missed unsaid


@register("extremal_perturbation")
@dataclass(frozen=True)
class ExtremalPerturbation(Repeating):
    """Extremal perturbation: the smooth mask of a given area that keeps most of the score, all else being blurred.

    Fong, Patrick, Vedaldi 2019, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks", arXiv
    1910.08485: by gradient ascent, the mask m of area a with the greatest S(m ⊗ x) − λ R, where R is the mean square of
    what m's sorted values lack to 0 and, for the share a of all pixels, 1. m is a smooth maximum over discs about the
    points of a lattice, and m ⊗ x the image blurred the more the smaller m is. In the deletion game S((1 − m) ⊗ x)
    becomes least. `.values` are ``(N, H, W)``, 0 to 1: the mean of the masks of all `areas`, so what even the smallest
    holds is 1. ``measures["score_0.1"]`` is the score with the mask of that area, from which the smallest that suffices
    can be told, and ``measures["area_error"]`` how far the worst mask misses its own; over 2 % of the image a warning
    says so. It costs a forward and a backward pass for each step and area.

    Args:
        areas: of the masks, as shares of the image; or one.
        steps: of the ascent.
        game: ``"preserve"``: all but the mask is blurred; ``"delete"``: the mask is.
        smoothness: how wide a mask's least detail is, as a share of the image's shorter side.
        weight: λ, that of the area against the score, so it has to do with the scale of the scores; doubled after each
            third of the steps. With less a mask keeps more of the score, and misses its area by more.

    Raises:
        InputError: an area is not between 0 and 1, or another option is none that there is.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    >>> found = explainer.explain(image, "extremal_perturbation", target=1, areas=0.2, steps=200)
    >>> abs(float(found.map.mean()) - 0.2) < 0.02
    True
    """

    areas: float | Sequence[float] = (0.025, 0.05, 0.1, 0.2)
    steps: int = 800
    game: str = "preserve"
    smoothness: float = 21 / 224
    weight: float = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.steps, "steps")
        if self.game not in GAMES:
            raise InputError(f"game is one of {', '.join(GAMES)}, not {self.game!r}."
                             f"{close_matches(str(self.game), GAMES)}")  # fmt: skip
        if not self._areas or not all(map(_share, self._areas)):
            raise InputError(f"areas are shares of the image, one number between 0 and 1 or several, not "
                             f"{self.areas!r}.")  # fmt: skip
        if not _share(self.smoothness):
            raise InputError(f"smoothness is a share of the image's shorter side, a number between 0 and 1, not "
                             f"{self.smoothness!r}.")  # fmt: skip
        if not (isinstance(self.weight, Real) and 0 < self.weight < float("inf")):
            raise InputError(f"weight is that of the area against the score, a number above 0, not {self.weight!r}.")

    @property
    def _areas(self) -> tuple[Any, ...]:
        return tuple(self.areas) if isinstance(self.areas, list | tuple) else (self.areas,)

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """The masks of all areas, which are sought together, and their mean."""
        record.warnings.extend(self.cautions)
        x = record.input
        areas = torch.tensor([float(area) for area in self._areas], device=x.device, dtype=torch.float64)
        shape = len(x), len(areas), *_lattice(self.smoothness, x.shape[2:])
        points = torch.full(shape, float(self.game == "preserve"), device=x.device, dtype=torch.float64)  # all is seen
        scene = Scene(x, pyramid_of(x), self.game == "preserve")
        with torch.enable_grad(), record.evaluations.apart((self.steps + 1) * len(areas)) as asked:
            self._climb(points.requires_grad_(), asked, scene, areas)
            masks = smooth_masks(points.detach(), x.shape[2:])
            scores = asked.scores(lambda rows, numbers: scene.seen(rows, masks[rows, numbers]), len(areas))
        self._measure(record, masks, areas, scores)
        return masks.mean(1).float()

    def _climb(self, points: Tensor, asked: Evaluations, scene: Scene, areas: Tensor) -> None:
        """Change the lattice's `points` step by step."""
        ascent = torch.optim.SGD([points], _RATE, _MOMENTUM, maximize=True)
        for step in range(self.steps):
            masks = smooth_masks(points, scene.x.shape[2:])
            weight = self.weight * 2 ** (3 * step // self.steps)
            toward = _toward(masks.detach(), asked, scene)
            (points.grad,) = torch.autograd.grad(
                [masks, area_errors(masks, areas).sum()], points, [toward, masks.new_tensor(-weight)]
            )
            ascent.step()
            with torch.no_grad():
                points.clamp_(0, 1)

    def _measure(self, record: Record, masks: Tensor, areas: Tensor, scores: Tensor) -> None:
        """The score with each mask, and how far the worst is from its area."""
        for area, score in zip(self._areas, scores.T, strict=True):
            record.measures[f"score_{float(area):g}"] = score
        error = (masks.flatten(2).mean(2) - areas).abs().amax(1)
        record.measures["area_error"] = error
        if float(error.max()) > _OFF:
            record.warnings.append(
                f"Extremal perturbation: for some image a mask misses its area by more than {_OFF:.0%} of the image, "
                "by how much is measures['area_error']: take more steps=, larger areas= or a smaller smoothness=."
            )


@dataclass(frozen=True)
class Scene:
    """What masks are laid over.

    Attributes:
        x: the images, as the model takes them.
        pyramid: each of them under blurs from none to the greatest, ``(n, levels, C, *sides)``.
        preserve: whether a mask is what stays sharp.
    """

    x: Tensor
    pyramid: Tensor
    preserve: bool

    def seen(self, rows: Tensor, masks: Tensor) -> Tensor:
        """These images with masks ``(b, *sides)``, as the model takes them."""
        return blur_by(self.pyramid[rows], masks if self.preserve else 1 - masks).to(self.x)


def _toward(masks: Tensor, asked: Evaluations, scene: Scene) -> Tensor:
    """The gradient, at the masks, of what is to grow: the score; in the deletion game what it lacks."""
    toward = torch.zeros_like(masks)

    def change(rows: Tensor, numbers: Tensor) -> Tensor:
        return scene.seen(rows, masks[rows, numbers])

    for rows, numbers, passed in asked.records(change, masks.shape[1], _GRADIENT):
        some = masks[rows, numbers].requires_grad_()
        (found,) = torch.autograd.grad(scene.seen(rows, some), some, passed.input_gradient)
        toward[rows, numbers] = found if scene.preserve else -found
    return toward


def smooth_masks(points: Tensor, size: Sequence[int]) -> Tensor:
    """Masks ``(n, a, *size)`` of a lattice's points ``(n, a, *grid)``, 0 to 1, by a smooth max-convolution.

    At each point u of the lattice the smooth maximum of k(u − v) p(v) over the points v around it, k being 1 within a
    step and exp(−(|u − v| − 1)² / 4) beyond; from the lattice to the pixels it is linear.
    """
    flat = points.flatten(0, 1)
    sides = range(1, flat.dim())
    kernel = _kernel(len(sides), points.device)
    around = F.pad(flat[:, None], [_REACH] * 2 * len(sides), mode="replicate")[:, 0]
    for side in sides:
        around = around.unfold(side, 2 * _REACH + 1, 1)
    near = (around * kernel).flatten(flat.dim())
    largest = (near * (near / _TEMPERATURE).softmax(-1)).sum(-1)
    pixels = F.interpolate(largest[:, None], tuple(size), mode=_LINEAR[len(sides)])
    return pixels.view(*points.shape[:2], *size)


def area_errors(masks: Tensor, areas: Tensor) -> Tensor:
    """The mean square of what the sorted values ``(n, a)`` of masks lack to 0 and, for the share of an area, 1.

    Values that are equal lack the same: that of their mean.
    """
    values = masks.flatten(2).sort(2).values
    count = values.shape[2]
    begins = count - areas * count  # where 1 begins; between two values it is shared out
    wanted = (torch.arange(1, count + 1, device=values.device) - begins[:, None]).clamp(0, 1)
    group = (values.detach().diff(dim=2, prepend=values[..., :1].detach()) > _EQUAL).cumsum(2)
    zeros = torch.zeros_like(values.detach())
    sums = zeros.scatter_add(2, group, wanted.expand_as(values))
    counts = zeros.scatter_add(2, group, torch.ones_like(zeros))
    return (values - (sums / counts.clamp(min=1)).gather(2, group)).square().mean(2)


def blur_by(pyramid: Tensor, masks: Tensor) -> Tensor:
    """Images ``(b, C, *sides)`` of pyramids ``(b, levels, C, *sides)``, sharp where masks ``(b, *sides)`` are 1.

    Where a mask is 0 the blur is the greatest; between two levels of the pyramid it is interpolated.
    """
    level = (1 - masks[:, None, None].to(pyramid)) * (_LEVELS - 1)
    sharper = level.detach().floor().clamp(max=_LEVELS - 2)
    pixels = sharper.long().expand(-1, -1, *pyramid.shape[2:])
    return torch.lerp(pyramid.gather(1, pixels), pyramid.gather(1, pixels + 1), level - sharper)[:, 0]


def pyramid_of(x: Tensor) -> Tensor:
    """Each image under blurs from none to the greatest, ``(n, levels, C, *sides)``; none in half precision."""
    most, exact = _BLUR * min(x.shape[2:]), x if x.dtype == torch.float64 else x.float()
    return torch.stack([exact, *(blurred(exact, most * n / (_LEVELS - 1)) for n in range(1, _LEVELS))], 1)


def _lattice(smoothness: float, size: Sequence[int]) -> tuple[int, ...]:
    """How many points a lattice has along each side."""
    step = max(smoothness * min(size) / _STEPS, 1)
    return tuple(max(round(side / step), 1) for side in size)


def _kernel(sides: int, device: torch.device) -> Tensor:
    """What is left of a point's value at the points around it."""
    along = torch.arange(-_REACH, _REACH + 1, device=device, dtype=torch.float64)
    squares = sum(part.square() for part in torch.meshgrid(*(along for _ in range(sides)), indexing="ij"))
    assert isinstance(squares, Tensor)
    return (-((squares.sqrt() - 1).clamp(min=0) ** 2) / 4).exp()


def _share(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and 0 < float(number) < 1
