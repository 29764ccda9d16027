"""From features to a few coordinates: PCA, t-SNE, UMAP, or whatever has a ``fit_transform``."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import whole
from ..errors import InputError, InputTypeError, MissingDependencyError, UnknownNameError, close_matches

NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_HOMES = {
    "pca": ("sklearn.decomposition", "PCA", "scikit-learn", "inside"),
    "tsne": ("sklearn.manifold", "TSNE", "scikit-learn", "inside"),
    "umap": ("umap", "UMAP", "umap-learn", "umap"),
}
_OURS = {"n_components": "components", "random_state": "seed"}
PERPLEXITY, NEIGHBOURS = 30.0, 15  # of t-SNE and of UMAP, where there are images enough
EVEN = 1e-6  # of the largest feature: differences below are rounding


class Reducer:
    """Turns features ``(N, D)`` into points ``(N, components)``; all that can be refused is refused when it is made.

    Args:
        method: ``"pca"``, ``"tsne"``, ``"umap"`` or an object with ``fit_transform``.
        components: of the points.
        seed: of t-SNE and UMAP.
        options: of the library's class.

    Attributes:
        name: the method's, or the object's class.
    """

    def __init__(self, method: Any, components: int, seed: int, options: Mapping[str, Any]) -> None:
        self._components, self._seed, self._options = whole(components, "components"), seed, dict(options)
        self._object: Any = None
        if isinstance(method, str):
            self._class = _library(method)
            _check_options(method, self._class, self._options)
            self.name = method
        else:
            self._object = _checked(method, self._options)
            self.name = type(method).__name__

    def __call__(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """The points, and each component's share of the variance where the method gives it.

        Raises:
            InputError: there are too few images or features, or all are the same.
        """
        reducer = self._object
        if reducer is None:
            self._check(features)
            reducer = self._class(**{**self._defaults(len(features)), **self._options})
        points = self._fitted(reducer, features)
        ratios = getattr(reducer, "explained_variance_ratio_", None)
        fits = ratios is not None and np.shape(ratios) == (points.shape[1],)
        return points, np.array(ratios, np.float64) if fits else None

    def _defaults(self, count: int) -> dict[str, Any]:
        given = {"n_components": self._components, "random_state": self._seed}
        if self.name == "pca":
            return {**given, "svd_solver": "full"}
        if self.name == "tsne":
            exact = {"method": "exact"} if self._components > 3 else {}  # the fast one divides at most 3 dimensions
            return {**given, "init": "pca", "perplexity": min(PERPLEXITY, (count - 1) / 3), **exact}
        return {**given, "n_neighbors": min(NEIGHBOURS, count - 1), "n_jobs": 1}

    def _check(self, features: NDArray[np.float32]) -> None:
        count, width = features.shape
        name, components = NAMES[self.name], self._components
        least = {"pca": components + 1, "tsne": max(4, components + 1), "umap": components + 3}[self.name]
        if count < least:
            raise InputError(
                f"{name} to {components} components needs at least {least} images, and there are {count}; "
                "method=None gives the features alone."
            )
        if width < components and self.name != "umap":
            raise InputError(
                f"{name} to {components} components needs at least as many features, and the layer has {width}."
            )
        spread = float(max(np.ptp(features[:, i]) for i in range(width)))
        if spread <= EVEN * max(abs(float(features.max())), abs(float(features.min()))):
            raise InputError(
                f"The features of all {count} images are the same, so there is nothing that {name} could show: "
                "are the images different, and is the layer alive?"
            )

    def _fitted(self, reducer: Any, features: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            found = reducer.fit_transform(features)
        except (ValueError, TypeError) as error:
            if self._object is not None:
                raise
            raise InputError(f"{NAMES[self.name]} refuses these features or options: {error}") from error
        points = np.array(found, np.float32)
        if points.ndim != 2 or len(points) != len(features) or not points.shape[1] or not np.isfinite(points).all():
            raise InputError(
                f"{type(reducer).__name__}.fit_transform gives finite points ({len(features)}, components); it gave "
                f"{'values that are not finite' if points.shape[:1] == features.shape[:1] else points.shape}."
            )
        return points


def _library(method: str) -> Any:
    """The class of a method's library."""
    if method not in _HOMES:
        known = ", ".join(map(repr, _HOMES))
        raise UnknownNameError(
            f"There is no method {method!r}; known are {known}, None for the features alone, and any object with "
            f"fit_transform.{close_matches(method, _HOMES)}"
        )
    home, name, package, extra = _HOMES[method]
    state = random.getstate()  # which importing scikit-learn moves
    try:
        return getattr(importlib.import_module(home), name)
    except ImportError as error:
        raise MissingDependencyError(
            f'{NAMES[method]} needs {package}. Install it with: pip install "seewhy[{extra}]"'
        ) from error
    finally:
        random.setstate(state)


def _check_options(method: str, found: Any, options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(found).parameters if name not in _OURS]
    for name in options:
        if name in _OURS:
            raise InputTypeError(f"{name} is said by {_OURS[name]}=.")
        if name not in known:
            raise InputTypeError(
                f"{NAMES[method]} has no option {name!r}.{close_matches(name, known)} It has: {', '.join(known)}."
            )


def _checked(method: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(method, type) or not callable(getattr(method, "fit_transform", None)):
        hint = " It is a class: make an instance of it." if isinstance(method, type) else ""
        raise InputTypeError(
            f"method is 'pca', 'tsne', 'umap', None, or an object with fit_transform, not {method!r}.{hint}"
        )
    if options:
        raise InputTypeError(f"{type(method).__name__} has its options already: {', '.join(options)} are for names.")
    return method
