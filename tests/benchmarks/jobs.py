"""What is measured: each job is a function of a setting, by a short name in `JOBS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import peers
import torch
from networks import Setting, grid_of_tokens, make_setting
from timing import peak_bytes, peak_of_process
from torch.utils.data import DataLoader, TensorDataset

import seewhy
from seewhy import Explainer

SAME = 1e-3  # of the greatest value, by which the same maps may differ: they are float32 sums in different orders
ALIKE = 0.99  # the correlation of maps of which a detail differs, which is then said


@dataclass
class Job:
    """What is to be measured.

    Attributes:
        title: the job in words.
        work: what is timed, by name.
        rows: pairs of these: the first as a multiple of the second.
        agreement: from what each of the work returned to how nearly the maps are the same.
        best: the quickest of those whose names start so, as a multiple of another.
        long: whether fewer rounds are enough.
        numbers: what else is measured, as memory.
    """

    title: str
    work: dict[str, Callable[[], Any]]
    rows: list[tuple[str, str]]
    agreement: Callable[[dict[str, Any]], dict[str, Any]]
    best: list[tuple[str, str]] = field(default_factory=list)
    long: bool = False
    numbers: Callable[[], dict[str, float]] | None = None


JOBS: dict[str, Callable[[Setting], Job]] = {}


def job(make: Callable[[Setting], Job]) -> Callable[[Setting], Job]:
    """List a job by the name of the function that makes it."""
    JOBS[make.__name__] = make
    return make


@job
def methods(at: Setting) -> Job:
    """The shared pass: every kind of method at five layers."""
    of_layers = ["grad_cam", "guided_grad_cam", "activations"] if at.relu else ["grad_cam", "activations"]
    names = ["saliency", "guided_backprop", *of_layers] if at.relu else ["saliency", *of_layers]
    bare = f"forward + {2 if at.relu else 1} backward{'s' * at.relu}"

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        mine, theirs = got["seewhy"], got["Captum"]
        keys = [key for key in theirs if key in mine]
        # Captum's saliency is the absolute value.
        pairs = {key: (np.abs(mine[key].values) if key == "saliency" else mine[key].values) for key in keys}
        return {"greatest difference": max(same(pairs[key], squeezed(theirs[key], pairs[key])) for key in keys)}

    return Job(
        f"{', '.join(names)} at 5 layers",
        {
            "seewhy": lambda: at.explainer.explain(at.image, names, target=at.target, layer=at.layers),
            "Captum": lambda: peers.captum_methods(at, at.layers, at.target),
            bare: peers.backwards(at, 2 if at.relu else 1),
        },
        # Of a vision transformer Captum does saliency and activations alone, which is no comparison.
        [("seewhy", bare), ("Captum", "seewhy")] if at.relu else [("seewhy", bare)],
        agreement,
    )


@job
def saliency(at: Setting) -> Job:
    """One gradient."""
    return Job(
        "saliency",
        {
            "seewhy": lambda: at.explainer.explain(at.image, "saliency", target=at.target),
            "Captum": lambda: peers.captum_saliency(at, at.target),
            "forward + backward": peers.backwards(at, 1),
        },
        [("seewhy", "forward + backward"), ("Captum", "seewhy")],
        lambda got: {"Captum, greatest difference": same(np.abs(got["seewhy"].values), got["Captum"])},
    )


@job
def grad_cam(at: Setting) -> Job:
    """One map at one layer, and the layer chosen."""

    def numbers() -> dict[str, float]:
        mine = peak_bytes(lambda: at.explainer.explain(at.image, target=at.target, layer=at.last))
        return {"live bytes of seewhy / those of a forward": mine / peak_bytes(peers.forward(at))}

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        mine = got["seewhy"]
        found = {
            "TorchCAM, greatest difference": same(stretched(mine.values), got["TorchCAM"][0]),
            "pytorch-grad-cam, greatest difference": same(stretched(mine.maps), got["pytorch-grad-cam"][0]),
        }
        if at.relu:
            found["Captum, greatest difference"] = same(mine.values, got["Captum"][0][:, 0])
        return found

    captum = {"Captum": lambda: peers.captum_grad_cam(at, [at.last], [at.target])} if at.relu else {}
    work = {
        "seewhy": lambda: at.explainer.explain(at.image, target=at.target, layer=at.last),
        "seewhy, layer chosen earlier": lambda: at.explainer.explain(at.image, target=at.target),
        "seewhy, layer chosen now": lambda: Explainer(at.model).explain(at.image, target=at.target),
        **captum,
        "TorchCAM": lambda: peers.torchcam_of("GradCAM", at, [at.image], at.target),
        "pytorch-grad-cam": lambda: peers.grad_cam_of("GradCAM", at, [at.image], at.target),
        "forward": peers.forward(at),
    }
    rows = [(what, "forward") for what in work if what.startswith("seewhy")]
    rows += [(peer, "seewhy") for peer in (*captum, "TorchCAM", "pytorch-grad-cam")]
    return Job("Grad-CAM at one layer", work, rows, agreement, numbers=numbers)


@job
def ablation_cam(at: Setting) -> Job:
    """All channels of the last stage, each set to 0 in turn."""
    return Job(
        f"Ablation-CAM at {at.last}, all channels, predicted class",
        {
            "seewhy": lambda: at.explainer.explain(at.image, "ablation_cam", layer=at.last),
            "pytorch-grad-cam": lambda: peers.grad_cam_of("AblationCAM", at, [at.image], None),
        },
        [("pytorch-grad-cam", "seewhy")],
        lambda got: {"greatest difference": same(stretched(got["seewhy"].maps), got["pytorch-grad-cam"][0])},
        long=True,
    )


@job
def score_cam(at: Setting) -> Job:
    """All channels, and the quarter of them that vary most."""
    with torch.no_grad():
        channels = at.explainer.explain(at.image, "activations", layer=at.last).values.shape[1]
    top = channels // 4
    fewer = f"seewhy, {top} of {channels} channels"

    def ours(**how: Any) -> Any:
        return at.explainer.explain(at.image, "score_cam", layer=at.last, **how)

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        mine = got["seewhy"]
        # TorchCAM stretches a channel to 0..1 before it upsamples it, pytorch-grad-cam upsamples with aligned corners.
        return {
            "TorchCAM, correlation": alike(mine.values, got["TorchCAM"][0]),
            "pytorch-grad-cam, correlation": alike(mine.maps, got["pytorch-grad-cam"][0]),
            f"{fewer}, correlation with all channels": correlation(mine.values, got[fewer].values),
        }

    return Job(
        f"Score-CAM at {at.last}, all {channels} channels, predicted class",
        {
            "seewhy": ours,
            fewer: lambda: ours(channels=top),
            "TorchCAM": lambda: peers.torchcam_of("ScoreCAM", at, [at.image], None),
            "pytorch-grad-cam": lambda: peers.grad_cam_of("ScoreCAM", at, [at.image], None),
        },
        [(peer, mine) for peer in ("TorchCAM", "pytorch-grad-cam") for mine in ("seewhy", fewer)],
        agreement,
        long=True,
    )


@job
def score_cam_trained(at: Setting) -> Job:
    """The same with trained weights and a photo, where many channels are 0 everywhere."""
    return score_cam(at)


@job
def occlusion(at: Setting) -> Job:
    """Windows of 32 pixels, 16 apart."""
    window, stride = 32, 32 if at.quick else 16

    def ours(**how: Any) -> Any:
        zeros = torch.zeros(3, 1, 1)
        return at.explainer.explain(
            at.image, "occlusion", target=at.target, window=window, stride=stride, baseline=zeros, **how
        )

    def captum(together: int) -> Callable[[], Any]:
        return lambda: peers.captum_occlusion(at, at.target, window, stride, perturbations_per_eval=together)

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        mine, fast = got["seewhy"].values, got["seewhy, accelerated"]
        rough = {name: result for name, result in got.items() if "bfloat16" in name}
        told = {
            f"{name}, used": result.provenance["faster"] for name, result in [("accelerated", fast), *rough.items()]
        }
        return {
            "Captum, greatest difference": same(mine, got["Captum"][:, 0]),
            "accelerated, greatest difference": same(mine, fast.values, within=0.02),
            **{f"{name}, correlation": correlation(mine, result.values) for name, result in rough.items()},
            **told,
        }

    ways = ["seewhy", "seewhy, accelerated", "seewhy, bfloat16", "seewhy, accelerated, bfloat16"]
    rows = [("Captum", mine) for mine in ways]
    return Job(
        f"occlusion, windows of {window}, {stride} apart",
        {
            "seewhy": ours,
            "seewhy, accelerated": lambda: ours(accelerate=True),
            "seewhy, bfloat16": lambda: ours(dtype="bfloat16"),
            "seewhy, accelerated, bfloat16": lambda: ours(accelerate=True, dtype="bfloat16"),
            "Captum": captum(1),
            **{f"Captum, {together} at once": captum(together) for together in (4, 8, 16, 32)},
        },
        rows,
        agreement,
        best=rows,
        long=True,
    )


@job
def integrated_gradients(at: Setting) -> Job:
    """Fifty gradients."""
    steps = 32 if at.quick else 50

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        mine, fast = got["seewhy"], got["seewhy, accelerated"]
        return {
            "Captum, greatest difference": same(mine.values, got["Captum"]),
            # Where a ReLU's input is about 0, rounding decides whether a gradient passes.
            "accelerated, correlation": alike(mine.values, fast.values),
            "accelerated, used": fast.provenance["faster"],
        }

    def numbers() -> dict[str, float]:
        mine, theirs = (peak_bytes(make(at.name, steps)) for make in (our_gradients, captum_gradients))
        found = {"live bytes of Captum / those of seewhy": theirs / mine}
        mine_grown, their_grown = (peak_of_process(make, at.name, steps) for make in (our_gradients, captum_gradients))
        if mine_grown and their_grown:
            found["growth of a process with seewhy, MB"] = mine_grown / 1e6
            found["growth of a process with Captum, MB"] = their_grown / 1e6
            found["growth of a process with Captum / with seewhy"] = their_grown / mine_grown
        return found

    return Job(
        f"integrated gradients, {steps} steps",
        {
            "seewhy": lambda: our_explanation(at, steps),
            "seewhy, accelerated": lambda: our_explanation(at, steps, accelerate=True),
            "Captum": lambda: peers.captum_integrated_gradients(at, at.target, steps),
            "Captum, 4 at once": lambda: peers.captum_integrated_gradients(at, at.target, steps, internal_batch_size=4),
        },
        [("Captum", "seewhy"), ("Captum", "seewhy, accelerated"), ("Captum, 4 at once", "seewhy")],
        agreement,
        long=True,
        numbers=numbers,
    )


def our_explanation(at: Setting, steps: int, **how: Any) -> Any:
    """Integrated gradients from 0, as Captum has them unless told."""
    start = torch.zeros(3, 1, 1)
    return at.explainer.explain(at.image, "integrated_gradients", target=at.target, steps=steps, baseline=start, **how)


def our_gradients(network: str, steps: int) -> Callable[[], Any]:
    """The same in a process of its own, where few steps have loaded what there is to load."""
    at = make_setting(network)
    our_explanation(at, 1)
    return lambda: our_explanation(at, steps)


def captum_gradients(network: str, steps: int) -> Callable[[], Any]:
    """Captum's in a process of its own."""
    at = make_setting(network)
    peers.captum_integrated_gradients(at, at.target, 1)
    return lambda: peers.captum_integrated_gradients(at, at.target, steps)


