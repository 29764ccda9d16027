"""From names to explainers: torchvision, timm, Hugging Face and one's own, with weights from files or none."""

import random
import socket
import sys
import time

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from seewhy import Explainer, SeewhyError, checkpoints, loading
from seewhy.errors import (
    InputError,
    InputTypeError,
    MissingDependencyError,
    ModelError,
    SeewhyWarning,
    UnknownNameError,
)
from seewhy.testing import small_cnn


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights_of(explainer):
    return explainer.model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def squeezenet(classes=1000):
    return torchvision.models.squeezenet1_1(weights=None, num_classes=classes)


class TestTorchvision:
    def test_the_transform_and_class_names_are_those_of_the_default_weights(self):
        explainer = loading.load("squeezenet1_1", weights=None)
        assert "1000 class names" in repr(explainer)
        assert "mean (0.485, 0.456, 0.406)" in repr(explainer)
        assert not explainer.model.training

    def test_random_weights_are_the_same_each_time_and_leave_the_random_states(self):
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        first = weights_of(loading.load("squeezenet1_1", "none"))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert (np.random.get_state()[1] == states[2]).all()
        torch.manual_seed(5)
        assert same(first, weights_of(loading.load("squeezenet1_1", None)))

    def test_the_backbone_of_a_network_without_weights_is_not_downloaded(self):
        assert "21 class names" in repr(loading.load("lraspp_mobilenet_v3_large", "none"))

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("resnet_50", "'resnet50'"), ("resnet10t", "timm:resnet10t"), ("nets.build", "package.module:callable")],
    )
    def test_unknown_names_get_a_hint(self, name, hint):
        with pytest.raises(UnknownNameError, match=hint):
            loading.load(name, "none")

    def test_own_class_names_go_first(self):
        assert "2 class names" in repr(loading.load("squeezenet1_1", "none", class_names=["a", "b"]))

    def test_num_classes_is_for_untrained_networks(self):
        explainer = Explainer.from_torchvision("squeezenet1_1", None, num_classes=4)
        assert "no class names" in repr(explainer)
        with pytest.raises(InputError, match="untrained"):
            Explainer.from_torchvision("squeezenet1_1", num_classes=4)


class TestFiles:
    @pytest.mark.parametrize("wrap", [
        dict,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": torch.tensor(1.0)}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model._orig_mod.{name}": value for name, value in state.items()}},
    ])  # fmt: skip
    def test_wrappings_are_taken_off(self, wrap):
        model = squeezenet()
        torch.save(wrap(model.state_dict()), "weights.pth")
        assert same(weights_of(loading.load("squeezenet1_1", "weights.pth")), model.state_dict())

    def test_safetensors(self, inside):
        from safetensors.torch import save_file

        model = squeezenet()
        save_file(model.state_dict(), "weights.safetensors")
        assert same(weights_of(loading.load("squeezenet1_1", inside / "weights.safetensors")), model.state_dict())

    def test_the_number_of_classes_is_read_off_the_file(self):
        model = squeezenet(7)
        torch.save(model.state_dict(), "seven.pth")
        explainer = loading.load("squeezenet1_1", "seven.pth")
        assert same(weights_of(explainer), model.state_dict())
        assert "no class names" in repr(explainer)

    def test_the_number_of_classes_is_read_where_there_are_two_heads(self):
        state = torchvision.models.googlenet(weights=None, num_classes=3, init_weights=False).state_dict()
        own = torchvision.models.googlenet(weights=None, init_weights=False)
        assert checkpoints.number_of_classes(state, own) == 3

    def test_another_width_is_no_other_number_of_classes(self):
        narrow = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).state_dict()
        assert checkpoints.number_of_classes(narrow, nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))) is None

    def test_what_does_not_fit_is_counted_and_named(self):
        state = squeezenet().state_dict()
        state["extra"] = torch.zeros(1)
        state["features.0.bias"] = torch.zeros(3)
        del state["classifier.1.weight"], state["classifier.1.bias"]
        torch.save(state, "odd.pth")
        with pytest.raises(ModelError) as caught:
            loading.load("squeezenet1_1", "odd.pth")
        message = str(caught.value)
        assert "2 missing (classifier.1.weight, classifier.1.bias)" in message
        assert "1 unexpected (extra)" in message
        assert "1 of another shape (features.0.bias (3,) for (64,))" in message

    def test_a_pickled_model_is_refused_with_what_to_do(self):
        torch.save(small_cnn(), "model.pth")
        with pytest.raises(ModelError, match=r"SmallCNN.*torch\.save\(model\.state_dict\(\)"):
            loading.load("squeezenet1_1", "model.pth")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.pth", b"", "cannot be read as weights"),
            ("a.pth", b"no weights at all", "cannot be read as weights"),
            ("a.safetensors", b"no weights at all", "cannot be read as weights"),
            ("b.pth", b"", "Did you mean 'b.pt'"),
        ],
    )
    def test_files_that_are_no_weights(self, inside, name, content, message):
        (inside / ("b.pt" if name == "b.pth" else name)).write_bytes(content)
        with pytest.raises(InputError, match=message):
            loading.load("squeezenet1_1", name)

    def test_a_checkpoint_without_weights(self):
        torch.save({"epoch": 3, "best": 0.5}, "log.pth")
        with pytest.raises(InputError, match=r"dict with epoch, best; expected a state dict"):
            loading.load("squeezenet1_1", "log.pth")


