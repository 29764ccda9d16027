"""Gradient ascent on many images at once, each with an objective of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine.ascent import Ascent
from ..engine.diagnose import refuse_unsound
from ..engine.rules import BackwardRule, find_activations, graph
from ..engine.straighten import straighten
from ..errors import GradientError, ModelError, NonFiniteError
from ..outputs import read_outputs
from .objectives import Objective, Seen
from .parametrisation import Parametrisation
from .recipes import Recipe

if TYPE_CHECKING:
    from ..explainer import Explainer

PASS = 1  # images of a pass on the CPU: 64 cost up to 2.6 times more each, and round otherwise than one alone
OPEN = 16  # first steps in which a ReLU that blocks all of an image's gradient is passed


@dataclass(frozen=True)
class Climbed:
    """What climbing gave for K objectives: images ``(K·copies, C, s, s)``, and per step what they had reached.

    Attributes:
        images: in 0..1, but for pixels that left it.
        gone: the accumulated magnitude of the gradient at each pixel, ``(K·copies, s, s)``.
        alive: whether a gradient of the objective itself ever arrived, or it rose all the same, ``(K·copies,)``.
        history: ``(steps + 1, K)``, the mean over copies.
    """

    images: Tensor
    gone: Tensor
    alive: Tensor
    history: NDArray[np.float32]


class Climber:
    """Climbs `objectives` by a `recipe`.

    Args:
        ascent: gives activations and outputs.
        to_input: from images in 0..1 to the model's input.
        explainer: of the model, which knows how to read what it returns.
        labels: of each layer as objectives name it.
        recipe: how.
        copies: images for each objective.
        seed: of the wobbling.
        step_done: called after each step.
    """

    def __init__(
        self,
        ascent: Ascent,
        to_input: Callable[[Tensor], Tensor],
        explainer: Explainer,
        labels: dict[Any, str],
        recipe: Recipe,
        copies: int,
        seed: int,
        step_done: Callable[[], object],
    ) -> None:
        self._ascent, self._to_input, self._explainer, self._labels = ascent, to_input, explainer, labels
        self._recipe, self.copies, self._seed, self._step_done = recipe, copies, seed, step_done

    def climb(self, objectives: Sequence[Objective], start: Parametrisation) -> Climbed:
        """All steps for these objectives at once."""
        recipe = self._recipe
        optimiser = torch.optim.Adam([start.values], recipe.rate, eps=recipe.calm)
        history = [self._reached(objectives, start)]
        gone: Tensor = torch.zeros((), device=start.values.device)
        alive = torch.zeros(len(start.values), dtype=torch.bool, device=start.values.device)
        for step in range(recipe.steps):
            made = start.images()
            passes = [self._pass(some, images, step) for some, images in self._groups(objectives, made.detach())]
            values, gradient, arrived = (torch.cat(parts) for parts in zip(*passes, strict=True))
            alive |= arrived
            gone = gone + gradient.abs().mean(1)
            if recipe.normalised:
                start.values.data += recipe.rate * gradient / _size(gradient)
            else:
                (slope,) = torch.autograd.grad(made, start.values, -gradient)
                start.values.grad = slope / _size(slope)
                optimiser.step()
            if step:
                history.append(values)
            self._step_done()
        history.append(self._reached(objectives, start))
        alive |= history[-1] > history[0]  # though no gradient was left as soon as it woke, at the top of a ReLU6
        means = torch.stack(history).view(-1, len(objectives), self.copies).mean(2)
        return Climbed(start.images().detach(), gone, alive, means.float().cpu().numpy())

    def _groups(self, objectives: Sequence[Objective], images: Tensor) -> Iterator[tuple[Sequence[Objective], Tensor]]:
        """What goes through the model in one pass: on a GPU all."""
        count = max(1, PASS // self.copies) if images.device.type == "cpu" else len(objectives)
        for i in range(0, len(objectives), count):
            yield objectives[i : i + count], images[i * self.copies : (i + count) * self.copies]

    def _pass(self, objectives: Sequence[Objective], images: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The objective of each image as it is shaken in this step, its gradient, and whether there is one."""
        leaf = images.clone().requires_grad_()
        values = self._values(objectives, self._recipe.wobble(leaf, step, self._seed) if self._recipe.wobble else leaf)
        if not step:
            refuse_unsound(values, graph([values]))
        straighten(graph([values]))
        return values.detach(), *self._gradient(values, leaf, opened=step < OPEN)

    def _reached(self, objectives: Sequence[Objective], start: Parametrisation) -> Tensor:
        """The objectives of the images as they are."""
        with torch.no_grad():
            values = torch.cat([self._values(*group) for group in self._groups(objectives, start.images())])
        if not values.isfinite().all():
            bad = objectives[int(values.isfinite().logical_not().nonzero()[0]) // self.copies]
            raise NonFiniteError(f"{bad.name} is NaN or infinite: the model's weights hold some, or it overflows.")
        return values

    def _values(self, objectives: Sequence[Objective], images: Tensor) -> Tensor:
        """The objective of each image, ``(K·copies,)``."""
        activations, raw = self._ascent(self._to_input(images))
        scores: Sequence[Tensor | None] = [None] * len(objectives)
        if raw is not None:
            scores = self._scores(raw, len(images)).tensor_split(len(objectives))
        parts = {given: activations[label].tensor_split(len(objectives)) for given, label in self._labels.items()}
        each = enumerate(objectives)
        return torch.cat(
            [one.value(Seen({given: part[i] for given, part in parts.items()}, scores[i])) for i, one in each]
        )

    def _scores(self, raw: Any, count: int) -> Tensor:
        scores = read_outputs(raw, count, self._explainer._output, self._explainer._classes).scores
        if scores is None:
            raise ModelError("The model gives no class scores: maximize channels, or pick scores with output=.")
        return scores

    def _gradient(self, values: Tensor, images: Tensor, *, opened: bool) -> tuple[Tensor, Tensor]:
        """The gradient of each image's objective at it, and whether there is one.

        Where there is none it is taken once more through the ReLUs that block it, if these are `opened`.
        """
        if not values.requires_grad:
            raise GradientError("The objective does not depend on the image, so there is nothing to climb.")
        (gradient,) = torch.autograd.grad(values.sum(), images, retain_graph=opened, allow_unused=True)
        if gradient is None:
            raise GradientError("No gradient of the objective arrives at the image: the model cuts it off.")
        blocked = ~gradient.flatten(1).any(1)
        if opened and blocked.any():
            with _opened(values):
                (through,) = torch.autograd.grad(values.sum(), images)
            gradient = torch.where(blocked[:, None, None, None], through, gradient)
        return gradient, ~blocked


def _size(gradient: Tensor) -> Tensor:
    """Each image's root mean square, one by one, as sums over a batch round otherwise; a little more than 0."""
    sizes = torch.stack([one.square().mean().sqrt() for one in gradient]) + 1e-20
    return sizes.view(-1, *[1] * (gradient.dim() - 1))


@contextmanager
def _opened(values: Tensor) -> Iterator[None]:
    """Let the gradient through a ReLU that would stop all of it for an image, as dead units do at the start."""

    def hook(results: tuple[Tensor | None, ...], incoming: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        if results[0] is None:
            return results
        stopped = ~results[0].flatten(1).any(1)
        return (torch.where(stopped.view(-1, *[1] * (results[0].dim() - 1)), incoming[0], results[0]), *results[1:])

    nodes = find_activations(graph([values]), BackwardRule("guided")).treated
    handles = [node.register_hook(hook) for node in nodes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