@job
def top_classes(at: Setting) -> Job:
    """Five classes at four layers."""
    layers = at.layers[1:]

    def captum() -> Any:
        with torch.no_grad():
            classes = at.model(at.image)[0].topk(5).indices.tolist()
        return peers.captum_grad_cam(at, layers, classes)

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        mine = [got["seewhy"]["grad_cam", layer].values[[rank]] for rank in range(5) for layer in layers]
        return {"greatest difference": max(same(a, b[:, 0]) for a, b in zip(mine, got["Captum"], strict=True))}

    return Job(
        "Grad-CAM of the top 5 classes at 4 layers",
        {
            "seewhy": lambda: at.explainer.explain(at.image, "grad_cam", target=seewhy.Top(5), layer=layers),
            "Captum": captum,
            "forward + 5 backwards": peers.backwards(at, 5),
        },
        [("Captum", "seewhy"), ("seewhy", "forward + 5 backwards")],
        agreement,
    )


@job
def loader(at: Setting) -> Job:
    """Many images, in the batches of a data loader."""
    count = 20 if at.quick else 100
    target = None if at.relu else at.target  # nothing argues for what a vision transformer of random weights predicts
    images = torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    batches = DataLoader(TensorDataset(images, torch.zeros(count, dtype=torch.long)), 10)

    def pictures() -> Iterable[torch.Tensor]:
        return (batch for batch, _ in batches)

    def agreement(got: dict[str, Any]) -> dict[str, Any]:
        values, maps = (np.concatenate([getattr(e, name) for e in got["seewhy"]]) for name in ("values", "maps"))
        return {
            "TorchCAM, greatest difference": same(stretched(values), torch.cat(got["TorchCAM"])),
            "pytorch-grad-cam, greatest difference": same(stretched(maps), np.concatenate(got["pytorch-grad-cam"])),
        }

    return Job(
        f"Grad-CAM of {count} images from a data loader, batches of 10",
        {
            "seewhy": lambda: [at.explainer.explain(batch, target=target, layer=at.last) for batch in pictures()],
            "seewhy, evaluate with accuracy": lambda: at.explainer.evaluate(
                batches, "grad_cam", at.last, target=target, progress=False
            ),
            "TorchCAM": lambda: peers.torchcam_of("GradCAM", at, pictures(), target),
            "pytorch-grad-cam": lambda: peers.grad_cam_of("GradCAM", at, pictures(), target),
            "forwards": lambda: [peers.forward(at, batch)() for batch in pictures()],
        },
        [
            ("pytorch-grad-cam", "seewhy"),
            ("TorchCAM", "seewhy"),
            ("seewhy", "forwards"),
            ("seewhy, evaluate with accuracy", "forwards"),
        ],
        agreement,
        long=True,
    )


