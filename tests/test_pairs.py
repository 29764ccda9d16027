"""Several targets of an image: the first axis runs over pairs, and each pair is as if it were asked alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import Contrast, Explainer, Explanation, Top
from seewhy.errors import InputError, InputTypeError, TargetError, TargetIndexError
from seewhy.testing import small_cnn, unchanged

METHODS = ["saliency", "guided_backprop", "deconvnet", "cam", "grad_cam", "guided_grad_cam", "activations",
           "ablation_cam", "score_cam", "recipro_cam", "occlusion", "integrated_gradients", "smooth_grad"]  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 8, "stride": 8},
    "integrated_gradients": {"baseline": "mean", "steps": 8},
    "smooth_grad": {"samples": 3},
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is 0 everywhere:seewhy.SeewhyWarning", "ignore:Integrated gradients miss:seewhy.SeewhyWarning"
)


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, atol=2e-4 * max(np.abs(b).max(), 1e-6))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [1, 16])
def test_each_pair_is_as_if_asked_alone(method: str, batch_size: int) -> None:
    model, x, options = small_cnn(), images(), OPTIONS.get(method, {})
    explainer, targets = Explainer(model), [[3, 1, 0], [2, 4, 1]]
    with unchanged(model):
        found = explainer.explain(x, method, target=targets, batch_size=batch_size, **options)
    assert found.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(found.images) == len(found.sources) == 6
    for row, (image, target) in enumerate((i, t) for i in range(2) for t in targets[i]):
        alone = explainer.explain(x[image], method, target=target, layer=found.layer if method != "cam" else None,
                                  **options)  # fmt: skip
        close(found.values[row], alone.values[0])
        close(found.maps[row], alone.map)
        assert found[row].target_names == alone.target_names
        close(found.scores[row : row + 1], alone.scores)
        close(found.probabilities[row : row + 1], alone.probabilities)
        np.testing.assert_array_equal(found.images[row], alone.images[0])


def test_top_is_the_classes_with_the_greatest_scores_in_order() -> None:
    explainer, x = Explainer(small_cnn()), images(3)
    with torch.no_grad():
        scores = explainer.model(x)
    found = explainer.explain(x, "saliency", target=Top(3))
    best = scores.topk(3, dim=1)
    assert found.targets.reshape(3, 3).tolist() == best.indices.tolist()
    np.testing.assert_allclose(found.scores.reshape(3, 3), best.values, rtol=1e-5)


def test_the_targets_of_an_image_may_be_of_all_kinds() -> None:
    explainer = Explainer(small_cnn(), class_names=["a", "b", "c", "d", "e"])
    found = explainer.explain(images(1), target=[["b", Contrast("a", "c"), lambda s: s.sum(1), None]])
    assert found.target_names[:2] == ("b", "a − c")
    assert found.targets.tolist()[:3] == [1, 0, -1]
    assert len(found) == 4
    both = explainer.explain(images(2), "saliency", target=np.array([[1, 2], [3, 4]]))
    assert both.target_names == ("b", "c", "d", "e")
    mixed = explainer.explain(images(2), "saliency", target=[Top(2), ["a", 1]])
    assert mixed.image_index.tolist() == [0, 0, 1, 1]


def test_one_forward_and_a_backward_for_each_target() -> None:
    model, runs, backwards = small_cnn(), [], []
    model.stem.register_forward_hook(lambda *_: runs.append(1))
    model.head.register_full_backward_hook(lambda *_: backwards.append(1))
    Explainer(model).explain(images(), ["grad_cam", "saliency"], target=Top(4), layer=["stem", "left", "body"])
    assert (len(runs), len(backwards)) == (1, 4)


def test_changed_images_are_asked_about_once_for_all_targets() -> None:
    model, seen = small_cnn(), []
    model.stem.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    Explainer(model).explain(images(1), "occlusion", target=Top(4), window=8, stride=8)
    assert sum(seen) == 1 + 12


def test_truth_sources_slices_and_files_follow_the_pairs(tmp_path: Any) -> None:
    explainer = Explainer(small_cnn(), class_names=list("abcde"))
    found = explainer.explain(images(), ["saliency", "activations"], target=Top(2), truth=["a", "b"])
    one = found["saliency"]
    assert one.truth == ("a", "a", "b", "b")
    assert one[3].image_index.tolist() == [1]
    assert one[1:3].image_index.tolist() == [0, 1]
    assert found["activations"].image_index.tolist() == [0, 0, 1, 1]
    found.save(tmp_path / "why")
    again = seewhy.Explanations.load(tmp_path / "why")["saliency"]
    assert again.image_index.tolist() == [0, 0, 1, 1]
    found.plot()
    plain = explainer.explain(images(), "saliency", target=1)
    assert plain.image_index.tolist() == [0, 1]


def test_measures_are_kept_and_cut(tmp_path: Any) -> None:
    one = Explainer(small_cnn()).explain(images(3), "integrated_gradients", target=1, baseline="mean", steps=20)
    errors = one.measures["completeness_error"]
    assert errors.dtype == np.float32
    assert errors.shape == (3,)
    np.testing.assert_array_equal(one[1].measures["completeness_error"], errors[1:2])
    one.save(tmp_path / "one.npz")
    np.testing.assert_array_equal(Explanation.load(tmp_path / "one.npz").measures["completeness_error"], errors)
    with pytest.raises(TypeError):
        one.measures["more"] = errors  # type: ignore[index]


@pytest.mark.parametrize(("target", "error", "says"), [
    ([[1, 2], [3]], TargetError, "same number of targets.*2, 1"),
    ([[1, 2]], TargetError, "1 lists of targets for 2 images"),
    ([[], []], TargetError, "at least one"),
    ([Top(2), 3], TargetError, "2, 1"),
    (Top(6), TargetIndexError, "Top\\(6\\): the model has only 5 classes"),
    ([[[1]], [[2]]], InputTypeError, "list of lists"),
])  # fmt: skip
def test_mistakes_are_told(target: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Explainer(small_cnn()).explain(images(), "saliency", target=target)


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True])
def test_top_takes_a_whole_number(k: Any) -> None:
    with pytest.raises(InputError, match="Top"):
        Top(k)


def test_several_targets_are_of_explain_alone() -> None:
    explainer = Explainer(small_cnn())
    with pytest.raises(InputTypeError, match="Top"):
        explainer.evaluate(images(), "saliency", target=Top(2))
    with pytest.raises(InputTypeError, match="Top"):
        explainer.explain(images(), "saliency", truth=[Top(2), 1])


def test_dense_scores_and_embeddings_have_no_top_classes() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.a(x)
            return out

    with pytest.raises(TargetError, match="dense scores"):
        Explainer(Dense()).explain(images(), "saliency", target=Top(2))


class Segmenter(nn.Module):
    """Each position's class is its brightest colour."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1, bias=False)
        self.a.weight.data = 2 * torch.eye(3).view(3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(x)
        return out


def test_what_is_explained_stays_as_it_is_in_the_image_itself() -> None:
    """Hiding the brighter half would change the predicted class, and the region where it is predicted."""
    x = torch.zeros(1, 3, 8, 8)
    x[:, 0, :, :5], x[:, 1, :, 5:] = 1, 1  # class 0 where the image is red, which is most of it
    found = Explainer(Segmenter()).explain(x, "occlusion", window=4, stride=4, baseline=torch.zeros(1))
    # The mean of 2 red over the 40 red pixels falls by 2 * 16 / 40 where a window that is all red is hidden.
    np.testing.assert_allclose(found.map[:, 0], 2 * 16 / 40, rtol=1e-5)
    np.testing.assert_allclose(found.map[:, 7], 2 * 4 / 40, rtol=1e-5)
    assert found.targets.tolist() == [0]

    class Linear(nn.Module):
        """Class 0 is the left half, class 1 the right."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[..., :4].sum((1, 2, 3)), x[..., 4:].sum((1, 2, 3))], 1)

    y = torch.ones(1, 3, 8, 8)
    y[..., :4] = 2
    for target in (None, Contrast(), seewhy.Probability()):
        found = Explainer(Linear()).explain(y, "occlusion", target=target, window=4, stride=4, baseline=torch.zeros(1))
        assert found.targets.tolist() == [0]
        assert found.map[0, 0] > 0, "the class of the image itself, though hiding it makes the other one the best"


def test_a_detection_that_is_hidden_scores_nothing() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Identity()

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            found = []
            for image in self.a(x):
                score = image[:, 4:, 4:].mean()
                keep = int(score > 0.5)
                found.append({"boxes": torch.tensor([[4.0, 4, 8, 8]])[:keep], "scores": score[None][:keep],
                              "labels": torch.tensor([1])[:keep]})  # fmt: skip
            return found

    x = torch.ones(1, 3, 8, 8)
    found = Explainer(Detector()).explain(x, "occlusion", window=4, stride=4, baseline=torch.zeros(1))
    np.testing.assert_allclose(found.map[4:, 4:], 1, rtol=1e-6)
    np.testing.assert_allclose(found.map[:4], 0)
