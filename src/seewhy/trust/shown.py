"""The images that maps are of, as the model takes them: given again, kept, or made of what is left of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..colours import colours
from ..errors import InputError
from ..explanation import Explanation
from ..images import Images, gather
from ..layouts import first_convolution

if TYPE_CHECKING:
    from ..explainer import Explainer


@dataclass(frozen=True, eq=False)
class Shown:
    """The images of N maps.

    Attributes:
        explainer: which knows what the model takes.
        explanation: that of the maps, if they have one: its images must be the same.
        index: int ``(N,)``, which image each map is of.
        images: where they are to be had; None: nowhere, but the pictures of what the model saw.
    """

    explainer: Explainer
    explanation: Explanation | None
    index: NDArray[np.integer]
    images: Images | None

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.images) if self.images else len(self.index)

    def load(self, start: int, stop: int) -> Tensor:
        """The model's input ``(n, C, *sides)`` for some of the maps, where the model is and in its precision."""
        if self.images is None:
            return self.explainer._placed(self._from_pictures(start, stop))
        index = self.index[start:stop].tolist()
        seen, how = self.explanation is not None, self.explainer._preprocessing
        loaded = {i: self.images.load(i, i + 1, how, seen=seen) for i in dict.fromkeys(index)}
        if seen:
            self._check(np.concatenate([loaded[i][1] for i in index]), start)
        return self.explainer._placed(torch.cat([loaded[i][0] for i in index]))

    def _from_pictures(self, start: int, stop: int) -> Tensor:
        """What the model saw, as its input: to half a level of 255 what it was."""
        kept = self.explanation.images[start:stop]  # type: ignore[union-attr]
        pictures = torch.from_numpy(np.array(kept)).movedim(-1, 1).float() / 255
        first = first_convolution(self.explainer._inner)
        channels = first.in_channels if first else 3
        how = self.explainer._preprocessing
        found = colours(how, channels) if self.explainer._sides == 2 and not how.assumed else None
        if found is None:
            raise InputError(
                "This explanation does not have its images with it, as it comes from a file or another process, and "
                "what the model got cannot be told from its pictures, without a transform or by what this one does: "
                "give images=."
            )
        weights, offset = found
        if weights.shape[1] == 1:
            pictures = pictures[:, :1]
        return torch.einsum("cd,ndhw->nchw", weights, pictures) + offset.view(-1, 1, 1)

    def _check(self, pictures: NDArray[np.uint8], start: int) -> None:
        before = self.explanation.images[start : start + len(pictures)]  # type: ignore[union-attr]
        if before.shape != pictures.shape or not np.array_equal(before, pictures):
            raise InputError(
                "The images are not those that were explained: what the model would see now differs from what it saw. "
                "They were changed since, or the transform gives something else each time; explain them again."
            )


def find_shown(explainer: Explainer, maps: NDArray[np.float32], explanation: Explanation | None, given: Any) -> Shown:
    """The images of maps: those that are `given`, else those of the explanation.

    Raises:
        InputError: there are none, or not as many as there must be.
    """
    if explanation is None:
        if given is None:
            raise InputError("The model is asked about images, and there are none: give images= (and target=) beside "
                             "plain maps.")  # fmt: skip
        images = gather(given, explainer._sides)
        each, rest = divmod(len(maps), len(images))
        if rest:
            raise InputError(f"{len(maps)} maps and {len(images)} images: give as many, or several maps of each.")
        return Shown(explainer, None, np.arange(len(maps)) // each, images)
    index = explanation.image_index
    if given is not None:
        images = gather(given, explainer._sides)
        if len(images) <= (last := int(index.max())):
            raise InputError(f"The explanation is of image {last}, and {len(images)} are given: give all that were "
                             "explained.")  # fmt: skip
        return Shown(explainer, explanation, index, images)
    if explanation.origin:
        return Shown(explainer, explanation, index, explanation.origin.images)
    sources = explanation.sources
    if sources and all(sources):  # files, each opened once
        rows = {int(i): source for i, source in zip(index, sources, strict=True)}
        index = np.array([list(rows).index(int(i)) for i in index])
        return Shown(explainer, explanation, index, gather(list(rows.values()), explainer._sides))
    return Shown(explainer, explanation, index, None)
