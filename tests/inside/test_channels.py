"""Activations layer by layer: what is kept of each layer, how it is drawn, and the numbers of silence."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Explainer, errors, samples, testing
from seewhy.inside.channels import Channels, channels
from seewhy.inside.statistics import statistics

torch.set_num_threads(1)


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def vgg(out=nn.Identity, width=8):
    """Layers called by number in ``features``, as VGG has them, of which some are in-place ReLUs."""
    torch.manual_seed(0)
    parts = []
    for i in range(10):
        parts += [nn.Conv2d(3 if not parts else width, width, 3, padding=1), nn.ReLU(inplace=True)]
        parts += [nn.MaxPool2d(2)] if i in (2, 5) else []
    model = nn.Module()
    model.features = nn.Sequential(*parts)
    model.forward = lambda x: out()(model.features(x))
    return model.eval()


def standardised(channel):
    """The reference: mean at 128, a standard deviation = 64 grey levels, clipped; blank where all is zero."""
    if not channel.any():
        return np.full(channel.shape, 255, np.uint8)
    deviation = channel.std()
    levels = (channel - channel.mean()) / deviation * 64 if deviation else np.zeros_like(channel)
    return np.rint(np.clip(128 + levels, 0, 255)).astype(np.uint8)


def tiled(activation, columns):
    """The reference for a whole grid: white gaps of 2 % of a tile's longer side, small tiles enlarged to 28 pixels."""
    larger = math.ceil(28 / min(activation.shape[1:]))
    h, w = (larger * side for side in activation.shape[1:])
    gap, rows = max(1, round(0.02 * max(h, w))), math.ceil(len(activation) / columns)
    across = min(columns, len(activation))
    page = np.full((rows * (h + gap) - gap, across * (w + gap) - gap), 255, np.uint8)
    for i, channel in enumerate(activation.astype(np.float64)):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        page[y : y + h, x : x + w] = np.kron(standardised(channel), np.ones((larger, larger), np.uint8))
    return page[..., None].repeat(3, 2)


