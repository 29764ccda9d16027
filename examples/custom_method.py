"""A method of your own: ten lines of mathematics, checked like the built-in ones."""

from dataclasses import dataclass

import torch

import seewhy
from seewhy.testing import check_method


@seewhy.register("norm_cam")
@dataclass(frozen=True)
class NormCAM(seewhy.Method):
    """NormCAM: the norm of the activation times that of the gradient."""

    p: float = 2.0
    needs = seewhy.Needs(activation=True, gradient=True)

    def compute(self, record: seewhy.LayerRecord) -> torch.Tensor:
        """The product of the norms over the channels, ``(n, h, w)``."""
        return record.activation.norm(self.p, dim=1) * record.gradient.norm(self.p, dim=1)


check_method(NormCAM)
explainer = seewhy.samples.explainer()
explanation = explainer.explain(seewhy.samples.photo("coffee"), ["norm_cam", "grad_cam"])
explanation.save("custom.png")
print(explanation)
