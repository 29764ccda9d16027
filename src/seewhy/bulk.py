"""Many photos from files: found in folders, explained chunk by chunk, written as they come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from . import photos
from .errors import ImageFileError, InputError, LayerError, ModelError, warn
from .explainer import Explainer, Prediction
from .explanation import Explanation
from .explanations import Explanations

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif")
CHUNK = 16  # photos at a time, and rows at most in one picture


@dataclass(frozen=True)
class Photo:
    """A photo to explain: `content` is its path or a PIL image, `name` what its results are called, without suffix."""

    content: Any
    name: str

    @property
    def file(self) -> str | None:
        """The path as it was given; None for what is no file."""
        return self.content if isinstance(self.content, str) else None


@dataclass(frozen=True)
class Asked:
    """What is asked of each photo: `default` says that nobody named the methods, so that unfit ones may be left out."""

    methods: tuple[str, ...]
    default: bool
    target: int | str | None = None
    layer: list[str] | None = None
    batch_size: int | None = None
    top: int = 5


@dataclass(frozen=True)
class Done:
    """A chunk: its photos, their explanations, and what the network predicts for each."""

    photos: list[Photo]
    explanations: Explanations
    predictions: list[list[Prediction]]

    def each(self) -> Iterator[tuple[Photo, Explanations, list[Prediction]]]:
        """Photo by photo."""
        for i, (photo, best) in enumerate(zip(self.photos, self.predictions, strict=True)):
            yield photo, Explanations(one[i] for one in self.explanations.values()), best


def find_photos(given: Iterable[str], outs: Sequence[Path] = ()) -> list[Photo]:
    """The photos that files and folders hold, each with a name of its own.

    Folders are searched to their depths, in the order of names; hidden files and what an earlier run wrote to `outs`
    in them are passed by. Raises ImageNotFoundError for what does not exist, InputError for a folder without photos.
    """
    found: dict[str, str] = {}
    for path in given:
        if Path(path).is_dir():
            found |= _in_folder(Path(path), outs) | found
        else:
            photos.check_path(path)
            found.setdefault(path, Path(path).stem)
    used: set[str] = set()
    return [Photo(path, _own_name(name, used)) for path, name in found.items()]


def _in_folder(folder: Path, outs: Sequence[Path]) -> dict[str, str]:
    written = {path.resolve() for out in outs for path in (out, _arrays(out))} - {folder.resolve()}
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        mine = written & {folder.resolve() / inside, *(folder.resolve() / parent for parent in inside.parents)}
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not (mine or hidden):
            found[str(path)] = inside.with_suffix("").as_posix()
    if not found:
        raise InputError(f"There are no photos in the folder {str(folder)!r} ({', '.join(SUFFIXES)}).")
    return found


def _arrays(picture: Path) -> Path:
    """The folder of the raw arrays beside a picture."""
    return picture.with_name(f"{picture.name.removesuffix(picture.suffix)}-arrays") if picture.name else picture


def check_overwriting(found: Iterable[Photo], out: Path) -> None:
    """Refuse to write a picture over one of the photos."""
    found = list(found)
    read = {Path(photo.file).resolve() for photo in found if photo.file}
    for picture in [out] if _is_picture(out) else [out / f"{photo.name}.png" for photo in found]:
        if picture.resolve() in read:
            raise InputError(f"--out {str(out)!r} would write over the photo {str(picture)!r}: name another.")


def _is_picture(out: Path) -> bool:
    return out.suffix.lower() == ".png"


def _own_name(name: str, used: set[str]) -> str:
    """`name`, with a number where a photo before has it, too."""
    tries = (f"{name}{end}" for end in ("", *(f"-{i}" for i in range(2, len(used) + 3))))
    own = next(one for one in tries if one.casefold() not in used)
    used.add(own.casefold())
    return own


def explain(explainer: Explainer, given: Sequence[Photo], asked: Asked) -> Iterator[Done]:
    """Explain the photos, a chunk at a time.

    A file that cannot be read is left out with a warning. Default methods that the network does not allow are left out
    with a warning each. Raises ImageFileError where no file could be read.
    """
    methods: tuple[str, ...] | None = None
    broken: ImageFileError | None = None
    step = max(asked.batch_size or 0, CHUNK)
    for start in range(0, len(given), step):
        chunk = list(given[start : start + step])
        try:
            done, methods = _chunk(explainer, chunk, asked, methods)
        except ImageFileError as error:
            broken = error
            chunk = [photo for photo in chunk if _readable(photo, alone=len(given) == 1)]
            if not chunk:
                continue
            done, methods = _chunk(explainer, chunk, asked, methods)
        yield done
    if methods is None and broken:
        raise broken if len(given) == 1 else InputError(f"None of the {len(given)} photos can be read.")


def _chunk(
    explainer: Explainer, chunk: list[Photo], asked: Asked, methods: tuple[str, ...] | None
) -> tuple[Done, tuple[str, ...]]:
    explanations = _explanations(explainer, chunk, asked, methods or asked.methods, asked.default and methods is None)
    contents = [photo.content for photo in chunk]
    predictions: list[list[Prediction]] = [[] for _ in chunk]
    with suppress(ModelError):  # what gives an embedding was explained, and predicts no class
        predictions = explainer.predict(contents, asked.top, batch_size=asked.batch_size)
    return Done(chunk, explanations, predictions), tuple(dict.fromkeys(one.method for one in explanations.values()))


def _explanations(
    explainer: Explainer, chunk: list[Photo], asked: Asked, methods: Sequence[str], may_drop: bool
) -> Explanations:
    def run(some: Sequence[str]) -> Explanations:
        contents = [photo.content for photo in chunk]
        return explainer.explain(
            contents, list(some), target=asked.target, layer=asked.layer, batch_size=asked.batch_size
        )

    try:
        return run(methods)
    except (ModelError, LayerError):
        if not may_drop:
            raise
        reasons = {method: reason for method in methods if (reason := _problem(run, method))}
        if len(reasons) == len(methods):
            raise
    for method, reason in reasons.items():
        warn(f"{method} is left out: {reason}")
    return run([method for method in methods if method not in reasons])


def _problem(run: Any, method: str) -> ModelError | LayerError | None:
    try:
        run([method])
    except (ModelError, LayerError) as error:
        return error
    return None


def _readable(photo: Photo, alone: bool) -> bool:
    if photo.file is None:
        return True
    try:
        photos.read(photo.file)
    except ImageFileError as error:
        if not alone:
            warn(f"left out: {error}")
        return False
    return True


def save(done: Done, out: Path, *, arrays: bool = False, style: str | None = None) -> None:
    """Write the chunk as one picture where `out` is a ``.png``, else as a picture of each photo into the folder `out`.

    `arrays` keeps everything else, too, in a folder beside each picture: ``why-arrays`` beside ``why.png``.
    """
    if _is_picture(out):
        parts = [(out, done.explanations)]
    else:
        parts = [(out / f"{photo.name}.png", one) for photo, one, _ in done.each()]
    for picture, explanations in parts:
        explanations.save(picture, style=style)
        if arrays:
            explanations.save(_arrays(picture), style=style)


def record(photo: Photo, explanations: Explanations, best: Sequence[Prediction]) -> dict[str, Any]:
    """What JSON says of one photo: `file`, `predictions` and, for each method and layer, what was `explained`."""
    predictions = [{"index": p.index, "name": p.name, "probability": p.probability} for p in best]
    return {
        "file": photo.file,
        "predictions": predictions,
        "explained": [_said(one) for one in explanations.values()],
    }


def _said(one: Explanation) -> dict[str, Any]:
    is_class, is_scored = int(one.targets[0]) >= 0, not math.isnan(one.scores[0])
    return {
        "method": one.method,
        "layer": one.layer,
        "target": int(one.targets[0]) if is_class else None,
        "target_name": one.target_names[0] or None,
        "score": float(one.scores[0]) if is_scored else None,
        "probability": float(one.probabilities[0]) if not math.isnan(one.probabilities[0]) else None,
    }


class JsonList:
    """A JSON array that is written item by item, and is complete also where the work is interrupted.

    >>> import sys
    >>> with JsonList(sys.stdout) as written:
    ...     written.add({"a": 1})
    [
    {"a": 1}
    ]
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._before = stream, ""

    def __enter__(self) -> JsonList:
        self._stream.write("[")
        return self

    def add(self, item: dict[str, Any]) -> None:
        """Write one more."""
        self._stream.write(f"{self._before}\n{json.dumps(item)}")
        self._before = ","

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stream.write("\n]\n")
