"""The model comes back as it was, whatever happens."""

import gc
import random
import threading

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from seewhy import Explainer, SeewhyError
from seewhy.engine.borrow import borrowed
from seewhy.testing import small_cnn, unchanged

SET = ["saliency", "guided_backprop", "deconvnet", "cam", "grad_cam", "guided_grad_cam", "activations"]


def images(count=2):
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(3))


def test_inside_it_evaluates_frozen_with_gradients_enabled():
    model = small_cnn().train()
    with torch.inference_mode(), borrowed(model):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_each_modules_own_flag_comes_back():
    model = small_cnn().train()
    model.stem[1].eval()
    model.left.weight.requires_grad_(False)
    with unchanged(model):
        Explainer(model).explain(images(), SET, target=[0, 1])
    assert not model.stem[1].training
    assert model.stem.training
    assert not model.left.weight.requires_grad


def test_gradients_keep_their_values_and_identity():
    model = small_cnn()
    model(images()).sum().backward()
    before = {name: parameter.grad for name, parameter in model.named_parameters()}
    with unchanged(model):
        Explainer(model).explain(images(), SET, target=[0, 1])
    assert all(parameter.grad is before[name] for name, parameter in model.named_parameters())


class Counting(nn.Module):
    """Changes a buffer in place, replaces another, and draws random numbers, at each forward."""

    def __init__(self):
        super().__init__()
        self.net = small_cnn()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().mean()
        random.random()
        np.random.rand()
        return self.net(x + 0 * torch.rand(1))


def test_buffers_and_random_states_come_back():
    model = Counting()
    with unchanged(model):
        Explainer(model).explain(images(), "saliency", target=1)
    assert model.calls.item() == 0


