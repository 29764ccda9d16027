"""Looking at layers without a score, and what the last linear layer reads."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from seewhy.engine.borrow import borrowed
from seewhy.engine.inputs import ModelInputs
from seewhy.engine.look import Features, look
from seewhy.errors import LayerError, LayerNotRunError
from seewhy.layers import find_layers
from seewhy.testing import small_cnn, unchanged


def features(model, batch, classes=None, pick=None):
    """What `Features` gives, and what it calls them."""
    with unchanged(model), borrowed(model):
        read = Features(model, batch, ModelInputs(), pick, classes)
        found, _ = read(batch)
    return found, read.label


def read_by(model, module, batch):
    """What `module` reads, by a hook of our own."""
    kept = []
    handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0].clone()))
    with torch.no_grad():
        model.eval()(batch)
    handle.remove()
    return kept[-1]


class Net(nn.Module):
    """Any forward, as a function of the module and the batch."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self._forward(self, x)


def test_look_gives_what_a_hook_sees():
    model, batch = small_cnn(), torch.rand(2, 3, 16, 20)
    with unchanged(model), borrowed(model):
        found, raw = look(model, batch, find_layers(model, ["left", "head"]), None, ModelInputs())
    assert torch.equal(raw, model(batch))
    assert torch.equal(found["head"].value, model(batch))
    assert found["head"].layout is None
    assert found["left"].layout is not None
    stem = model.stem(batch)
    assert torch.equal(found["left"].value, model.left(stem))  # and not the sum that is made of it in place


def test_a_layer_that_does_not_run_is_refused():
    model = Net(lambda self, x: self.head(x.mean((2, 3))), head=nn.Linear(3, 2), spare=nn.Linear(3, 2))
    with borrowed(model), pytest.raises(LayerNotRunError):
        look(model, torch.rand(1, 3, 4, 4), find_layers(model, "spare"), None, ModelInputs())


@pytest.mark.parametrize(
    ("build", "reader"),
    [
        (small_cnn, lambda net: net.head),
        (lambda: torchvision.models.resnet18(weights=None), lambda net: net.fc),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32), lambda net: net.head),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), window_size=2),
         lambda net: net.head.fc),
        (lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2]), lambda net: net.head),
        (lambda: torchvision.models.mobilenet_v3_small(weights=None), lambda net: net.classifier[3]),
        pytest.param(lambda: torchvision.models.vgg11(weights=None, num_classes=10), lambda net: net.classifier[6],
                     marks=pytest.mark.sweep),
    ],
    ids=["small", "resnet", "vit", "swin of timm", "swin", "mobilenet", "vgg"],
)  # fmt: skip
def test_the_features_are_what_the_last_linear_layer_reads(build, reader):
    model, batch = build().eval(), torch.rand(3, 3, 64, 64)
    if isinstance(model, timm.models.VisionTransformer):
        batch = batch[..., :32, :32]
    found, label = features(model, batch)
    assert torch.equal(found, read_by(model, reader(model), batch))
    assert label == f"input of {next(name for name, module in model.named_modules() if module is reader(model))}"


def test_of_a_convolutional_head_it_is_the_mean_of_what_the_convolution_reads():
    model, batch = torchvision.models.squeezenet1_1(weights=None, num_classes=7).eval(), torch.rand(2, 3, 64, 64)
    found, label = features(model, batch)
    assert label == "input of classifier.1"
    torch.testing.assert_close(found, model.features(batch).mean((2, 3)))


def test_of_a_head_at_each_position_it_is_the_mean_over_positions():
    model = Net(lambda self, x: self.head(x.permute(0, 2, 3, 1)).mean((1, 2)), head=nn.Linear(3, 5))
    batch = torch.rand(2, 3, 4, 6)
    found, label = features(model, batch)
    assert label == "input of head"
    torch.testing.assert_close(found, batch.mean((2, 3)))


@pytest.mark.parametrize("last", ["softmax", "temperature", "sigmoid"])
def test_scores_may_be_made_of_what_the_head_gives(last):
    finish = {"softmax": lambda s: s.softmax(1), "temperature": lambda s: 30 * s + 1, "sigmoid": torch.sigmoid}[last]
    model = Net(
        lambda self, x: finish(self.head(self.hidden(x.flatten(1)).relu())),
        hidden=nn.Linear(48, 6), head=nn.Linear(6, 6), unused=nn.Linear(6, 6),
    )  # fmt: skip
    batch = torch.rand(3, 3, 4, 4)
    found, label = features(model, batch)
    assert label == "input of head"
    assert torch.equal(found, model.hidden(batch.flatten(1)).relu())


