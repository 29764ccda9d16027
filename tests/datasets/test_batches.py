"""Batches of arrays in, batches of arrays out."""

import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from seewhy import Explainer, datasets
from seewhy.datasets import BatchExplainer
from seewhy.errors import InputError, InputTypeError, MethodError, UnknownNameError
from seewhy.testing import small_cnn


def to_tensor(photo):
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255


def make():
    return Explainer(small_cnn(), class_names=list("abcde"), transform=to_tensor)


def photos(count=6):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 24, 3), dtype=np.uint8)


FORMS = {
    "array": lambda: photos(),
    "list": lambda: list(photos()),
    "objects": lambda: np.fromiter(list(photos()), dtype=object),
    "pil": lambda: [PIL.Image.fromarray(one) for one in photos()],
    "tensors": lambda: torch.stack([to_tensor(one) for one in photos()]),
    "floats": lambda: np.stack([to_tensor(one).numpy() for one in photos()]),
}


@pytest.mark.parametrize("form", FORMS)
def test_they_are_what_explain_gives(form):
    found = BatchExplainer(make, ["saliency", "grad_cam"], layer=["left", "body"])(
        {"image": FORMS[form](), "id": [*"uvwxyz"]}
    )
    whole = make().explain(photos(), ["saliency", "grad_cam"], layer=["left", "body"])
    assert np.allclose(found["saliency"], whole["saliency"].values, atol=1e-6)
    assert np.allclose(found["grad_cam at body"], whole["grad_cam", "body"].values, atol=1e-6)
    assert found["prediction"].tolist() == whole["saliency"].targets.tolist()
    assert found["prediction_name"] == list(whole["saliency"].target_names)
    assert np.allclose(found["target_score"], whole["saliency"].scores, atol=1e-5)
    assert found["id"] == [*"uvwxyz"]
    assert "image" not in found
    assert not any(name.startswith("label") for name in found)


def test_files(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, photo in zip(paths, photos(), strict=True):
        PIL.Image.fromarray(photo).save(path)
    found = BatchExplainer(make, "saliency")({"image": paths})
    assert np.array_equal(found["saliency"], BatchExplainer(make, "saliency")({"image": photos()})["saliency"])


def test_labels_and_columns():
    explain = BatchExplainer(make, [], columns=("photo", "animal"), keep_images=True, labels={"x": "a", "y": "b"})
    found = explain({"photo": photos(2), "animal": ["x", "y"]})
    assert found["label"].tolist() == [0, 1]
    assert found["photo"].shape == (2, 16, 24, 3)
    assert found["label_rank"].shape == (2,)
    assert "target" in found
    assert not any(name.startswith("grad_cam") for name in found)


def test_it_is_pickled_without_its_network():
    explain = BatchExplainer(make, "grad_cam", target="c")
    first = explain({"image": photos()})
    sent = pickle.dumps(explain)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent)({"image": photos()})["grad_cam"], first["grad_cam"])
    assert set(first["target_name"]) == {"c"}


def test_the_layer_of_the_first_batch_is_kept():
    explain = BatchExplainer(make, "grad_cam")
    assert explain.job.work.layers == ()
    explain({"image": photos(3)})
    assert explain.job.work.layers == ("body",)


def test_with_hugging_faces_map():
    data = pytest.importorskip("datasets")
    rows = data.Dataset.from_dict({"image": list(photos()), "label": [0, 1, 2, 3, 4, 0]})
    rows = rows.cast_column("image", data.Image())
    explain = BatchExplainer(make, "grad_cam")
    done = rows.map(explain, batched=True, batch_size=4, remove_columns=["image"], new_fingerprint="1")
    whole = make().explain(photos(), batch_size=4)
    assert np.allclose(np.array(done["grad_cam"]), whole.values, atol=1e-6)
    assert done["prediction"] == whole.targets.tolist()


def test_mistakes():
    with pytest.raises(InputTypeError, match="a function without arguments that gives an Explainer"):
        BatchExplainer(make())
    with pytest.raises(InputTypeError, match="mapping with 'text'; expected one of 'pixel_values', 'image'"):
        BatchExplainer(make)({"text": ["a"]})
    with pytest.raises(UnknownNameError, match="grad_cam"):
        BatchExplainer(make, "grad_cm")({"image": photos()})
    with pytest.raises(InputError, match="1 labels for 6 images"):
        BatchExplainer(make)({"image": photos(), "label": [1]})
    with pytest.raises(OSError, match="There is no file at"):
        BatchExplainer(make)({"image": ["nothing.png"]})
    named = datasets.BatchExplainer(make, "saliency")
    named._asked["method"] = named_like_a_column()
    with pytest.raises(MethodError, match="would hide that column"):
        named({"image": photos()})


def named_like_a_column():
    from seewhy.methods.gradient import Saliency

    return Saliency(name="score")


def test_a_single_score():
    class Single(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] - 0.5

    found = BatchExplainer(lambda: Explainer(Single(), class_names=["wolf"], transform=to_tensor), "saliency")(
        {"image": photos(), "label": [0, 1] * 3}
    )
    assert set(found["prediction_name"]) <= {"wolf", "not wolf"}
    assert np.allclose(found["saliency"], 1 / (16 * 24 * 3))
