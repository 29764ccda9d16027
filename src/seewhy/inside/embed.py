"""The space of features: images as points, near each other where the network sees them alike."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole
from ..engine.borrow import borrowed, undisturbed
from ..engine.inputs import make_inputs
from ..errors import ImageIndexError, InputError, InputTypeError, NonFiniteError
from ..render.scatter import scatter
from ..result import Result
from .asked import check_explainer, one_layer
from .near import Neighbours, check_metric, distances, nearest_other
from .reduce import NAMES, Reducer
from .seen import Seen
from .stream import Stream, as_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

Metric = Literal["euclidean", "cosine"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Embedding(Result):
    """Images in the space of a layer's features; what `embed` returns.

    Attributes:
        features: float32 ``(N, D)``.
        points: float32 ``(N, components)``; None where no method was asked.
        explained_variance_ratio: float64 ``(components,)``, each component's share of the variance of all features, in
            0..1, for PCA; else None.
        labels: the name of each image's true class; None where nothing says it.
        predictions: the name of each image's predicted class; None where the model gives no scores of several classes.
        correct: bool ``(N,)``, whether the prediction is the label; None where they cannot be compared.
        layer: whose output the features are; ``"input of fc"`` for what ``fc`` reads, ``"output"`` for the model's.
        method: ``"pca"``, ``"tsne"``, ``"umap"``, the class of an object of your own, or None.
        sources: each image's file; None for what was none.
        thumbnails: uint8 ``(N, s, s, 3)``, what the model saw, small; None unless asked.
        provenance: the model's class.
    """

    features: NDArray[np.float32]
    points: NDArray[np.float32] | None
    explained_variance_ratio: NDArray[np.float64] | None
    labels: tuple[str, ...] | None
    predictions: tuple[str, ...] | None
    correct: NDArray[np.bool_] | None
    layer: str
    method: str | None
    sources: tuple[str | None, ...]
    thumbnails: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        count, width = self.features.shape
        what = f"{count:,} image{'s' * (count != 1)}, {width:,} features ({self.layer})"
        if self.points is None:
            return f"Embedding({what})"
        return f"Embedding({what}, {self._method} to {self.points.shape[1]})"

    @property
    def _method(self) -> str:
        return NAMES.get(self.method or "", self.method or "")

    def reduced(self, method: Any, *, components: int = 2, seed: int = 0, **options: Any) -> Embedding:
        """The same features by another method, without running the model again; arguments and errors as of `embed`.

        >>> import seewhy, torch
        >>> space = embed(seewhy.Explainer(seewhy.testing.small_cnn()), torch.rand(6, 3, 16, 16))
        >>> space.reduced("tsne")
        Embedding(6 images, 16 features (input of head), t-SNE to 2)
        """
        reducer = Reducer(method, components, seed, options)
        points, ratios = reducer(self.features)
        return replace(self, points=points, explained_variance_ratio=ratios, method=reducer.name)

    def neighbours(self, image: Any, k: int = 5, metric: Metric = "euclidean") -> Neighbours:
        """The `k` images nearest to one of them, or to others, in the space of features.

        Args:
            image: the number of an image, which is itself left out; or features ``(D,)`` or ``(M, D)`` of others; or
                an `Embedding` of others, as ``embed(explainer, photo, method=None)`` gives it.
            k: how many, nearest first.
            metric: ``"euclidean"``, or ``"cosine"``: 1 - the cosine of the angle, in 0..2.

        Returns:
            ``indices`` and ``distances``, ``(k,)`` for one image, ``(M, k)`` for features ``(M, D)``.

        Raises:
            InputError: the features are of another space, or there are fewer than `k` images.
            ImageIndexError: there is no image of this number.

        >>> import seewhy, torch
        >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
        >>> images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> space = embed(explainer, images, method=None)
        >>> new = embed(explainer, images[2], method=None)
        >>> space.neighbours(2, k=3).indices.shape, space.neighbours(new, k=1).indices.tolist()
        ((3,), [[2]])
        """
        check_metric(metric)
        rows, itself = self._rows_of(image)
        most = len(self) - (itself is not None)
        if whole(k, "k") > most:
            raise InputError(f"There are {most} other images to be neighbours; k={k} asks for more.")
        found = [distances(self.features, row, metric) for row in np.atleast_2d(rows)]
        if itself is not None:
            found[0][itself] = np.inf
        indices = np.stack([np.argsort(row, kind="stable")[:k] for row in found])
        near = np.take_along_axis(np.stack(found), indices, 1)
        return Neighbours(indices[0], near[0]) if rows.ndim == 1 else Neighbours(indices, near)

    def _rows_of(self, image: Any) -> tuple[NDArray[Any], int | None]:
        """The features that `image` stands for, and its number if it is one of these images."""
        if isinstance(image, Embedding):
            if (image.layer, image.provenance) != (self.layer, self.provenance):
                raise InputError(
                    f"These are features of {image.layer!r} of {image.provenance.get('model')}, and those here of "
                    f"{self.layer!r} of {self.provenance.get('model')}: distances between them mean nothing."
                )
            image = image.features
        if isinstance(image, np.ndarray | Tensor | list | tuple) and np.ndim(image):
            return self._checked(np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)), None
        try:
            index = operator.index(image)
        except TypeError:
            raise InputTypeError(
                "image is the number of an image, features (D,) or (M, D), or an Embedding, not "
                f"{type(image).__name__}; embed(explainer, photo, method=None) gives that of a photo."
            ) from None
        if not 0 <= index < len(self) or isinstance(image, bool):
            raise ImageIndexError(f"There is no image {image!r}: they are numbered from 0 to {len(self) - 1}.")
        return self.features[index], index

    def _checked(self, features: NDArray[Any]) -> NDArray[Any]:
        width = self.features.shape[1]
        if features.ndim > 2 or features.shape[-1] != width or not features.size or features.dtype.kind not in "fiu":
            raise InputError(f"Features are numbers ({width},) or (M, {width}); got {features.dtype} {features.shape}.")
        if not np.isfinite(features).all():
            raise NonFiniteError("Features must be finite; some of these are NaN or infinite.")
        return features

    def nearest_neighbour_accuracy(self, space: Literal["points", "features"] = "points") -> float:
        """The share of the images whose nearest neighbour has the same label, in 0..1.

        Each image is classified by the others (leave-one-out), by Euclidean distance: of the `points` that are drawn,
        or of the `features` before any reduction. It says how well the classes are separated; an image that is alone in
        its class always counts as wrong.

        Raises:
            InputError: there are no labels, no points, or fewer than two images.
        """
        if space not in ("points", "features"):
            raise InputError(f"space is 'points' or 'features', not {space!r}.")
        rows = self.points if space == "points" else self.features
        if rows is None:
            raise InputError("There are no points, as method=None was asked: space='features' needs none.")
        if self.labels is None or len(self) < 2:
            raise InputError("It needs labels of two images or more: embed(..., labels=...) gives them.")
        labels = np.array(self.labels)
        return float((labels[nearest_other(rows)] == labels).mean())

    def plot(self, ax: Axes | None = None, thumbnails: bool | None = None) -> Axes:
        """A scatter of the first two components, by true class (predicted class where there are no labels).

        Misclassified images have a black ring. More than 20 classes: the 19 with most images have colours, the others
        are grey. The legend is to the right of the Axes: in a figure of your own, ``layout="constrained"`` makes room.

        Args:
            ax: where to draw; None: a new figure.
            thumbnails: whether pictures are drawn at as many points as have room for them; None: where they are kept.

        Raises:
            InputError: there are no points, or thumbnails were not asked of `embed`.
        """
        if self.points is None:
            raise InputError("There are no points to draw, as method=None was asked: embed(..., method='pca').")
        if thumbnails and self.thumbnails is None:
            raise InputError("No thumbnails were kept: embed(..., thumbnails=True).")
        pictures = self.thumbnails if thumbnails is not False else None
        ax, flat = self._axes(ax), self.points.shape[1] == 1
        scaled = self.method not in ("tsne", "umap")  # whose coordinates mean nothing as numbers
        scatter(
            ax,
            _beside_a_line(self.points) if flat else self.points[:, :2],
            self.labels if self.labels is not None else self.predictions,
            ringed=None if self.correct is None else ~self.correct,
            axis_names=(self._axis(0), "" if flat else self._axis(1)),
            ticks=(scaled, scaled and not flat),
            title=f"{self._method} of {len(self):,} images · features: {self.layer}",
            legend_title="" if self.labels is not None else "predicted",
            pictures=pictures,
        )
        return ax

    def _axis(self, i: int) -> str:
        name = f"{'PC' if self.method == 'pca' else self._method} {i + 1}"
        if self.explained_variance_ratio is None:
            return name
        return f"{name} ({100 * self.explained_variance_ratio[i]:.1f} % of the variance)"

    @property
    def _drawable(self) -> bool:
        return self.points is not None

    def _size(self) -> tuple[float, float]:
        return 7.6, 5.4


def embed(
    explainer: Explainer,
    images: Any,
    layer: Any = None,
    method: Any = "pca",
    *,
    labels: Sequence[int | str] | None = None,
    components: int = 2,
    thumbnails: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Embedding:
    """The features of many images, and a few coordinates of each that keep as much of them as `method` can.

    Args:
        explainer: of the model.
        images: what `explain` takes, or a `DataLoader`, `Dataset`, generator or folder; streamed, so that of each image
            only its features are kept.
        layer: a layer by name or module: its output, the mean over its positions where it has some. None: what the last
            linear layer reads (of a model without one, what it gives).
        method: ``"pca"`` (exact), ``"tsne"`` (perplexity 30, or (N - 1) / 3 of few images), ``"umap"``, any object with
            ``fit_transform``, as scikit-learn's, which is fitted; None: the features alone.
        labels: the true class of each image, index or name; None: those that come with the images, if any. Indices are
            called by the data set's class names, else the explainer's.
        components: how many coordinates.
        thumbnails: keep pictures of 32 x 32 pixels, to be drawn at the points.
        seed: of t-SNE and UMAP: the same one gives the same points of the same features, to the last bit on one machine
            (the last bit of a feature may differ from pass to pass, which both methods can blow up: save the result).
        batch_size: images per pass; 16 unless given, of a loader its own. It changes no result.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        model_args: further inputs of the model, as for `Explainer.explain`, the same for all images.
        model_kwargs: the same by name.
        options: of scikit-learn's ``PCA`` or ``TSNE``, or of ``umap.UMAP``.

    Returns:
        An `Embedding`.

    Raises:
        InputError: no image, too few for the method, or all with the same features.
        UnknownNameError: there is no such method or layer.
        LayerError: the features cannot be told, or differ in number.
        NonFiniteError: a feature is NaN or infinite.
        MissingDependencyError: scikit-learn or umap-learn is not installed.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> embed(explainer, torch.rand(6, 3, 16, 16))
    Embedding(6 images, 16 features (input of head), PCA to 2)
    """
    check_explainer(explainer)
    reducer = None if method is None else Reducer(method, components, seed, options)
    if reducer is None and options:
        raise InputTypeError(f"method=None has no options; got {', '.join(options)}.")
    named = None if layer is None else one_layer(explainer, layer, "embed")
    how: dict[str, Any] = {"seen": thumbnails, "labelled": labels is None}
    stream = Stream(explainer, images, batch_size=batch_size, progress=progress, doing="embedding", **how)
    seen, model = Seen(explainer, named, make_inputs(model_args, model_kwargs), thumbnails), explainer._inner
    with undisturbed(model):
        for batch in stream:  # which may itself ask the model, even in another thread
            with borrowed(model):
                seen.add(batch)
    features = seen.features.take()
    truth = seen.truth(as_labels(labels, seen.labels, len(features)), stream.classes)
    points, ratios = (None, None) if reducer is None else reducer(features)
    return Embedding(
        points=points,
        features=features,
        explained_variance_ratio=ratios,
        labels=truth.names(),
        predictions=truth.predictions(),
        correct=truth.correct(),
        layer=seen.layer,
        method=None if reducer is None else reducer.name,
        sources=tuple(seen.sources),
        thumbnails=seen.thumbnails.take() if thumbnails else None,
        provenance={"model": type(explainer._inner).__name__},
    )


def _beside_a_line(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points of one component in a narrow band, as they would cover each other on a line; the height says nothing."""
    golden = np.arange(len(points)) * 0.618034 % 1 - 0.5
    return np.stack([points[:, 0], golden * 0.15 * max(float(np.ptp(points)), 1e-12)], 1).astype(np.float32)
