"""CKA against the closed form, and what it must not mind."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seewhy import Explainer, SeewhyWarning
from seewhy.engine.borrow import borrowed
from seewhy.errors import InputError, InputTypeError, NonFiniteError, UnknownNameError
from seewhy.inside.cka import Agreement, cka
from seewhy.testing import small_cnn, unchanged

LAYERS = ["stem.0", "left", "body", "head"]
IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def features(model, images):
    """What each layer returned, flattened, float64."""
    kept, modules = {}, dict(model.eval().named_modules())
    handles = [
        modules[name].register_forward_hook(lambda *a, name=name: kept.update({name: a[2].detach().clone()}))
        for name in LAYERS
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return {name: value.flatten(1).double().numpy() for name, value in kept.items()}


def unbiased(k, m):
    """HSIC_1 (Song 2012, eq. 5), written with matrices."""
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    n, one = len(k), np.ones(len(k))
    return (np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))  # fmt: skip


def by_hand(xs, ys, size):
    """CKA of each pair, over batches of so many."""
    found = np.zeros((len(xs), len(ys)))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            parts = [(x[s : s + size], y[s : s + size]) for s in range(0, len(x), size)]
            k = [(a @ a.T, b @ b.T) for a, b in parts]
            cross = sum(unbiased(a, b) for a, b in k)
            found[i, j] = cross / np.sqrt(sum(unbiased(a, a) for a, _ in k) * sum(unbiased(b, b) for _, b in k))
    return found


@pytest.mark.parametrize("size", [24, 12, 6])
def test_the_closed_form(size):
    model = small_cnn()
    xs = list(features(model, IMAGES).values())
    found = cka(Explainer(model), IMAGES, LAYERS, batch_size=size)
    np.testing.assert_allclose(found.values, by_hand(xs, xs, size), atol=2e-5)
    assert found.values.dtype == np.float32
    assert found.layers == found.other_layers == tuple(LAYERS)
    assert found.images == 24


def test_two_networks_on_the_same_images():
    one, two = small_cnn(0), small_cnn(1)
    found = cka(Explainer(one), IMAGES, LAYERS[:2], other=Explainer(two), other_layer=LAYERS, batch_size=24)
    xs, ys = features(one, IMAGES), features(two, IMAGES)
    np.testing.assert_allclose(found.values, by_hand([xs[n] for n in LAYERS[:2]], list(ys.values()), 24), atol=2e-5)
    assert found.values.shape == (2, 4)


def test_the_other_side_may_be_other_layers_of_the_same_network():
    explainer = Explainer(small_cnn())
    whole = cka(explainer, IMAGES, LAYERS)
    part = cka(explainer, IMAGES, ["left"], other_layer=["body", "head"])
    np.testing.assert_allclose(part.values, whole.values[1:2, 2:], atol=1e-6)


def test_it_is_symmetric_and_one_on_the_diagonal():
    found = cka(Explainer(small_cnn()), IMAGES, LAYERS).values
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(found.diagonal(), 1, atol=1e-6)
    assert (found <= 1 + 1e-6).all()


def test_a_rotation_of_channels_and_another_scale_change_nothing():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            turn = torch.linalg.qr(torch.randn(8, 8))[0]
            self.b.weight.data = 7 * turn[..., None, None]
            self.c.weight.data[:4] = 0

        def forward(self, x):
            return self.c(self.b(self.a(x))).mean((2, 3))

    found = cka(Explainer(Turned()), IMAGES, ["a", "b", "c"]).values
    assert found[0, 1] == pytest.approx(1, abs=1e-5)
    assert found[0, 2] < 0.999


def test_what_has_nothing_in_common_is_about_zero():
    """The unbiased estimator is 0 on average where features are independent, however many there are."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Identity(), nn.Identity()

        def forward(self, x):
            return self.left(x[..., :8].clone()).mean((2, 3)) + self.right(x[..., 8:].clone()).mean((2, 3))

    noise = torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert abs(cka(Explainer(Halves()), noise, ["left", "right"], batch_size=48).values[0, 1]) < 0.05


