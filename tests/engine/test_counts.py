"""What explaining costs in passes, convolutions and live bytes, which no machine changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy import Explainer, Top
from seewhy.testing import small_cnn

ZERO = torch.zeros(1)
FIVE = ["saliency", "guided_backprop", "grad_cam", "guided_grad_cam", "activations"]
pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")


class Passes:
    """How many images went forward through the first layer, and how many backward passes came to the last."""

    def __init__(self, model: nn.Module, first: str, last: str) -> None:
        self.forwards: list[int] = []
        self.backwards = 0
        model.get_submodule(first).register_forward_hook(lambda _, __, output: self.forwards.append(len(output)))
        model.get_submodule(last).register_full_backward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.backwards += 1


def passes(count: int = 1, **asked: Any) -> tuple[list[int], int]:
    model = small_cnn()
    seen = Passes(model, "stem.0", "head")
    Explainer(model).explain(torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)), **asked)
    return seen.forwards, seen.backwards


@pytest.mark.parametrize(("asked", "backwards"), [
    ({"method": "grad_cam", "layer": "body"}, 1),
    ({"method": ["saliency", "grad_cam", "guided_grad_cam", "guided_backprop", "activations"]}, 2 + 1),  # chosen first
    ({"method": FIVE, "layer": ["stem", "left", "right", "body"]}, 2),
    ({"method": [*FIVE, "deconvnet", "cam"], "layer": ["stem", "left", "body"]}, 3),
    ({"method": ["activations", "cam"], "layer": "body"}, 0),
    ({"method": ["grad_cam", "saliency"], "layer": ["stem", "left", "right", "body"], "target": Top(5)}, 5),
])  # fmt: skip
def test_sets_of_methods_and_layers_share_the_passes(asked: dict[str, Any], backwards: int) -> None:
    assert passes(4, **{"target": 1, **asked}) == ([4], backwards)


def test_asking_again_costs_what_is_asked() -> None:
    def images(**asked: Any) -> tuple[int, int]:
        forwards, backwards = passes(**{"target": 1, **asked})
        return sum(forwards), backwards

    assert images(method="occlusion", window=8, stride=8)[0] == 1 + 16
    assert images(method="integrated_gradients", baseline=ZERO, steps=12)[0] == 1 + 12 + 1
    assert images(method="smooth_grad", samples=12)[0] == 1 + 12
    assert images(method="score_cam", layer="left")[0] == 1 + 8
    assert images(method="score_cam", layer="left", channels=3)[0] == 1 + 3


def test_score_cam_asks_once_for_all_channels_that_are_the_same_everywhere() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias[2:] = -100  # six channels are dead
    seen = Passes(model, "0", "4")
    Explainer(model).explain(torch.rand(1, 3, 16, 16), "score_cam", target=1, layer="1")
    assert sum(seen.forwards) == 1 + 2 + 1


class Convolutions(TorchFunctionMode):
    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") == "conv2d"
        return func(*args, **(kwargs or {}))


def test_ablating_all_channels_of_the_last_stage_costs_a_few_forwards() -> None:
    model = torchvision.models.resnet18(num_classes=4).eval()
    explainer, x = Explainer(model), torch.rand(1, 3, 64, 64)
    counts = []
    for _ in range(2):
        with Convolutions() as ran:
            explainer.explain(x, "ablation_cam", target=1, layer="layer4")
        counts.append(ran.count)
    assert counts == [3 * 20, 20], "the image itself, and once the trial by two runs, for 512 channels"


def live_bytes(job: Callable[[], Any]) -> int:
    """The greatest sum of the CPU allocations of PyTorch that are alive while `job` runs."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        job()
    alive = peak = 0
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


def forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def test_the_graph_of_grad_cam_begins_at_its_layer(resnet: nn.Module) -> None:
    explainer, x = Explainer(resnet), torch.rand(1, 3, 128, 128)
    explainer.explain(x, target=1, layer="layer4")
    bare = live_bytes(lambda: forward(resnet, x))
    assert live_bytes(lambda: explainer.explain(x, target=1, layer="layer4")) < 1.35 * bare


def test_memory_of_many_steps_is_that_of_few(resnet: nn.Module) -> None:
    explainer, x = Explainer(resnet), torch.rand(1, 3, 64, 64)

    def integrate(steps: int) -> int:
        how = {"target": 1, "baseline": ZERO, "steps": steps, "batch_size": 4}
        return live_bytes(lambda: explainer.explain(x, "integrated_gradients", **how))

    integrate(8)
    assert integrate(60) < 1.05 * integrate(8)


def test_two_rules_share_one_graph(resnet: nn.Module) -> None:
    explainer, x = Explainer(resnet), torch.rand(1, 3, 64, 64)
    one = live_bytes(lambda: explainer.explain(x, "guided_backprop", target=1))
    both = live_bytes(lambda: explainer.explain(x, ["saliency", "guided_backprop", "deconvnet"], target=1))
    assert both < 1.7 * one, "the graph is kept for the later rules, and not built again"


def test_activations_of_many_layers_are_held_once(resnet: nn.Module) -> None:
    explainer, x = Explainer(resnet), torch.rand(1, 3, 64, 64)
    layers = [name for name, module in resnet.named_modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    found = explainer.explain(x, "activations", layer=layers)
    kept = sum(one.values.nbytes + one.maps.nbytes for one in found.values())
    bare = live_bytes(lambda: forward(resnet, x))
    assert live_bytes(lambda: explainer.explain(x, "activations", layer=layers)) < 1.1 * kept + bare
