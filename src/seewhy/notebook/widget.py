"""The widget: its traits say what is shown, messages from the browser what was picked."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, SupportsFloat

import anywidget
import traitlets

from ..errors import InputError, InputTypeError, SeewhyError, warn
from ..explanation import Explanation
from ..render.overlay import STRONGEST
from .heat import heat, photo
from .maps import Maps, Pick
from .pickers import Offer, pickers

_HERE = Path(__file__).parent


class View(anywidget.AnyWidget):
    """What `seewhy.notebook.view` returns. The traits always say what is shown: what fails is taken back.

    `image`: its number; `method`: its name; `layer`: a name, None for the one chosen automatically; `target`: a class
    by index or name, None for the predicted one; `opacity` of the map, 0..1; `follow`: whether the opacity follows the
    map. `explanation` is what is shown. Setting one to what cannot be shown raises a `SeewhyError`.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "view.css"

    image = traitlets.Any().tag(sync=True)
    method = traitlets.Any().tag(sync=True)
    layer = traitlets.Any().tag(sync=True)
    target = traitlets.Any().tag(sync=True)
    opacity = traitlets.Any(STRONGEST).tag(sync=True)
    follow = traitlets.Bool(True).tag(sync=True)

    _photo = traitlets.Bytes().tag(sync=True)
    _heat = traitlets.Dict().tag(sync=True)
    _pickers = traitlets.Dict().tag(sync=True)
    _names: Any = traitlets.List().tag(sync=True)
    _warnings: Any = traitlets.List().tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)
    _busy = traitlets.Bool(False).tag(sync=True)

    def __init__(self, maps: Maps, offered: Offer) -> None:
        self._maps, self._offered = maps, offered
        self._shown = Pick(0, offered.methods[0])
        self._found = maps.explain(self._shown)
        super().__init__(_names=list(maps.explainer._names.values()), **self._state())
        self.on_msg(self._on_message)
        self._warn()

    def __repr__(self) -> str:
        return f"View({self._found.explanation!r}, images={len(self._maps.titles)})"

    @property
    def explanation(self) -> Explanation:
        """What is shown."""
        return self._found.explanation

    @traitlets.validate("image", "target")
    def _plain(self, proposal: Any) -> Any:
        """NumPy's and torch's integers as Python's, which can be sent."""
        value, name = proposal["value"], proposal["trait"].name
        value = value.item() if getattr(value, "ndim", None) == 0 else value
        if isinstance(value, bool) or not isinstance(value, int if name == "image" else int | str | None):
            raise InputTypeError(f"{name} is {_KINDS[name]}, not {value!r}.")
        return value

    @traitlets.validate("method")
    def _method_name(self, proposal: Any) -> str:
        return self._maps.method_name(proposal["value"])

    @traitlets.validate("layer")
    def _layer_name(self, proposal: Any) -> str | None:
        return self._maps.layer(proposal["value"])

    @traitlets.validate("opacity")
    def _unit(self, proposal: Any) -> float:
        value = proposal["value"]
        if isinstance(value, bool) or not isinstance(value, SupportsFloat) or not 0 <= float(value) <= 1:
            raise InputError(f"opacity is a number in 0..1, not {value!r}.")
        return float(value)

    @traitlets.observe("opacity")
    def _on_opacity(self, change: Any) -> None:
        """None is the one value that is not validated."""
        if change["new"] is None:
            self.opacity = change["old"]
            raise InputError("opacity is a number in 0..1, not None.")

    @traitlets.observe("image", "method", "layer", "target")
    def _on_set(self, _: Any) -> None:
        """Python set a trait: show it, or take it back and raise."""
        wanted = Pick(self.image, self.method, self.layer, self.target)
        if wanted == self._shown:  # as the view itself sets them
            return
        self._busy = True
        try:
            self._go(wanted)
        finally:
            self._update(asdict(self._shown))
            self._busy = False
        self._warn()

    def _on_message(self, _: Any, picked: dict[str, Any], __: Any) -> None:
        """The browser picked something: show it, or tell there why not."""
        self._busy = True
        try:
            self._go(self._read(picked))
        except (Exception, KeyboardInterrupt) as error:  # nobody but the one who looks at the view would hear of it
            self._error = _told(error)
        finally:
            self._busy = False

    def _read(self, picked: dict[str, Any]) -> Pick:
        """What is to be shown, from the pickers that changed and the class that was typed."""
        changed = {name: value for name, value in picked.items() if name in _KINDS}
        if "typed" in picked:
            changed["target"] = self._maps.typed(picked["typed"])
        return replace(self._shown, **changed)

    def _go(self, wanted: Pick) -> None:
        """Show it; nothing changes where that fails."""
        found = self._maps.explain(wanted)
        before = self._shown, self._found
        self._shown, self._found = wanted, found
        try:
            state = self._state()
        except BaseException:
            self._shown, self._found = before
            raise
        self._update(state)

    def _state(self) -> dict[str, Any]:
        return {
            **asdict(self._shown),
            "_photo": photo(self._found.explanation),
            "_heat": heat(self._found.explanation),
            "_pickers": pickers(self._maps, self._offered, self._shown, self._found),
            "_warnings": list(self._found.warnings),
            "_error": "",
        }

    def _update(self, state: dict[str, Any]) -> None:
        """Set traits together, and send those that changed in one message."""
        with self.hold_sync(), self.hold_trait_notifications():
            for name, value in state.items():
                setattr(self, name, value)

    def _warn(self) -> None:
        for message in self._found.warnings:
            warn(message)


_KINDS = {
    "image": "the number of an image",
    "method": "the name of a method",
    "layer": "the name of a layer, or None",
    "target": "the index or name of a class, or None",
}


def _told(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    return str(error) if isinstance(error, SeewhyError) else f"{type(error).__name__}: {error}"