def test_a_few_left_over_join_the_batch_before():
    explainer = Explainer(small_cnn())
    joined = cka(explainer, IMAGES[:10], LAYERS, batch_size=8)
    assert joined.images == 10
    np.testing.assert_allclose(joined.values, cka(explainer, IMAGES[:10], LAYERS, batch_size=10).values, atol=1e-5)
    four = cka(explainer, IMAGES[:12], LAYERS, batch_size=8)
    xs = list(features(explainer.model, IMAGES[:12]).values())
    np.testing.assert_allclose(four.values, by_hand(xs, xs, 8), atol=2e-5)


@pytest.mark.parametrize("kind", ["generator", "loader", "shuffled", "pairs"])
def test_every_image_reaches_both_networks(kind):
    """Also where the images can be read but once, and where each reading has another order."""
    data = TensorDataset(IMAGES, torch.zeros(24, dtype=torch.long))
    images = {
        "generator": lambda: (image for image in IMAGES),
        "loader": lambda: DataLoader(data, batch_size=24),
        "shuffled": lambda: DataLoader(data, batch_size=24, shuffle=True),
        "pairs": lambda: [(image, 0) for image in IMAGES],
    }[kind]()
    model = small_cnn()
    size = None if "loader" in kind or kind == "shuffled" else 24
    found = cka(
        Explainer(model), images, ["left"], other=Explainer(model), other_layer=["left", "body"], batch_size=size
    )
    assert found.values[0, 0] == pytest.approx(1, abs=1e-5)
    assert found.images == 24
    expected = cka(Explainer(model), IMAGES, ["left"], other_layer=["body"], batch_size=24).values[0, 0]
    assert found.values[0, 1] == pytest.approx(expected, abs=1e-4)


def test_each_network_has_its_own_transform():
    from torchvision.transforms import v2

    def transform(side):
        return v2.Compose([v2.ToImage(), v2.Resize((side, side)), v2.ToDtype(torch.float32, scale=True)])

    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    one, two = (Explainer(small_cnn(), transform=transform(side)) for side in (32, 24))
    found = cka(one, pictures, ["left"], other=two, other_layer=["left"])
    assert 0.2 < found.values[0, 0] < 1


def test_layers_that_are_not_named_are_the_usual_ones():
    found = cka(Explainer(small_cnn()), IMAGES)
    assert found.layers == ("stem.0", "left", "right", "body")
    other = cka(Explainer(small_cnn()), IMAGES, ["left"], other=Explainer(small_cnn(1)))
    assert (other.layers, other.other_layers) == (("left",), ("stem.0", "left", "right", "body"))


def test_a_layer_to_which_all_images_are_the_same_has_no_value():
    model = small_cnn()
    model.body.weight.data.zero_()
    with pytest.warns(SeewhyWarning, match="To 'body' all images are the same"):
        found = cka(Explainer(model), IMAGES, ["left", "body"])
    assert np.isnan(found.values[1]).all()
    assert np.isnan(found.values[:, 1]).all()
    assert found.values[0, 0] == pytest.approx(1)
    assert found._repr_png_()


def test_the_networks_are_as_they_were():
    one, two = small_cnn(0).train(), small_cnn(1)

    def broken():
        yield from IMAGES[:9]
        raise RuntimeError("no more")

    with unchanged(one), unchanged(two):
        cka(Explainer(one), IMAGES, ["left"], other=Explainer(two))
    with unchanged(one), unchanged(two), pytest.raises(RuntimeError, match="no more"):
        cka(Explainer(one), broken(), ["left"], other=Explainer(two), batch_size=4)
    two.left.register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with unchanged(one), unchanged(two), pytest.raises(KeyboardInterrupt):
        cka(Explainer(one), IMAGES, ["left"], other=Explainer(two))


@pytest.mark.parametrize("kind", ["loader", "generator", "ones", "pairs"])
def test_images_are_compared_so_many_at_a_time_whatever_comes(kind):
    images = {
        "loader": lambda: DataLoader(IMAGES, 4),
        "ones": lambda: DataLoader(IMAGES, 1),
        "generator": lambda: iter(IMAGES.split(4)),
        "pairs": lambda: iter(IMAGES.split(2)),
    }[kind]
    expected = cka(Explainer(small_cnn()), IMAGES, LAYERS, batch_size=12).values
    found = cka(Explainer(small_cnn()), images(), LAYERS, batch_size=12)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.images == 24


