"""Inside the network: what its layers see, and what its filters look for.

`channels` shows the activations of a photo layer by layer, `maximize` draws what filters look for, `deep_dream` a photo
as a layer would have it, `embed` maps the space of features, `top_images` finds what excites a channel most, and `cka`
says where two layers or two networks agree. Each takes an `Explainer` first and returns a frozen result of NumPy arrays
with ``plot()``, ``save()`` and ``load()``; the network comes back as it was.
"""

from __future__ import annotations

from ..result import Result
from .channels import Channels, channels
from .cka import Agreement, cka
from .dream import Dream, deep_dream
from .embed import Embedding, embed
from .maximize import Maximized, maximize
from .objectives import Channel, Direction, Diversity, Logit, Neuron, Objective
from .top_images import TopImages, top_images

__all__ = [
    "Agreement",
    "Channel",
    "Channels",
    "Direction",
    "Diversity",
    "Dream",
    "Embedding",
    "Logit",
    "Maximized",
    "Neuron",
    "Objective",
    "Result",
    "TopImages",
    "channels",
    "cka",
    "deep_dream",
    "embed",
    "maximize",
    "top_images",
]