class TestActivations:
    def test_layers_by_number_are_what_they_returned(self):
        """As the layer gave it, though an in-place ReLU comes straight after."""
        model, image = vgg(), picture(1, 3, 24, 40)
        found = channels(Explainer(model), image, ["features.0", "features.7", "features.20"])
        with torch.no_grad():
            x = image
            for i, module in enumerate(model.features):
                x = module(x)
                if f"features.{i}" in found.layers:
                    np.testing.assert_array_equal(found.activations[f"features.{i}"], x[0].numpy())
        assert found.shapes == {"features.0": (8, 24, 40), "features.7": (8, 12, 20), "features.20": (8, 6, 10)}
        assert (found.activations["features.0"] < 0).any()
        assert found.types["features.0"] == "Conv2d"
        assert found.layers == ("features.0", "features.7", "features.20")

    def test_the_default_is_every_convolution_and_pooling_layer_in_the_order_in_which_they_run(self):
        model = vgg()
        found = channels(Explainer(model), picture(1, 3, 24, 40))
        kinds = nn.Conv2d | nn.MaxPool2d
        assert found.layers == tuple(f"features.{i}" for i, m in enumerate(model.features) if isinstance(m, kinds))

    def test_a_type_of_modules_names_each_call_of_them(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.ReLU()

            def forward(self, x):
                return self.relu(self.b(self.relu(self.a(x)))).mean((2, 3))

        found = channels(Explainer(Twice().eval()), picture(1, 3, 12, 12), nn.ReLU)
        assert found.layers == ("relu#1", "relu#2")
        assert found.shapes["relu#2"] == (5, 8, 8)
        with pytest.raises(errors.LayerError, match=r"No module of type GELU.*Conv2d, ReLU"):
            channels(Explainer(Twice().eval()), picture(1, 3, 12, 12), nn.GELU)

    @pytest.mark.parametrize(
        "output",
        [
            lambda x: x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1]),  # a row for each position
            lambda x: None,
            lambda x: "no tensor",
            lambda x: {"boxes": [], "n": 3},
            lambda x: torch.tensor(1.0),
            lambda x: x.sum() * float("nan"),
        ],
    )
    def test_no_score_is_needed(self, output):
        found = channels(Explainer(vgg(lambda: output)), picture(1, 3, 24, 24), ["features.0", "features.20"], top=4)
        assert found.activations["features.20"].shape == (4, 6, 6)

    def test_a_module_or_the_name_of_a_call(self):
        model = vgg()
        found = channels(Explainer(model), picture(1, 3, 24, 24), [model.features[0], "features.3#1"])
        assert found.layers == ("features.0", "features.3#1")

    @pytest.mark.parametrize("by", ["activation", "gradient"])
    def test_with_the_functional_relu_after_it(self, by):
        explainer, image = Explainer(testing.small_cnn()), picture(1, 3, 16, 24)
        plain = channels(explainer, image, "body").activations["body"]
        found = channels(explainer, image, ["body+relu"], by=by)
        np.testing.assert_array_equal(found.activations["body+relu"], plain.clip(0))
        assert found.zeros[0] == (plain <= 0).mean() > 0.1

    def test_values_without_positions(self):
        model, image = testing.small_cnn(), picture(1, 3, 32, 32)
        found = channels(Explainer(model), image, ["head", "stem"])
        np.testing.assert_allclose(found.activations["head"], model.eval()(image)[0].detach().numpy(), rtol=1e-5)
        assert found.shapes["head"] == (5,)
        assert np.isnan(found.entropy[0])
        assert found.tiles("head").ndim == 3

    def test_tokens_are_placed_on_their_grid(self):
        """A bright patch of a non-square image is bright at its token, past the class token."""

        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.patch = nn.Conv2d(3, 6, 8, 8)
                self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(6, 2, 12, batch_first=True) for _ in range(2)])
                self.norm = nn.LayerNorm(6)
                for block in self.blocks:  # each token stays its own
                    nn.init.zeros_(block.self_attn.out_proj.weight)

            def forward(self, x):
                tokens = self.patch(x).flatten(2).transpose(1, 2)
                tokens = torch.cat([torch.full_like(tokens[:, :1], 9.0), tokens], 1)
                for block in self.blocks:
                    tokens = block(tokens)
                return self.norm(tokens)[:, 0]

        torch.manual_seed(0)
        image = torch.zeros(1, 3, 24, 40)
        image[..., 8:16, 32:40] = 1
        found = channels(Explainer(Tokens().eval()), image)
        assert found.layers == ("patch", "blocks.0", "blocks.1")
        for name in found.layers:
            activation = found.activations[name]
            assert activation.shape == (6, 3, 5)
            differs = np.abs(activation - activation[:, :1, :1]).max(0) > 1e-3
            assert np.argwhere(differs).tolist() == [[1, 4]]

    def test_channels_last(self):
        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.norm, self.mix = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4), nn.Linear(4, 7)

            def forward(self, x):
                return self.mix(self.norm(self.stem(x).permute(0, 2, 3, 1))).mean((1, 2))

        torch.manual_seed(0)
        model, image = Last().eval(), picture(1, 3, 16, 24)
        found = channels(Explainer(model), image, "mix")
        with torch.no_grad():
            expected = model.mix(model.norm(model.stem(image).permute(0, 2, 3, 1)))[0].permute(2, 0, 1)
        np.testing.assert_allclose(found.activations["mix"], expected.numpy(), atol=1e-6)

    def test_signals_and_volumes(self):
        signal = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.LazyLinear(2))
        signal(torch.zeros(1, 2, 40))
        found = channels(Explainer(signal.eval()), picture(2, 40))
        assert found.shapes == {"0": (5, 38), "2": (5, 19)}
        assert found._repr_png_().startswith(b"\x89PNG")
        volume = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        with pytest.warns(errors.SeewhyWarning, match="stretched"):
            found = channels(Explainer(volume.eval()), 3 * picture(1, 8, 12, 16))
        assert found.shapes == {"0": (4, 6, 10, 14), "2": (4, 3, 5, 7)}
        np.testing.assert_array_equal(found.tiles("2"), tiled(found.activations["2"][:, 1], 2))
        assert found._repr_png_().startswith(b"\x89PNG")

    def test_half_precision_and_double(self):
        for dtype in (torch.bfloat16, torch.float64):
            found = channels(Explainer(testing.small_cnn().to(dtype)), picture(1, 3, 16, 16), "stem.2")
            assert found.activations["stem.2"].dtype == np.float32

    def test_a_photo_through_a_transform_and_what_the_model_saw(self, tmp_path):
        photo = tmp_path / "cat.png"
        samples.photo("cat").save(photo)
        explainer = Explainer(testing.small_cnn(), transform=samples.transform())
        found = channels(explainer, photo, "left")
        assert found.picture.shape == (224, 224, 3)
        assert found.picture.dtype == np.uint8
        assert found.source == str(photo)

    def test_further_inputs_of_the_model(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)

            def forward(self, scale, x):
                return self.conv(x * scale).mean((2, 3))

        model, image = Two().eval(), picture(1, 3, 8, 8)
        one = channels(Explainer(model), image, "conv", model_args=(torch.tensor(1.0), ...))
        two = channels(Explainer(model), 2 * image, "conv", model_args=(torch.tensor(0.5), ...))
        np.testing.assert_allclose(one.activations["conv"], two.activations["conv"], atol=1e-6)