def test_a_loader_of_single_images_needs_no_batch_size():
    expected = cka(Explainer(small_cnn()), IMAGES, LAYERS).values
    np.testing.assert_allclose(cka(Explainer(small_cnn()), DataLoader(IMAGES, 1), LAYERS).values, expected, atol=1e-5)


def test_labels_are_passed_by():
    odd = [(image, torch.zeros(3, 3)) for image in IMAGES]
    assert cka(Explainer(small_cnn()), odd, ["left"]).images == 24


class Near(nn.Module):
    """Layer a tells images apart, b by little beside what they share, c has one image far larger than the others."""

    def __init__(self, little):
        super().__init__()
        self.a, self.b, self.c, self.little = nn.Identity(), nn.Identity(), nn.Identity(), little

    def forward(self, x):
        z = self.a(x * 1.0)
        far = torch.ones(len(x), 1, 1, 1)
        far[0] = 1e7
        return (self.b(1 + self.little * z) + self.c(z * far)).mean((2, 3))


@pytest.mark.parametrize("little", [1e-2, 1e-4, 1e-5])
def test_little_differences_beside_much_that_is_shared_and_an_image_far_from_all(little):
    noise = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = cka(Explainer(Near(little)), noise, ["a", "b", "c"], batch_size=24).values
    far = noise.clone()
    far[0] *= 1e7
    xs = [each.flatten(1).double().numpy() for each in (noise, 1 + little * noise, far)]
    xs[1] -= xs[1].mean(0)
    np.testing.assert_allclose(found, by_hand(xs, xs, 24), atol=1e-4)
    assert found[0, 1] > 0.99


def test_who_waits_for_one_network_does_not_keep_the_other():
    """Else two that need both, the other way round, would wait for each other for ever."""
    one, two = Explainer(small_cnn(0)), Explainer(small_cnn(1))
    both = threading.Thread(target=lambda: cka(one, IMAGES, ["left"], other=two), daemon=True)
    alone = threading.Thread(target=lambda: one.predict(IMAGES[:1]), daemon=True)
    with borrowed(two.model):
        both.start()
        both.join(0.5)
        assert both.is_alive()
        alone.start()
        alone.join(20)
        assert not alone.is_alive()
    both.join(20)
    assert not both.is_alive()


def test_mistakes():
    explainer = Explainer(small_cnn())
    with pytest.raises(InputError, match="at least 4 images at a time, and there are 3 in all"):
        cka(explainer, IMAGES[:3], ["left"])
    with pytest.raises(InputError, match="batch_size=2 is too small"):
        cka(explainer, IMAGES, ["left"], batch_size=2)
    with pytest.raises(UnknownNameError, match="Did you mean 'left'"):
        cka(explainer, IMAGES, ["lefd"])
    with pytest.raises(InputError, match="list of layers is empty"):
        cka(explainer, IMAGES, [])
    with pytest.raises(InputTypeError, match="an Explainer, not SmallCNN"):
        cka(explainer, IMAGES, ["left"], other=small_cnn())  # type: ignore[arg-type]
    broken = small_cnn()
    broken.left.weight.data[0] = torch.inf
    with pytest.raises(NonFiniteError, match="'left' gives NaN or infinite"):
        cka(Explainer(broken), IMAGES, ["left"])


def test_the_figure_names_layers_and_goes_from_0_to_1(tmp_path):
    found = cka(Explainer(small_cnn()), IMAGES, LAYERS)
    ax = found.plot()
    assert [text.get_text() for text in ax.get_yticklabels()] == LAYERS
    assert ax.images[0].get_clim() == (0, 1)
    found.save(tmp_path / "agreement")
    again = Agreement.load(tmp_path / "agreement")
    assert (again.values == found.values).all()
    assert repr(again) == "Agreement(SmallCNN, values=(4, 4), 24 images)"
    many = Agreement(
        values=np.eye(90, dtype=np.float32),
        layers=tuple(f"layer{i}" for i in range(90)),
        other_layers=tuple(f"layer{i}" for i in range(90)),
        images=5,
    )
    assert len(many.plot().get_xticklabels()) == 30
