"""Methods side by side."""

from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, TensorDataset

from seewhy import Explainer, Top, trust
from seewhy.errors import InputError, InputTypeError, MethodError, UnknownNameError
from seewhy.testing import small_cnn, unchanged

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
MASKS = np.zeros((5, 16, 16), bool)
MASKS[:, 4:9, 4:9] = True
METHODS = ["saliency", "input_x_gradient"]
METRICS = [partial(trust.deletion, step=64, baseline="mean"), "mass_accuracy", "sparseness", "random_logit"]


def compared(images=IMAGES, **options):
    explainer = Explainer(small_cnn())
    return trust.compare(explainer, images, METHODS, METRICS, **{"masks": MASKS, "target": 1, **options})


def test_it_is_each_metric_of_each_method():
    found, explainer = compared(), Explainer(small_cnn())
    assert found.values.shape == (2, 4, 5)
    assert found.metrics == ("deletion", "mass_accuracy", "sparseness", "random_logit")
    for row, method in enumerate(METHODS):
        made = explainer.explain(IMAGES, method, target=1)
        np.testing.assert_allclose(found.values[row, 0], METRICS[0](explainer, made).values, rtol=1e-5)
        np.testing.assert_allclose(found.values[row, 1], trust.mass_accuracy(explainer, made, masks=MASKS).values,
                                   rtol=1e-5)  # fmt: skip
        np.testing.assert_allclose(found.values[row, 3], trust.random_logit(explainer, made).values, atol=1e-5)


