"""A method of your own: ten lines of mathematics, checked like the built-in ones."""

from dataclasses import dataclass

import torch

import seewhy
from seewhy.testing import check_method


@seewhy.register("positive_grad_cam")
@dataclass(frozen=True)
class PositiveGradCAM(seewhy.Method):
    """Grad-CAM with each position's own positive gradient, in place of the mean over positions."""

    floor: float = 0.0
    needs = seewhy.Needs(activation=True, gradient=True)

    def compute(self, record: seewhy.LayerRecord) -> torch.Tensor:
        """The weighted sum over channels, ``(n, h, w)``."""
        return (record.gradient.clamp(min=self.floor) * record.activation).sum(1).relu()


check_method(PositiveGradCAM)
explainer = seewhy.samples.explainer()
explanation = explainer.explain(seewhy.samples.photo("coffee"), ["positive_grad_cam", "grad_cam"])
explanation.save("custom.png")
print(explanation)
