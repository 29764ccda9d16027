"""What an explanation is once it is computed: arrays, what they explain, and how to see, keep and reopen them."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import photos, pictures, storage
from .errors import ImageIndexError, InputError, InputTypeError
from .pictures import Limits
from .render import figure, panel, photo, tiles
from .render.overlay import overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .origin import Origin

DTYPES: dict[str, DTypeLike] = {
    "values": np.float32,
    "maps": np.float32,
    "images": np.uint8,
    "targets": np.int64,
    "scores": np.float32,
    "probabilities": np.float32,
}
IMAGES = {2: (4, "(N, C, L, 3)"), 3: (4, "(N, H, W, 3)"), 4: (5, "(N, T, H, W, 3)")}  # by the dimensions of the maps
KINDS = {2: "signals", 3: "images", 4: "videos or volumes"}
WIDEST = 1200  # pixels of a picture in a notebook
TILES = {2: 16, 3: 64, 4: 6}  # signals, images, videos at most in a notebook's picture of a batch


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation:
    """One method's maps of N images, with what they explain; arrays are read-only NumPy, RGB, one entry per image.

    `values` float32: the raw attribution at its own resolution and in the method's own scale. `maps` float32
    (N, H, W): one number per pixel of the model's input. `images` uint8 (N, H, W, 3): what the model saw. Of signals,
    maps are (N, L) and images (N, C, L, 3), a row for each channel from its least to its greatest value; of videos and
    volumes (N, T, H, W) and (N, T, H, W, 3).
    `targets` int64 (N,): the class explained, -1 where it is none, called `target_names`; its `scores` and
    `probabilities` (0..1) are float32 (N,), NaN where undefined. `truth` names the true classes, `sources` the files.
    `image_index` int64 (N,) says which of the images given each row explains: 0, 1, 2 …, but where images have several
    targets. `measures` are float32 (N,) by name: what the method measured of itself, such as a completeness error.
    `origin` is what it was made of, for `seewhy.trust`; it is not saved, nor sent to other processes.
    `signed` says that values of the maps below 0 argue against the target, so that they are drawn in two colours.
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
    signed: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)
    image_index: NDArray[np.int64] = None  # type: ignore[assignment]  # one after the other, unless given
    measures: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if np.asarray(self.images).dtype != np.uint8:
            raise InputError(f"images are uint8 (N, H, W, 3), got {np.asarray(self.images).dtype}")
        for name, dtype in DTYPES.items():
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype))
        object.__setattr__(self, "target_names", tuple(self.target_names))
        object.__setattr__(self, "truth", None if self.truth is None else tuple(self.truth))
        object.__setattr__(self, "sources", tuple(None if s is None else os.fspath(s) for s in self.sources))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        index = np.arange(len(self.targets)) if self.image_index is None else self.image_index
        object.__setattr__(self, "image_index", _frozen(index, np.int64))
        measures = {name: _frozen(numbers, np.float32) for name, numbers in self.measures.items()}
        object.__setattr__(self, "measures", MappingProxyType(measures))
        self._check()

    def _check(self) -> None:
        if self.maps.ndim not in IMAGES:
            raise InputError(f"maps are (N, L), (N, H, W) or (N, T, H, W), got {self.maps.shape}")
        ndim, form = IMAGES[self.maps.ndim]
        if self.images.ndim != ndim or self.images.shape[-1] != 3:
            raise InputError(f"with maps of shape {self.maps.shape}, images are uint8 {form}, got {self.images.shape}")
        counts = {name: len(np.atleast_1d(getattr(self, name))) for name in DTYPES}
        counts |= {"target_names": len(self.target_names), "image_index": len(self.image_index)}
        counts |= {name: len(numbers) for name, numbers in self.measures.items()}
        counts |= {name: len(given) for name in ("truth", "sources") if (given := getattr(self, name))}
        if len(set(counts.values())) > 1:
            raise InputError(f"every part of an explanation has one entry per image, got {counts}")
        sides = self.images.shape[2 if self.maps.ndim == 2 else 1 : -1]
        if self.maps.shape[1:] != sides:
            raise InputError(
                f"maps have a number for each position of the images, {(len(self), *sides)}; got {self.maps.shape}"
            )

    @property
    def map(self) -> NDArray[np.float32]:
        """The map of a single image, float32 (H, W), (L,) or (T, H, W); an InputError for several."""
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
        cut = (*DTYPES, "target_names", "truth", "sources", "image_index")
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        parts["measures"] = {name: numbers[part] for name, numbers in self.measures.items()}
        parts["origin"] = self.origin and self.origin.part(part)
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
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        state |= {name: dict(state[name]) for name in ("provenance", "measures")} | {"origin": None}
        return functools.partial(Explanation, **state), ()

    def __repr__(self) -> str:
        layer = f", layer={self.layer!r}" if self.layer else ""
        if len(self) == 1:
            target = f"target={self.target_names[0]!r}, probability={self.probabilities[0]:.2f}"
        else:
            target = f"targets=[{', '.join(map(repr, self.target_names[:3]))}{', …' if len(self) > 3 else ''}]"
        return f"Explanation({self.method}{layer}, {target}, maps={self.maps.shape})"

    def image(self, style: str | None = None, *, limits: Limits = "own") -> NDArray[np.uint8]:
        """The explanation as pixels ready to show, uint8 (H, W, 3); several images as one grid of tiles.

        `style` is ``"overlay"`` (the map's colours over the photo), ``"map"`` (the map alone), ``"color"`` (the signed
        values of an input's three colours about mid-grey) or ``"channels"`` (each channel of an activation as a tile,
        16 a row, standardised: its mean mid-grey, a standard deviation 64 grey levels, a dead channel blank). None
        takes the map alone for gradients of the input, grey from black at 0 to white, and else the overlay. Maps of a
        signed method, and any with negative values, are drawn from blue over white at 0 to red.

        A signal is (H, W, 3) of at most 1,000 pixels' width: its channels as curves over time, each in a lane of its
        own, stretched to it, before the map's colours from white at 0 to red (and blue below); more than 32 channels
        are rows of a grey picture. ``"map"`` is a band of colours, ``"channels"`` has a row for each. Of a video or
        volume at most 16 frames are drawn, evenly spaced, four a row; ``"channels"`` takes the middle of its time.

        `limits` are the values at the ends of the colours: ``"own"`` for each image its own (the largest |value|; for
        gradients of the input its 99th percentile), ``"shared"`` the same for all images, or a pair ``(low, high)``.
        An unknown style is an UnknownNameError, one that does not fit the values an InputError.
        """
        return tiles.tile([picture.pixels for picture in pictures.draw(self, style, limits)])

    def overlay(
        self,
        on: photos.Photo | None = None,
        *,
        alpha: float | None = None,
        colormap: str | None = None,
        limits: Limits = "own",
    ) -> NDArray[np.uint8]:
        """The map's colours over what the model saw, or over the original photo; uint8 (H, W, 3), several as tiles.

        `on` is the photo of a single explanation as a path, PIL image or array: the map is then resized to it. It must
        be what the model saw, resized but not cropped, or it is an InputError. `alpha=None` lets the opacity
        follow |map|, a number in 0..1 fixes it; `colormap` is any name in matplotlib.colormaps; `limits` as in `image`.
        Signals, videos and volumes have no `on` (an InputError), and are drawn as in `image`.
        """
        numbers, spans = pictures.drawable(self), pictures.spans(self, limits)
        if on is None:
            how = {"alpha": alpha, "colormap": colormap}
            return tiles.tile([pictures.laid(self, i, limits=spans[i], **how) for i in numbers])
        if self.maps.ndim != 3:
            raise InputError(f"on= is the photo of an image; this explains {KINDS[self.maps.ndim]}: leave it out")
        self._require_one("overlay(on=)", "overlay()")
        original = photos.read(on)
        photo.require_whole(original, self.images[0])
        return overlay(original, self.maps[0], alpha=alpha, colormap=colormap, limits=spans[0])

    def plot(self, ax: Axes | None = None, *, style: str | None = None, limits: Limits = "shared") -> Axes:
        """Draw the picture with its method, layer, target and colour bar; returns the Axes. Several images are tiles.

        `ax=None` makes a figure in pyplot; it is never shown for you. `style` and `limits` are as in `image`; all
        images have the same colour range unless `limits` says otherwise. With `truth`, the label is in a white box
        where the target is the true class and a red one where it is not.
        """
        if not (ax is None or hasattr(ax, "imshow")):
            raise InputTypeError(f"ax is one matplotlib Axes, or None for a new figure; got {type(ax).__name__}")
        drawn = pictures.draw(self, style, limits)
        if ax is None:
            return panel.single(drawn, shown=True)
        panel.draw(ax, panel.merge(drawn))
        return ax

    def _repr_png_(self) -> bytes | None:
        try:
            return self._png(WIDEST, TILES[self.maps.ndim])
        except Exception:  # a notebook falls back on the text form
            return None

    def _png(self, widest: int = figure.LONGEST, most: int | None = None, **how: Any) -> bytes:
        drawn = pictures.draw(self[:most], **{"limits": "shared", **how})
        if most and len(self) > most:
            drawn[0] = replace(
                drawn[0], heading=(*drawn[0].heading, f"first {most} of {len(self)} {KINDS[self.maps.ndim]}")
            )
        return figure.png(panel.single(drawn, shown=False), widest=widest)

    def save(self, path: str | os.PathLike[str], *, style: str | None = None, limits: Limits = "shared") -> None:
        """Write the explanation: `.png` the picture as `plot` draws it, `.npz` the arrays, without a suffix both.

        `style` and `limits` are those of `plot`. Parent folders are made. `image()` and `overlay()` give the bare
        pixels. Another suffix is an InputError.
        """
        stem, suffixes = storage.parts(path)
        drawn = any(suffix.lower() == ".png" for suffix in suffixes)
        write(self, stem, suffixes, self._png(style=style, limits=limits) if drawn else b"")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Explanation:
        """The explanation that `save` wrote at `path`, with or without `.npz`; equal to the last bit.

        No file there is an ImageNotFoundError (a FileNotFoundError), another kind of file an InputError.
        """
        return read(Path(path))[0]