def test_a_train_method_of_the_users_own_is_not_called():
    class Merging(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def train(self, mode=True):
            raise AssertionError("train() was called")

        def forward(self, x):
            return self.net(x)

    model = Merging()
    Explainer(model).explain(images(), "saliency", target=1)
    assert model.training


class Boom(Exception):
    pass


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("method", [SET, "activations"])
@pytest.mark.parametrize("prepare", [nn.Module.eval, nn.Module.train])
def test_an_error_in_any_submodule_passes_through_and_leaves_nothing(error, method, prepare):
    for name, _ in small_cnn().named_modules():
        model = prepare(small_cnn())

        def fail(*_):
            raise error

        model.get_submodule(name).register_forward_pre_hook(fail)
        with unchanged(model), pytest.raises(error):
            Explainer(model).explain(images(), method, target=1)


def without_in_place():
    """PyTorch itself forbids full backward hooks around in-place operations."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
def test_an_error_in_any_backward_hook_passes_through_and_leaves_nothing(error):
    for name, _ in without_in_place().named_children():
        model = without_in_place()

        def fail(*_):
            raise error

        model.get_submodule(name).register_full_backward_hook(fail)
        with unchanged(model), pytest.raises(error):
            Explainer(model).explain(images(), ["saliency", "guided_backprop"], target=1)


def test_the_users_own_hooks_stay_in_their_order_and_run():
    model, calls = small_cnn(), []
    for number in range(3):
        model.body.register_forward_hook(lambda *_, n=number: calls.append(n))
    with unchanged(model):
        Explainer(model).explain(images(), "grad_cam", target=1)
    assert calls == [0, 1, 2]


def test_the_users_own_full_backward_hook_changes_nothing():
    plain, hooked = without_in_place(), without_in_place()
    hooked[2].register_full_backward_hook(lambda *_: None)
    for method in ("guided_backprop", "grad_cam"):
        one, other = (Explainer(m).explain(images(), method, target=1).values for m in (plain, hooked))
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_model_built_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = small_cnn()
    with pytest.raises(SeewhyError, match="inference_mode"):
        Explainer(model).explain(images(), "saliency", target=1)


def test_a_table_cached_during_an_explanation_can_be_trained_with():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.table = small_cnn(), None

        def forward(self, x):
            if self.table is None:
                self.table = torch.ones(x.shape[-1])
            return self.net(x * self.table)

    model = Caching()
    with torch.inference_mode():
        Explainer(model).explain(images(), SET, target=1)
    assert not model.table.is_inference()
    model(images()).sum().backward()


def test_a_module_with_its_own_setattr():
    class Strict(nn.Module):
        __slots__ = ()

        def __init__(self):
            super().__init__()
            self.net = small_cnn()
            self.__dict__["closed"] = True

        def __setattr__(self, name, value):
            if self.__dict__.get("closed"):
                raise AttributeError(f"closed: {name}")
            super().__setattr__(name, value)

        def forward(self, x):
            return self.net(x)

    model = Strict()
    with unchanged(model):
        Explainer(model).explain(images(), SET, target=1)
    assert model.training


def test_compiled_submodules_run_as_they_were_written():
    model, plain = small_cnn(), small_cnn()
    model.body.compile(backend="eager")
    whole = torch.compile(small_cnn(), backend="eager")
    for method in ("guided_backprop", "grad_cam"):
        expected = Explainer(plain).explain(images(), method, target=1).values
        for compiled in (model, whole):
            np.testing.assert_array_equal(Explainer(compiled).explain(images(), method, target=1).values, expected)


def test_twelve_threads_on_one_model_give_what_one_gives():
    model = small_cnn().train()
    expected = Explainer(model).explain(images(), SET, target=[0, 1], layer="body")
    results, errors = [], []

    def work():
        try:
            results.extend(Explainer(model).explain(images(), SET, target=[0, 1], layer="body") for _ in range(3))
        except Exception as error:
            errors.append(error)

    with unchanged(model):
        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert len(results) == 36
    for result in results:
        for key, explanation in expected.items():
            np.testing.assert_array_equal(result[key].values, explanation.values)


@pytest.mark.sweep
def test_a_thousand_explanations_do_not_grow_memory():
    explainer, batch = Explainer(small_cnn()), images(1)

    def work(times):
        for _ in range(times):
            explainer.explain(batch, SET, target=1)
        gc.collect()
        return psutil.Process().memory_info().rss, len(gc.get_objects())

    work(50)
    before, objects_before = work(50)
    after, objects_after = work(900)
    assert after - before < 8 * 2**20
    assert objects_after - objects_before < 200


def test_models_that_share_a_module_take_turns():
    """Two heads on one body, in two threads: the body's flags come back, and both are right."""
    body = small_cnn().train()
    models = [nn.Sequential(body, nn.Linear(5, 4)).train() for _ in range(2)]
    expected = [Explainer(model).explain(images(), SET[:3], target=1) for model in models]
    errors = []

    def work(model, right):
        try:
            for _ in range(10):
                for key, explanation in Explainer(model).explain(images(), SET[:3], target=1).items():
                    np.testing.assert_array_equal(explanation.values, right[key].values)
        except Exception as error:
            errors.append(error)

    with unchanged(models[0]), unchanged(models[1]):
        threads = [threading.Thread(target=work, args=pair) for pair in zip(models, expected, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors


def test_a_model_may_be_explained_while_it_is_explained():
    model = small_cnn()
    inner = []

    def target(scores):
        inner.append(Explainer(model).explain(images(), "grad_cam", target=1))
        return scores[:, 1]

    with unchanged(model):
        outer = Explainer(model).explain(images(), "grad_cam", target=target)
    np.testing.assert_allclose(outer.values, inner[0].values, rtol=1e-6)


def test_lazy_layers_that_never_ran_are_refused():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SeewhyError, match="run it once"):
        Explainer(model).explain(images(), "saliency", target=1)


def test_a_buffer_that_is_resized_comes_back():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen.resize_(5)
            return self.net(x)

    model = Growing()
    with unchanged(model):
        Explainer(model).explain(images(), "saliency", target=1)


def test_a_compiled_child_runs_as_it_was_written():
    model, plain = small_cnn(), small_cnn()
    model.body = torch.compile(model.body, backend="eager")
    for method in ("guided_backprop", "saliency"):
        expected = Explainer(plain).explain(images(), method, target=1).values
        np.testing.assert_array_equal(Explainer(model).explain(images(), method, target=1).values, expected)


def test_only_compile_wrappers_are_looked_through():
    class Negated(nn.Module):
        def __init__(self):
            super().__init__()
            self._orig_mod = small_cnn()

        def forward(self, x):
            return -self._orig_mod(x)

    one, other = (Explainer(m).explain(images(), "saliency", target=1).values for m in (Negated(), small_cnn()))
    np.testing.assert_allclose(one, -other, rtol=1e-6)


def test_a_reentrant_checkpoint_is_refused_by_name():
    from torch.utils.checkpoint import checkpoint

    class Reentrant(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=True)

    model = Reentrant()
    for method in ("saliency", "guided_backprop"):
        with unchanged(model), pytest.raises(SeewhyError, match="reentrant"):
            Explainer(model).explain(images(), method, target=1)
