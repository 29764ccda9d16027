"""Inside the network: what its layers see, and what its filters look for."""

from __future__ import annotations
