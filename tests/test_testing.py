"""The conformance suite passes for a method that keeps its promises, and fails for those that break one."""

import pytest
import torch

import seewhy
from seewhy.testing import check_method, small_cnn, unchanged


class Base(seewhy.Method):
    """Activation energy."""

    needs = seewhy.Needs(activation=True, gradient=True)

    def compute(self, record):
        return record.activation.square().sum(1)


def test_a_method_of_ten_lines_conforms():
    check_method(Base)
    check_method(Base(name="mine"))


class InPlace(Base):
    def compute(self, record):
        return record.activation.relu_().sum(1)


class MixesImages(Base):
    def compute(self, record):
        return (record.activation - record.activation.mean(0)).sum(1)


class Random(Base):
    def compute(self, record):
        return record.activation.sum(1) * torch.rand(1)


class WrongShape(Base):
    def compute(self, record):
        return record.activation.sum((0, 1))


class NotATensor(Base):
    def compute(self, record):
        return record.activation.numpy()


class NaN(Base):
    def compute(self, record):
        return record.activation.sum(1) / 0


class Undeclared(Base):
    def compute(self, record):
        return record.input_gradient


class WrongMaps(Base):
    def to_maps(self, values, size):
        return values


@pytest.mark.parametrize("method", [MixesImages, Random])
def test_broken_promises_are_found(method):
    with pytest.raises(AssertionError):
        check_method(method)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (InPlace, "in place"), (WrongShape, "must return a tensor"), (NotATensor, "ndarray"), (NaN, "NaN"),
        (Undeclared, "declare it in the method's needs"), (WrongMaps, "to_maps"),
    ],
)  # fmt: skip
def test_broken_contracts_are_errors_that_say_so(method, message):
    with pytest.raises(seewhy.SeewhyError, match=message):
        check_method(method)


def test_unchanged_finds_what_changed():
    for change in (
        lambda m: m.train(),
        lambda m: m.stem[1].train(),
        lambda m: m.head.weight.requires_grad_(False),
        lambda m: m.head.weight.data.add_(1),
        lambda m: m.stem[1].running_mean.add_(1),
        lambda m: m.body.register_forward_hook(lambda *_: None),
        lambda m: m.body.register_full_backward_pre_hook(lambda *_: None),
        lambda m: setattr(m.body, "forward", m.body.forward),
        lambda m: setattr(m.head.weight, "grad", torch.zeros_like(m.head.weight)),
        lambda m: torch.rand(1),
    ):
        model = small_cnn()
        with pytest.raises(AssertionError, match="changed"), unchanged(model):
            change(model)
    with unchanged(small_cnn()):
        pass


def test_registering():
    with pytest.raises(seewhy.SeewhyError, match="already"):
        seewhy.register("saliency")(Base)
    with pytest.raises(TypeError, match="subclass"):
        seewhy.register("x")(lambda: 0)
    with pytest.raises(TypeError, match="needs a name"):
        seewhy.register(Base)
    with pytest.raises(seewhy.SeewhyError, match="must override"):
        seewhy.Method().compute(None)
