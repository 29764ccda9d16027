"""The conformance suite that every method passes: run it on methods of your own.

from seewhy.testing import check_method

def test_my_method():
    check_method(MyMethod)
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import SeewhyWarning
from .explainer import Explainer
from .explanation import Explanation
from .methods import Method
from .methods.make import make_methods

_FEW = 12  # modules, up to which each is interrupted
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


class SmallCNN(nn.Module):
    """A residual network of a few thousand weights, to test with: images ``(N, 3, H, W)`` to scores ``(N, 5)``.

    It has what makes explaining go wrong: batch norm, in-place and functional ReLU, a layer's output changed in place.
    """

    def __init__(self, classes: int = 5, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.left, self.right = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.body = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores, the logits of a linear layer over globally pooled features."""
        x = self.stem(images)
        y = self.left(x)
        y += self.right(x)
        features = torch.relu_(self.body(torch.relu(y)))
        scores: Tensor = self.head(self.drop(features.mean((2, 3))))
        return scores


def small_cnn(seed: int = 0) -> SmallCNN:
    """A `SmallCNN` with random weights and statistics by `seed`; the global random state stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallCNN()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.3)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model.eval()


class SmallViT(nn.Module):
    """A transformer of a few thousand weights: images ``(N, 3, H, W)`` of at most 64 patches to scores ``(N, 5)``.

    Patches of 8 x 8, a class token, learned positions, blocks of attention and GELU; the score is read off the class
    token alone.
    """

    def __init__(self, classes: int = 5, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 65, width))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores, the logits of a linear layer over the class token."""
        patches = self.patches(images).flatten(2).mT
        x = torch.cat([self.first.expand(len(images), -1, -1), patches], 1)
        x = x + self.positions[:, : x.shape[1]]
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x)[:, 0])
        return scores


class _Block(nn.Module):
    """Attention of two heads, and an MLP, each after a layer norm and beside what it got."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.5), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.mlp(self.after(x))
        return x  # noqa: RET504


def small_vit(seed: int = 0) -> nn.Module:
    """A `SmallViT` with random weights by `seed`; the global random state stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _with_norms_of_their_own(SmallViT()).eval()


def small_swin(seed: int = 0) -> nn.Module:
    """A small Swin of torchvision's, channels last, with random weights by `seed`; five classes."""
    from torchvision.models import SwinTransformer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SwinTransformer([4, 4], 12, [1, 2], [1, 2], [4, 4], num_classes=5, stochastic_depth_prob=0)
        nn.init.normal_(model.head.weight)
        return _with_norms_of_their_own(model).eval()


def _with_norms_of_their_own(model: nn.Module) -> nn.Module:
    """The model with layer norms that do more than normalise."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Assert that the ``with`` block leaves `model` as it was, also when it raises.

    Compared: hooks, training flags, parameters and their ``requires_grad`` and ``.grad``, buffers, attributes of every
    module, and the random states.

    Raises:
        AssertionError: naming what changed.

    >>> model, images = small_cnn(), torch.rand(1, 3, 16, 24)
    >>> with unchanged(model):
    ...     explanation = Explainer(model).explain(images, "saliency")
    """
    before = dict(_state(model))
    try:
        yield
    finally:
        after = dict(_state(model))
        changed = [name for name in before.keys() | after.keys() if not _same(before.get(name), after.get(name))]
        assert not changed, f"The model or random state changed: {sorted(changed)}"


def _state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        yield f"{name}.training", getattr(module, "training", None)
        yield f"{name}.attributes", tuple(sorted(vars(module)))
        for hooks in _HOOKS:
            yield f"{name}.{hooks}", tuple(getattr(module, hooks, {}).items())
    for name, parameter in model.named_parameters():
        yield f"{name}.requires_grad", parameter.requires_grad
        yield from _tensor(name, parameter)
        yield from _tensor(f"{name}.grad", parameter.grad)
    for name, buffer in model.named_buffers():
        yield from _tensor(name, buffer)
    yield "torch's random state", torch.get_rng_state()
    yield "numpy's random state", str(np.random.get_state(legacy=False))
    yield "python's random state", random.getstate()


def _tensor(name: str, tensor: Tensor | None) -> Iterator[tuple[str, Any]]:
    yield f"{name} (identity)", id(tensor)
    yield name, None if tensor is None else tensor.detach().clone()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.is_meta or b.is_meta:
            return a.is_meta == b.is_meta and a.shape == b.shape
        return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    return bool(a == b)


def check_method(
    method: str | Method | type[Method], model: Callable[[], nn.Module] | None = None, **options: Any
) -> None:
    """Assert that `method` keeps what seewhy promises of every method.

    On a small network, at the non-square size of 24 x 32: maps and values are float32, finite and of the right shape; a
    batch gives what single images give, in chunks of any size; a second call gives the same; the model, in eval, train
    and mixed mode and frozen, comes back as it was, also from under ``no_grad`` and ``inference_mode`` and from an
    exception; the input is untouched; half precision works; on CUDA too where there is one.

    Args:
        method: a name, a `Method` class or an instance.
        model: makes the network, the same at each call, with at least four classes; `small_cnn` unless given.
            `small_vit` and `small_swin` are others.
        options: of the method, and ``layer=``, where one is to be named.

    Raises:
        AssertionError: naming the promise that is broken.

    >>> check_method("grad_cam")
    """
    suite = _Suite(method, model or small_cnn, options)
    for check in (
        suite.shapes, suite.repeatable, suite.batch_is_singles, suite.any_chunk, suite.restores,
        suite.restores_after_error, suite.grad_modes, suite.input_untouched, suite.bfloat16, suite.devices,
    ):  # fmt: skip
        check()


