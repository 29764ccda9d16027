"""The command line: ``seewhy explain`` and ``seewhy methods``."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ._version import __version__
from .errors import InputError, SeewhyError, SeewhyWarning

if TYPE_CHECKING:
    import PIL.Image

    from .explainer import Prediction
    from .explanations import Explanations

SAMPLE = "cat"
METHODS = ("saliency", "guided_backprop", "cam", "grad_cam", "guided_grad_cam")
EXAMPLES = """examples:
  seewhy explain                                    the sample photo of a cat, five methods, to seewhy.png
  seewhy explain dog.jpg car.jpg --out why.png      photos of your own, a row each
  seewhy explain cat.jpg --target "tiger cat" --method grad_cam --layer _blocks.10 --layer _act1
  seewhy methods                                    every method and what it is
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 fine, 1 a problem, 2 usage, 130 interrupted.

    >>> main(["methods"])  # doctest: +ELLIPSIS
    activations ...
    0
    """
    arguments = _parser().parse_args(argv)
    try:
        with _short_warnings():
            arguments.run(arguments)
            sys.stdout.flush()
    except SeewhyError as error:
        return _fail(error)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "seewhy", description="Why did a vision network answer that?", epilog=EXAMPLES, formatter_class=style
    )
    parser.add_argument("--version", action="version", version=f"seewhy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    explain = commands.add_parser(
        "explain",
        help="explain photos with the sample network, and draw the maps",
        description="Explain photos with the sample network (EfficientNet-Lite0, trained on ImageNet).",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    explain.set_defaults(run=_explain)
    explain.add_argument("photos", nargs="*", metavar="PHOTO", help="image files; the sample photo of a cat if none")
    explain.add_argument(
        "--method",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"methods, of: seewhy methods ({', '.join(METHODS)})",
    )
    explain.add_argument("--target", metavar="CLASS", help="class name or index to explain (the predicted one)")
    explain.add_argument("--layer", action="append", metavar="NAME", help="layers to look at (chosen)")
    explain.add_argument("--out", default="seewhy.png", metavar="PATH", help="the picture to write (seewhy.png)")
    methods = commands.add_parser("methods", help="list the methods")
    methods.set_defaults(run=_methods)
    return parser


def _explain(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {arguments.out!r}: the picture is a .png file, as in --out why.png.")
    if out.is_dir():
        raise InputError(f"--out {arguments.out!r} is a folder: name a .png file in it.")
    from . import samples

    explainer = samples.explainer()
    strays, methods = _told_apart(arguments.method or METHODS)
    files = arguments.photos + strays
    photos: list[str] | list[PIL.Image.Image] = files or [samples.photo(SAMPLE)]
    target = arguments.target
    explanations = explainer.explain(
        photos,
        methods or list(METHODS),
        target=int(target) if target and re.fullmatch(r"\s*-?\d+\s*", target) else target,
        layer=arguments.layer,
    )
    predictions = explainer.predict(photos)
    _save(explanations, out)  # before anything is printed, so that a reader that hangs up loses no picture
    for name, best in zip(files or [f"the sample photo {SAMPLE!r}"], predictions, strict=True):
        _print_predictions(name, best)
    targets = dict.fromkeys(next(iter(explanations.values())).target_names)
    _print(f"Explained {', '.join(map(repr, filter(None, targets))) or 'no class'}: {out}")


def _told_apart(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The photos and the methods among what came after ``--method``; a file called like a method is none."""
    from .methods import list_methods

    known, names = list_methods(), list(dict.fromkeys(names))
    photos = [name for name in names if name not in known and Path(name).is_file()]
    return photos, [name for name in names if name not in photos]


def _save(explanations: Explanations, out: Path) -> None:
    try:
        explanations.save(out)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written: {error.strerror or error}.") from error


def _print_predictions(name: str, predictions: Sequence[Prediction]) -> None:
    _print(name)
    width = max(len(prediction.name) for prediction in predictions)
    for prediction in predictions:
        _print(f"  {prediction.name:{width}}  {prediction.probability:6.1%}")
    _print("")


def _print(text: str) -> None:
    """Print `text` as the terminal's encoding can show it."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding))


def _methods(_: argparse.Namespace) -> None:
    from .methods import list_methods

    methods = list_methods()
    width = max(map(len, methods))
    for name, description in methods.items():
        _print(f"{name:{width}}  {description}")


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show a warning of seewhy's as one line, and none of other libraries."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        _tell("warning", message)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SeewhyWarning)
        warnings.showwarning = show
        yield


def _fail(error: object) -> int:
    _tell("error", error)
    return 1


def _tell(kind: str, message: object) -> None:
    """One line on stderr, whatever lines the message has."""
    print(f"seewhy: {kind}: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
