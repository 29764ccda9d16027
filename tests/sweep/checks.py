"""What is asked of every network of the sweep, and what came of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from nets import Net
from torch import Tensor, nn

from seewhy import Explainer, Explanation, SeewhyError, SeewhyWarning
from seewhy.testing import unchanged

_TOLERANCE = 1e-4  # of the largest value: the networks run in float64, the maps are float32
_SCRAMBLES = 40


@dataclass
class Verdict:
    """What came of one network.

    Attributes:
        outcome: ``"right"``, ``"refused"`` (by an error of the library, `reason`) or ``"wrong"``.
        locality: how well changes of the image and of the layer agree in place, at most 1; `next_best` that of the
            best of the layouts that would be wrong, `scramble`.
    """

    net: Net
    outcome: str = "wrong"
    reason: str = ""
    layer: str = ""
    layout: str = ""
    grid: tuple[int, ...] = ()
    locality: float = 0.0
    next_best: float = 0.0
    scramble: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """All of it in a line."""
        what = f"{self.layer}  {self.layout} {self.grid}  in place {self.locality:.2f}, else {self.next_best:.2f}"
        return f"{self.outcome:8} {self.net.source}: {self.net.name}  {what}  {self.seconds:.1f} s  {self.reason}"

    def record(self) -> dict[str, object]:
        """All of it as plain values."""
        return {**vars(self), "net": self.net.name, "source": self.net.source}


def examine(net: Net) -> Verdict:
    """Explain `net` with nothing but the network, and check all that can be."""
    verdict, start = Verdict(net), time.process_time()
    model = net.model()
    try:
        _examine(net, model, verdict)
        verdict.outcome = "right"
    except SeewhyError as error:
        verdict.outcome, verdict.reason = "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        verdict.reason = f"{type(error).__name__}: {error}"
    verdict.seconds = time.process_time() - start
    return verdict


def _examine(net: Net, model: nn.Module, verdict: Verdict) -> None:
    images, explainer = net.images(), Explainer(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)
        with unchanged(model):
            both = explainer.explain(images, ["saliency", "grad_cam"])
        saliency, cam = both["saliency"], both["grad_cam"]
        verdict.layer, verdict.grid = str(cam.layer), cam.values.shape[1:]
        for target in range(3):  # a Grad-CAM of zeros may be right, but shows little
            if cam.maps.reshape(len(cam.maps), -1).any(1).all() or saliency.targets.min() < 0:
                break
            saliency, cam = explainer.explain(images, ["saliency", "grad_cam"], target=target).values()
        _check_maps(images, saliency, cam)
        _check_singles(model, images, saliency, cam)
        verdict.layout = next(i.layout for i in explainer.layers(images[:1]) if i.name == cam.layer)
        _check_places(net, explainer, verdict)


def _check_maps(images: Tensor, saliency: Explanation, cam: Explanation) -> None:
    sides = tuple(images.shape[2:])
    for found in (saliency, cam):
        assert found.maps.shape == (len(images), *sides), f"{found.method}: maps of shape {found.maps.shape}"
        assert np.isfinite(found.maps).all(), f"{found.method} is not finite"
    assert (saliency.maps.reshape(len(images), -1).std(1) > 0).all(), "saliency is constant"
    assert cam.maps.any(), "Grad-CAM is 0 for every image and target"
    assert np.prod(cam.values.shape[1:]) > 1, f"one position only: {cam.values.shape}"


def _check_singles(model: nn.Module, images: Tensor, saliency: Explanation, cam: Explanation) -> None:
    """Each image by itself, to an explainer that has chosen no layer yet."""
    for index in range(len(images)):
        target = None if saliency.targets.min() < 0 else int(saliency.targets[index])
        single = Explainer(model).explain(images[index : index + 1], ["saliency", "grad_cam"], target=target)
        for batch, alone in ((saliency, single["saliency"]), (cam, single["grad_cam"])):
            assert alone.layer == batch.layer, f"{alone.layer} for image {index} alone, {batch.layer} in the batch"
            error = np.abs(batch.values[index] - alone.values[0]).max()
            largest = np.abs(batch.values).max()
            assert error <= _TOLERANCE * largest, f"{batch.method} of image {index} alone differs by {error / largest}"


def _check_places(net: Net, explainer: Explainer, verdict: Verdict) -> None:
    """Change the image in one place after another: where the layer changes must be the same place."""
    for rounds in (1, 4):  # deep networks that mix far and wide need more to tell places by
        _look_at_places(net, explainer, verdict, rounds)
        if verdict.locality > verdict.next_best:
            return
    raise AssertionError(
        f"the layer's positions agree with the image's to {verdict.locality:.3f} only, and "
        f"{verdict.scramble} to {verdict.next_best:.3f}"
    )


def _look_at_places(net: Net, explainer: Explainer, verdict: Verdict, rounds: int) -> None:
    images = net.images(2 * rounds)
    changes = []
    for image, other in zip(images[::2], images[1::2], strict=True):
        places, changed = changed_places(image, other)
        found = explainer.explain(torch.cat([image[None], changed]), "activations", layer=verdict.layer).values
        changes.append(np.square(found[1:].astype(np.float64) - found[:1]).sum(1))
    evidence = np.mean([np.log(c + 1e-12 * c.max() + 1e-300) for c in changes], 0)
    verdict.locality = locality(evidence, places)
    wrong = {name: locality(other, places) for name, other in scrambles(evidence)}
    wrong = {name: found for name, found in wrong.items() if not (net.off_centre and name.endswith("token off"))}
    verdict.scramble = max(wrong, key=lambda name: wrong[name])
    verdict.next_best = wrong[verdict.scramble]


def changed_places(image: Tensor, other: Tensor) -> tuple[np.ndarray, Tensor]:
    """Places in units of the image's sides ``(K, sides)``, and `image` with a window of `other` there ``(K, C, …)``."""
    sides = image.shape[1:]
    per_side = 2 if len(sides) == 3 else 3
    steps = [(np.arange(per_side) + 0.5) / per_side] * len(sides)
    places = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, len(sides))
    changed = torch.stack([image] * len(places))
    for one, place in zip(changed, places, strict=True):
        window = (slice(None), *(_around(centre, side) for centre, side in zip(place, sides, strict=True)))
        one[window] = other[window]
    return places, changed


