"""Hundreds of networks with nothing but the network: right, or refused with a reason; never wrong."""

from __future__ import annotations

import families
import numpy as np
import pytest
import torch
from checks import Verdict, changed_places, examine, locality, scrambles
from listed import NETWORKS
from nets import Net
from torch import nn

from seewhy import Explainer

# Those that cannot be explained without a word more, and what they are refused for.
pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")

REFUSED: dict[str, str] = {}


@pytest.mark.sweep
@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: f"{net.source}-{net.name}".replace(" ", "_"))
def test_every_network_is_right_or_refused(net: Net, note: list[Verdict]) -> None:
    verdict = examine(net)
    note.append(verdict)
    assert verdict.outcome != "wrong", verdict.reason
    expected = REFUSED.get(net.name)
    assert (verdict.outcome == "refused") == bool(expected), verdict.reason or "it is not refused any more"
    assert (expected or "") in verdict.reason


@pytest.mark.sweep
def test_every_family_of_timm_is_tried_or_listed() -> None:
    import timm

    tried = {net.name.split(":")[0] for net in NETWORKS if net.source == families.SOURCE}
    assert tried | set(families.ONLY_LISTED) >= set(timm.list_modules())
    assert not tried & set(families.ONLY_LISTED)


class Local(nn.Module):
    """Sees each place by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean((2, 3)))


def _changes() -> tuple[np.ndarray, np.ndarray]:
    net = Net("here", "local", Local, (64, 80))
    one, other = net.images()
    places, changed = changed_places(one, other)
    found = Explainer(net.model()).explain(torch.cat([one[None], changed]), "activations", layer="body").values
    return np.log(np.square(found[1:].astype(float) - found[:1]).sum(1) + 1e-9), places


def test_the_check_of_places_knows_a_right_layout_from_every_wrong_one() -> None:
    changes, places = _changes()
    right = locality(changes, places)
    assert right > 0.3
    wrong = {name: locality(other, places) for name, other in scrambles(changes)}
    assert len(wrong) > 20
    assert max(wrong.values()) < right


def test_a_network_with_scrambled_positions_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.layouts import Layout

    net = Net("here", "local", Local, (64, 80))
    assert examine(net).outcome == "right"
    straight = Layout.channels_first
    monkeypatch.setattr(Layout, "channels_first", lambda self, activation: straight(self, activation).flip(-1))
    verdict = examine(net)
    assert (verdict.outcome, verdict.scramble) == ("wrong", "flipped along axis 2")


def test_a_batch_that_is_not_its_images_is_wrong() -> None:
    class Mixing(Local):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images * images.mean())

    assert "alone differs" in examine(Net("here", "mixing", Mixing, (64, 80))).reason