class TestStatistics:
    def test_planted_dead_channels_and_zeros(self):
        """Of 4 channels one is dead, one half zero, one without zeros, one a single point."""

        class Planted(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.act = nn.Conv2d(1, 4, 1), nn.ReLU()
                nn.init.zeros_(self.conv.weight)
                with torch.no_grad():
                    self.conv.bias.copy_(torch.tensor([-1.0, -0.5, 1.0, -0.99]))
                    self.conv.weight[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])

            def forward(self, x):
                return self.act(self.conv(x))

        image = torch.full((1, 1, 4, 8), 0.25)
        image[..., :4] = 0.75
        image[..., 0, 0] = 1.0
        found = channels(Explainer(Planted().eval()), image, ["act", "conv"], channels={"act": [0]})
        assert found.dead[0] == 1 / 4
        assert found.zeros[0] == (32 + 16 + 0 + 31) / 128
        half = np.r_[0.5, np.full(15, 0.25)]
        half /= half.sum()
        expected = np.mean([-(half * np.log(half)).sum() / np.log(32), 1, 0])
        assert found.entropy[0] == pytest.approx(expected, rel=1e-6)
        assert found.dead[1] == found.zeros[1] == 0

    def test_they_are_of_all_channels_whatever_is_kept(self):
        explainer, image = Explainer(vgg()), picture(1, 3, 24, 24)
        every = channels(explainer, image, ["features.1", "features.21"])
        some = channels(explainer, image, ["features.1", "features.21"], top=2)
        for name in ("dead", "zeros", "entropy"):
            np.testing.assert_array_equal(getattr(every, name), getattr(some, name))
        assert every.zeros.dtype == np.float64
        for i, name in enumerate(every.layers):
            assert every.zeros[i] == (every.activations[name] == 0).mean()
            assert every.dead[i] == (~every.activations[name].any((1, 2))).mean()

    @pytest.mark.parametrize("side", [2, 7, 32])
    def test_the_entropy_does_not_depend_on_the_grid(self, side):
        even = np.full((1, side, side), -3.0)
        point = np.zeros((1, side, side))
        point[0, 1, 0] = 1e-30
        assert statistics(even).entropy == pytest.approx(1)
        assert statistics(point).entropy == 0
        assert statistics(np.concatenate([even, point])).entropy == pytest.approx(0.5)

    def test_it_is_undefined_where_nothing_lives(self):
        assert statistics(np.zeros((3, 4, 4)))[:2] == (1, 1)
        assert math.isnan(statistics(np.zeros((3, 4, 4))).entropy)
        assert math.isnan(statistics(np.ones((3, 1, 1))).entropy)
        assert statistics(np.full((2, 3, 3), 5e-324)).entropy == pytest.approx(1)


