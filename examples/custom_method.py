"""A method of your own: ten lines of mathematics, checked like the built-in ones."""

from dataclasses import dataclass

import torch

import seewhy
from seewhy.testing import check_method


@seewhy.register("counter_grad_cam")
@dataclass(frozen=True)
class CounterGradCAM(seewhy.Method):
    """Grad-CAM of what argues against the class: of the negative gradient (Selvaraju 2016, section 3.3)."""

    power: float = 1.0
    needs = seewhy.Needs(activation=True, gradient=True)

    def compute(self, record: seewhy.LayerRecord) -> torch.Tensor:
        """The weighted sum over channels, ``(n, h, w)``."""
        weights = -record.gradient.flatten(2).mean(2)
        return torch.einsum("nc,nc...->n...", weights, record.activation).relu() ** self.power


check_method(CounterGradCAM)
explainer = seewhy.samples.explainer()
explanation = explainer.explain(seewhy.samples.photo("coffee"), ["counter_grad_cam", "grad_cam"])
explanation.save("custom.png")
print(explanation)
