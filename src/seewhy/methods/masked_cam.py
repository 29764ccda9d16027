"""Class activation maps whose weights are asked of the model, without any gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import whole
from ..engine.record import LayerRecord, Needs
from .base import Method, cut, stretched, upsample, weighted_sum
from .registry import register
from .repeating import Perturbing

_ROUNDING = 4  # units in the last place of scores, within which they are equal
_EQUAL = (
    "Recipro-CAM: for some image the scores of all positions are equal but for rounding, so its map is 0. Another "
    "layer may tell positions apart, or the model in float32."
)


@register("ablation_cam")
@dataclass(frozen=True)
class AblationCAM(Method):
    """Ablation-CAM: a layer's channels weighted by how far the score falls without them.

    Desai, Ramaswamy 2020, "Ablation-CAM", WACV, eq. 3-4: w_k = (S − S_k) / S, S_k being the score with channel k at 0;
    ReLU(sum over k of w_k A_k). Here it is divided by |S|, so that a channel that argues for the target has a positive
    weight also where S is negative; where S is 0 it is not divided, and a warning says so. `.values` are ``(N, h, w)``,
    at least 0. It costs a run of what comes after the layer for each channel that is not 0 anyway.
    """

    needs = Needs(activation=True, evaluations=True)

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 4."""
        activation, score = record.activation, record.scores.double()[:, None]

        def ablate(rows: Tensor, numbers: Tensor) -> Tensor:
            changed = activation[rows]
            changed[torch.arange(len(rows), device=rows.device), numbers] = 0
            return changed

        alive = activation.flatten(2).any(2)
        falls = (score - record.evaluations.layer_scores(ablate, activation.shape[1], alive)).nan_to_num(0)
        if (score == 0).any():
            record.warnings.append("Ablation-CAM divides by |S|, and S is 0 for some image: there it is not divided.")
        weights = falls / torch.where(score == 0, 1, score.abs())
        return weighted_sum(weights, activation)


@register("score_cam")
@dataclass(frozen=True)
class ScoreCAM(Perturbing):
    """Score-CAM: a layer's channels weighted by the score of the image seen through each of them.

    Wang et al. 2019, "Score-CAM", arXiv 1910.01279, eq. 6-8 and algorithm 1: each channel, bilinear at the input's size
    and stretched to 0..1, is multiplied with the input; the softmax over the channels of the scores gives the weights
    of ReLU(sum over k of w_k A_k). The score of a blank image, which the paper subtracts, changes nothing in a softmax.
    `.values` are ``(N, h, w)``, at least 0. It costs a forward pass for each channel; those that are the same at all
    positions leave the image blank, and cost one together.

    Args:
        channels: None: all; a number: only so many of each image, with the greatest variance over the positions.
    """

    channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels is not None:
            whole(self.channels, "channels")

    @property
    def needs(self) -> Needs:
        """The activation, and to ask the model again."""
        return Needs(activation=True, evaluations=self.speed)

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 8."""
        x, activation = record.input, record.activation
        count = activation.shape[1]
        wanted = _most_varied(activation, self.channels or count)
        lively = activation.flatten(2).amax(2) > activation.flatten(2).amin(2)
        blank = (wanted & ~lively).any(1, keepdim=True)

        def see_through(rows: Tensor, numbers: Tensor) -> Tensor:
            channels = activation[rows, numbers.clamp(max=count - 1)]
            masks = cut(upsample(channels, record.sides), x.shape[2:])
            shown = stretched(masks) * (numbers < count).view(-1, *(1 for _ in x.shape[2:]))
            return x[rows] * shown[:, None].to(x)

        asked = torch.cat([wanted & lively, blank], 1)
        scores = record.evaluations.scores(see_through, count + 1, asked)
        scores = torch.where(lively, scores[:, :-1], scores[:, -1:])
        weights = scores.masked_fill(~wanted, -torch.inf).softmax(1)
        return weighted_sum(weights, activation)


@register("recipro_cam")
@dataclass(frozen=True)
class ReciproCAM(Method):
    """Recipro-CAM: at each position of a layer, the score that the activation there gives alone.

    Byun, Lee 2022, "Recipro-CAM", arXiv 2209.14074, eq. 2-4: the layer's activation is kept at one position, or under a
    3 x 3 Gaussian about it, and 0 elsewhere; the scores S of all positions, stretched to 0..1, are the map. The paper
    takes probabilities for S: ``target=seewhy.Probability()``. `.values` are ``(N, h, w)``, from 0 where the score is
    least to 1 where it is greatest; 0 everywhere, with a warning, where all are equal but for rounding. It costs a run
    of what comes after the layer for each position.

    Args:
        gaussian: whether neighbours are kept too, with weights of 1/2 to 1/4 of the middle's 1/4.
    """

    gaussian: bool = True
    needs = Needs(activation=True, evaluations=True)

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 4."""
        activation = record.activation
        grid = activation.shape[2:]
        positions = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")).flatten(1)
        positions = positions.T.to(activation.device)

        def keep(rows: Tensor, numbers: Tensor) -> Tensor:
            return activation[rows] * self._masks(positions[numbers], grid).to(activation)

        scores = record.evaluations.layer_scores(keep, len(positions))
        rounding = _ROUNDING * torch.finfo(activation.dtype).eps * scores.abs().amax(1, keepdim=True)
        equal = scores.amax(1, keepdim=True) - scores.amin(1, keepdim=True) <= rounding
        if equal.any():
            record.warnings.append(_EQUAL)
        return stretched(scores.masked_fill(equal, 0).view(len(activation), *grid)).float()

    def _masks(self, positions: Tensor, grid: tuple[int, ...]) -> Tensor:
        """What is kept, ``(b, 1, *grid)``: the product over the sides of 1/2 in the middle and 1/4 beside it."""
        masks = torch.ones(len(positions), *(1 for _ in grid), device=positions.device)
        for axis, side in enumerate(grid):
            away = (torch.arange(side, device=positions.device) - positions[:, axis, None]).abs()
            beside = 0.25 * (away == 1) if self.gaussian else 0
            kept = (0.5 if self.gaussian else 1.0) * (away == 0) + beside
            masks = masks * kept.view(len(positions), *(side if i == axis else 1 for i in range(len(grid))))
        return masks[:, None]


def _most_varied(activation: Tensor, count: int) -> Tensor:
    """The channels of each image that vary most over the positions, bool ``(n, C)``."""
    variance = activation.flatten(2).float().var(2, correction=0)
    best = variance.topk(min(count, variance.shape[1]), dim=1).indices
    return torch.zeros_like(variance, dtype=torch.bool).scatter(1, best, True)