class TestRanking:
    def test_by_mean_activation(self):
        explainer, image = Explainer(vgg()), picture(1, 3, 24, 40)
        every = channels(explainer, image, "features.4")
        best = channels(explainer, image, "features.4", top=3)
        means = every.activations["features.4"].mean((1, 2), dtype=np.float64)
        order = np.argsort(-means, kind="stable")[:3]
        np.testing.assert_array_equal(best.numbers["features.4"], order)
        np.testing.assert_array_equal(best.activations["features.4"], every.activations["features.4"][order])
        np.testing.assert_allclose(best.values["features.4"], means[order], rtol=1e-5)
        assert (means < 0).any(), "signs matter here"
        assert best.ranked
        assert not every.ranked
        np.testing.assert_array_equal(every.numbers["features.4"], range(8))

    def test_of_equals_the_lower_number_and_no_more_than_there_are(self):
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
        nn.init.zeros_(model[0].weight)
        nn.init.ones_(model[0].bias)
        found = channels(Explainer(model.eval()), picture(1, 3, 8, 8), "1", top=16)
        assert found.numbers["1"].tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("target", [None, 3])
    def test_by_gradient_times_activation(self, target):
        """Against autograd by hand, also before an in-place change of the layer's output."""
        model, image = testing.small_cnn().eval(), picture(1, 3, 20, 28)
        found = channels(Explainer(model), image, ["left", "body"], by="gradient", top=4, target=target)
        x = model.stem(image)
        left = model.left(x)
        body = model.body(F.relu(left + model.right(x)))
        scores = model.head(F.relu(body).mean((2, 3)))
        index = scores.argmax().item() if target is None else target
        for name, layer in (("left", left), ("body", body)):
            (gradient,) = torch.autograd.grad(scores[0, index], layer, retain_graph=True)
            expected = (gradient * layer)[0].sum((1, 2)).detach().numpy()
            order = np.argsort(-expected, kind="stable")[:4]
            np.testing.assert_array_equal(found.numbers[name], order)
            np.testing.assert_allclose(found.values[name], expected[order], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.activations[name], layer[0].detach().numpy()[order], rtol=1e-5, atol=1e-6)
        assert found.by == "gradient"
        assert found.target == f"class {index}"

    def test_by_gradient_at_a_layer_without_positions(self):
        model, image = testing.small_cnn().eval(), picture(1, 3, 20, 28)
        found = channels(Explainer(model), image, "head", by="gradient", top=2, target=3)
        scores = model(image)[0].detach().numpy()
        assert found.numbers["head"].tolist() == [3, 0] if scores[3] > 0 else [0, 1]
        assert found.values["head"][0] == pytest.approx(max(scores[3], 0))

    def test_picked_channels_by_gradient_have_their_values(self):
        explainer, image = Explainer(testing.small_cnn()), picture(1, 3, 20, 28)
        every = channels(explainer, image, "left", by="gradient", target=1)
        some = channels(explainer, image, "left", by="gradient", target=1, channels=[5, 2])
        np.testing.assert_array_equal(some.values["left"], every.values["left"][[5, 2]])

    def test_a_layer_without_gradient_is_said(self):
        """After a vision transformer's last block only the class token is read."""

        class Reads(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

            def forward(self, x):
                a = self.a(x)
                return self.head(a.mean((2, 3))) + 0 * self.b(a).sum()

        torch.manual_seed(0)
        with pytest.warns(errors.SeewhyWarning, match=r"class 1 has no gradient at the positions of b:"):
            found = channels(Explainer(Reads().eval()), picture(1, 3, 9, 9), by="gradient", target=1, top=2)
        assert found.numbers["b"].tolist() == [0, 1]

    def test_a_layer_cut_off_is_an_error(self):
        class Cut(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

            def forward(self, x):
                self.b(x)
                return self.head(self.a(x).mean((2, 3)))

        with pytest.raises(errors.GradientError, match="'b'"):
            channels(Explainer(Cut().eval()), picture(1, 3, 9, 9), ["a", "b"], by="gradient")


class TestPicking:
    def test_picked_channels_come_in_the_order_asked(self):
        explainer, image = Explainer(vgg()), picture(1, 3, 24, 24)
        every = channels(explainer, image, "features.0").activations["features.0"]
        for given in ([5, 0, 7], (5, 0, 7), np.array([5, 0, 7]), torch.tensor([5, 0, 7]), iter([5, 0, 7])):
            found = channels(explainer, image, "features.0", channels=given)
            assert found.numbers["features.0"].tolist() == [5, 0, 7]
            np.testing.assert_array_equal(found.activations["features.0"], every[[5, 0, 7]])
        assert channels(explainer, image, "features.0", channels=3).numbers["features.0"].tolist() == [3]

    def test_one_list_for_all_layers_or_a_dict(self):
        model, image = vgg(), picture(1, 3, 24, 24)
        names = ["features.0", "features.3"]
        found = channels(Explainer(model), image, names, channels=range(2, 4))
        assert [found.numbers[name].tolist() for name in names] == [[2, 3], [2, 3]]
        found = channels(Explainer(model), image, names, channels={model.features[3]: [6, 1]})
        assert [found.numbers[name].tolist() for name in names] == [[*range(8)], [6, 1]]
        found = channels(Explainer(model), image, channels={"features.3": [6, 1]})
        assert found.layers == ("features.3",)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"channels": [1, 1, 2]}, errors.InputError, "names 1 more than once"),
            ({"channels": [0, 8]}, errors.InputError, "'features.0' has 8 channels, numbered from 0 to 7; there is no"),
            ({"channels": [-1]}, errors.InputError, "there is no -1"),
            ({"channels": []}, errors.InputError, "empty"),
            ({"channels": [1.5]}, errors.InputTypeError, "whole numbers"),
            ({"channels": [True]}, errors.InputTypeError, "whole numbers"),
            ({"channels": "12"}, errors.InputTypeError, "whole numbers"),
            ({"channels": {"features.3": [1]}}, errors.UnknownNameError, "none of the layers looked at: features.0"),
            ({"channels": {"feature.0": [1]}}, errors.UnknownNameError, "Did you mean 'features.0'"),
            ({"channels": {"features.0": [9]}}, errors.InputError, "there is no 9"),
            ({"channels": {("features.0", "features.2"): [1]}}, errors.InputTypeError, "dict by layer"),
            ({"channels": [1], "top": 3}, errors.InputError, "one of the two"),
            ({"top": 0}, errors.InputError, "top must be a whole number of at least 1"),
            ({"top": 2.5}, errors.InputError, "top must be a whole number"),
            ({"by": "gradients"}, errors.InputError, "Did you mean 'gradient'"),
            ({"by": None}, errors.InputError, "by is 'activation' or 'gradient'"),
            ({"target": 1}, errors.InputError, "by='gradient'"),
            ({"layer": []}, errors.InputError, "list of layers is empty"),
            ({"layer": "features.9x"}, errors.UnknownNameError, "Did you mean 'features.9'"),
            ({"layer": 3}, errors.InputTypeError, "layer is a name"),
            ({"layer": nn.Conv2d(3, 3, 3)}, errors.UnknownNameError, "not part of this model"),
            ({"layer": ""}, errors.LayerError, "whole model"),
        ],
    )
    def test_mistakes(self, given, error, message):
        model = vgg()
        given = {"layer": "features.0"} | given
        with testing.unchanged(model), pytest.raises(error, match=message.replace("(", r"\(")):
            channels(Explainer(model), picture(1, 3, 24, 24), **given)

    def test_one_image(self):
        with pytest.raises(errors.InputError, match="one image, and 2 are given"):
            channels(Explainer(vgg()), picture(2, 3, 24, 24))
        with pytest.raises(errors.InputError, match="one image, and 3 are given"):
            channels(Explainer(vgg()), [picture(3, 24, 24)] * 3)

    def test_a_layer_that_ran_twice_or_never(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

            def forward(self, x):
                return self.a(self.a(x))

        explainer, image = Explainer(Odd()), picture(1, 3, 12, 12)
        with pytest.raises(errors.LayerError, match=r"'a#1', 'a#2'"):
            channels(explainer, image, "a")
        with pytest.raises(errors.LayerNotRunError, match="'b'"):
            channels(explainer, image, "b")
        assert channels(explainer, image).layers == ("a#1", "a#2")

    def test_nan_is_refused_and_the_first_layer_with_it_named(self):
        model = vgg()
        with torch.no_grad():
            model.features[4].weight[2, 0] = float("nan")
        with testing.unchanged(model), pytest.raises(errors.NonFiniteError, match=r"'features\.4' returned NaN"):
            channels(Explainer(model), picture(1, 3, 24, 24))
        assert channels(Explainer(model), picture(1, 3, 24, 24), "features.3").layers == ("features.3",)


class TestTheModelIsUnchanged:
    @pytest.mark.parametrize("by", ["activation", "gradient"])
    def test_after_success(self, by):
        model = testing.small_cnn().train()
        with testing.unchanged(model):
            channels(Explainer(model), picture(1, 3, 16, 24), by=by)

    @pytest.mark.parametrize("by", ["activation", "gradient"])
    @pytest.mark.parametrize("where", ["stem.0", "left", "head"])
    def test_after_an_error_in_the_model(self, where, by):
        def interrupt(*_):
            raise KeyboardInterrupt

        model = testing.small_cnn().train()
        model.get_submodule(where).register_forward_hook(interrupt)
        with testing.unchanged(model), pytest.raises(KeyboardInterrupt):
            channels(Explainer(model), picture(1, 3, 16, 24), ["left", "body"], by=by)

    def test_under_no_grad_and_inference_mode(self):
        explainer, image = Explainer(testing.small_cnn()), picture(1, 3, 16, 24)
        expected = channels(explainer, image, by="gradient", top=3)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                found = channels(explainer, image, by="gradient", top=3)
            assert all((found.numbers[name] == expected.numbers[name]).all() for name in expected.layers)


class TestTiles:
    def test_they_are_the_references(self):
        found = channels(Explainer(vgg(width=20)), picture(1, 3, 24, 40), ["features.0", "features.16"])
        for name in found.layers:
            np.testing.assert_array_equal(found.tiles(name), tiled(found.activations[name], 16))
            np.testing.assert_array_equal(found.tiles(name, columns=3), tiled(found.activations[name], 3))

    def test_sixteen_are_four_by_four_and_a_dead_one_is_blank(self):
        model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU())
        with torch.no_grad():
            model[0].weight[5], model[0].bias[5] = 0, 0
        picked = [5, *range(20, 35)]
        found = channels(Explainer(model.eval()), picture(1, 3, 32, 32), "1", channels=picked)
        tiles = found.tiles()
        np.testing.assert_array_equal(tiles, tiled(found.activations["1"], 4))
        assert tiles.shape[0] == tiles.shape[1]
        assert (tiles[:30, :30] == 255).all()
        assert tiles[:30, 31:61].std() > 10

    def test_several_layers_need_a_name(self):
        found = channels(Explainer(vgg()), picture(1, 3, 24, 24))
        with pytest.raises(errors.InputError, match="say which"):
            found.tiles()
        with pytest.raises(errors.UnknownNameError, match=r"Did you mean 'features\.0'"):
            found.tiles("feature.0")
        with pytest.raises(errors.InputError, match="columns must be"):
            found.tiles("features.0", columns=0)