def test_it_is_the_same_in_any_batches_and_from_a_loader():
    whole = compared().values
    np.testing.assert_allclose(compared(batch_size=2).values, whole, rtol=1e-4, atol=1e-5)
    loader = DataLoader(TensorDataset(IMAGES, torch.zeros(5).long()), batch_size=3)
    np.testing.assert_allclose(compared(loader).values, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(compared(target=[1] * 5, batch_size=2).values, whole, rtol=1e-4, atol=1e-5)


def test_ranks_go_by_the_direction():
    found = trust.Comparison(
        values=np.array([[[0.2, 0.4], [0.2, 0.4]], [[0.1, 0.1], [0.1, np.nan]], [[0.3, 0.3], [np.nan, np.nan]]]),
        methods=("a", "b", "c"), metrics=("low", "high"), higher_is_better=np.array([False, True]),
        cost=np.array([1.0, 2, 3]),
    )  # fmt: skip
    np.testing.assert_allclose(found.means, [[0.3, 0.2], [0.1, 0.1], [0.3, np.nan]], rtol=1e-6)
    np.testing.assert_array_equal(found.ranks, [[2, 1], [1, 2], [2, np.nan]])
    assert list(found.table.columns) == ["low", "low ↓ rank", "high", "high ↑ rank", "cost"]
    assert found.table["high ↑ rank"].tolist()[:2] == [1, 2]
    assert found.table.loc["b", "cost"] == 2


def test_the_picture_names_everything():
    ax = compared().plot(Figure().add_subplot())
    assert [text.get_text() for text in ax.get_yticklabels()] == METHODS
    heads = [text.get_text().replace("\n", " ") for text in ax.get_xticklabels()]
    assert heads == ["↓ deletion", "↑ mass accuracy", "↑ sparseness", "↓ random logit", "cost in forward passes"]


def test_costs_are_in_forward_passes():
    explainer = Explainer(small_cnn())
    found = trust.compare(
        explainer, IMAGES, ["saliency", "smooth_grad"], ["sparseness"], target=1, samples=40, batch_size=5
    )
    assert found.cost[1] > 5 * found.cost[0] > 0


def test_the_network_comes_back_and_it_can_be_saved(tmp_path):
    model = small_cnn().train()
    with unchanged(model):
        found = trust.compare(Explainer(model), IMAGES, METHODS, ["mprt"], target=1)
    found.save(tmp_path / "found")
    again = trust.Comparison.load(tmp_path / "found")
    np.testing.assert_array_equal(again.values, found.values)
    assert again.methods == found.methods
    assert (tmp_path / "found.png").exists()


def test_two_of_one_metric_have_two_names():
    metrics = [partial(trust.deletion, step=64), partial(trust.deletion, step=128), trust.sparseness]
    explainer = Explainer(small_cnn(), transform=lambda picture: torch.zeros(3, 16, 16) + picture.getpixel((0, 0))[0])
    found = trust.compare(explainer, IMAGES, ["saliency"], [partial(m) for m in metrics], target=1,
                          )  # fmt: skip
    assert found.metrics == ("deletion", "deletion(step=128)", "sparseness")


def test_refusals():
    explainer = Explainer(small_cnn())
    compare = partial(trust.compare, explainer, IMAGES)
    with pytest.raises(UnknownNameError, match="'deletion'"):
        compare(METHODS, ["deletoin"])
    with pytest.raises(UnknownNameError):
        compare(["salience"], ["sparseness"])
    with pytest.raises(InputError, match="needs masks="):
        compare(METHODS, ["mass_accuracy"])
    with pytest.raises(InputError, match="4 masks and at least 5 images"):
        compare(METHODS, ["sparseness"], MASKS[:4], target=1)
    with pytest.raises(InputError, match="No metric"):
        compare(METHODS, [])
    with pytest.raises(InputTypeError, match="name or a function"):
        compare(METHODS, [3])
    with pytest.raises(InputError, match="one layer"):
        compare(METHODS, ["sparseness"], layer=["stem", "body"])
    with pytest.raises(MethodError, match="must return a Score"):
        compare(METHODS, [lambda explainer, explanation: 3], target=1)


def test_mosaics_are_made_of_all_images_whatever_the_batches():
    explainer, images = Explainer(small_cnn()), torch.rand(10, 3, 16, 16)
    target = np.repeat(np.arange(5), 2)  # sorted: no batch of four has four classes
    found = explainer.explain(images, "saliency", target=list(target))
    expected = trust.grid_pointing(explainer, found, seed=3).values
    for size in (4, None):
        made = trust.compare(explainer, images, ["saliency"], ["grid_pointing", "sparseness"], target=target, seed=3,
                             batch_size=size)  # fmt: skip
        np.testing.assert_allclose(made.values[0, 0], expected, rtol=1e-4)
        assert made.higher_is_better.tolist() == [True, True]


def test_a_shuffled_loader_leaves_random_states():
    explainer = Explainer(small_cnn())
    loader = DataLoader(TensorDataset(IMAGES, torch.zeros(5).long()), batch_size=3, shuffle=True)
    with unchanged(explainer.model):
        trust.compare(explainer, loader, ["saliency"], ["sparseness"], target=1)


def test_targets_and_masks_are_one_for_each_image():
    explainer = Explainer(small_cnn())
    each = np.arange(5)
    listed = compared(target=each.tolist(), batch_size=2).values
    np.testing.assert_array_equal(compared(target=each, batch_size=2).values, listed)
    np.testing.assert_array_equal(compared(target=torch.arange(5), batch_size=2).values, listed)
    with pytest.raises(InputError, match="3 targets and at least 4 images"):
        compared(target=each[:3], batch_size=2)
    for several in (Top(2), [[0, 1]] * 5):
        with pytest.raises(InputError, match="one target for each image"):
            compared(target=several)
    with pytest.raises(InputError, match="masks= of its own"):
        trust.compare(explainer, IMAGES, METHODS, [partial(trust.mass_accuracy, masks=MASKS)])
    with pytest.raises(InputTypeError, match="masks is one array"):
        compared(masks=(mask for mask in MASKS))
    with pytest.raises(UnknownNameError, match="is a method and no metric"):
        trust.compare(explainer, IMAGES, ["sparseness"], ["saliency"])
    with pytest.raises(InputError, match="No method is given"):
        trust.compare(explainer, IMAGES, [], ["sparseness"])
