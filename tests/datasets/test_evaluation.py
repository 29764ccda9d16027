"""Numbers of an evaluation, against scikit-learn and by hand."""

import sys
import tempfile
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from sklearn import metrics
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from seewhy import Explainer, datasets
from seewhy.datasets.calibration import calibration
from seewhy.errors import (
    ImageIndexError,
    InputError,
    InputTypeError,
    MissingDependencyError,
    ModelError,
    TargetIndexError,
    UnknownNameError,
)
from seewhy.testing import small_cnn, unchanged

CLASSES = ["ant", "bee", "cat", "dog", "eel"]


class Means(nn.Module):
    """Scores that the images say themselves: the mean of each of five columns, ten-fold."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 3)
            self.conv.bias.zero_()

    def forward(self, x):
        columns = torch.relu(self.conv(x)).mean(2).unflatten(2, (5, -1)).mean(3)  # (n, 5 channels, 5 columns)
        return 10 * columns.diagonal(dim1=1, dim2=2)


def made(count=60, seed=0):
    """Images whose predicted classes and probabilities are random, and labels that often agree."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 10, 10, generator=generator) * 0.05
    shown = torch.randint(0, 5, (count,), generator=generator)
    strength = torch.rand(count, generator=generator) * 0.5
    for image, cls, much in zip(x, shown.tolist(), strength.tolist(), strict=True):
        image[:, :, 2 * cls : 2 * cls + 2] += much
    other = torch.rand(count, generator=generator) < 0.4
    labels = torch.where(other, torch.randint(0, 5, (count,), generator=generator), shown)
    return x, labels.tolist()


@pytest.fixture(scope="module")
def explainer():
    return Explainer(Means(), class_names=CLASSES)


@pytest.fixture(scope="module")
def evaluation(explainer):
    x, labels = made()
    return explainer.evaluate(x, labels=labels)


@pytest.fixture(scope="module")
def scores():
    x, _ = made()
    with torch.no_grad():
        return Means()(x)


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def test_each_row(evaluation, scores):
    table, labels = evaluation.predictions, made()[1]
    best = scores.argmax(1)
    chances = scores.softmax(1)
    rows = torch.arange(60)
    assert table["prediction_index"].tolist() == best.tolist()
    assert table["prediction"].tolist() == [CLASSES[i] for i in best]
    assert table["label"].tolist() == [CLASSES[i] for i in labels]
    assert np.allclose(table["probability"], chances[rows, best])
    assert np.allclose(table["score"], scores[rows, best])
    assert np.allclose(table["label_probability"], chances[rows, labels])
    ranks = [int((row > row[label]).sum()) for row, label in zip(scores, labels, strict=True)]
    assert table["label_rank"].tolist() == ranks
    assert table["correct"].tolist() == (best == torch.tensor(labels)).tolist()
    assert table.index.tolist() == list(range(60))
    assert 0.2 < evaluation.accuracy < 0.9


def test_the_numbers_are_scikit_learns(evaluation, scores):
    labels, best = made()[1], scores.argmax(1).numpy()
    assert evaluation.accuracy == metrics.accuracy_score(labels, best)
    for k in (1, 2, 3, 5):
        assert evaluation.top_k(k) == pytest.approx(metrics.top_k_accuracy_score(labels, scores.numpy(), k=k))
    assert np.array_equal(evaluation.confusion_matrix, metrics.confusion_matrix(labels, best))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, best, zero_division=0)
    report = evaluation.report()
    assert np.array_equal(report.loc[CLASSES, ["precision", "recall", "f1-score"]].T, [precision, recall, f1])
    assert report.loc[CLASSES, "support"].tolist() == support.tolist()
    assert report.loc["macro avg", "f1-score"] == pytest.approx(f1.mean())
    assert report.loc["accuracy", "f1-score"] == evaluation.accuracy


