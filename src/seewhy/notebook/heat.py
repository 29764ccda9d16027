"""An explanation as the bytes and texts that the browser draws it from."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .. import pictures
from ..explanation import Explanation
from ..render import colour


def heat(explanation: Explanation) -> dict[str, Any]:
    """The map of a single image, float32 as it is, with its colours and what is written beside it.

    `map` is H x W little-endian float32, row by row; `table` 256 x 3 bytes RGB, from the colour of `low` to that of
    `high`; `ticks` the values to mark, with their texts.

    >>> import torch
    >>> from seewhy import Explainer
    >>> from seewhy.testing import small_cnn
    >>> sent = heat(Explainer(small_cnn()).explain(torch.rand(3, 8, 10), "saliency"))
    >>> len(sent["map"]), len(sent["table"]), sent["height"], sent["width"]
    (320, 768, 8, 10)
    """
    picture = pictures.draw(explanation, "overlay")[0]
    scale = picture.scale
    assert scale is not None  # of an overlay
    height, width = explanation.map.shape
    return {
        "map": explanation.map.astype("<f4").tobytes(),
        "height": height,
        "width": width,
        "low": scale.low,
        "high": scale.high,
        "table": _table(scale.colormap),
        "ticks": [[value, text] for value, text in scale.ticks()],
        "end": f"scaled to the {scale.end} of |map|" if scale.beyond else "",
        "title": " at ".join(picture.heading),
        **_label(picture.label),
    }


def _table(colormap: str) -> bytes:
    low = -1.0 if colormap == colour.SIGNED else 0.0
    return colour.colorize(low + (1 - low) * (np.arange(256)[None] + 0.5) / 256, colormap, (low, 1.0)).tobytes()


def _label(label: Any) -> dict[str, Any]:
    if label is None:
        return {"label": "", "truth": "", "right": None}
    truth = "" if label.truth is None else f"true: {label.truth}"
    return {"label": f"{label.name}  {label.value}".strip(), "truth": truth, "right": label.right}


def photo(explanation: Explanation) -> bytes:
    """What the model saw, as PNG."""
    import PIL.Image

    file = io.BytesIO()
    PIL.Image.fromarray(explanation.images[0]).save(file, "PNG")
    return file.getvalue()
