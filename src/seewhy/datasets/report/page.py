"""The report of an evaluation, written card by card into one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import itertools
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from ...arguments import whole
from ...errors import InputError, MissingDependencyError, StoreError
from ...pictures import in_words
from ...render.overlay import STRONGEST
from . import thumbnails
from .tables import classes_table, confusion_table

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 100  # cards whose pictures are looked up together


@dataclass(frozen=True)
class Card:
    """One image of the data set, as the report shows it.

    `number` is its place in the data set, `label` the true class and `prediction` the predicted one, with its
    `probability` in 0..1 (NaN: undefined); `correct` colours the label. `picture` is what the model saw, uint8
    (h, w, 3) of any size, `maps` the map of each method, float (h, w) of the picture's size, and `signed` says of each
    method whether negative values argue against the class.
    """

    number: int
    path: str | None
    label: str | None
    prediction: str | None
    probability: float
    correct: bool | None
    picture: NDArray[np.uint8]
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    signed: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What stands above the images.

    `facts` is a small table, `classes` has a row per class (precision, recall, f1-score, support), `confusion` counts
    images by true class (index) and predicted class (columns), `skipped` lists what could not be read with the reason,
    and `figures` holds PNG files by their titles.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    classes: pd.DataFrame | None = None
    confusion: pd.DataFrame | None = None
    skipped: Sequence[tuple[str, str]] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


def write_report(file: str | os.PathLike[str], page: Page, cards: Iterable[Card], *, thumbnail: int = 112) -> None:
    """Write the page and its images into one HTML file, which works offline and holds everything that it shows.

    `cards` is read once, one card at a time, and few of them are held at a time. `thumbnail` is the longer side of the
    pictures in pixels; smaller ones stay as they are. The file appears (or changes) when all is written: after an error
    the old one is as it was.

    Raises:
        InputError: a picture or map is of another shape, or a probability is not in 0..1.
        StoreError: the file cannot be written.
        MissingDependencyError: jinja2 is not installed.

    >>> import tempfile
    >>> card = Card(0, "cat.png", "cat", "dog", 0.6, False, np.zeros((8, 8, 3), np.uint8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(Path(folder) / "report.html", Page("Pets"), [card])
    ...     "<title>Pets</title>" in (Path(folder) / "report.html").read_text("utf-8")
    True
    """
    side = whole(thumbnail, "thumbnail")
    template = _template()
    with _replacing(Path(file)) as stream:
        for piece in template.generate(**_head(page, side), blocks=_blocks(cards, side)):
            with _told(Path(file)):
                stream.write(piece)


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        message = 'The report needs jinja2. Install it with: pip install "seewhy[datasets]"'
        raise MissingDependencyError(message) from error
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_part("template.html"))


def _part(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text("utf-8")


def _head(page: Page, side: int) -> dict[str, Any]:
    """What the template writes, but for the cards."""
    style, script = _part("report.css"), _part("report.js")
    data = {
        "side": side,
        "classes": classes_table(page.classes),
        "confusion": confusion_table(page.confusion),
        "scales": [thumbnails.scale(signed) for signed in (False, True)],
    }
    return {
        "page": page,
        "figures": [(title, _figure(title, png)) for title, png in page.figures.items()],
        "data": _json(data),
        "opacity": round(100 * STRONGEST),
        **{name: _markup(text) for name, text in (("style", style), ("script", script))},
        **{f"{name}_hash": _hash(text) for name, text in (("style", style), ("script", script))},
    }


def _hash(text: str) -> str:
    """What the page's policy calls a text that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _figure(title: str, png: bytes) -> str:
    if not png.startswith(b"\x89PNG\r\n"):
        raise InputError(f"a figure is the bytes of a PNG file; those of {title!r} begin with {png[:8]!r}")
    return thumbnails.as_uri(png, "png")


def _markup(text: str) -> Any:
    """Text that the template takes as it is."""
    from markupsafe import Markup

    return Markup(text)


def _json(value: Any) -> Any:
    """JSON that nothing can end early, as part of a script element: ASCII without <, > and &."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _markup(text)


def _blocks(cards: Iterable[Card], side: int) -> Iterator[dict[str, Any]]:
    """Some cards at a time: what they say, which the page reads at once, and a line of pictures for each."""
    remaining = iter(cards)
    while some := [_lines(card, side) for card in itertools.islice(remaining, BLOCK)]:
        methods = {name: signed for one in some for name, signed in one.methods.items()}
        said = {"methods": list(methods.items()), "cards": [one.said for one in some]}
        yield {"said": _json(said), "pictures": _markup("\n").join(one.pictures for one in some)}


class _Lines(NamedTuple):
    said: list[Any]
    pictures: str
    methods: dict[str, bool]


def _lines(card: Card, side: int) -> _Lines:
    signed = {name: bool(card.signed.get(name, False)) for name in card.maps}
    return _Lines(_said(card), _pictures(card, signed, side), signed)


def _said(card: Card) -> list[Any]:
    probability = float(card.probability)
    defined = not np.isnan(probability)
    if defined and not 0 <= probability <= 1:
        raise InputError(f"the probability of image {card.number} is not in 0..1, but {probability}")
    number = round(probability, 6) if defined else None
    words = in_words(probability) if defined else ""
    correct = None if card.correct is None else bool(card.correct)
    return [int(card.number), card.path, card.label, card.prediction, number, words, correct]


def _pictures(card: Card, signed: Mapping[str, bool], side: int) -> Any:
    """The photo, and of each method its name and map."""
    picture = np.asarray(card.picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        given = f"{picture.dtype} {picture.shape}"
        raise InputError(f"a card's picture is uint8 (h, w, 3); that of image {card.number} is {given}")
    maps = [(name, thumbnails.heat(_fitting(card, name), side, signed[name])) for name in card.maps]
    return _json([thumbnails.photo(picture, side), maps])


def _fitting(card: Card, name: str) -> NDArray[np.float32]:
    values = np.asarray(card.maps[name])
    if values.shape != card.picture.shape[:2]:
        raise InputError(
            f"a card's maps are of its picture's size: {name!r} of image {card.number} is {values.shape}, "
            f"the picture {card.picture.shape[:2]}"
        )
    return values


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `file` once all is written, and is gone after any error."""
    with _told(file):
        if file.is_dir():
            raise IsADirectoryError("it is a folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".seewhy-{secrets.token_hex(8)}.part")
        stream = part.open("x", encoding="utf-8", errors="replace", newline="\n")
    try:
        with stream:
            yield stream
            with _told(file):
                stream.flush()
        with _told(file):
            part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the report cannot be written to {str(file)!r}: {error.strerror or error}") from error
