"""Everything that seewhy raises or warns of.

Each error is a `SeewhyError` and also the builtin error that one would expect in its place, so both
``except SeewhyError`` and ``except ValueError`` work. A message says what was given, what was expected, and what
to do next.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class SeewhyError(Exception):
    """Base of every error that seewhy raises."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class SeewhyWarning(UserWarning):
    """Base of every warning that seewhy gives: something was assumed, or a result needs a careful reader."""


class InputError(SeewhyError, ValueError):
    """The images or arguments cannot be used: wrong shape, channels, values, or an empty batch."""


class InputTypeError(SeewhyError, TypeError):
    """An argument is of a type that seewhy does not know: a model that is no module, an unknown option."""


class ImageIndexError(InputError, IndexError):
    """There is no image of this number in an explanation."""


class ImageFileError(SeewhyError, OSError):
    """An image file cannot be read: corrupt, truncated, empty, or far too large."""


class ImageNotFoundError(ImageFileError, FileNotFoundError):
    """There is no file at the path."""


class ImageFolderError(ImageFileError, IsADirectoryError):
    """The path is a folder where an image file was expected."""


class MissingImagesError(ImageFileError, InputError):
    """None of many images can be read."""


class StoreError(SeewhyError, OSError):
    """A store of maps or a report cannot be written, or a store not opened or gone on with.

    The disk is full, another run has it, or it is of another model or data set.
    """


class TargetError(SeewhyError, ValueError):
    """The target cannot be explained: wrong number of targets, or a name where no names are known."""


class TargetIndexError(TargetError, IndexError):
    """A class index is negative or beyond the model's classes."""


class UnknownNameError(SeewhyError, KeyError, ValueError):
    """No layer, method or class has this name, or several have it. The message offers close matches."""


class LayerError(SeewhyError, ValueError):
    """The layer cannot be explained: it has no positions, ran several times, or its layout is ambiguous."""


class LayerNotRunError(LayerError, RuntimeError):
    """The layer exists, but the model did not run it for this input."""


class ModelError(SeewhyError, ValueError, RuntimeError):
    """The model does not fit the method or gives an output that cannot be read."""


class GradientError(ModelError):
    """There is no gradient where one is needed: the path is cut, or the score does not depend on it."""


class MethodError(SeewhyError, AttributeError, RuntimeError):
    """A method breaks its contract: it reads what it did not declare, changes its record, or returns a wrong shape."""


class NonFiniteError(ModelError, ArithmeticError):
    """The model's scores are NaN or infinite."""


class MissingDependencyError(SeewhyError, ImportError):
    """A package of one of the extras is not installed. The message says how to install it."""


def warn(message: str) -> None:
    """Give a `SeewhyWarning` that points at the first line outside of seewhy, the user's."""
    level, frame = 2, sys._getframe(1).f_back
    package = __name__.partition(".")[0]
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, SeewhyWarning, stacklevel=level + 1)


def close_matches(name: str, known: Iterable[str], most: int = 3) -> str:
    """The sentence that offers the known names closest to `name`; empty where nothing is close.

    >>> close_matches("grad_cm", ["grad_cam", "saliency"])
    " Did you mean 'grad_cam'?"
    """
    by_fold = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(name.casefold(), by_fold, most, 0.6)
    names = [repr(by_fold[f]) for f in found]
    return f" Did you mean {' or '.join(names)}?" if names else ""