def test_calibration_by_hand(evaluation):
    found = evaluation.calibration(bins=10)
    table = evaluation.predictions
    ece = 0.0
    for i in range(10):
        low, high = i / 10, (i + 1) / 10
        inside = table[(table["probability"] > low) & (table["probability"] <= high)]
        assert found.counts[i] == len(inside)
        if len(inside):
            gap = abs(inside["correct"].astype(float).mean() - inside["probability"].astype(float).mean())
            ece += len(inside) / 60 * gap
            assert found.accuracy[i] == pytest.approx(inside["correct"].astype(float).mean())
        else:
            assert np.isnan(found.accuracy[i])
    assert found.ece == pytest.approx(ece)
    assert found.counts.sum() == 60


@pytest.mark.parametrize(
    ("chances", "right", "ece"),
    [([1.0, 1.0], [1, 1], 0), ([1.0, 1.0], [0, 0], 1), ([0.5] * 4, [1, 0, 1, 0], 0), ([0.0, 0.2], [0, 0], 0.1)],
)
def test_calibration_of_known_cases(chances, right, ece):
    found = calibration(np.array(chances, np.float32), np.array(right, bool))
    assert found.ece == pytest.approx(ece, abs=1e-6)
    assert found.counts.sum() == len(chances)


def test_calibration_is_saved_and_drawn(evaluation, tmp_path):
    found = evaluation.calibration()
    found.save(tmp_path / "calibration")
    again = datasets.Calibration.load(tmp_path / "calibration")
    assert again.ece == found.ece
    assert np.array_equal(again.accuracy, found.accuracy, equal_nan=True)
    assert (tmp_path / "calibration.png").stat().st_size > 5000


def test_mistakes_begin_with_the_most_confident(evaluation):
    table = evaluation.predictions
    wrong = table[table["label"] != table["prediction"]]
    found = evaluation.mistakes()
    assert set(found.index) == set(wrong.index)
    assert found["probability"].is_monotonic_decreasing
    assert evaluation.mistakes(3).equals(found.head(3))


def test_one_pass_for_predictions_and_maps(explainer, tmp_path):
    calls = []
    handle = explainer.model.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    x, labels = made(40)
    found = explainer.evaluate(x, ["grad_cam", "saliency"], "conv", labels=labels, to=tmp_path / "maps.zarr")
    handle.remove()
    assert calls == [16, 16, 8]
    plain = explainer.evaluate(x, labels=labels)
    pd.testing.assert_frame_equal(found.predictions, plain.predictions)
    whole = explainer.explain(x, layer="conv")
    assert np.array_equal(found.store[:]["grad_cam"].values, whole.values)


def test_a_temporary_store_goes_with_the_evaluation(explainer):
    x, labels = made(20)
    found = explainer.evaluate(x, "saliency", labels=labels)
    folder = found.store.path
    assert folder.exists()
    del found
    assert not folder.exists()


