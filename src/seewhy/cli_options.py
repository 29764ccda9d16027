"""What every command has: which network, with which names, and what is explained."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .terminal import quieten_transformers

if TYPE_CHECKING:
    from .explainer import Explainer

MODEL = "resnet50 (torchvision) | timm:NAME | hf:NAME or hf:FOLDER | package.module:callable (the sample network)"
WEIGHTS = "a file (state dict, .pth or .safetensors), 'none' (random) or 'default' (trained, downloaded; default)"


def add_model(parser: argparse.ArgumentParser) -> None:
    """The network, and its weights."""
    parser.add_argument("--model", metavar="SPEC", help=MODEL)
    parser.add_argument("--weights", metavar="FILE", help=WEIGHTS)


def whole(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def explainer(arguments: argparse.Namespace, **own: Any) -> Explainer:
    """An `Explainer` over the network that the arguments name; the sample network where they name none."""
    if arguments.model is None:
        if arguments.weights:
            raise InputError("--weights is for a network of your own: name it with --model, as in --model resnet50.")
        from . import samples

        return samples.explainer(**own)
    from . import loading

    if arguments.model.startswith("hf:"):
        quieten_transformers()
    return loading.load(arguments.model, arguments.weights or "DEFAULT", **own)


def class_names(path: str | None) -> dict[str, Any]:
    """The option `class_names`, where a file of them is given."""
    if path is None:
        return {}
    try:
        text = Path(path).read_text("utf-8-sig").strip()
        names = json.loads(text) if text[:1] in "[{" and text else text.splitlines()
        if isinstance(names, dict):  # Keras' file has pairs of an ID and a name
            names = {int(index): name[-1] if isinstance(name, list) else name for index, name in names.items()}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--class-names {path!r} cannot be read: {reason}. Expected a name a line, or JSON."
        ) from error
    if not names:
        raise InputError(f"--class-names {path!r} is empty. Expected a name a line, or JSON.")
    return {"class_names": names if isinstance(names, dict) else [str(name).strip() for name in names]}


def target(text: str | None) -> int | str | None:
    """A class by its index or its name."""
    return int(text) if text and re.fullmatch(r"\s*-?\d+\s*", text) else text