def test_a_head_that_is_called_several_times_is_read_in_the_call_that_counts():
    model = Net(lambda self, x: (self.head(x.mean((2, 3))), self.head(x.amax((2, 3))))[0], head=nn.Linear(3, 5))
    batch = torch.rand(2, 3, 4, 4)
    found, _ = features(model, batch)
    assert torch.equal(found, batch.mean((2, 3)))


def test_two_heads_that_read_the_same():
    model = Net(lambda self, x: self.both(x.mean((2, 3))), a=nn.Linear(3, 5), b=nn.Linear(3, 5))
    model.both = lambda pooled: (model.a(pooled) + model.b(pooled)) / 2
    batch = torch.rand(2, 3, 4, 4)
    assert torch.equal(features(model, batch)[0], batch.mean((2, 3)))


def test_features_that_the_model_changes_afterwards():
    def forward(self, x):
        pooled = x.mean((2, 3))
        scores = self.head(pooled)
        pooled.zero_()
        return scores

    batch = torch.rand(2, 3, 4, 4)
    assert torch.equal(features(Net(forward, head=nn.Linear(3, 5)), batch)[0], batch.mean((2, 3)))


def test_a_head_that_gets_its_input_by_name():
    model = Net(lambda self, x: self.head(input=x.mean((2, 3))), head=nn.Linear(3, 5))
    batch = torch.rand(2, 3, 4, 4)
    assert torch.equal(features(model, batch)[0], batch.mean((2, 3)))


def test_a_network_without_a_head_ends_with_its_features():
    model, batch = torchvision.models.resnet18(weights=None).eval(), torch.rand(2, 3, 64, 64)
    model.fc = nn.Identity()
    found, label = features(model, batch)
    assert label == "output"
    assert torch.equal(found, model(batch))


def test_an_embedding_that_the_model_names():
    model = Net(lambda self, x: {"image_embeds": self.head(x.mean((2, 3)))}, head=nn.Linear(3, 5))
    batch = torch.rand(2, 3, 4, 4)
    found, label = features(model, batch)
    assert label == "output"
    assert torch.equal(found, model(batch)["image_embeds"])


def test_dense_scores_are_followed_back_to_their_convolution():
    def forward(self, x):
        low = self.stem(x)
        return {"out": F.interpolate(self.classify(low), x.shape[2:], mode="bilinear"), "aux": self.aux(low)}

    model = Net(forward, stem=nn.Conv2d(3, 4, 3, 2, 1), classify=nn.Conv2d(4, 6, 1), aux=nn.Conv2d(4, 6, 1))
    batch = torch.rand(2, 3, 8, 12)
    found, label = features(model, batch)
    assert label == "input of classify"
    torch.testing.assert_close(found, model.stem(batch).mean((2, 3)))


@pytest.mark.parametrize(
    ("forward", "classes"),
    [
        (lambda self, x: (self.one(x.mean((2, 3))) + self.two(x.amax((2, 3)))) / 2, None),  # two heads (DeiT)
        (lambda self, x: x.mean((2, 3)) @ self.one.weight.T, 5),  # linear, by no layer
        (lambda self, x: self.one(x.flatten(2).mT)[:, 0], None),  # at one position of several
    ],
    ids=["two heads", "no layer", "one position"],
)
def test_what_cannot_be_told_is_refused(forward, classes):
    torch.manual_seed(0)
    model = Net(forward, one=nn.Linear(3, 5), two=nn.Linear(3, 5))
    nn.init.constant_(model.two.weight, 0.0)
    with torch.no_grad():
        model.two.bias.copy_(torch.tensor([50.0, -40, 30, -20, 10]))
        model.one.bias.copy_(-torch.tensor([49.0, -41, 31, -19, 9]))
    with pytest.raises(LayerError, match=r"name a layer with layer="):
        features(model, torch.rand(1, 3, 4, 4), classes)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_a_network_of_script_alone_is_refused():
    model = torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)))
    with borrowed(model), pytest.raises(LayerError, match="name a layer"):
        Features(model, torch.rand(1, 3, 4, 4), ModelInputs(), None, None)


def test_a_head_that_reads_another_number_of_things_is_refused():
    model = Net(lambda self, x: self.head(x.mean((2, 3)).repeat(2, 1))[: len(x)], head=nn.Linear(3, 5))
    with pytest.raises(LayerError):
        features(model, torch.rand(2, 3, 4, 4))
