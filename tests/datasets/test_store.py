"""What a store gives back."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from seewhy import Explainer, Explanations, Method, Needs, SeewhyWarning, datasets
from seewhy.datasets import layout
from seewhy.errors import GradientError, ImageIndexError, ImageNotFoundError, InputTypeError, StoreError, TargetError
from seewhy.testing import small_cnn, unchanged

METHODS = ["saliency", "guided_backprop", "cam", "grad_cam", "guided_grad_cam", "activations"]
LAYERS = ["left", "body"]
LABELS = [i % 5 for i in range(30)]


def images(count=30, size=(16, 24)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def explainer():
    return Explainer(small_cnn(), class_names=list("abcde"))


@pytest.fixture(scope="module")
def store(explainer, tmp_path_factory):
    to = tmp_path_factory.mktemp("store") / "maps.zarr"
    return explainer.run(images(), METHODS[:2] + METHODS[3:], LAYERS, to=to, labels=LABELS, chunk=16, batch_size=8)


@pytest.fixture(scope="module")
def whole(explainer):
    return explainer.explain(images(), METHODS[:2] + METHODS[3:], layer=LAYERS, truth=LABELS, batch_size=8)


def assert_equal(one, other):
    """The same explanation, to the last bit."""
    for name in ("values", "maps", "images", "targets", "scores", "probabilities"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name in ("scores", "probabilities"))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("target_names", "method", "layer", "truth", "sources", "signed"):
        assert getattr(one, name) == getattr(other, name), name
    assert dict(one.provenance) == dict(other.provenance)


def test_it_gives_back_what_explain_gives(store, whole):
    assert list(store[0]) == list(whole)
    for i in (0, 15, 16, 29, -1):
        assert isinstance(store[i], Explanations)
        for key in whole:
            assert_equal(store[i][key], whole[key][i])


def test_slices_and_lists_are_several_images(store, whole):
    for index in (slice(None), slice(3, 20, 4), [29, 0, 7]):
        found = store[index]
        for key in whole:
            wanted = [whole[key][int(i)] for i in np.arange(30)[index]]
            assert np.array_equal(found[key].values, np.concatenate([one.values for one in wanted]))
            assert found[key].truth == tuple(one.truth[0] for one in wanted)


def test_it_is_a_sequence(store):
    from collections.abc import Sequence

    assert isinstance(store, Sequence)
    assert len(store) == len(list(store)) == 30
    assert (store.count, store.complete, store.skipped) == (30, True, ())
    assert store.numbers.tolist() == list(range(30))
    assert "30 images: saliency" in repr(store)


def test_only_what_is_asked_for_is_read(store, monkeypatch):
    read = []
    real = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, part: read.append(part) or real(self, part))
    assert store[4]["saliency"].values.shape == (1, 3, 16, 24)
    assert all(part in (4, slice(4, 5)) for part in read)


def test_the_methods_share_the_pictures(store):
    found = store[3:6]
    first, *others = (one.images for one in found.values())
    assert all(np.shares_memory(first, other) for other in others)
    assert not first.flags.writeable


def test_opened_again(store, whole):
    for again in (datasets.open(store.path), datasets.open(str(store.path)), pickle.loads(pickle.dumps(store))):
        assert_equal(again[5]["grad_cam", "body"], whole["grad_cam", "body"][5])


def test_another_store_in_the_same_place(explainer, tmp_path):
    for seed in (0, 1):
        other = Explainer(small_cnn(seed))
        store = other.run(images(6), "saliency", to=tmp_path / "maps.zarr")
        assert np.array_equal(store[3]["saliency"].scores, other.explain(images(6), "saliency").scores[3:4])
        shutil.rmtree(tmp_path / "maps.zarr")


def test_the_predictions_beside_the_maps(store, explainer):
    table = store.predictions
    best = explainer.predict(images(), 1)
    assert table["prediction"].tolist() == [row[0].name for row in best]
    assert np.allclose(table["probability"], [row[0].probability for row in best])
    assert table["label_index"].tolist() == LABELS
    plain = pd.read_parquet(store.path / "predictions")  # with other tools
    assert plain["prediction"].tolist() == table["prediction_index"].tolist()
    judged = explainer.evaluate(images(), labels=LABELS)
    pd.testing.assert_frame_equal(store.evaluation().predictions, judged.predictions)
    assert store.evaluation().accuracy == judged.accuracy


def test_the_arrays_are_zarr_of_version_3_at_native_resolution(store):
    group = zarr.open_group(store.path, mode="r")
    assert group.metadata.zarr_format == 3
    shapes = {name: zarr.open_array(store.path / name, mode="r").shape for name in ("pictures", "values-0", "values-2")}
    assert shapes == {"pictures": (30, 16, 24, 3), "values-0": (30, 3, 16, 24), "values-2": (30, 8, 12)}
    assert group.attrs["seewhy"]["size"] == [16, 24]


def test_cam_finds_its_layer_itself(explainer, tmp_path):
    store = explainer.run(images(6), "cam", to=tmp_path / "maps.zarr")
    whole = explainer.explain(images(6), "cam")
    assert_equal(store[3]["cam"], whole[3])


class Doubled(Method):
    """Maps that no rule of ours makes of the values."""

    needs = Needs(activation=True)

    def compute(self, record):
        return record.activation.mean(1)

    def to_maps(self, values, size):
        return super().to_maps(values, size) ** 2


class Signed(Method):
    """One with negative values."""

    needs = Needs(activation=True)
    signed = True

    def compute(self, record):
        return record.activation.mean(1) - record.activation.amax(1)


def test_maps_that_come_otherwise_are_kept(explainer, tmp_path):
    methods = [Doubled(), Signed()]
    store = explainer.run(images(6), methods, "left", to=tmp_path / "maps.zarr")
    whole = explainer.explain(images(6), methods, layer=["left"])
    assert [one.rule for one in store._kept] == ["stored", "usual"]
    for key in whole:
        assert_equal(store[4][key], whole[key][4])
    assert store[0]["Signed"].signed


class Squared(Method):
    """Maps that are as any rule would have them where the values are 0."""

    needs = Needs()

    def compute(self, record):
        return record.input.mean(1)

    def to_maps(self, values, size):
        return 4 * values**2


def test_a_first_batch_whose_maps_tell_nothing(explainer, tmp_path):
    """How maps come of values is not to be read off maps that are 0."""
    data = images(16)
    data[:8] = 0
    store = explainer.run(data, Squared(), to=tmp_path / "maps.zarr", batch_size=8)
    assert np.array_equal(store[12]["Squared"].map, 4 * data[12].mean(0).numpy() ** 2)


def test_targets(explainer, tmp_path):
    fixed = explainer.run(images(6), to=tmp_path / "d.zarr", target="d")
    assert set(fixed[:]["grad_cam"].target_names) == {"d"}
    true = explainer.run(images(6), "saliency", to=tmp_path / "t.zarr", target=datasets.TrueClass(), labels=LABELS[:6])
    wanted = explainer.explain(images(6), "saliency", target=LABELS[:6])
    assert true[:]["saliency"].targets.tolist() == LABELS[:6]
    assert np.array_equal(true[:]["saliency"].values, wanted.values)
    with pytest.raises(TargetError, match="needs a label of every image"):
        explainer.run(images(6), to=tmp_path / "none.zarr", target=datasets.TrueClass())
    with pytest.raises(InputTypeError, match="one for all images"):
        explainer.run(images(6), to=tmp_path / "list.zarr", target=[0] * 6)


def test_blank_maps_are_counted(explainer, tmp_path):
    with pytest.warns(SeewhyWarning, match="grad_cam at 'body' is 0 everywhere for 1 image: nothing there argues"):
        explainer.run(images(6), to=tmp_path / "b.zarr", target=datasets.TrueClass(), labels=LABELS[:6])


def test_a_layer_without_any_gradient_is_refused(tmp_path):
    """Where none of the first images has one, and not where some have none."""
    model = small_cnn()
    torch.nn.init.zeros_(model.head.weight)
    for count in (3, 40):
        with pytest.raises(GradientError):
            Explainer(model).run(images(count), "grad_cam", "left", to=tmp_path / f"{count}.zarr")


def test_without_pictures_they_are_grey(explainer, tmp_path):
    store = explainer.run(images(6), to=tmp_path / "maps.zarr", pictures=False)
    assert not (store.path / "pictures").exists()
    assert (store[0]["grad_cam"].images == 128).all()
    assert store[0]["grad_cam"].images.shape == (1, 16, 24, 3)


def test_models_without_class_scores(tmp_path):
    """Their maps can be kept, and nothing is said of predictions."""
    dense = Explainer(
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
    )
    store = dense.run(images(6), "grad_cam", "1", to=tmp_path / "dense.zarr")
    assert np.array_equal(store[:]["grad_cam"].values, dense.explain(images(6), layer="1").values)
    assert store.predictions["score"].isna().all()


def test_the_model_comes_back_as_it_was(tmp_path):
    model = small_cnn()
    model.train()
    with unchanged(model):
        Explainer(model).run(images(), METHODS[:2], to=tmp_path / "maps.zarr")


def test_mistakes(store, tmp_path):
    with pytest.raises(ImageIndexError, match="image 30 of a store of 30"):
        store[30]
    with pytest.raises(ImageIndexError, match="no image is asked for"):
        store[5:5]
    with pytest.raises(InputTypeError, match="indexed by numbers"):
        store["a"]
    with pytest.raises(ImageNotFoundError, match="no store at"):
        datasets.open(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match="is no store of maps"):
        datasets.open(tmp_path)
    zarr.create_group(tmp_path / "other.zarr", attributes={"seewhy": {"format": "seewhy.maps/9"}})
    with pytest.raises(StoreError, match="another version"):
        datasets.open(tmp_path / "other.zarr")


def test_a_damaged_store_says_so(explainer, tmp_path):
    store = explainer.run(images(6), to=tmp_path / "maps.zarr")
    (store.path / "predictions" / "00000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="is damaged"):
        len(datasets.open(store.path))


def test_chunks_and_reads():
    small, large = np.zeros((1, 7, 7), np.float32), np.zeros((1, 3, 224, 224), np.float32)
    assert layout.images_per_chunk({"a": small}, torch.zeros(1, 3, 32, 32), 16) == 1024
    assert layout.images_per_chunk({"a": small, "b": large}, torch.zeros(1, 3, 224, 224), 16) == 48
    assert layout.images_per_chunk({"b": np.zeros((1, 1 << 28), np.uint8)}, torch.zeros(1, 3, 8, 8), 16) == 16
    assert layout.images_per_read(large, 48) == 1
    assert layout.images_per_read(small, 96) == 96
    assert 96 % layout.images_per_read(np.zeros((1, 50, 50), np.float32), 96) == 0