class TestPictures:
    def written(self, ax):
        return [text.get_text() for text in ax.texts]

    def test_one_axes_with_a_picture_and_a_title_for_each_layer(self):
        found = channels(Explainer(vgg(width=20)), picture(1, 3, 24, 40), ["features.0", "features.16"])
        ax = found.plot()
        assert len(ax.images) == 2
        np.testing.assert_array_equal(ax.images[0].get_array(), found.tiles("features.0"))
        words = self.written(ax)
        assert "features.0 · 20 × 24 × 40" in words
        assert "features.16 · 20 × 6 × 10" in words
        assert words.count("16") == 2, "the number of the second row's first channel"
        assert not ax.axison
        for image in ax.images:  # tiles are not distorted
            left, right, bottom, top = image.get_extent()
            rows, columns = image.get_array().shape[:2]
            assert (right - left) / (bottom - top) == pytest.approx(columns / rows)

    def test_picked_tiles_have_their_numbers(self):
        explainer, image = Explainer(vgg()), picture(1, 3, 24, 24)
        words = self.written(channels(explainer, image, "features.0", channels=[7, 3]).plot())
        assert {"7", "3"} <= set(words)
        words = self.written(channels(explainer, image, "features.0", top=3).plot())
        assert " ".join(words[-1].split()).endswith("the 3 of most mean activation")

    def test_rows_that_are_left_out_are_said(self):
        found = channels(Explainer(vgg(width=40)), picture(1, 3, 24, 24), ["features.0", "features.16"])
        words = self.written(found.plot(rows=2))
        assert "features.0 · 40 × 24 × 24 · first 32 of 40" in words
        assert self.written(found.plot(layer="features.16", rows=1, columns=5))[0].endswith("first 5 of 40")
        assert not any("first" in text for text in self.written(found.plot()))

    def test_into_an_axes_of_ones_own(self):
        from matplotlib import pyplot as plt

        found = channels(Explainer(vgg()), picture(1, 3, 24, 24))
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 5))
        assert found.plot(left, layer="features.0") is left
        assert found.plot_statistics(right, layer=["features.0", "features.2"]) is right
        figure.canvas.draw()
        assert len(right.lines) == 3
        assert [tick.get_text() for tick in right.get_xticklabels()] == ["features.0", "features.2"]
        with pytest.raises(errors.InputTypeError, match="one matplotlib Axes"):
            found.plot([left, right])

    def test_titles_do_not_run_into_each_other(self):
        """Long names, on a page and on small Axes."""
        from matplotlib import pyplot as plt

        model = nn.Sequential()
        for i in range(5):
            model.add_module(f"a_rather_long_name_of_a_block_that_goes_on_{i}", nn.Conv2d(3 if not i else 4, 4, 1))
        found = channels(Explainer(model.eval()), picture(1, 3, 16, 16))
        for ax in (found.plot(), plt.figure(figsize=(3, 2)).add_subplot()):
            found.plot(ax) if not ax.texts else None
            ax.figure.canvas.draw()
            titles = [text for text in ax.texts if "name" in text.get_text() or "block" in text.get_text()]
            assert len(titles) == 5
            boxes = [text.get_window_extent() for text in titles]
            for i, one in enumerate(boxes):
                assert not any(one.overlaps(other) for other in boxes[i + 1 :])
                assert not any(one.overlaps(image.get_window_extent()) for image in ax.images)

    def test_the_curves_are_the_numbers(self):
        found = channels(Explainer(vgg()), picture(1, 3, 24, 24), nn.ReLU)
        ax = found.plot_statistics()
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_array_equal(drawn["dead channels"], found.dead)
        np.testing.assert_array_equal(drawn["zeros"], found.zeros)
        np.testing.assert_array_equal(drawn["entropy over positions"], found.entropy)
        assert ax.get_ylim() == (0, 1)
        assert {text.get_text() for text in ax.get_legend().get_texts()} == set(drawn)

    def test_a_big_network_stays_bounded_in_a_notebook(self):
        model = nn.Sequential(*[nn.Conv2d(3 if not i else 64, 64, 1) for i in range(60)])
        found = channels(Explainer(model.eval()), picture(1, 3, 8, 8))
        from io import BytesIO

        shown = PIL.Image.open(BytesIO(found._repr_png_()))
        assert shown.width <= 1200
        assert shown.height <= 3000
        page = found._sheet([found.layers[i] for i in range(16)], 20.0)
        assert len(page.blocks) == 16