class TestTimm:
    def test_transform_and_imagenet_names(self):
        explainer = loading.load("timm:resnet10t", "none")
        assert "1000 class names" in repr(explainer)
        assert "176x176" in repr(explainer)
        assert explainer.explain(np.zeros((9, 9, 3), np.uint8), "saliency", target="tabby").targets.tolist() == [281]

    def test_a_file_of_other_classes(self):
        import timm

        model = timm.create_model("resnet10t", num_classes=6)
        torch.save(model.state_dict(), "six.pth")
        explainer = loading.load("timm:resnet10t", "six.pth")
        assert same(weights_of(explainer), model.state_dict())
        assert "no class names" in repr(explainer)

    @pytest.mark.parametrize(("name", "hint"), [("resnet10tt", "'resnet10t'"), ("resnet10t.foo", "resnet10t.c3_in1k")])
    def test_unknown_names_get_a_hint(self, name, hint):
        with pytest.raises(UnknownNameError, match=hint):
            loading.load(f"timm:{name}", "none")

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(MissingDependencyError, match="pip install timm"):
            loading.load("timm:resnet10t")


@pytest.fixture
def vit(inside):
    """A folder made by save_pretrained, and the model."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={"cat": 0, "dog": 1, "owl": 2},
    )  # fmt: skip
    torch.manual_seed(7)
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained("vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained("vit")
    return model


def test_weights_may_be_a_state_dict_or_what_torchvision_calls_them(monkeypatch):
    import torchvision

    state = torchvision.models.squeezenet1_1(num_classes=7).state_dict()
    found = Explainer.from_torchvision("squeezenet1_1", {f"module.{name}": value for name, value in state.items()})
    assert same(weights_of(found), state)
    assert "no class names" in repr(found)
    with pytest.raises(InputTypeError, match="a file or a state dict, not bool"):
        Explainer.from_torchvision("squeezenet1_1", True)
    asked = []
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, weights: asked.append(weights) or torch.nn.Identity()
    )
    older = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
    for weights in ("IMAGENET1K_V1", older):
        assert "1000 class names" in repr(Explainer.from_torchvision("resnet50", weights))
    assert asked == [older, older]
    with pytest.raises(InputError, match="num_classes=3 would leave"):
        Explainer.from_torchvision("resnet50", "IMAGENET1K_V1", num_classes=3)


def test_features_without_classes_have_no_class_names():
    assert "no class names" in repr(Explainer.from_timm("resnet10t", None, num_classes=0))


class TestTransformers:
    def test_a_folder_with_its_processor_and_labels(self, vit):
        explainer = loading.load("hf:vit")
        assert same(weights_of(explainer), vit.state_dict())
        photo = np.zeros((50, 40, 3), np.uint8)
        assert {p.name for p in explainer.predict(photo)[0]} == {"cat", "dog", "owl"}
        explanation = explainer.explain(photo, "saliency", target="dog")
        assert explanation.images.shape == (1, 32, 32, 3)
        assert explanation.targets.tolist() == [1]

    def test_segmenters_and_encoders_are_what_they_are_stored_as(self, inside):
        import transformers

        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        pair = transformers.CLIPConfig(vision_config={**sizes, "image_size": 32, "patch_size": 8}, text_config=sizes)
        transformers.CLIPModel(pair).save_pretrained("pair")
        dense = transformers.SegformerConfig(
            num_labels=3, depths=[1] * 4, hidden_sizes=[8] * 4, decoder_hidden_size=8, num_attention_heads=[1] * 4
        )
        transformers.SegformerForSemanticSegmentation(dense).save_pretrained("segmenter")
        images = torch.rand(1, 3, 32, 32)
        encoder = Explainer.from_transformers("pair")
        assert type(encoder.model).__name__ == "CLIPVisionModelWithProjection"
        with pytest.warns(SeewhyWarning, match="gives an embedding"):
            assert encoder.explain(images, "saliency").target_names == ("its own embedding",)
        for weights in ("DEFAULT", None):
            segmenter = Explainer.from_transformers("segmenter", weights)
            (name,) = segmenter.explain(images, "saliency").target_names
            assert name.endswith("where predicted")

    def test_a_configuration_alone_is_that_of_a_classifier(self, inside):
        import transformers

        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32
        ).save_pretrained("bare")
        assert type(Explainer.from_transformers("bare", None).model).__name__ == "ViTForImageClassification"

    def test_random_weights_and_files(self, vit):
        first = weights_of(loading.load("hf:vit", "none"))
        assert same(first, weights_of(loading.load("hf:vit", "none")))
        assert not same(first, vit.state_dict())
        torch.save(vit.state_dict(), "weights.pth")
        for file in ("weights.pth", "vit/model.safetensors"):  # the latter has the names of an older version
            assert same(weights_of(loading.load("hf:vit", file)), vit.state_dict())

    def test_a_file_of_other_classes_has_no_names(self, vit):
        state = dict(vit.state_dict())
        state |= {"classifier.weight": torch.zeros(5, 16), "classifier.bias": torch.zeros(5)}
        torch.save(state, "five.pth")
        explainer = loading.load("hf:vit", "five.pth")
        assert "no class names" in repr(explainer)
        assert weights_of(explainer)["classifier.bias"].shape == (5,)

    def test_without_a_processor_the_usual_is_assumed_and_said(self, vit, inside):
        (inside / "vit/preprocessor_config.json").unlink()
        explainer = loading.load("hf:vit")
        with pytest.warns(SeewhyWarning, match="No transform was given"), pytest.raises(ValueError, match="32"):
            explainer.predict(np.zeros((50, 40, 3), np.uint8))

    def test_a_network_without_a_trained_last_layer_is_refused(self, vit):
        vit.vit.save_pretrained("body")
        with pytest.raises(ModelError, match=r"no trained weights for pooler"):
            loading.load("hf:body")

    def test_a_folder_of_something_else(self, inside):
        (inside / "empty").mkdir()
        with pytest.raises(ModelError, match="Loading 'empty' failed"):
            loading.load("hf:empty")

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingDependencyError, match="pip install transformers"):
            loading.load("hf:any/thing")


NETS = """
import torch, seewhy
from torch import nn
from seewhy.testing import SmallCNN
import neighbour

