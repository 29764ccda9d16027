"""``seewhy inside``: what the layers of a network see and what its filters look for, on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli_options as options
from .errors import InputError
from .terminal import say

if TYPE_CHECKING:
    from .inside import Result

EXAMPLES = """examples:
  seewhy inside channels dog.jpg --layer _blocks.3 --top 16     what a layer sees, a tile for each channel
  seewhy inside maximize --layer _blocks.3 --channels 0-15      what its filters look for
  seewhy inside maximize --class espresso --class "tiger cat"   what a class looks like to the network
  seewhy inside dream dog.jpg --layer _blocks.9                 a photo as a layer would have it
  seewhy inside embed photos/ --method tsne                     the photos in the space of features
  seewhy inside top-images photos/ --layer _blocks.9            which of them excite a channel most
  seewhy inside cka photos/                                     where layers agree
  seewhy inside cka photos/ --other resnet50                    where two networks do
Each takes --model for a network of your own. --out NAME.png writes the picture, NAME.npz the arrays, NAME both.
"""
SAMPLE = "cat"


def add(commands: Any) -> None:
    """Add the command with its own commands to the parser."""
    style = argparse.RawDescriptionHelpFormatter
    inside = commands.add_parser(
        "inside",
        help="look at the network itself: its layers, its filters, its features",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    parts = inside.add_subparsers(required=True, metavar="COMMAND")
    for name, (run, describe, arguments) in _COMMANDS.items():
        part = parts.add_parser(name, help=describe, description=f"{describe[0].upper()}{describe[1:]}.")
        part.set_defaults(run=_run, inside=run, out_default=f"seewhy-{name}.png")
        arguments(part)
        options.add_model(part)
        part.add_argument("--class-names", metavar="FILE", help="text, a name a line; or JSON")
        part.add_argument("--out", metavar="PATH", help=f"NAME.png, NAME.npz or NAME for both (seewhy-{name}.png)")


def _run(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out or arguments.out_default)
    _check_overwriting(arguments, out)
    explainer = options.explainer(arguments, **options.class_names(arguments.class_names))
    result: Result = arguments.inside(explainer, arguments)
    try:
        result.save(out)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written: {error.strerror or error}.") from error
    say(f"{result}: {out}")


def _check_overwriting(arguments: argparse.Namespace, out: Path) -> None:
    from . import bulk, storage

    stem, suffixes = storage.parts(out)
    given = [path for path in [getattr(arguments, "photo", None), *getattr(arguments, "photos", [])] if path]
    for suffix in suffixes:
        bulk.check_overwriting([bulk.Photo(path, path) for path in given], stem.with_name(stem.name + suffix))


# -------------------------------------------------------------------------------------------------------- arguments


def _photos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="image files, or a folder; the folders in it are classes"
    )
    parser.add_argument("--batch-size", type=options.whole, metavar="N", help="images per pass")


def _photo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", nargs="?", metavar="PHOTO", help="an image file (the sample photo of a cat)")


def _one_layer(parser: argparse.ArgumentParser, otherwise: str = "") -> None:
    hint = f" ({otherwise})" if otherwise else ""
    parser.add_argument("--layer", metavar="NAME", required=not otherwise, help=f"the layer, of: seewhy layers{hint}")


def _layers(parser: argparse.ArgumentParser, otherwise: str) -> None:
    parser.add_argument("--layer", action="append", metavar="NAME", help=f"layers to look at ({otherwise})")


def _channels(parser: argparse.ArgumentParser, otherwise: str) -> None:
    parser.add_argument(
        "--channels", type=_numbers, metavar="NUMBERS", help=f"which channels, as in 0-15,40 ({otherwise})"
    )


def _numbers(text: str) -> list[int]:
    """``"0-3,7"`` as [0, 1, 2, 3, 7]."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random numbers (0)")


def _of_channels(parser: argparse.ArgumentParser) -> None:
    _photo(parser)
    _layers(parser, "every convolution and pooling layer")
    _channels(parser, "all")
    parser.add_argument("--top", type=options.whole, metavar="N", help="the N channels that answer most")
    parser.add_argument("--by", default="activation", metavar="HOW", help="activation, or gradient: for --target")
    parser.add_argument("--target", metavar="CLASS", help="class name or index for --by gradient (the predicted one)")


def _of_maximize(parser: argparse.ArgumentParser) -> None:
    _one_layer(parser, "needed unless --class is given")
    _channels(parser, "the first 64")
    parser.add_argument("--class", dest="classes", action="append", metavar="CLASS", help="a class instead of a layer")
    parser.add_argument("--method", default="fourier", metavar="NAME", help="fourier, maco or classic (fourier)")
    parser.add_argument("--size", type=options.whole, metavar="PIXELS", help="of the images' sides")
    parser.add_argument("--steps", type=options.whole, metavar="N", help="of the ascent")
    _seed(parser)


