"""What an explanation is once it is computed: arrays, what they explain, and how to see, keep and reopen them."""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import storage
from .errors import ImageIndexError, ImageNotFoundError, InputError, InputTypeError, UnknownNameError, close_matches
from .render import colour, panel, photo, tiles
from .render.overlay import overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Key: TypeAlias = str | tuple[str, str]

DTYPES: dict[str, DTypeLike] = {
    "values": np.float32,
    "maps": np.float32,
    "images": np.uint8,
    "targets": np.int64,
    "scores": np.float32,
    "probabilities": np.float32,
}
STYLES = ("overlay", "map")
CLIP = 99.0  # percentile: a few pixels of an input gradient dwarf all others
WIDEST = 1600  # pixels of a picture in a notebook
OTHER_FILES = (".npz", ".npy", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pdf", ".svg")
TILES, ROWS = 64, 8  # images at most in a notebook's picture of a batch, of a set


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation:
    """One method's maps of N images, with what they explain; arrays are read-only NumPy, RGB, one entry per image.

    `values` float32: the raw attribution at its own resolution and in the method's own scale. `maps` float32
    (N, H, W): one number per pixel of the model's input. `images` uint8 (N, H, W, 3): what the model saw.
    `targets` int64 (N,): the class explained, -1 where it is none, called `target_names`; its `scores` and
    `probabilities` (0..1) are float32 (N,), NaN where undefined. `truth` names the true classes, `sources` the files.
    `len()`, iteration, indices and slices go over the images. Arrays that do not fit together are an InputError.

    >>> e = Explanation(values=np.ones((1, 2, 3)), maps=np.ones((1, 4, 6)), images=np.zeros((1, 4, 6, 3), np.uint8),
    ...     targets=np.array([3]), target_names=("cat",), scores=np.array([2.5]), probabilities=np.array([0.75]),
    ...     method="grad_cam", layer="layer4")
    >>> e
    Explanation(grad_cam, layer='layer4', target='cat', probability=0.75, maps=(1, 4, 6))
    >>> e.map.shape, e.image().shape
    ((4, 6), (4, 6, 3))
    """

    values: NDArray[np.float32]
    maps: NDArray[np.float32]
    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    target_names: tuple[str, ...]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    method: str
    layer: str | None
    truth: tuple[str, ...] | None = None
    sources: tuple[str | None, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.asarray(self.images).dtype != np.uint8:
            raise InputError(f"images are uint8 (N, H, W, 3), got {np.asarray(self.images).dtype}")
        for name, dtype in DTYPES.items():
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype))
        object.__setattr__(self, "target_names", tuple(self.target_names))
        object.__setattr__(self, "truth", None if self.truth is None else tuple(self.truth))
        object.__setattr__(self, "sources", tuple(None if s is None else os.fspath(s) for s in self.sources))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        self._check()

    def _check(self) -> None:
        if self.images.ndim != 4 or self.images.shape[3] != 3:
            raise InputError(f"images are uint8 (N, H, W, 3), got {self.images.shape}")
        counts = {name: len(np.atleast_1d(getattr(self, name))) for name in DTYPES}
        counts["target_names"] = len(self.target_names)
        counts |= {name: len(given) for name in ("truth", "sources") if (given := getattr(self, name))}
        if len(set(counts.values())) > 1:
            raise InputError(f"every part of an explanation has one entry per image, got {counts}")

    @property
    def map(self) -> NDArray[np.float32]:
        """The map of a single image, float32 (H, W); an InputError for several."""
        self._require_one("map", "maps")
        one: NDArray[np.float32] = self.maps[0]
        return one

    def _require_one(self, what: str, instead: str) -> None:
        if len(self) != 1:
            raise InputError(
                f".{what} is of one image, and this explains {len(self)}: index it, as in [0], or use .{instead}"
            )

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> Explanation:
        """One image of it, or a slice, as an Explanation; arrays keep their first axis."""
        part = index if isinstance(index, slice) else self._slice(index)
        cut = (*DTYPES, "target_names", "truth", "sources")
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Explanation(**{k: v[part] if k in cut and v is not None else v for k, v in parts.items()})

    def _slice(self, index: Any) -> slice:
        try:
            i = operator.index(index)
        except TypeError:
            raise InputTypeError(f"an explanation is indexed by an image's number or a slice, got {index!r}") from None
        if not -len(self) <= i < len(self):
            raise ImageIndexError(f"image {i} of an explanation of {len(self)}")
        return slice(i % len(self), i % len(self) + 1)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.maps, dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, tuple[()]]:  # a mapping proxy cannot be pickled
        state = {f.name: getattr(self, f.name) for f in fields(self)} | {"provenance": dict(self.provenance)}
        return functools.partial(Explanation, **state), ()

    def __repr__(self) -> str:
        layer = f", layer={self.layer!r}" if self.layer else ""
        if len(self) == 1:
            target = f"target={self.target_names[0]!r}, probability={self.probabilities[0]:.2f}"
        else:
            target = f"targets=[{', '.join(map(repr, self.target_names[:3]))}{', …' if len(self) > 3 else ''}]"
        return f"Explanation({self.method}{layer}, {target}, maps={self.maps.shape})"

    def image(self, style: str | None = None) -> NDArray[np.uint8]:
        """The explanation as pixels ready to show, uint8 (H, W, 3); several images as one grid of tiles.

        `style="overlay"` lays the map's colours over the photo, `"map"` shows it alone; None takes the map alone for
        gradients of the input, grey from black at 0 to white at the 99th percentile, and else the overlay. Maps with
        negative values are drawn from blue over white at 0 to red. Another style is an UnknownNameError.
        """
        return tiles.tile([picture.pixels for picture in self._pictures(style)])

    def overlay(
        self, on: photo.Photo | None = None, *, alpha: float | None = None, colormap: str | None = None
    ) -> NDArray[np.uint8]:
        """The map's colours over what the model saw, or over the original photo; uint8 (H, W, 3), several as tiles.

        `on` is the photo of a single explanation as a path, PIL image or array: the map is then resized to it. It must
        be what the model saw, resized but not cropped, or it is an InputError. `alpha=None` lets the opacity
        follow |map|, a number in 0..1 fixes it; `colormap` is any name in matplotlib.colormaps.
        """
        if on is None:
            return tiles.tile([self._overlay(i, self.images[i], alpha, colormap) for i in self._drawable()])
        self._require_one("overlay(on=)", "overlay()")
        original = photo.read(on)
        photo.require_whole(original, self.images[0])
        return self._overlay(0, original, alpha, colormap)

    def _overlay(
        self, i: int, image: NDArray[np.uint8], alpha: float | None = None, colormap: str | None = None
    ) -> NDArray[np.uint8]:
        return overlay(image, self.maps[i], alpha=alpha, colormap=colormap, limits=self._limits(i))

    def _drawable(self) -> range:
        if self.maps.ndim != 3 or not len(self):
            raise InputError(f"pictures are drawn of maps (N, H, W) with N of 1 or more; these are {self.maps.shape}")
        return range(len(self))

    def _is_of_input(self) -> bool:
        """Whether the raw attribution has a value per colour and pixel, as gradients of the input have."""
        return self.values.ndim == 4 and self.values.shape[1] in (1, 3) and self.values.shape[2:] == self.maps.shape[1:]

    def _limits(self, i: int) -> tuple[float, float]:
        signed = bool((self.maps < 0).any())  # of all images, so that a column has one colour table
        return colour.limits(self.maps[i], signed, percentile=self._percentile())

    def _percentile(self) -> float:
        return CLIP if self._is_of_input() else 100.0

    def _pictures(self, style: str | None = None) -> list[panel.Picture]:
        if style not in (None, *STYLES):
            near = close_matches(str(style), STYLES)
            raise UnknownNameError(f"no style is called {style!r}: give None or one of {', '.join(STYLES)}.{near}")
        style = style or ("map" if self._is_of_input() else "overlay")
        return [self._picture(i, style) for i in self._drawable()]

    def _picture(self, i: int, style: str) -> panel.Picture:
        low, high = self._limits(i)
        table = "gray" if style == "map" and self._is_of_input() and low == 0 else colour.table_name(None, (low, high))
        if style == "map":
            pixels = colour.colorize(self.maps[i], table, (low, high))
        else:
            pixels = self._overlay(i, self.images[i])
        scale = panel.Scale(colormap=table, low=low, high=high, percentile=self._percentile())
        heading = (self.method, self.layer) if self.layer else (self.method,)
        return panel.Picture(pixels=pixels, heading=heading, label=self._label(i), scale=scale)

    def _label(self, i: int) -> panel.Label | None:
        number, name = float(self.probabilities[i]), self.target_names[i]
        truth = self.truth[i] if self.truth and self.targets[i] >= 0 else None
        value = f"{number:.2f}" if np.isfinite(number) else f"score {self.scores[i]:.3g}"
        value = value if np.isfinite(number) or np.isfinite(self.scores[i]) else ""
        return panel.Label(name=name, value=value, truth=truth) if name or value else None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the picture with its method, layer, target and colour bar; returns the Axes. Several images are tiles.

        `ax=None` makes a figure in pyplot; it is never shown for you. With `truth`, the label is in a white box where
        the target is the true class and a red one where it is not.
        """
        if ax is None:
            return panel.single(self._pictures(), shown=True)
        panel.draw(ax, panel.merge(self._pictures()))
        return ax

    def _repr_png_(self) -> bytes | None:
        try:
            return self._png(WIDEST, TILES)
        except Exception:  # a notebook falls back on the text form
            return None

    def _png(self, widest: int = panel.LONGEST, most: int | None = None) -> bytes:
        return panel.png(panel.single(self[:most]._pictures(), shown=False), widest=widest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the explanation: `.png` the picture as `plot` draws it, `.npz` the arrays, without a suffix both.

        Parent folders are made. `image()` and `overlay()` give the bare pixels. Another suffix is an InputError.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if not path.name or (suffix in OTHER_FILES and suffix != ".npz"):
            raise InputError(
                f"save to .png (picture), .npz (arrays) or no suffix (both); got {path.suffix!r} in {path.name!r}"
            )
        one_file = suffix in (".png", ".npz")
        _write(self, path.with_suffix("") if one_file else path, [path.suffix] if one_file else [".npz", ".png"])

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Explanation:
        """The explanation that `save` wrote at `path`, with or without `.npz`; equal to the last bit.

        No file there is an ImageNotFoundError (a FileNotFoundError), another kind of file an InputError.
        """
        return _read(Path(path))[0]


class Explanations(Mapping[Key, Explanation]):
    """Several methods' explanations of the same images, as a mapping.

    A layer method is at `(method, layer)`, others at `method`; `["grad_cam"]` and `in` also find the one at a layer
    where there is one. Two of the same name are an InputError, an unknown name an UnknownNameError.

    >>> len(Explanations([]))
    0
    """

    def __init__(self, explanations: Iterable[Explanation]) -> None:
        self._of: dict[Key, Explanation] = {}
        for one in explanations:
            if not isinstance(one, Explanation):
                raise InputTypeError(f"Explanations holds Explanation objects, got {type(one).__name__}")
            key = one.method if one.layer is None else (one.method, one.layer)
            if key in self._of:
                raise InputError(
                    f"two explanations are called {_said(key)}: give each its own name=, as in GradCAM(name='mine')"
                )
            self._of[key] = one

    def __getitem__(self, key: Key) -> Explanation:
        if key in self._of:
            return self._of[key]
        layers = [known for known in self._of if not isinstance(known, str) and known[0] == key]
        if len(layers) == 1:
            return self._of[layers[0]]
        if layers:
            raise UnknownNameError(f"{key!r} is there for several layers: take one of {', '.join(map(str, layers))}")
        known = ", ".join(map(_said, self._of)) or "nothing"
        raise UnknownNameError(f"no explanation is called {_said(key)}.{self._near(key)} Here: {known}")

    def _near(self, key: Any) -> str:
        return close_matches(_said(key), map(_said, self._of)) or close_matches(str(key), [_name(k) for k in self._of])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __repr__(self) -> str:
        images = max((len(one) for one in self._of.values()), default=0)
        return f"Explanations({', '.join(map(_said, self._of))}; images={images})"

    def plot(self) -> panel.AxesGrid:
        """Draw a row per image: what the model saw with its label, then every map; returns the Axes as an array."""
        return panel.grid(self._rows(), shown=True)

    def _rows(self, most: int | None = None) -> list[list[panel.Picture]]:
        counts = {_said(key): len(one) for key, one in self._of.items()}
        if len(set(counts.values())) != 1:
            raise InputError(f"a grid needs explanations of the same images, got {counts or 'none'}")
        parts = [one[:most] for one in self._of.values()]
        columns = [_beside(parts[0])] + [_unlabelled(one, parts[0]) for one in parts]
        return [list(row) for row in zip(*columns, strict=True)]

    def _png(self, widest: int = panel.LONGEST, most: int | None = None) -> bytes:
        return panel.png(panel.grid(self._rows(most), shown=False)[0, 0], widest=widest)

    def _repr_png_(self) -> bytes | None:
        try:
            return self._png(WIDEST, ROWS)
        except Exception:  # a notebook falls back on the text form
            return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it: the labelled grid as one picture to a ``.png``, or everything into a folder.

        The folder gets each explanation's arrays and picture, as in `grad_cam-layer4.npz`, and the grid as `panel.png`.
        The name of another kind of file is an InputError.
        """
        folder = Path(path)
        if folder.suffix.lower() in OTHER_FILES:
            raise InputError(
                f"save to a folder, or to a .png (the grid only); got {folder.suffix!r} in {folder.name!r}"
            )
        picture = self._png()
        if folder.suffix.lower() == ".png":
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.write_bytes(picture)
            return
        used = {"panel"}
        for i, one in enumerate(self._of.values()):
            _write(one, folder / _stem(one, used), [".npz", ".png"], order=i)
        (folder / "panel.png").write_bytes(picture)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Explanations:
        """The explanations that `save` wrote into the folder, in their order."""
        files = sorted(Path(folder).glob("*.npz"))
        if not files:
            raise ImageNotFoundError(f"there is no explanation (.npz) in the folder {str(folder)!r}")
        return Explanations(one for one, _ in sorted(map(_read, files), key=operator.itemgetter(1)))