def test_a_temporary_store_goes_with_an_error(explainer, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    x, _ = made(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TargetIndexError):
            explainer.evaluate(x, "saliency", labels=[0] * 19 + [7])
    assert not list(tmp_path.iterdir())


def test_without_labels(explainer):
    found = explainer.evaluate(made(20)[0])
    assert "no labels" in repr(found)
    assert found.predictions["correct"].isna().all()
    assert found.predictions["label"].isna().all()
    for ask in (
        lambda: found.accuracy,
        found.report,
        lambda: found.confusion_matrix,
        found.calibration,
        found.mistakes,
    ):
        with pytest.raises(InputError, match="No image has a label"):
            ask()


def test_some_labels(explainer):
    x, labels = made(20)
    given = [label if i % 2 else None for i, label in enumerate(labels)]
    found = explainer.evaluate(x, labels=given)
    table = found.predictions
    assert table["correct"].isna().sum() == 10
    assert found.accuracy == np.mean(table["prediction_index"][1::2] == labels[1::2])


def test_one_class(explainer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explainer.evaluate(made(20)[0], labels=["cat"] * 20)
        assert found.report().loc["cat", "support"] == 20
        assert found.confusion_matrix.loc["cat"].sum() == 20
        found.plot_confusion()


def test_one_score_is_the_second_of_two_classes():
    class Single(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] - 0.5

    x = torch.cat([torch.full((3, 3, 8, 8), 0.9), torch.full((2, 3, 8, 8), 0.1)])
    found = Explainer(Single(), class_names=["wolf"]).evaluate(x, labels=[1, 1, 0, 0, 0])
    assert found.class_names == ("not wolf", "wolf")
    assert found.predictions["prediction"].tolist() == ["wolf"] * 3 + ["not wolf"] * 2
    assert found.accuracy == 0.8
    assert np.allclose(found.predictions["probability"], torch.sigmoid(torch.tensor(0.4)))


def test_classes_of_one_name_are_told_apart():
    found = Explainer(Means(), class_names=["crane", "bee", "crane", "dog", "eel"]).evaluate(
        made(20)[0], labels=[0] * 20
    )
    assert found.class_names == ("crane (0)", "bee", "crane (2)", "dog", "eel")
    assert set(found.predictions["label"]) == {"crane (0)"}


def test_the_table_as_parquet(evaluation, tmp_path):
    evaluation.predictions.to_parquet(tmp_path / "table.parquet")
    again = pd.read_parquet(tmp_path / "table.parquet")
    assert again["prediction"].tolist() == evaluation.predictions["prediction"].tolist()
    assert again["correct"].tolist() == evaluation.predictions["correct"].tolist()


def test_the_model_comes_back_as_it_was():
    model = small_cnn()
    model.train()
    x = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with unchanged(model):
        Explainer(model).evaluate(x, "grad_cam", labels=[0] * 20)
    with unchanged(model), pytest.raises(InputError):
        Explainer(model).evaluate(x, labels=[0] * 19)


def test_figures(evaluation):
    ax = evaluation.plot_confusion()
    assert ax.get_title().startswith("60 images")
    _, ax = pyplot.subplots()
    assert evaluation.plot_confusion(ax) is ax
    assert isinstance(evaluation.gallery(k=6), matplotlib.axes.Axes)
    assert evaluation.panels("right", 2).shape == (2, 3)
    assert evaluation.contrast(2, layer="conv").shape == (2, 4)
    both = datasets.gallery({"training": evaluation, "test": evaluation}, k=4)
    assert len(both) == 2
    assert both[0].figure is both[1].figure


def test_the_gallery_has_the_maps_of_the_store(explainer, monkeypatch):
    x, labels = made(20)
    found = explainer.evaluate(x, ["saliency", "grad_cam"], "conv", labels=labels)
    monkeypatch.setattr(explainer, "_measure", None)  # nothing is to be explained again
    whole = found.store[7]["grad_cam"].map
    from seewhy.datasets.gallery import explained

    assert np.array_equal(explained(found, [7], "grad_cam", None)[0].map, whole)
    assert explained(found, [3], None, None)[0].method == "saliency"
    found.gallery("mistakes", 4)
    with pytest.raises(TypeError):
        found.gallery(method="guided_backprop")


def test_contrast_is_of_the_predicted_and_the_true_class(explainer, monkeypatch):
    from seewhy.render import gallery as render

    x, labels = made()
    found = explainer.evaluate(x, labels=labels)
    pairs = []
    monkeypatch.setattr(render, "contrasts", lambda given, **how: pairs.extend(given))
    found.contrast(3, layer="conv")
    for pair, (number, row) in zip(pairs, found.mistakes(3).iterrows(), strict=True):
        predicted = explainer.explain(x[number : number + 1], target=int(row["prediction_index"]), layer="conv")
        true = explainer.explain(x[number : number + 1], target=int(row["label_index"]), layer="conv")
        assert np.allclose(pair.predicted_map, predicted.map, atol=1e-6)
        assert np.allclose(pair.true_map, true.map, atol=1e-6)
        assert (pair.predicted, pair.true) == (row["prediction"], row["label"])


class Once(IterableDataset):
    def __iter__(self):
        x, labels = made(20)
        return zip(x, labels, strict=True)


def test_what_can_only_be_read_once(explainer, tmp_path):
    found = explainer.evaluate(iter(Once()))
    assert found.accuracy == explainer.evaluate(made(20)[0], labels=made(20)[1]).accuracy
    for ask in (found.gallery, found.contrast, lambda: found.save_report(tmp_path / "report.html")):
        with pytest.raises(InputError, match="only be read once"):
            ask()
    assert len(explainer.evaluate(iter(Once()), "grad_cam", "conv").store) == 20
    with pytest.raises(InputError, match="in the same order each time"):
        explainer.evaluate(iter(Once()), "grad_cam", "conv", to=tmp_path / "maps.zarr")
    kept = explainer.evaluate(Once(), "grad_cam", "conv")
    kept.gallery(k=4)
    kept.save_report(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_report(explainer, tmp_path):
    x, labels = made(20)
    for name, method in (("maps", "grad_cam"), ("bare", ())):
        explainer.evaluate(x, method, labels=labels).save_report(tmp_path / f"{name}.html", title="How it <went>")
        text = (tmp_path / f"{name}.html").read_text()
        assert "How it &lt;went&gt;" in text
        assert "ant" in text


def test_mistakes_of_the_caller(explainer, evaluation):
    with pytest.raises(UnknownNameError, match="Did you mean 'mistakes'"):
        evaluation.gallery("mistake")
    with pytest.raises(ImageIndexError, match="There is no image 99"):
        evaluation.gallery([1, 99])
    with pytest.raises(InputTypeError, match="Options are of methods"):
        explainer.evaluate(made(4)[0], steps=3)
    right = explainer.evaluate(made(20)[0], labels=explainer.evaluate(made(20)[0]).predictions["prediction_index"])
    with pytest.raises(InputError, match="no mistakes to show: 20 images are all right"):
        right.gallery("mistakes")
    dense = Explainer(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(ModelError, match="evaluate\\(\\) judges classifiers, and the model gives dense scores"):
        dense.evaluate(made(4)[0])


@pytest.mark.parametrize("method", ["grad_cam", ()])
def test_signals_have_numbers_but_no_pictures(tmp_path, method):
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    found = Explainer(model).evaluate(torch.rand(6, 2, 30), method, "1" if method else None, labels=[0] * 6)
    assert 0 <= found.accuracy <= 1
    for ask in (found.gallery, lambda: found.save_report(tmp_path / "report.html")):
        with pytest.raises(InputError, match=r"show pictures; these are \(30,\), signals or videos"):
            ask()
    assert not list(tmp_path.iterdir())


class Broken(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 8

    def __getitem__(self, number):
        if number == 5:
            raise self.error
        return torch.full((3, 10, 10), number / 8)


def test_skipped_are_in_the_result(explainer):
    with pytest.warns(UserWarning, match="1 image could not be read and was passed by: 'image 5'"):
        found = explainer.evaluate(Broken(OSError("truncated")))
    assert found.predictions.index.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert [(one.number, one.reason) for one in found.skipped] == [(5, "truncated")]
    assert "7 images, 1 skipped" in repr(found)
    with pytest.raises(OSError, match="truncated"):
        explainer.evaluate(Broken(OSError("truncated")), strict=True)


@pytest.mark.parametrize("name", ["filelock", "jinja2", "pandas", "pyarrow", "ray", "sklearn.metrics", "zarr"])
def test_what_is_not_installed_is_told_before_anything_is_computed(explainer, monkeypatch, tmp_path, name):
    x, labels = made(8)
    found = explainer.evaluate(x, labels=labels)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(explainer, "_placed", None)
    asks = {
        "pandas": lambda: explainer.evaluate(x),
        "sklearn.metrics": found.report,
        "jinja2": lambda: found.save_report(tmp_path / "report.html"),
        "ray": lambda: datasets.run_on_ray(x, lambda: explainer, to=tmp_path / "maps.zarr"),
    }
    extra = "ray" if name == "ray" else "datasets"
    with pytest.raises(MissingDependencyError, match=rf'needs {name.split(".")[0]}.*pip install "seewhy\[{extra}\]"'):
        asks.get(name, lambda: explainer.run(x, to=tmp_path / "maps.zarr"))()
    assert not list(tmp_path.iterdir())