def same(mine: Any, theirs: Any, within: float = SAME) -> float:
    """The greatest difference, as a share of the greatest value; an AssertionError where it is too much."""
    a, b = array(mine), array(theirs)
    assert a.any(), "they are 0 everywhere, which says nothing"
    error = float(np.abs(a - b).max() / np.abs(a).max())
    assert error <= within, f"they differ by {error:.2g} of the greatest value, and {within:g} is allowed"
    return float(f"{error:.2g}")


def alike(mine: Any, theirs: Any) -> float:
    """The correlation; an AssertionError where it is too little."""
    found = correlation(mine, theirs)
    assert found >= ALIKE, f"they correlate {found:.4f}, and {ALIKE} is wanted"
    return found


def correlation(mine: Any, theirs: Any) -> float:
    """Pearson's, over all values."""
    return round(float(np.corrcoef(array(mine).ravel(), array(theirs).ravel())[0, 1]), 5)


def array(values: Any) -> np.ndarray:
    """In float64; a tensor's too."""
    return np.asarray(values.detach() if isinstance(values, torch.Tensor) else values, np.float64)


def stretched(maps: np.ndarray) -> Any:
    """Each map from 0 to 1, as pytorch-grad-cam and TorchCAM return them."""
    flat = maps.reshape(len(maps), -1)
    low, high = (edge.reshape(-1, 1, 1) for edge in (flat.min(1), flat.max(1)))
    return (maps - low) / np.where(high > low, high - low, 1)  # 0 where nothing argues for the class


def squeezed(theirs: torch.Tensor, mine: np.ndarray) -> np.ndarray:
    """Captum's maps keep an axis of one channel, and the layout of the layer: here as ours are."""
    found = array(theirs)
    if found.ndim == 3 and mine.ndim == 4:
        found = array(grid_of_tokens(theirs))
    return found.reshape(mine.shape)
