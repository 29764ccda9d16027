"""``seewhy check``: is a map to be believed? On the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import cli_options as options
from .errors import InputError
from .terminal import say

SAMPLE = "cat"
EXAMPLES = """examples:
  seewhy check                                      Grad-CAM of the sample photo
  seewhy check dog.jpg --method guided_backprop --out check.png
  seewhy check photos/ --model resnet50 --method saliency --thorough
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    check = commands.add_parser(
        "check",
        help="ask what speaks for and against a map",
        description="Explain photos, and ask what speaks for and against the maps; several photos are judged together.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.set_defaults(run=_check)
    add = check.add_argument
    add("photos", nargs="*", metavar="PHOTO", help="image files or folders of them; the sample photo of a cat if none")
    options.add_model(check)
    add("--class-names", metavar="FILE", help="text, a name a line; or JSON, a list or {index: name}")
    add("--method", default="grad_cam", metavar="NAME", help="the method, one of: seewhy methods (grad_cam)")
    add("--target", metavar="CLASS", help="class name or index to explain (the predicted one)")
    add("--layer", metavar="NAME", help="the layer to look at (chosen)")
    add("--batch-size", type=options.whole, metavar="N", help="images per pass (16)")
    add("--thorough", action="store_true", help="more random orders and classes, and weights layer by layer; slower")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn at random (0)")
    add("--out", metavar="FILE", help="also draw it (.png)")


def _check(arguments: argparse.Namespace) -> None:
    from . import bulk, samples

    out = Path(arguments.out) if arguments.out else None
    photos = bulk.find_photos(arguments.photos, [out] if out else [])
    if out:
        if out.suffix.lower() != ".png":
            raise InputError(f"--out {arguments.out!r}: the picture is a .png file, as in --out check.png.")
        bulk.check_overwriting(photos, out)
    explainer = options.explainer(arguments, **options.class_names(arguments.class_names))
    given = [photo.content for photo in photos] or [samples.photo(SAMPLE)]
    how = {"target": options.target(arguments.target), "batch_size": arguments.batch_size}
    found = explainer.explain(given, arguments.method, layer=arguments.layer, **how)
    checked = explainer.check(found, thorough=arguments.thorough, seed=arguments.seed, batch_size=arguments.batch_size)
    say(str(checked))
    if out:
        checked.save(out)
        say(f"Drawn: {out}")
