"""The command line: ``seewhy explain``, ``check``, ``inside``, ``evaluate``, ``run``, ``layers`` and ``methods``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli_check, cli_datasets, cli_inside
from . import cli_options as options
from ._version import __version__
from .errors import InputError, SeewhyError
from .terminal import fail, progress, say, short_warnings, to_nowhere

if TYPE_CHECKING:
    from .bulk import Done, JsonList, Photo
    from .explainer import Prediction

SAMPLE = "cat"
METHODS = ("saliency", "guided_backprop", "cam", "grad_cam", "guided_grad_cam")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
PICTURE, FOLDER, VIDEO = "seewhy.png", "seewhy-pictures", "seewhy.mp4"
EXAMPLES = """examples:
  seewhy explain                                    the sample photo of a cat, five methods, to seewhy.png
  seewhy explain dog.jpg car.jpg --out why.png      photos of your own, a row each
  seewhy explain cat.jpg --target "tiger cat" --method grad_cam --layer _blocks.10 --layer _act1
  seewhy explain cat.jpg --model resnet50           a network of torchvision; timm:NAME and hf:NAME likewise
  seewhy explain photos/ --model nets:build --weights trained.pth --class-names names.txt --out why/
  seewhy explain photos/ --out why/ --json why.json --arrays
  seewhy explain clip.mp4 --out why.mp4             a video, frame by frame
  seewhy check dog.jpg --method saliency            what speaks for and against a map
  seewhy inside channels dog.jpg                    what its layers see; more with: seewhy inside --help
  seewhy evaluate photos/ --report report.html      judge it over a folder for each class
  seewhy run photos/ --to maps.zarr                 explain a whole folder into a store
  seewhy layers --model timm:resnet10t              what runs, and which layer would be chosen
  seewhy methods                                    every method and what it is
"""
LAYERS_EXAMPLES = """examples:
  seewhy layers                                     of the sample network
  seewhy layers --model resnet50 --weights none
  seewhy layers photo.jpg --model nets:build
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 fine, 1 a problem, 2 usage, 130 interrupted.

    >>> main(["methods"])  # doctest: +ELLIPSIS
    ablation_cam ...
    0
    """
    arguments = _parser().parse_args(argv)
    try:
        with short_warnings():
            arguments.run(arguments)
            sys.stdout.flush()
    except SeewhyError as error:
        return fail(error)
    except BrokenPipeError:  # the reader has seen enough
        to_nowhere()
    except OSError as error:
        return fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except KeyboardInterrupt:
        return 130
    return 0


# ----------------------------------------------------------------------------------------------------- the arguments


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "seewhy", description="Why did a vision network answer that?", epilog=EXAMPLES, formatter_class=style
    )
    parser.add_argument("--version", action="version", version=f"seewhy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    explain = commands.add_parser(
        "explain",
        help="explain photos or a video, and draw the maps",
        description="Explain photos, folders of photos or a video: with the sample network (EfficientNet-Lite0, "
        "trained on ImageNet), or one of your own.",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    explain.set_defaults(run=_explain)
    _add_explain(explain)
    cli_check.add(commands)
    cli_inside.add(commands)
    cli_datasets.add(commands)
    layers = commands.add_parser(
        "layers", help="list the layers of a network", epilog=LAYERS_EXAMPLES, formatter_class=style
    )
    layers.set_defaults(run=_layers)
    layers.add_argument("photo", nargs="?", metavar="PHOTO", help="the photo to run it on (noise)")
    options.add_model(layers)
    methods = commands.add_parser(
        "methods",
        help="list the methods",
        epilog="example:\n  seewhy methods                every name that --method takes\n",
        formatter_class=style,
    )
    methods.set_defaults(run=_methods)
    return parser


def _add_explain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="image files, folders of them, or one video; the sample photo of a cat if none",
    )
    options.add_model(parser)
    add("--class-names", metavar="FILE", help="text, a name a line; or JSON, a list or {index: name}")
    listed = f"methods, of: seewhy methods ({', '.join(METHODS)}, as the network allows)"
    add("--method", nargs="+", action="extend", metavar="NAME", help=listed)
    add("--target", metavar="CLASS", help="class name or index to explain (the predicted one)")
    add("--layer", action="append", metavar="NAME", help="layers to look at (chosen)")
    add("--top", type=options.whole, default=5, metavar="N", help="how many predictions to tell (5)")
    add("--batch-size", type=options.whole, metavar="N", help="images per pass (16)")
    add("--style", metavar="NAME", help="overlay, map, color or channels (as the method is)")
    wanted = f"the picture (.png), or a folder for a picture each ({PICTURE}; {FOLDER} for more than 16 photos)"
    add("--out", metavar="PATH", help=wanted)
    add("--arrays", action="store_true", help="also keep the raw arrays, in a folder beside the picture")
    add("--json", metavar="FILE", help="also write predictions and what was explained; '-': to the terminal, alone")


def _told_apart(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The photos and the methods among what came after ``--method``; a file called like a method is none."""
    from .methods import list_methods

    known, names = list_methods(), list(dict.fromkeys(names))
    photos = [name for name in names if name not in known and Path(name).exists()]
    return photos, [name for name in names if name not in photos]


# ------------------------------------------------------------------------------------------------------ the commands