def _around(centre: float, side: int) -> slice:
    half = max(side // 8, 1)
    middle = int(centre * side)
    return slice(max(middle - half, 0), middle + half)


def locality(changes: np.ndarray, places: np.ndarray) -> float:
    """How well a layer's `changes` ``(K, *grid)``, in logarithms, fall off with distance from `places` ``(K, sides)``.

    Minus the correlation of the two, once what all places and all positions have in common is taken off:
    global mixing and positions that are sensitive to everything then say nothing.
    """
    grid = changes.shape[1:]
    centres = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid), indexing="ij"), -1)
    distance = np.linalg.norm(places[:, None] - centres.reshape(1, -1, len(grid)), axis=-1)
    flat = changes.reshape(len(changes), -1)
    a, b = _centred(flat), _centred(distance)
    return float(-(a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))


def _centred(table: np.ndarray) -> np.ndarray:
    return table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()


def scrambles(changes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same positions in the orders that wrong layouts would give."""
    count, *grid = changes.shape
    for axis in range(1, changes.ndim):
        if grid[axis - 1] > 1:
            yield f"flipped along axis {axis}", np.flip(changes, axis)
    flat = changes.reshape(count, -1)
    for shift in (-1, 1):
        yield f"{shift} token off", np.roll(flat, shift, 1).reshape(changes.shape)
    if min(grid[-2:]) > 1:
        turned = changes.reshape(count, *grid[:-2], grid[-1], grid[-2])
        yield "columns taken for rows", turned.swapaxes(-1, -2)
    generator = np.random.default_rng(3)
    for number in range(_SCRAMBLES):
        order = generator.permutation(flat.shape[1])
        if (order != np.arange(len(order))).any():
            yield f"the {number}. of any orders", flat[:, order].reshape(changes.shape)
