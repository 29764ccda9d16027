"""The networks of the sweep, and those that are only listed, each with the reason."""

from __future__ import annotations

import builders
import families
from nets import Net

NETWORKS: list[Net] = [
    *builders.classifiers(),
    *builders.segmenters(),
    *builders.detectors(),
    *builders.videos(),
    *families.networks(),
    *builders.transformers(),
]
LISTED: dict[str, dict[str, str]] = {
    "torchvision classification": builders.only_listed(),
    families.SOURCE: families.ONLY_LISTED,
}
