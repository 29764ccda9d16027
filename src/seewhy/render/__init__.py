"""Arrays to pictures: colour tables, overlays and labelled panels. It knows no model and imports no torch."""

from __future__ import annotations

from .channels import channel_grid, standardized
from .colour import colorize, in_colour, limits
from .overlay import overlay

__all__ = ["channel_grid", "colorize", "in_colour", "limits", "overlay", "standardized"]
