"""Whether it is the fault of a file that it cannot be read."""

from __future__ import annotations

import errno
import struct
import traceback
import zlib

import PIL.Image

from .. import photos
from ..errors import SeewhyError
from ..images import Images

_BROKEN = (OSError, SyntaxError, EOFError, zlib.error, struct.error, PIL.Image.DecompressionBombError)
_READERS = ("torchvision.io", "cv2")  # whose RuntimeError is a file's fault
_OPENING = {function.__code__ for function in (photos.open_file, photos.decoded, photos.rgb)}
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no file's fault


def is_broken(error: Exception) -> bool:
    """Whether an error is the fault of a file: not of the user's transform or data set, or of the machine."""
    if any(getattr(one, "errno", None) in _EXHAUSTED for one in (error, error.__cause__)):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    codes = {frame.f_code for frame in frames}
    if Images.load.__code__ in codes:  # opens files, and calls the transform
        return isinstance(error, SeewhyError) and not codes.isdisjoint(_OPENING)
    names = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    if isinstance(error, ValueError) and any(name.startswith("PIL.Png") for name in names):  # too much text in it
        return True
    return isinstance(error, _BROKEN) or (
        isinstance(error, RuntimeError) and any(name.startswith(_READERS) for name in names)
    )