def _explain(arguments: argparse.Namespace) -> None:
    strays, methods = _told_apart(arguments.method or ())
    given = arguments.photos + strays
    videos = [path for path in given if Path(path).suffix.lower() in VIDEOS]
    if videos:
        _explain_video(arguments, given, methods)
    else:
        _explain_photos(arguments, given, methods)


def _explain_photos(arguments: argparse.Namespace, given: list[str], methods: list[str]) -> None:
    from . import bulk

    found = bulk.find_photos(given, [Path(arguments.out)] if arguments.out else [Path(PICTURE), Path(FOLDER)])
    out = _out(arguments.out, len(found), bulk.CHUNK)
    bulk.check_overwriting(found, out)
    explainer = options.explainer(arguments, **options.class_names(arguments.class_names))
    if not given:
        from . import samples

        found = [bulk.Photo(samples.photo(SAMPLE), SAMPLE)]
    asked = bulk.Asked(
        methods=tuple(methods or METHODS), default=not methods, target=options.target(arguments.target),
        layer=arguments.layer, batch_size=arguments.batch_size, top=arguments.top,
    )  # fmt: skip
    targets: dict[str, None] = {}
    with _json(arguments.json) as listed, progress(len(found), " photos") as bar:
        for done in bulk.explain(explainer, found, asked):
            _save(done, out, arguments)  # before anything is printed, so that a reader that hangs up loses no picture
            bar.update(len(done.photos))
            for photo, one, best in done.each():
                if listed:
                    listed.add(bulk.record(photo, one, best))
                if arguments.json != "-":
                    _say_photo(photo, best, out)
            targets |= dict.fromkeys(filter(None, next(iter(done.explanations.values())).target_names))
    if arguments.json != "-":
        say(f"Explained {_some(targets)}: {out}")


def _out(given: str | None, count: int, most: int) -> Path:
    """Where pictures go: a .png for all of them, or a folder for one each."""
    out = Path(given or (PICTURE if count <= most else FOLDER))
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise InputError(f"--out {str(out)!r} is a folder: name a .png file in it.")
        if count > most:
            raise InputError(f"--out {str(out)!r}: {count} photos are too many for one picture, at most {most}. "
                             "Name a folder for a picture each, as in --out why/.")  # fmt: skip
    elif out.suffix and not (given or "").endswith(("/", os.sep)) and not out.is_dir():
        raise InputError(f"--out {given!r}: the picture is a .png file, as in --out why.png; a folder ends in '/'.")
    return out


def _save(done: Done, out: Path, arguments: argparse.Namespace) -> None:
    from . import bulk

    try:
        bulk.save(done, out, arrays=arguments.arrays, style=arguments.style)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _json(path: str | None) -> Iterator[JsonList | None]:
    from .bulk import JsonList

    if path is None:
        yield None
    elif path == "-":
        with JsonList(sys.stdout) as listed:
            yield listed
    else:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(Path(path).open("w", encoding="utf-8"))
            except OSError as error:
                raise InputError(f"--json {path!r} cannot be written: {error.strerror or error}.") from error
            yield stack.enter_context(JsonList(stream))


def _say_photo(photo: Photo, best: Sequence[Prediction], out: Path) -> None:
    name = photo.file or f"the sample photo {SAMPLE!r}"
    if out.suffix.lower() != ".png":  # many photos: a line each
        say(f"{name}  {best[0].name}  {best[0].probability:.1%}" if best else name)
        return
    say(name)
    width = max((len(prediction.name) for prediction in best), default=0)
    for prediction in best:
        say(f"  {prediction.name:{width}}  {prediction.probability:6.1%}")
    say("")


def _some(names: dict[str, None]) -> str:
    shown = ", ".join(map(repr, list(names)[:5])) or "no class"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _explain_video(arguments: argparse.Namespace, given: list[str], methods: list[str]) -> None:
    out = Path(arguments.out or VIDEO)
    if len(given) > 1 or len(methods) > 1:
        raise InputError("A video is explained alone and by one method: name one, as in --method grad_cam.")
    if out.suffix.lower() not in VIDEOS:
        raise InputError(f"--out {str(out)!r}: a video becomes a video, as in --out why.mp4 ({', '.join(VIDEOS)}).")
    unfit = [option for option in ("json", "arrays", "style") if getattr(arguments, option)]
    layers = arguments.layer or [None]
    if unfit or len(layers) > 1:
        raise InputError(f"--{(unfit or ['layer'])[0]}{'' if unfit else ' twice'} does not go with a video.")
    from .photos import check_path
    from .video import explain_video

    check_path(given[0])
    explainer = options.explainer(arguments, **options.class_names(arguments.class_names))
    frames = explain_video(
        explainer, given[0], out, *(methods or ["grad_cam"]),
        target=options.target(arguments.target), layer=layers[0], batch_size=arguments.batch_size,
    )  # fmt: skip
    say(f"Explained {frames} frames: {out}")


def _layers(arguments: argparse.Namespace) -> None:
    say(repr(options.explainer(arguments).layers(arguments.photo)))


def _methods(_: argparse.Namespace) -> None:
    from .methods import list_methods

    methods = list_methods()
    width = max(map(len, methods))
    for name, description in methods.items():
        say(f"{name:{width}}  {description}")


if __name__ == "__main__":
    sys.exit(main())