def _frozen(given: Any, dtype: DTypeLike) -> NDArray[Any]:
    """A read-only array that nobody else can change: a copy, unless it is read-only already."""
    array = np.asarray(given, dtype=dtype)
    base = array.base if isinstance(array.base, np.ndarray) else array
    if array.flags.writeable or base.flags.writeable:
        array = array.copy()
    array.setflags(write=False)
    return array


def _name(key: Key) -> str:
    return key if isinstance(key, str) else key[0]


def _said(key: Any) -> str:
    return f"{key[0]!r} at {key[1]!r}" if isinstance(key, tuple) and len(key) == 2 else repr(key)


def _beside(one: Explanation) -> list[panel.Picture]:
    """The first column: what the model saw, with the labels."""
    return [panel.Picture(pixels=one.images[i], heading=("image",), label=one._label(i)) for i in one._drawable()]


def _unlabelled(one: Explanation, first: Explanation) -> list[panel.Picture]:
    """A column of maps, labelled only where they explain something else than the first column says."""
    same = [a == b for a, b in zip(one.target_names, first.target_names, strict=True)]
    return [replace(p, label=None if s else p.label) for p, s in zip(one._pictures(), same, strict=True)]


def _stem(one: Explanation, used: set[str]) -> str:
    """A file name of plain characters that is not used yet."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(filter(None, (one.method, one.layer))))[:120].strip("._-")
    names = (f"{plain or 'explanation'}{end}" for end in ("", *(f"-{i}" for i in range(2, len(used) + 3))))
    name = next(n for n in names if n.casefold() not in used)
    used.add(name.casefold())
    return name


def _write(one: Explanation, stem: Path, suffixes: Sequence[str], order: int = 0) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in suffixes:
        file = stem.with_name(stem.name + suffix)
        if suffix.lower() == ".png":
            file.write_bytes(one._png())
        else:
            _write_arrays(one, file, order)


def _write_arrays(one: Explanation, file: Path, order: int) -> None:
    stored = {f.name: getattr(one, f.name) for f in fields(one)}
    arrays = {name: stored.pop(name) for name in DTYPES}
    storage.write(file, arrays, {**stored, "provenance": dict(one.provenance)}, order)


def _read(path: Path) -> tuple[Explanation, int]:
    file = path if path.suffix.lower() == ".npz" or path.is_file() else path.with_name(path.name + ".npz")
    stored, order = storage.read(file, DTYPES)
    try:
        return Explanation(**stored), order
    except (TypeError, ValueError, AttributeError) as error:
        raise storage.damaged(file, error) from error
