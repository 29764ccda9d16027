"""Figures that belong to pyplot or to nobody, and their pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
LONGEST = 30_000  # pixels that the drawing library can take on a side


def new(size: tuple[float, float], *, shown: bool, layout: Literal["none", "constrained"] = "none") -> Figure:
    """An empty white figure of `size` in inches; `shown`: one of pyplot's, which a notebook shows."""
    if shown:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=size, facecolor="white")
    else:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, facecolor="white")
        FigureCanvasAgg(figure)
    figure.set_layout_engine(layout)
    return figure


def axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The Axes given, or those of a new figure of pyplot's, of `size` in inches, where all text finds room."""
    from ..errors import InputTypeError

    if not (ax is None or hasattr(ax, "imshow")):
        raise InputTypeError(f"ax is one matplotlib Axes, or None for a new figure; got {type(ax).__name__}")
    return new(size, shown=True, layout="constrained").add_subplot() if ax is None else ax


def png(axes: Axes, *, widest: int = LONGEST) -> bytes:
    """The figure of the axes as a PNG file's bytes, 160 dots per inch and at most `widest` pixels wide."""
    from PIL import Image

    figure: Any = axes.figure
    width, height = figure.get_size_inches()
    figure.set_dpi(min(DPI, widest / width, LONGEST / height))
    figure.canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).save(file, "PNG")
    return file.getvalue()
