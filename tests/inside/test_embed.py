"""The space of features: against hooks by hand, scikit-learn, brute force and closed forms."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import timm
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.transforms import v2

from seewhy import Explainer, SeewhyWarning
from seewhy.errors import (
    ImageIndexError,
    InputError,
    InputTypeError,
    LayerError,
    MissingDependencyError,
    NonFiniteError,
    UnknownNameError,
)
from seewhy.inside.embed import Embedding, embed
from seewhy.inside.near import nearest_other
from seewhy.inside.rows import Rows
from seewhy.inside.seen import small
from seewhy.inside.truth import Truth
from seewhy.testing import small_cnn, unchanged


def as_is(image):
    """A transform for pictures that are given as tensors."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def images(count=12, size=(16, 20), channels=3, seed=1):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def explainer():
    return Explainer(small_cnn(), transform=as_is)


@pytest.fixture
def space(explainer):
    return embed(explainer, images())


def read_by(model, module, batch):
    kept = []
    handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0].clone()))
    with torch.no_grad():
        model(batch)
    handle.remove()
    return kept[-1].numpy()


def given_by(model, module, batch):
    kept = []
    handle = module.register_forward_hook(lambda _, args, output: kept.append(output.clone()))
    with torch.no_grad():
        model(batch)
    handle.remove()
    return kept[-1]


# ----------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize(
    ("build", "reader", "size"),
    [
        (small_cnn, "head", (16, 20)),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2), "head", (32, 32)),
        (lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2]), "head", (32, 48)),
        (lambda: nn.Sequential(small_cnn(), nn.Softmax(1)), "0.head", (16, 20)),
    ],
    ids=["cnn", "vit", "swin", "probabilities"],
)
def test_the_features_are_what_the_last_linear_layer_reads(build, reader, size):
    model, batch = build().eval(), images(size=size)
    with unchanged(model):
        found = embed(Explainer(model, transform=as_is), batch, method=None, batch_size=5)
    np.testing.assert_allclose(found.features, read_by(model, model.get_submodule(reader), batch), rtol=1e-5, atol=1e-6)
    assert found.layer == f"input of {reader}"
    assert found.features.dtype == np.float32
    assert found.predictions == tuple(map(str, model(batch).argmax(1).tolist()))


def test_the_features_of_a_squeezenet_are_pooled():
    model, batch = torchvision.models.squeezenet1_1(weights=None, num_classes=7).eval(), images(4, (64, 48))
    found = embed(Explainer(model, transform=as_is, class_names=list("abcdefg")), batch, method=None)
    with torch.no_grad():
        np.testing.assert_allclose(found.features, model.features(batch).mean((2, 3)).numpy(), rtol=1e-5, atol=1e-6)
    assert found.layer == "input of classifier.1"
    with pytest.warns(SeewhyWarning, match="taken for class scores, made of the input of classifier.1"):
        unnamed = embed(Explainer(model, transform=as_is), batch, method=None)
    np.testing.assert_array_equal(unnamed.features, found.features)


def test_a_model_that_gives_features_has_no_predictions():
    model, batch = torchvision.models.resnet18(weights=None).eval(), images(4, (48, 32))
    model.fc = nn.Identity()
    with pytest.warns(SeewhyWarning, match="What the model returns is taken for features"):
        found = embed(Explainer(model, transform=as_is), batch, method=None, labels=[0, 1, 2, 3])
    with torch.no_grad():
        np.testing.assert_allclose(found.features, model(batch).numpy(), atol=1e-5)
    assert found.layer == "output"
    assert found.predictions is None
    assert found.correct is None
    named = embed(Explainer(model, transform=as_is), batch, "layer2", method=None, labels=[0, 1, 2, 3])
    assert named.predictions is None
    assert named.correct is None


def test_a_named_layer_of_a_classifier_has_predictions(explainer):
    found = embed(Explainer(small_cnn(), transform=as_is), images(), "left", method=None)
    assert found.predictions == embed(Explainer(small_cnn(), transform=as_is), images(), method=None).predictions


class Head(nn.Module):
    """A convolution that gives three classes, and what is made of it."""

    def __init__(self, made):
        super().__init__()
        self.body, self.head, self.made = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1), made

    def forward(self, x):
        return self.made(self.head(self.body(x).relu()))


