"""Arrays to pictures: colour tables, overlays and labelled panels. It knows no model and imports no torch."""

from __future__ import annotations

from .colour import colorize, limits
from .overlay import overlay

__all__ = ["colorize", "limits", "overlay"]
