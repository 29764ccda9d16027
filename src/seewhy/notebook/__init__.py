"""An interactive view for Jupyter: the photo with a map over it, and what to explain and how picked by hand.

It needs the extra: ``pip install "seewhy[notebook]"``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError
from ..explainer import Explainer
from ..methods import Method

if TYPE_CHECKING:
    from .widget import View

__all__ = ["view"]


def view(
    explainer: Explainer,
    images: Any,
    *,
    methods: str | Method | type[Method] | Sequence[str | Method | type[Method]] | None = None,
    layers: Any = None,
    targets: Any = None,
    truth: Any = None,
) -> View:
    """A view of one image at a time, with pickers of image, method, layer and class; a notebook shows it.

    Maps are computed in Python when they are asked for, and the last 32 are kept. The opacity is blended in the
    browser: at 0 there is the photo alone. While it follows the map, as in `Explanation.overlay()`, it grows with |map|
    from 0 to the slider's value at the end of the colour bar; else it is the same everywhere. Hover over the picture,
    or move with the arrow keys, to read the map's own value at a pixel. What cannot be computed is told in the view,
    and what it shows stays.

    Args:
        explainer: whose maps are shown.
        images: as for `Explainer.explain`; each is explained by itself, so they may differ in size.
        methods: which are offered, as for `Explainer.explain`, the first shown first. None: the common ones.
        layers: which are offered after the one chosen automatically. None: all that have positions.
        targets: which classes are offered after the predicted one, by index or name. None: the five most probable of
            each image. Any other class can be typed.
        truth: the true class of each image, index or name, told beside the class explained.

    Returns:
        A widget. Its traits `image`, `method`, `layer` (None: chosen), `target` (None: predicted), `opacity` (0..1)
        and `follow` say what was picked, and setting them changes the view; `.explanation` is what it shows.

    Raises:
        MissingDependencyError: anywidget is not installed.
        InputError: the model takes signals, videos or volumes.
        SeewhyError: in one of its kinds, when something given cannot be used, or the first map not computed.

    >>> import torch
    >>> from seewhy import Explainer
    >>> from seewhy.testing import small_cnn
    >>> shown = view(Explainer(small_cnn()), torch.rand(1, 3, 24, 32), methods=["saliency", "grad_cam"])
    >>> shown.method = "grad_cam"
    >>> shown.explanation.map.shape
    (24, 32)
    """
    try:
        importlib.import_module("anywidget")
    except ImportError as error:
        raise MissingDependencyError(
            'The interactive view needs anywidget. Install it with: pip install "seewhy[notebook]"'
        ) from error
    from .maps import Maps
    from .pickers import offer
    from .widget import View

    maps = Maps(explainer, images, truth)
    return View(maps, offer(maps, methods, layers, targets))