@pytest.mark.parametrize(
    "made",
    [
        lambda y: y.mean((2, 3)).softmax(1),
        lambda y: y.softmax(1).mean((2, 3)),
        lambda y: y.mean((2, 3)).sigmoid(),
        lambda y: y.amax((2, 3)),
        lambda y: y.logsumexp((2, 3)),
    ],
    ids=["softmax", "softmax first", "sigmoid", "max", "logsumexp"],
)
def test_what_may_be_class_scores_is_refused_or_said(made):
    """Scores that are made of a convolution in another way than by the mean are never taken for features in silence."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            embed(Explainer(Head(made), transform=as_is), images(6), method=None)
            told = [str(one.message) for one in said]
        except LayerError as error:
            told = [str(error)]
    assert any("name a layer with layer=" in one for one in told)


def test_probabilities_are_no_features():
    made = Head(lambda y: y.flatten(2).amax(2).softmax(1))
    with pytest.raises(LayerError, match="name a layer with layer="):
        embed(Explainer(made, transform=as_is), images(6), method=None)


def test_labels_that_nobody_reads_may_be_anything(explainer):
    """A mask, a vector, a dict: labels= says others."""
    odd = [torch.zeros(4, 4), torch.tensor([0.0, 1.0]), {"boxes": torch.zeros(1, 4)}, 0.5, True, None]
    found = embed(explainer, list(zip(images(6), odd, strict=True)), method=None, labels=[0] * 6)
    assert len(found) == 6
    with pytest.raises(InputTypeError, match=r"label of image 0 is a Tensor of shape \(4, 4\)") as caught:
        embed(explainer, list(zip(images(6), odd, strict=True)), method=None)
    assert len(str(caught.value)) < 200


def test_a_list_of_files_is_several_images(explainer, tmp_path, monkeypatch):
    """And a file with the name of a class is still a pair."""
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(image).save(f"{i}.png")
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    explainer = Explainer(small_cnn(), transform=transform)
    lists = [["0.png", "1.png", "2.png"], ["3.png", "4.png"]]
    for given in (lists, iter(lists)):
        found = embed(explainer, given, method=None)
        assert found.sources == tuple(f"{i}.png" for i in range(5))
        assert found.labels is None
    pairs = embed(explainer, [["0.png", "cat"], ("1.png", "dog")], method=None)
    assert (pairs.sources, pairs.labels) == (("0.png", "1.png"), ("cat", "dog"))


def test_the_classes_of_data_sets_one_after_another(explainer):
    data = TensorDataset(images(4), torch.tensor([0, 1, 2, 3]))
    data.classes = ["ant", "bee", "cat", "dog"]
    other = TensorDataset(images(4), torch.tensor([0, 1, 2, 3]))
    other.classes = ["x", "y", "z", "w"]
    assert embed(explainer, ConcatDataset([data, data]), method=None).labels == ("ant", "bee", "cat", "dog") * 2
    assert embed(explainer, ConcatDataset([data, other]), method=None).labels == tuple(
        embed(explainer, TensorDataset(*data.tensors), method=None).labels * 2
    )


def test_a_generator_may_ask_the_network_in_another_thread(explainer):
    def fetched():
        with ThreadPoolExecutor(1) as pool:
            for image in images(20):
                assert pool.submit(explainer.predict, image).result(20)
                yield image

    assert len(embed(explainer, fetched(), method=None, batch_size=4)) == 20


def test_features_alone_are_saved_without_a_picture(explainer, tmp_path):
    found = embed(explainer, images(), method=None)
    found.save(tmp_path / "features")
    assert [file.name for file in tmp_path.iterdir()] == ["features.npz"]
    with pytest.raises(InputError, match="no points to draw"):
        found.save(tmp_path / "features.png")


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrappers_are_looked_through(wrap, space):
    model = wrap(small_cnn())
    found = embed(Explainer(model, transform=as_is), images())
    np.testing.assert_array_equal(found.features, space.features)
    assert found.layer == space.layer == "input of head"


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        ("body", lambda net, x: given_by(net, net.body, x).mean((2, 3))),
        ("stem.0", lambda net, x: given_by(net, net.stem[0], x).mean((2, 3))),
        ("head", lambda net, x: given_by(net, net.head, x)),
    ],
)
def test_a_named_layer_gives_its_output_averaged_over_positions(explainer, layer, by_hand):
    model, batch = explainer.model, images()
    found = embed(explainer, batch, layer, method=None)
    torch.testing.assert_close(torch.tensor(found.features), by_hand(model, batch))
    assert found.layer == layer
    by_module = embed(explainer, batch, model.get_submodule(layer), method=None)
    np.testing.assert_array_equal(by_module.features, found.features)


def test_channels_last_and_tokens_are_averaged_over_positions_alone():
    swin = torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2]).eval()
    batch = images(3, (32, 48))
    found = embed(Explainer(swin, transform=as_is), batch, "features.1.0", method=None)
    torch.testing.assert_close(torch.tensor(found.features), given_by(swin, swin.features[1][0], batch).mean((1, 2)))
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2).eval()
    batch = images(3, (32, 32))
    found = embed(Explainer(vit, transform=as_is), batch, "blocks.0", method=None)
    torch.testing.assert_close(torch.tensor(found.features), given_by(vit, vit.blocks[0], batch)[:, 1:].mean(1))


def test_further_inputs_of_the_model():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, scale, x, *, shift):
            return self.head(scale * x.mean((2, 3)) + shift)

    found = embed(
        Explainer(Scaled(), transform=as_is), images(), method=None,
        model_args=(torch.tensor(2.0), ...), model_kwargs={"shift": torch.tensor(1.0)},
    )  # fmt: skip
    np.testing.assert_allclose(found.features, 2 * images().mean((2, 3)).numpy() + 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_the_batch_size_changes_nothing(explainer, space, batch_size):
    found = embed(explainer, images(), batch_size=batch_size)
    np.testing.assert_allclose(found.features, space.features, atol=1e-6)
    np.testing.assert_allclose(found.points, space.points, atol=1e-5)
    assert found.predictions == space.predictions


def test_a_generator_a_list_and_a_loader_are_the_same(explainer, space):
    loader = DataLoader(TensorDataset(images(), torch.arange(12) % 5), batch_size=5)
    for given in (iter(images()), list(images()), loader):
        np.testing.assert_allclose(embed(explainer, given).points, space.points, atol=1e-5)


def test_a_folder_of_photos(explainer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    found = embed(explainer, tmp_path, thumbnails=True, batch_size=4)
    assert found.labels == ("a", "a", "a", "b", "b", "b")
    names = ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
    assert [source[-7:].replace("\\", "/") for source in found.sources] == names
    assert found.thumbnails.shape == (6, 32, 32, 3)
    assert (found.thumbnails[:, :3] == 255).all()  # 20 x 16 pixels become 32 x 26, between white
    np.testing.assert_array_equal(found.thumbnails[0, 16, 0], pixels[0, 8, 0])


# ------------------------------------------------------------------------------------------------------------- points


def test_pca_is_scikit_learns(space):
    reference = PCA(2, svd_solver="full").fit(space.features)
    np.testing.assert_allclose(space.points, reference.transform(space.features), atol=1e-5)
    np.testing.assert_allclose(space.explained_variance_ratio, reference.explained_variance_ratio_, rtol=1e-5)
    assert space.points.dtype == np.float32


def test_pca_in_closed_form(explainer):
    found = embed(explainer, images(), components=4)
    centred = found.features.astype(np.float64) - found.features.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    np.testing.assert_allclose(found.explained_variance_ratio, (values / values.sum())[::-1][:4], rtol=1e-4)
    expected = centred @ vectors[:, ::-1][:, :4]
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-4)


def test_the_same_seed_gives_the_same_points(space):
    """Of the same features: those of two passes may differ in the last bit."""
    first, again, other = (space.reduced("tsne", init="random", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.points, again.points)
    assert not np.allclose(first.points, other.points)
    assert first.explained_variance_ratio is None


def test_the_same_features_by_another_method(explainer, space):
    found = embed(explainer, images(), method=None, labels=np.arange(12) % 5).reduced("pca", components=3)
    np.testing.assert_allclose(found.points[:, :2], space.points, atol=1e-5)
    assert found.explained_variance_ratio.shape == (3,)
    assert found.labels == tuple(str(i % 5) for i in range(12))
    assert found.method == "pca"


def test_options_go_to_the_library(explainer, space):
    white = embed(explainer, images(), whiten=True)
    np.testing.assert_allclose(white.points.std(0, ddof=1), 1, rtol=1e-4)
    np.testing.assert_allclose(white.points * space.points.std(0, ddof=1), space.points, atol=1e-4)


def test_t_sne_to_more_than_three_components(explainer):
    assert embed(explainer, images(8), method="tsne", components=4).points.shape == (8, 4)


def test_an_object_with_fit_transform(explainer, space):
    svd = TruncatedSVD(3, random_state=0)
    found = embed(explainer, images(), method=svd)
    np.testing.assert_allclose(found.points, svd.transform(space.features), atol=1e-5)
    assert found.method == "TruncatedSVD"
    np.testing.assert_allclose(found.explained_variance_ratio, svd.explained_variance_ratio_)


@pytest.mark.sweep
def test_umap_keeps_clusters_apart(explainer):
    dark, light = 0.1 * images(30), 1 - 0.1 * images(30, seed=2)
    given = torch.cat([dark, light])
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = embed(explainer, given, method="umap", labels=["dark"] * 30 + ["light"] * 30)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert first.nearest_neighbour_accuracy() == 1
    np.testing.assert_array_equal(first.points, first.reduced("umap").points)
    assert embed(explainer, images(5), method="umap").points.shape == (5, 2)
    assert embed(explainer, given, method="umap", n_neighbors=5).points.shape == (60, 2)
    with pytest.raises(InputError, match="UMAP to 2 components needs at least 5 images"):
        embed(explainer, images(4), method="umap")


@pytest.mark.parametrize(
    ("method", "module", "extra"),
    [("pca", "sklearn.decomposition", "inside"), ("tsne", "sklearn.manifold", "inside"), ("umap", "umap", "umap")],
)
def test_a_missing_library_is_named_with_its_extra(explainer, monkeypatch, method, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf'pip install "seewhy\[{extra}\]"'):
        embed(explainer, iter(()), method=method)  # said before the first image is read


# ------------------------------------------------------------------------------------------------ labels, predictions


def test_labels_of_the_data_are_called_by_the_data_sets_classes(explainer):
    data = TensorDataset(images(), torch.arange(12) % 5)
    assert embed(explainer, data).labels[:6] == ("0", "1", "2", "3", "4", "0")
    data.classes = ["zero", "one", "two", "three", "four"]
    found = embed(explainer, DataLoader(data, batch_size=7))
    assert found.labels[:6] == ("zero", "one", "two", "three", "four", "zero")
    scores = explainer.model(images())
    assert found.predictions == tuple(data.classes[i] for i in scores.argmax(1))
    np.testing.assert_array_equal(found.correct, (scores.argmax(1) == torch.arange(12) % 5).numpy())


def test_without_names_of_the_data_set_they_are_called_as_the_explainer_does():
    named = Explainer(small_cnn(), transform=as_is, class_names=["a", "b", "c", "d", "e"])
    found = embed(named, images(), labels=np.arange(12) % 5)
    assert found.labels[:6] == ("a", "b", "c", "d", "e", "a")
    predicted = small_cnn()(images()).argmax(1)
    assert found.predictions == tuple("abcde"[i] for i in predicted)
    np.testing.assert_array_equal(found.correct, predicted.numpy() == np.arange(12) % 5)


def test_names_are_compared_by_name_and_not_by_their_order():
    named = Explainer(small_cnn(), transform=as_is, class_names=["tabby, tabby cat", "b", "c", "d", "e"])
    predicted = small_cnn()(images()).argmax(1).tolist()
    data = TensorDataset(images(), torch.tensor(predicted))
    data.classes = ["B", "Tabby Cat", "C", "d", "e"]  # the first two change places
    found = embed(named, data)
    np.testing.assert_array_equal(found.correct, [i not in (0, 1) for i in predicted])
    right = embed(named, images(), labels=[["tabby", "b", "c", "d", "e"][i] for i in predicted])
    assert right.correct.all()
    assert set(predicted) & {0, 1}


def test_a_whole_name_goes_before_a_part_of_another():
    names = ["cat", "cat, tabby cat", "crane, bird", "crane, machine", "e"]
    truth = Truth(
        ("cat", "cat", "tabby cat", "crane", "crane"), (), dict(enumerate(names)), np.array([0, 1, 1, 2, 3]), 5
    )
    assert truth.correct().tolist() == [True, False, True, True, True]


def test_names_of_other_classes_are_not_compared():
    named = Explainer(small_cnn(), transform=as_is, class_names=["a", "b", "c", "d", "e"])
    assert embed(named, images(), labels=["mine", "yours"] * 6).correct is None
    with pytest.warns(SeewhyWarning, match="No class of the network is called 'yours'"):
        assert embed(named, images(), labels=["a", "yours"] * 6).correct is None
    data = TensorDataset(images(), torch.arange(12) % 5)
    data.classes = ["a", "b", "c", "d", "eh"]
    with pytest.warns(SeewhyWarning, match="called 'eh'"):
        assert embed(named, data).correct is None


def test_a_data_set_of_other_classes_is_not_compared_by_index(explainer):
    data = TensorDataset(images(), torch.arange(12) % 3)
    data.classes = ["a", "b", "c"]  # and the network has five
    found = embed(explainer, data)
    assert found.correct is None
    assert found.labels[:3] == ("a", "b", "c")
    assert embed(explainer, images(), labels=["a"] * 12).correct is None


def test_more_names_than_scores():
    named = Explainer(small_cnn(), transform=as_is, class_names=list("abcdef"))
    with pytest.warns(SeewhyWarning, match="6 class names were given, and the model has 5 scores"):
        embed(named, images())


def test_labels_beyond_the_classes(explainer):
    with pytest.warns(SeewhyWarning, match="label 5 is beyond the network's 5 classes"):
        assert embed(explainer, images(), labels=[5] + [1] * 11).correct is None
    with pytest.raises(InputError, match="label of image 2 is -1"):
        embed(explainer, images(), labels=[0, 1, -1] + [1] * 9)
    data = TensorDataset(images(), torch.arange(12))
    data.classes = ["a", "b"]
    with pytest.raises(InputError, match="label of image 2 is 2: no index of the 2 classes"):
        embed(explainer, data)


@pytest.mark.parametrize("labels", [[1, 2], ["a"] * 13, [0.5] * 12, [[1, 0]] * 12])
def test_labels_that_are_not_one_for_each(explainer, labels):
    with pytest.raises((InputError, InputTypeError)):
        embed(explainer, images(), labels=labels)


def test_a_layer_can_be_looked_at_whatever_the_model_returns():
    class Odd(nn.Module):
        def __init__(self, what):
            super().__init__()
            self.conv, self.what = nn.Conv2d(3, 4, 3), what

        def forward(self, x):
            return self.what(self.conv(x))

    for what in (lambda y: None, lambda y: y.sum(), lambda y: y, lambda y: y.mean((1, 2, 3))):
        found = embed(Explainer(Odd(what), transform=as_is), images(), "conv", labels=[0] * 12)
        assert found.features.shape == (12, 4)
        assert found.predictions is None
        assert found.correct is None


def test_scores_that_are_not_finite_give_no_predictions():
    model = small_cnn()
    model.head.bias.data[2] = torch.nan
    with pytest.warns(SeewhyWarning, match="scores of image 0 are NaN"):
        found = embed(Explainer(model, transform=as_is), images(), "body")
    assert found.predictions is None


# --------------------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_brute_force(space, metric):
    apart = pairwise_distances(space.features.astype(np.float64), metric=metric)
    for i in range(len(space)):
        expected = [j for j in np.argsort(apart[i]) if j != i][:4]
        found = space.neighbours(i, k=4, metric=metric)
        assert found.indices.tolist() == expected
        np.testing.assert_allclose(found.distances, apart[i][expected], atol=1e-6)


def test_neighbours_of_a_new_image(explainer, space):
    new = embed(explainer, images(3, seed=9), method=None)
    apart = pairwise_distances(new.features.astype(np.float64), space.features.astype(np.float64))
    indices, distances = space.neighbours(new, k=3)
    np.testing.assert_array_equal(indices, np.argsort(apart, 1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(apart, 1)[:, :3], rtol=1e-6)
    one = space.neighbours(new.features[1], k=3)
    np.testing.assert_array_equal(one.indices, indices[1])
    np.testing.assert_array_equal(space.neighbours(torch.tensor(new.features), k=3).indices, indices)
    itself = space.neighbours(space.features[5], k=1)
    assert itself.indices.tolist() == [5]
    assert itself.distances.tolist() == [0]


def test_neighbours_that_cannot_be(explainer, space):
    with pytest.raises(ImageIndexError, match="numbered from 0 to 11"):
        space.neighbours(12)
    with pytest.raises(ImageIndexError):
        space.neighbours(-1)
    with pytest.raises(InputError, match="There are 11 other images"):
        space.neighbours(0, k=12)
    with pytest.raises(InputError, match=r"\(16,\) or \(M, 16\)"):
        space.neighbours(np.ones(5))
    with pytest.raises(NonFiniteError):
        space.neighbours(np.full(16, np.nan))
    with pytest.raises(InputTypeError, match="method=None"):
        space.neighbours("cat.jpg")
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        space.neighbours(0, metric="cosin")
    other = embed(explainer, images(), "body", method=None)
    with pytest.raises(InputError, match="distances between them mean nothing"):
        space.neighbours(other)


def test_the_accuracy_of_the_nearest_neighbour(explainer):
    given = np.random.default_rng(0).integers(0, 3, 60)
    found = embed(explainer, images(60), labels=given)
    for space, rows in (("points", found.points), ("features", found.features)):
        others = [np.delete(np.arange(60), i) for i in range(60)]
        one = [KNeighborsClassifier(1).fit(rows[o], given[o]).predict(rows[[i]])[0] for i, o in enumerate(others)]
        assert found.nearest_neighbour_accuracy(space) == pytest.approx((np.array(one) == given).mean())
    with pytest.raises(InputError, match="labels"):
        embed(explainer, images()).nearest_neighbour_accuracy()
    with pytest.raises(InputError, match="space='features'"):
        embed(explainer, images(), method=None, labels=[1] * 12).nearest_neighbour_accuracy()


def test_the_nearest_other_in_parts(monkeypatch):
    rows = np.random.default_rng(0).normal(1000, 1, (1500, 3)).astype(np.float32)
    apart = pairwise_distances(rows.astype(np.float64)) + np.diag(np.full(1500, np.inf))
    monkeypatch.setattr("seewhy.inside.near.PART", 100_000)
    np.testing.assert_array_equal(nearest_other(rows), apart.argmin(1))


# ------------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_embedded(explainer):
    with pytest.raises(UnknownNameError, match="Did you mean 'tsne'"):
        embed(explainer, images(), method="t-sne")
    with pytest.raises(InputTypeError, match=r"has no option 'perplexty'\. Did you mean 'perplexity'"):
        embed(explainer, images(), method="tsne", perplexty=3)
    with pytest.raises(InputTypeError, match="said by components="):
        embed(explainer, images(), n_components=3)
    with pytest.raises(InputError, match=r"t-SNE refuses .*perplexity"):
        embed(explainer, images(), method="tsne", perplexity=50)
    with pytest.raises(InputTypeError, match="It is a class: make an instance"):
        embed(explainer, images(), method=PCA)
    with pytest.raises(InputTypeError, match="method=None has no options"):
        embed(explainer, images(), method=None, whiten=True)
    with pytest.raises(InputError, match="one layer, and 2 are given"):
        embed(explainer, images(), ["stem", "body"])
    with pytest.raises(UnknownNameError):
        embed(explainer, images(), "bodi")
    with pytest.raises(InputError, match="no images"):
        embed(explainer, iter(()))


@pytest.mark.parametrize(("method", "least"), [("pca", 3), ("tsne", 4)])
def test_too_few_images(explainer, method, least):
    assert embed(explainer, images(least), method=method).points.shape == (least, 2)
    with pytest.raises(InputError, match=f"at least {least} images, and there are {least - 1}"):
        embed(explainer, images(least - 1), method=method)


def test_more_components_than_features(explainer):
    with pytest.raises(InputError, match="at least as many features, and the layer has 5"):
        embed(explainer, images(), "head", components=6)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_features_that_are_all_the_same(explainer, method):
    with pytest.raises(InputError, match="features of all 12 images are the same"):
        embed(explainer, images(1).expand(12, -1, -1, -1), method=method)


def test_features_that_are_not_finite():
    model = small_cnn()
    model.register_forward_pre_hook(lambda _, args: (torch.where(args[0] > 0.999, torch.nan, args[0]),))
    given = images().clamp(max=0.9)
    given[7, 0, 3, 3] = 1.0
    with pytest.raises(NonFiniteError, match=r"features of image 7 \(stem.0\)"):
        embed(Explainer(model, transform=as_is), given, "stem.0", batch_size=3)


def test_a_layer_whose_features_change_in_number(explainer):
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(LayerError, match=r"image 2 have the shape \(160,\)"):
        embed(Explainer(flat, transform=as_is), iter([*images(2, (8, 8)), *images(2, (12, 6))]), "1", batch_size=2)


class Broken(IterableDataset):
    def __iter__(self):
        yield from images(20)
        raise OSError("the disk is gone")


def test_the_model_is_as_it_was_after_an_error_in_the_data_set(explainer):
    with unchanged(explainer.model), pytest.raises(OSError, match="the disk is gone"):
        embed(explainer, Broken())
    model = explainer.model.train()
    with unchanged(model):
        embed(explainer, DataLoader(TensorDataset(images()), batch_size=5, shuffle=True))


# ------------------------------------------------------------------------------------------------------------- result


def test_a_result_is_frozen_and_comes_back_from_its_file(explainer, tmp_path):
    found = embed(explainer, images(), thumbnails=True, labels=[0, 1, 2, 3] * 3)
    with pytest.raises(ValueError, match="read-only"):
        found.features[0] = 0
    found.save(tmp_path / "space")
    again = Embedding.load(tmp_path / "space")
    for name in ("points", "features", "explained_variance_ratio", "thumbnails", "correct"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    for name in ("labels", "predictions", "layer", "method", "sources", "provenance"):
        assert getattr(again, name) == getattr(found, name)
    assert repr(again) == "Embedding(12 images, 16 features (input of head), PCA to 2)"
    assert (tmp_path / "space.png").stat().st_size > 10_000
    none = embed(explainer, images(1), method=None)
    none.save(tmp_path / "one.npz")
    assert Embedding.load(tmp_path / "one").points is None
    assert none._repr_png_() is None


def test_thumbnails():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), dtype=np.uint8)
    found = small(pixels)  # each pixel becomes 4 x 4, between white left and right
    np.testing.assert_array_equal(found[:, ::4, 8:24:4], pixels)
    assert (found[:, :, :8] == 255).all()
    assert (found[:, :, 24:] == 255).all()
    checks = np.indices((64, 64)).sum(0) % 2 * 200
    assert (small(np.repeat(checks[None, ..., None], 3, 3).astype(np.uint8)) == 100).all()  # averaged, not sampled
    with pytest.raises(InputError, match="Thumbnails are of pictures"):
        small(np.zeros((2, 4, 8, 8, 3), np.uint8))


def test_the_plot(explainer):
    given = np.arange(12) % 5
    found = embed(explainer, images(), labels=given, thumbnails=True)
    ax = found.plot(thumbnails=False)
    assert ax.get_xlabel() == f"PC 1 ({100 * found.explained_variance_ratio[0]:.1f} % of the variance)"
    drawn = np.concatenate([c.get_offsets() for c in ax.collections if c.get_label() != "_"])
    assert sorted(map(tuple, drawn.tolist())) == sorted(map(tuple, found.points.tolist()))
    wrong = explainer.model(images()).argmax(1).numpy() != given
    rings = next(c.get_offsets() for c in ax.collections if c.get_label() == "_")
    np.testing.assert_array_equal(np.asarray(rings, np.float32), found.points[wrong])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["0", "1", "2", "3", "4", f"misclassified ({wrong.sum()})"]
    assert len(found.plot().artists) > 1
    with pytest.raises(InputError, match="thumbnails=True"):
        embed(explainer, images()).plot(thumbnails=True)
    with pytest.raises(InputError, match="method=None"):
        embed(explainer, images(), method=None).plot()


@pytest.mark.parametrize("components", [1, 3])
def test_one_component_and_three_are_drawn_too(explainer, components):
    found = embed(explainer, images(), components=components)
    ax = found.plot()
    np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets()[:, 0]), np.sort(found.points[:, 0]))
    assert ax.get_legend().get_title().get_text() == "predicted"


# ------------------------------------------------------------------------------------------------------------- digits


def block(channels, width):
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


@pytest.fixture(scope="module")
def digits():
    """A small network trained on 900 digits, and the other 897 with their labels."""
    torch.manual_seed(0)
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    pixels, labels = F.interpolate(pixels, (16, 16), mode="bilinear"), torch.tensor(data.target)
    order = torch.randperm(len(pixels))
    train, rest = order[:900], order[900:]
    model = nn.Sequential(
        *block(1, 16), *block(16, 16), nn.MaxPool2d(2), *block(16, 32), *block(32, 32), nn.MaxPool2d(2),
        *block(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=8 * -(-len(train) // 64))
    for _ in range(8):
        for some in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels[some]), labels[some]).backward()
            optimizer.step()
            schedule.step()
    return Explainer(model.eval(), transform=as_is), pixels[rest], labels[rest]


def test_digits_that_the_network_gets_wrong_are_marked(digits):
    explainer, pixels, labels = digits
    found = embed(explainer, DataLoader(TensorDataset(pixels, labels), batch_size=100))
    with torch.no_grad():
        wrong = (explainer.model(pixels).argmax(1) != labels).numpy()
    np.testing.assert_array_equal(~found.correct, wrong)
    assert 0 < wrong.sum() < 50
    assert found.nearest_neighbour_accuracy("features") > 0.95


@pytest.mark.sweep
@pytest.mark.parametrize("count", [400, pytest.param(897, marks=pytest.mark.sweep)])
def test_t_sne_separates_the_digits(digits, count):
    explainer, pixels, labels = digits
    found = embed(explainer, pixels[:count], method="tsne", labels=labels[:count])
    assert found.nearest_neighbour_accuracy() >= 0.95
    assert found.features.shape == (count, 32)
    shuffled = labels[torch.randperm(count)]
    assert embed(explainer, pixels[:count], labels=shuffled).nearest_neighbour_accuracy("features") < 0.3


# ------------------------------------------------------------------------------------------------------------- memory


class Many(Dataset):
    """Images that are made when they are asked for; the memory of the process now and then."""

    def __init__(self, count, marks):
        self.count, self.marks, self.used = count, marks, {}

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i in self.marks:
            self.used[i] = psutil.Process().memory_info().rss
        return torch.full((3, 32, 32), i / self.count), i % 5


def test_memory_is_flat_while_ten_thousand_images_go_by(explainer):
    data = Many(10_000, (2_000, 9_999))
    found = embed(explainer, data, batch_size=50, method=None, thumbnails=False)
    assert found.features.shape == (10_000, 16)
    pictures = 8_000 * 3 * 32 * 32 * 4
    assert data.used[9_999] - data.used[2_000] < pictures / 10


def test_rows_are_the_rows(monkeypatch):
    monkeypatch.setattr("seewhy.inside.rows.BLOCK", 9 * 50 * 4)
    rows, given = Rows(), np.random.default_rng(0).normal(size=(100, 50)).astype(np.float32)
    for start in range(0, 100, 7):
        rows.add(given[start : start + 7])
    assert len(rows) == 100
    found = rows.take()
    np.testing.assert_array_equal(found, given)
    assert not found.flags.writeable


@pytest.mark.sweep
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_rows_are_in_memory_once():
    code = """
import re, numpy as np
from pathlib import Path
from seewhy.inside.rows import Rows
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
rows, one = Rows(), np.ones((1000, 1000), np.float32)
rows.add(one)
before = peak()
for _ in range(74):
    rows.add(one)
rows.take()
print((peak() - before) / (300e6 / 1024))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.25


def test_a_result_does_not_copy_the_features(space):
    assert space.reduced("pca").features is space.features
    assert space.features.base is None