class TestKeeping:
    def test_save_and_load(self, tmp_path):
        found = channels(Explainer(testing.small_cnn()), picture(1, 3, 16, 24), ["stem.0", "head"], top=2)
        found.save(tmp_path / "deep" / "cat")
        again = Channels.load(tmp_path / "deep" / "cat")
        for name in ("layers", "shapes", "types", "by", "target", "ranked", "source", "provenance"):
            assert getattr(again, name) == getattr(found, name), name
        for name in ("dead", "zeros", "entropy", "picture"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        for name in ("activations", "numbers", "values"):
            for layer in found.layers:
                np.testing.assert_array_equal(getattr(again, name)[layer], getattr(found, name)[layer])
        np.testing.assert_array_equal(again.tiles("stem.0"), found.tiles("stem.0"))
        assert (tmp_path / "deep" / "cat.png").stat().st_size > 1000
        assert again._png() == found._png()

    def test_words(self):
        explainer, image = Explainer(testing.small_cnn()), picture(1, 3, 16, 24)
        assert repr(channels(explainer, image)) == "Channels(4 layers, 40 channels: stem.0 … body)"
        assert repr(channels(explainer, image, "body", top=3)) == "Channels(1 layer, 3 of 16 channels: body 16 × 4 × 6)"
        assert len(channels(explainer, image)) == 4

    def test_read_only(self):
        found = channels(Explainer(testing.small_cnn()), picture(1, 3, 16, 24))
        with pytest.raises(ValueError, match="read-only"):
            found.activations["left"][0] = 1
        with pytest.raises(TypeError):
            found.activations["left"] = 1