class Deep:
    make = staticmethod(SmallCNN)

def build(): return SmallCNN()
def explainer(): return seewhy.Explainer(SmallCNN(), class_names=list("abcde"))
def nothing(): return 3
def broken(): return 1 / 0
def needs(x): return x

instance = SmallCNN()
"""


@pytest.fixture
def nets(inside, monkeypatch):
    for name in ("own_nets", "neighbour"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (inside / "own_nets.py").write_text(NETS)
    (inside / "neighbour.py").write_text("")
    yield
    for name in ("own_nets", "neighbour"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("nets")
class TestCallables:
    @pytest.mark.parametrize("name", ["build", "Deep.make", "instance", "explainer"])
    def test_what_it_gives_is_explained(self, name):
        path = list(sys.path)
        explainer = loading.load(f"own_nets:{name}")
        assert isinstance(explainer, Explainer)
        assert ("5 class names" in repr(explainer)) == (name == "explainer")
        assert sys.path == path

    def test_random_weights_are_the_same_each_time(self):
        before = torch.get_rng_state()
        first, second = (weights_of(loading.from_callable("own_nets:build")) for _ in range(2))
        assert same(first, second)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("name", ["build", "explainer"])
    def test_weights_of_a_file(self, name):
        model = small_cnn(3)
        torch.save(model.state_dict(), "small.pth")
        assert same(weights_of(loading.load(f"own_nets:{name}", "small.pth")), model.state_dict())

    @pytest.mark.parametrize(
        ("spec", "kind", "message"),
        [
            ("own_nets:biuld", UnknownNameError, "Did you mean 'build'"),
            ("own_net:build", UnknownNameError, "Did you mean 'own_nets'"),
            ("own_nets:", InputError, r"package\.module:callable"),
            ("own_nets:nothing", InputTypeError, "gives int"),
            ("own_nets:broken", ModelError, r"ZeroDivisionError: division by zero \(own_nets.py, line 13\)"),
            ("own_nets:needs", ModelError, "without arguments"),
        ],
    )
    def test_mistakes(self, spec, kind, message):
        with pytest.raises(kind, match=message):
            loading.load(spec)

    def test_a_module_that_cannot_be_imported(self, inside):
        (inside / "neighbour.py").write_text("import no_such_package")
        with pytest.raises(ModelError, match="ModuleNotFoundError: No module named 'no_such_package'"):
            loading.load("own_nets:build")

    def test_options_of_a_ready_explainer_are_a_mistake(self):
        with pytest.raises(InputError, match="its own class_names"):
            loading.load("own_nets:explainer", class_names=["a"])


@pytest.mark.parametrize("spec", ["resnet18", "timm:resnet10t", "hf:google/vit-base-patch16-224"])
def test_without_a_network_downloading_fails_quickly_and_says_what_to_do(inside, monkeypatch, spec):
    """Also where the hub's library would try again for a minute."""
    from huggingface_hub import constants

    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    monkeypatch.setattr("socket.socket.connect", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(inside))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(inside))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(SeewhyError, match=r"Downloading .* failed .*(--weights FILE|hf:folder)"):
        loading.load(spec)
    assert time.monotonic() - start < 20
    assert constants.HF_HUB_OFFLINE is False
    assert socket.getdefaulttimeout() is None