class _Suite:
    """The checks, each on a network and images of its own."""

    def __init__(self, method: Any, build: Callable[[], nn.Module], options: dict[str, Any]) -> None:
        self._method, self._build, self._options = method, build, options
        self._images = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))
        asked = {name: value for name, value in options.items() if name != "layer"}
        asks = any(one.needs.evaluations for one in make_methods(method, asked))
        self._rounding = 5e-4 if asks else 1e-5  # differences of scores are rounded more than the scores

    def _explain(self, model: nn.Module, images: Tensor, **arguments: Any) -> Explanation:
        target = list(range(1, len(images) + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeewhyWarning)  # a random network may have nothing that argues for a class
            arguments = {"target": target, **arguments, **self._options}
            explanation: Explanation = Explainer(model).explain(images, self._method, **arguments)
        return explanation

    def shapes(self) -> None:
        found = self._explain(self._build(), self._images)
        count, _, height, width = self._images.shape
        assert found.maps.shape == (count, height, width), f"maps are {found.maps.shape}"
        assert found.values.ndim in (2, 3, 4), f"values are {found.values.shape}"
        assert len(found.values) == count, f"values are {found.values.shape} for {count} images"
        assert found.maps.dtype == found.values.dtype == np.float32, f"{found.maps.dtype}, {found.values.dtype}"
        assert np.isfinite(found.maps).all(), "a map is not finite"
        assert found.maps.any(), "every map is 0"

    def repeatable(self) -> None:
        first, second = (self._explain(self._build(), self._images) for _ in range(2))
        _equal(first, second, "a second call", self._rounding)

    def batch_is_singles(self) -> None:
        model = self._build()
        batch = self._explain(model, self._images)
        for index, image in enumerate(self._images):
            single = self._explain(model, image, target=index + 1)
            _equal(batch[index], single, "an image by itself, out of its batch,", self._rounding)

    def any_chunk(self) -> None:
        model = self._build()
        found, other = self._explain(model, self._images), self._explain(model, self._images, batch_size=2)
        _equal(found, other, "another batch_size", self._rounding)

    def restores(self) -> None:
        for prepare in (nn.Module.eval, nn.Module.train, _mixed, _frozen, _with_gradients):
            model = self._build()
            prepare(model)
            expected = self._explain(self._build(), self._images)
            with unchanged(model):
                found = self._explain(model, self._images)
            _equal(expected, found, f"a model prepared by {prepare.__name__}", self._rounding)

    def restores_after_error(self) -> None:
        names = {name: type(module) for name, module in self._build().named_modules()}
        if len(names) > _FEW:  # one of each kind will do
            names = {name: kind for kind, name in {kind: name for name, kind in names.items()}.items()}
        for name in names:
            model, ran = self._build(), list[str]()
            model.get_submodule(name).register_forward_hook(partial(_interrupt, ran))
            with unchanged(model):
                try:
                    self._explain(model, self._images)
                except KeyboardInterrupt:
                    continue
            assert not ran, f"the exception raised in {name!r} was swallowed"

    def grad_modes(self) -> None:
        model = self._build()
        expected = self._explain(model, self._images)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                found = self._explain(model, self._images.clone())
                assert not torch.is_grad_enabled(), f"{mode.__name__} was left switched off"
            _equal(expected, found, f"under {mode.__name__}", self._rounding)

    def input_untouched(self) -> None:
        images = self._images.clone().requires_grad_()
        self._explain(self._build(), images)
        assert torch.equal(images, self._images), "the user's tensor was changed"
        assert images.requires_grad, "the user's tensor lost requires_grad"
        assert images.grad is None, "the user's tensor got a gradient"

    def bfloat16(self) -> None:
        found = self._explain(self._build().to(torch.bfloat16), self._images)
        assert found.maps.dtype == np.float32, f"maps are {found.maps.dtype}"
        assert np.isfinite(found.maps).all(), "a map of a bfloat16 model is not finite"

    def devices(self) -> None:
        if torch.cuda.is_available():
            model = self._build()
            expected = self._explain(model, self._images)
            _equal(expected, self._explain(model.cuda(), self._images), "CUDA", tolerance=1e-3)


def _interrupt(ran: list[str], module: nn.Module, *_: Any) -> None:
    ran.append(type(module).__name__)
    raise KeyboardInterrupt


def _mixed(model: nn.Module) -> None:
    model.train()
    next(iter(model.children())).eval()


def _frozen(model: nn.Module) -> None:
    model.requires_grad_(False)


def _with_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)


def _equal(a: Explanation, b: Explanation, what: str, tolerance: float = 1e-5) -> None:
    for name, one, other in (("values", a.values, b.values), ("maps", a.maps, b.maps)):
        assert one.shape == other.shape, f"{what} changes the shape of the {name}: {one.shape}, {other.shape}"
        error = np.abs(one - other).max() / max(np.abs(one).max(), 1e-12)
        assert error <= tolerance, f"{what} changes the {name} by {error:.2g} of the largest one"
    assert a.layer == b.layer, f"{what} changes the layer: {a.layer}, {b.layer}"