def _frozen(given: Any, dtype: DTypeLike) -> NDArray[Any]:
    """A read-only array that nobody else can change: a copy, unless it is read-only already."""
    array = np.asarray(given, dtype=dtype)
    base = array.base if isinstance(array.base, np.ndarray) else array
    if array.flags.writeable or base.flags.writeable:
        array = array.copy()
    array.setflags(write=False)
    return array


def write(one: Explanation, stem: Path, suffixes: Sequence[str], picture: bytes, order: int = 0) -> None:
    """Write the picture and the arrays, as `suffixes` say; `order` is the place among others written together."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in suffixes:
        file = stem.with_name(stem.name + suffix)
        if suffix.lower() == ".png":
            file.write_bytes(picture)
        else:
            _write_arrays(one, file, order)


def _write_arrays(one: Explanation, file: Path, order: int) -> None:
    stored = {f.name: getattr(one, f.name) for f in fields(one) if f.name != "origin"}
    arrays = {name: stored.pop(name) for name in DTYPES}
    words = {
        "provenance": dict(one.provenance),
        "image_index": one.image_index.tolist(),
        "measures": {name: numbers.tolist() for name, numbers in one.measures.items()},
    }
    storage.write(file, arrays, stored | words, order)


def read(path: Path) -> tuple[Explanation, int]:
    """What was written at the path, and its place among others."""
    file = path if path.suffix.lower() == ".npz" or path.is_file() else path.with_name(path.name + ".npz")
    stored, order = storage.read(file, DTYPES)
    try:
        return Explanation(**stored), order
    except (TypeError, ValueError, AttributeError) as error:
        raise storage.damaged(file, error) from error