def _of_dream(parser: argparse.ArgumentParser) -> None:
    _photo(parser)
    _one_layer(parser)
    _channels(parser, "all")
    parser.add_argument("--steps", type=options.whole, metavar="N", help="of the ascent")
    _seed(parser)


def _of_embed(parser: argparse.ArgumentParser) -> None:
    _photos(parser)
    _one_layer(parser, "what the last linear layer reads")
    parser.add_argument("--method", default="pca", metavar="NAME", help="pca, tsne or umap (pca)")
    parser.add_argument("--thumbnails", action="store_true", help="draw the photos at their points")
    _seed(parser)


def _of_top_images(parser: argparse.ArgumentParser) -> None:
    _photos(parser)
    _one_layer(parser)
    _channels(parser, "the first 64")
    parser.add_argument("-k", type=options.whole, default=9, metavar="N", help="images per channel (9)")


def _of_cka(parser: argparse.ArgumentParser) -> None:
    _photos(parser)
    _layers(parser, "every convolution and pooling layer")
    parser.add_argument("--other", metavar="SPEC", help="a second network, named as with --model")
    parser.add_argument("--other-weights", metavar="FILE", help="its weights, as with --weights")
    parser.add_argument("--other-layer", action="append", metavar="NAME", help="its layers")


# --------------------------------------------------------------------------------------------------------- commands


def _image(arguments: argparse.Namespace) -> Any:
    if arguments.photo:
        return arguments.photo
    from . import samples

    return samples.photo(SAMPLE)


def _images(photos: Sequence[str]) -> Any:
    """The only folder as it is, for its own folders are classes; else every photo found."""
    if len(photos) == 1 and Path(photos[0]).is_dir():
        return photos[0]
    from . import bulk

    return [photo.content for photo in bulk.find_photos(photos)]


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that were given."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _do_channels(explainer: Any, arguments: argparse.Namespace) -> Result:
    from . import inside

    given = _given(arguments, "layer", "channels", "top", "by")
    return inside.channels(explainer, _image(arguments), target=options.target(arguments.target), **given)


def _do_maximize(explainer: Any, arguments: argparse.Namespace) -> Result:
    from . import inside

    if bool(arguments.layer) == bool(arguments.classes):
        raise InputError("Say what to maximize: channels of a --layer, or a --class; one of the two.")
    given = _given(arguments, "layer", "channels", "method", "size", "steps", "seed")
    if arguments.classes:
        classes = map(options.target, arguments.classes)
        given["objective"] = [inside.Logit(cls) for cls in classes if cls is not None]
    return inside.maximize(explainer, **given)


def _do_dream(explainer: Any, arguments: argparse.Namespace) -> Result:
    from . import inside

    return inside.deep_dream(explainer, _image(arguments), **_given(arguments, "layer", "channels", "steps", "seed"))


def _do_embed(explainer: Any, arguments: argparse.Namespace) -> Result:
    from . import inside

    given = _given(arguments, "layer", "method", "seed", "batch_size", "thumbnails")
    return inside.embed(explainer, _images(arguments.photos), **given)


def _do_top_images(explainer: Any, arguments: argparse.Namespace) -> Result:
    from . import inside

    given = _given(arguments, "layer", "channels", "k", "batch_size")
    return inside.top_images(explainer, _images(arguments.photos), **given)


def _do_cka(explainer: Any, arguments: argparse.Namespace) -> Result:
    from . import inside

    given = _given(arguments, "layer", "other_layer", "batch_size")
    if arguments.other:
        other = argparse.Namespace(model=arguments.other, weights=arguments.other_weights)
        given["other"] = options.explainer(other)
    elif arguments.other_weights or arguments.other_layer:
        raise InputError("--other-weights and --other-layer are of a second network: name it with --other.")
    return inside.cka(explainer, _images(arguments.photos), **given)


_COMMANDS: dict[str, tuple[Callable[..., Any], str, Callable[[argparse.ArgumentParser], None]]] = {
    "channels": (_do_channels, "what each layer answers to a photo, a tile for each channel", _of_channels),
    "maximize": (_do_maximize, "what channels of a layer, or classes, look for", _of_maximize),
    "dream": (_do_dream, "a photo as a layer would have it", _of_dream),
    "embed": (_do_embed, "photos as points in the space of features", _of_embed),
    "top-images": (_do_top_images, "the photos that excite each channel of a layer most", _of_top_images),
    "cka": (_do_cka, "where two layers, or two networks, agree", _of_cka),
}
