"""Video files: read frame by frame, and written whole or not at all; RGB at this border."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from . import photos
from .errors import ImageFileError, ImageFolderError, InputError, InputTypeError, close_matches, warn

Frame: TypeAlias = NDArray[np.uint8]  # RGB (H, W, 3)

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
USUAL_RATE = 25.0  # frames per second of a file that does not say


@dataclass(frozen=True)
class Clip:
    """A video file that has at least one frame; `count` is what the file says, None where it does not."""

    path: Path
    rate: float
    count: int | None

    @property
    def name(self) -> str:
        """The path as messages show it."""
        return repr(str(self.path))

    def frames(self) -> Iterator[Frame]:
        """All frames in order, upright."""
        with _capture(self.path) as capture:
            shape = None
            while (frame := _read(capture)) is not None:
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise ImageFileError(f"the frames of {self.name} differ in size: {shape} and {frame.shape}.")
                yield frame

    def spread(self, most: int) -> Iterator[Frame]:
        """`most` frames evenly spread, or all where there are fewer."""
        count = self.count or sum(1 for _ in self.frames())
        numbers = np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
        if not self._can_seek(numbers[-1]):
            yield from self._passing(numbers)
            return
        with _capture(self.path) as capture:
            for number in numbers:
                if (frame := _sought(capture, number)) is not None:
                    yield frame

    def _can_seek(self, last: int) -> bool:
        """Whether the last frame is found by its number; where it is, so are those before."""
        with _capture(self.path) as capture:
            return _sought(capture, last) is not None

    def _passing(self, numbers: list[int]) -> Iterator[Frame]:
        """The frames of these numbers by reading all; the last there is stands for those beyond it."""
        wanted, last = set(numbers), None
        for number, frame in enumerate(self.frames()):
            if number in wanted:
                yield frame
            last = None if number in wanted else frame
        if last is not None:
            yield last


def open_clip(source: Any) -> Clip:
    """The clip, once it is sure that there is one."""
    import cv2

    if not isinstance(source, str | os.PathLike):
        raise InputTypeError(f"source is the path of a video file, not {type(source).__name__}.")
    path = Path(os.fsdecode(source))
    if path.is_dir():
        raise ImageFolderError(f"{str(path)!r} is a folder: name a video file in it.")
    photos.check_path(os.fsdecode(source))
    if _is_photo(path):
        raise ImageFileError(f"{str(path)!r} is a photo, not a video: explain it with Explainer.explain.")
    with _capture(path) as capture:
        if not capture.isOpened() or _read(capture) is None:
            reason = "is not a video that OpenCV can read" if path.stat().st_size else "is empty"
            raise ImageFileError(f"{str(path)!r} {reason}: no frame could be decoded.")
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if not 0 < rate < np.inf:
        rate = USUAL_RATE
        warn(f"{str(path)!r} does not say its frame rate: {rate:g} frames per second are assumed.")
    return Clip(path, rate, int(count) if count > 0 else None)


def _is_photo(path: Path) -> bool:
    """OpenCV takes a photo for a video of one frame, and a numbered one for the first of a series."""
    try:
        with PIL.Image.open(path) as image:
            return getattr(image, "n_frames", 1) == 1 and image.format != "MPEG"
    except Exception:  # a video is nothing that Pillow knows
        return False


@contextmanager
def _capture(path: Path) -> Iterator[Any]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    try:
        yield capture
    finally:
        capture.release()


def _read(capture: Any) -> Frame | None:
    """The next frame, None at the end."""
    import cv2

    found, frame = capture.read()
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) if found else None


def _sought(capture: Any, number: int) -> Frame | None:
    import cv2

    return _read(capture) if capture.set(cv2.CAP_PROP_POS_FRAMES, number) else None


@contextmanager
def whole_or_nothing(out: Any, source: Path) -> Iterator[Path]:
    """Another name beside `out` to write to, which becomes `out` only where nothing goes wrong."""
    out = _checked(out, source)
    part = out.with_name(f".seewhy-{uuid.uuid4().hex}{out.suffix.lower()}")
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
        except OSError as error:
            raise InputError(f"{str(out)!r} cannot be written: {error.strerror or error}.") from error
        yield part
        part.replace(out)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _checked(out: Any, source: Path) -> Path:
    if not isinstance(out, str | os.PathLike):
        raise InputTypeError(f"out is the path of the video to write, not {type(out).__name__}.")
    path = Path(os.fsdecode(out))
    if path.suffix.lower() not in CODECS:
        near = close_matches(path.suffix, CODECS)
        raise InputError(f"a video is written to {', '.join(CODECS)}; got {path.suffix!r} in {path.name!r}.{near}")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder: name a video file in it.")
    if path.exists() and path.samefile(source):
        raise InputError(f"{str(path)!r} is the video to be explained: give out another name.")
    return path


class Writer:
    """Encodes frames, the first of which says the size; BGR and even sides are its business."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._encoder: Any = None

    def write(self, picture: Frame) -> None:
        """Add a frame; all have the size of the first."""
        import cv2

        height, width = picture.shape[:2]
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._encoder is None:
            self._encoder = self._opened(even.shape[1], even.shape[0])
        self._encoder.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

    def _opened(self, width: int, height: int) -> Any:
        import cv2

        code = CODECS[self._path.suffix]
        encoder = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*code), self._rate, (width, height))
        if not encoder.isOpened():
            raise InputError(
                f"OpenCV here cannot write {self._path.suffix} ({code}) of {width} x {height} pixels at "
                f"{self._rate:g} frames per second: try out= with .avi."
            )
        return encoder

    def close(self) -> None:
        """Finish the file."""
        if self._encoder is not None:
            self._encoder.release()


def check_written(path: Path, count: int) -> None:
    """OpenCV says nothing where a frame could not be written, as on a full disk."""
    import cv2

    with _capture(path) as capture:
        found = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    if found != count:
        raise InputError(f"of {count} frames only {max(0, found)} could be written to {path.suffix}: is the disk full?")
