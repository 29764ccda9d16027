"""One result on disk: uncompressed npz with JSON metadata, which no pickle can spoil."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageNotFoundError, InputError

FORMAT = "seewhy.explanation/1"
OTHER_FILES = (".npz", ".npy", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pdf", ".svg")


def parts(path: str | os.PathLike[str]) -> tuple[Path, list[str]]:
    """Where to write a result, without its suffix, and the suffixes: `.png`, `.npz`, or both where `path` has none.

    Raises:
        InputError: it has the suffix of another kind of file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.name or (suffix in OTHER_FILES and suffix != ".npz"):
        raise InputError(
            f"save to .png (picture), .npz (arrays) or no suffix (both); got {path.suffix!r} in {path.name!r}"
        )
    return (path.with_suffix(""), [path.suffix]) if suffix in (".png", ".npz") else (path, [".npz", ".png"])


def write(
    file: Path, arrays: Mapping[str, NDArray[Any]], words: Mapping[str, Any], order: int = 0, form: str = FORMAT
) -> None:
    """Write arrays, what JSON can hold, and the place among others that were written together."""
    text = json.dumps({"format": form, "order": order, **words})
    metadata = np.frombuffer(text.encode("ascii"), np.uint8)
    with file.open("wb") as stream:  # a name would be given a second suffix where it ends in .NPZ
        np.savez(stream, allow_pickle=False, metadata=metadata, **dict(arrays))


def read(file: Path, names: Iterable[str] | None = None, form: str = FORMAT) -> tuple[dict[str, Any], int]:
    """The arrays called `names` (None: all) with the words beside them, and the place, that `write` wrote.

    Raises:
        ImageNotFoundError: there is no such file.
        InputError: it is another kind of file, or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            words = json.loads(stored["metadata"].tobytes())
            if words.pop("format") != form:
                raise InputError("it is of another format or version")
            order = int(words.pop("order"))
            return {**words, **{name: stored[name] for name in names or set(stored.files) - {"metadata"}}}, order
    except FileNotFoundError as error:
        raise ImageNotFoundError(f"there is no saved result at {str(file)!r}") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> InputError:
    """The error for a file that is not one of ours, or no longer."""
    reason = "it holds no such arrays" if "pickle" in str(error) else error  # NumPy suggests to load it unsafely
    return InputError(f"{str(file)!r} is not a result of this kind that seewhy saved, or it is damaged: {reason}")
