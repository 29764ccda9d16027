"""Several targets of an image: the first axis runs over pairs, and each pair is as if it were asked alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from three import KINDS, SIZE, explainer_of, network
from torch import Tensor, nn

import seewhy
from seewhy import Contrast, Detection, Explainer, Explanation, Region, SeewhyWarning, Similarity, Top
from seewhy.errors import InputError, InputTypeError, MethodError, TargetError, TargetIndexError, UnknownNameError
from seewhy.methods import Method
from seewhy.testing import small_cnn, unchanged

METHODS = ["saliency", "guided_backprop", "deconvnet", "cam", "grad_cam", "guided_grad_cam", "activations",
           "ablation_cam", "score_cam", "recipro_cam", "occlusion", "integrated_gradients", "smooth_grad",
           "rise", "sobol", "lime", "kernel_shap", "extremal_perturbation", "xrai",
           "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "element_wise_grad_cam", "smooth_grad_cam_pp",
           "shapley_cam", "finer_cam", "eigen_cam", "eigen_grad_cam", "full_grad",
           "input_x_gradient", "gradient_shap", "blur_ig", "guided_ig", "idgi", "square_grad", "var_grad",
           "forgrad"]  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 8, "stride": 8},
    "integrated_gradients": {"baseline": "mean", "steps": 8},
    "gradient_shap": {"baseline": ["mean", "blur"], "noise": 0.1, "samples": 4},
    "blur_ig": {"steps": 8},
    "guided_ig": {"baseline": "mean", "steps": 8},
    "idgi": {"baseline": "mean", "steps": 8},
    "smooth_grad": {"samples": 3},
    "square_grad": {"samples": 3},
    "var_grad": {"samples": 3},
    "smooth_grad_cam_pp": {"samples": 3},
    "rise": {"masks": 20, "baseline": "mean"},
    "sobol": {"grid": 2, "designs": 8, "baseline": "mean"},
    "lime": {"segments": 6, "samples": 40},
    "kernel_shap": {"segments": 4},
    "extremal_perturbation": {"steps": 10, "areas": (0.2, 0.5)},
    "xrai": {"steps": 8, "baselines": ("mean", "blur")},
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is 0 everywhere:seewhy.SeewhyWarning",
    "ignore:.*completeness_error:seewhy.SeewhyWarning",
    "ignore:Extremal perturbation. for some image:seewhy.SeewhyWarning",
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


@pytest.mark.sweep
@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_tokens_and_channels_last(kind: str, batch_size: int) -> None:
    """Grad-CAM at a layer named, at the one chosen, and what asks again."""
    net, x = network(kind), torch.rand(3, 3, *SIZE).double()
    explainer, layer, targets = explainer_of(net), KINDS[kind].layer, [[9, 4], [2, 7], [0, 11]]
    asked: list[dict[str, Any]] = [
        {"layer": layer}, {}, {"method": "ablation_cam", "layer": layer}, {"method": "recipro_cam", "layer": layer},
        {"method": "occlusion", "window": 16, "stride": 16}, {"method": "saliency"},
    ]  # fmt: skip
    for one in asked:
        pairs = explainer.explain(x, target=targets, batch_size=batch_size, **one)
        assert pairs.image_index.tolist() == [0, 0, 1, 1, 2, 2]
        for turn in range(2):
            alone = explainer.explain(x, target=[row[turn] for row in targets], **(one | {"layer": pairs.layer}))
            close(pairs.values[turn::2], alone.values)
            close(pairs.scores[turn::2], alone.scores)


def test_pairs_where_the_user_says_where_positions_are() -> None:
    """Tokens first, which no shape tells where there are as many images as tokens."""

    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.body, self.head = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 6), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).permute(2, 0, 1)  # (h * w, N, C)
            out: Tensor = self.head(self.body(tokens).relu().mean(0))
            return out

    def there(output: Tensor) -> Tensor | None:
        return output.permute(1, 2, 0).unflatten(2, (2, 3)) if output.dim() == 3 else None

    net, x = TokensFirst(), torch.rand(6, 3, 16, 24)
    explainer, targets = Explainer(net, layout=there), [[1, 4], [0, 2], [3, 3], [2, 1], [4, 0], [1, 2]]
    for method in ("activations", "grad_cam", "ablation_cam", "recipro_cam"):
        pairs = explainer.explain(x, method, target=targets, layer="body")
        for row, (image, cls) in enumerate((i, cls) for i, both in enumerate(targets) for cls in both):
            alone = explainer.explain(x[image], method, target=cls, layer="body")
            close(pairs.values[row], alone.values[0])
    tokens = net.body(net.patch(x).flatten(2).transpose(1, 2)).detach()
    expected = tokens.transpose(1, 2).unflatten(2, (2, 3)).repeat_interleave(2, 0)
    found = explainer.explain(x, "activations", target=targets, layer="body")
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)


def test_a_methods_record_has_a_row_for_each_pair() -> None:
    seen: dict[str, Any] = {}

    class Looking(Method):
        needs = seewhy.Needs(activation=True, gradient=True, input_gradient="plain", evaluations=True)

        def compute(self, record: Any) -> Tensor:
            for name in ("input", "outputs", "scores", "activation", "gradient", "input_gradient"):
                seen[name] = getattr(record, name)
            record.measures["twice"] = 2 * record.scores
            values: Tensor = record.gradient.sum(1)
            return values

    model, x = small_cnn(), images(2)
    found = Explainer(model).explain(x, Looking(), target=[[0, 1, 2], [3, 4, 0]], layer="body")
    assert {name: len(tensor) for name, tensor in seen.items()} == dict.fromkeys(seen, 6)
    assert torch.equal(seen["input"], x.repeat_interleave(3, 0))
    outputs = model(x).detach()
    torch.testing.assert_close(seen["outputs"], outputs.repeat_interleave(3, 0))
    torch.testing.assert_close(seen["scores"], outputs.repeat_interleave(3, 0)[range(6), [0, 1, 2, 3, 4, 0]])
    np.testing.assert_allclose(found.measures["twice"], 2 * found.scores)
    for row, cls in enumerate([0, 1, 2, 3, 4, 0]):
        leaf = x[row // 3 : row // 3 + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[0, cls], leaf)
        torch.testing.assert_close(seen["input_gradient"][row], gradient[0])


def test_regions_detections_and_likenesses_come_in_pairs_too() -> None:
    x = torch.rand(2, 3, 8, 8)
    explainer = Explainer(Segmenter())
    rows: list[list[Any]] = [[0, Region(1, box=(0, 0, 4, 4))], [Region(2, box=(2, 2, 8, 8)), None]]
    pairs = explainer.explain(x, "occlusion", target=rows, window=4, stride=4, baseline=torch.zeros(1))
    for row in range(4):
        alone = explainer.explain(x[row // 2], "occlusion", target=rows[row // 2][row % 2], window=4, stride=4,
                                  baseline=torch.zeros(1))  # fmt: skip
        close(pairs.values[row], alone.values[0])
        assert pairs.target_names[row] == alone.target_names[0]

    class Embedder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"image_embeds": self.a(x).relu().mean((2, 3))}

    embedder = Explainer(Embedder())
    other = torch.rand(6)
    likenesses = [[Similarity(to=x[1]), Similarity(to=x[0], metric="dot")], [Similarity(to=x[0]), Similarity(to=other)]]
    pairs = embedder.explain(x, "saliency", target=likenesses)
    for row in range(4):
        alone = embedder.explain(x[row // 2], "saliency", target=likenesses[row // 2][row % 2])
        np.testing.assert_allclose(pairs.values[row], alone.values[0], atol=1e-6)
    own = embedder.model(x)["image_embeds"][1].detach()
    assert pairs.scores[3] == pytest.approx(float(torch.nn.functional.cosine_similarity(own, other, 0)), abs=1e-5)


def test_two_detections_of_an_image() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Identity()

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            boxes = torch.tensor([[0.0, 0, 4, 8], [4, 0, 8, 8]])
            return [{"boxes": boxes, "scores": torch.stack([one[..., :4].mean(), one[..., 4:].mean()]),
                     "labels": torch.tensor([1, 2])} for one in self.a(x)]  # fmt: skip

    x = torch.rand(2, 3, 8, 8)
    found = Explainer(Detector()).explain(
        x, "occlusion", target=[[1, Detection(box=(4, 0, 8, 8))], [2, 1]], window=(8, 4), stride=4,
        baseline=torch.zeros(1),
    )  # fmt: skip
    means = x.reshape(2, 3, 8, 2, 4).mean((1, 2, 4)).numpy()
    left, right = found.maps[:, :, :4], found.maps[:, :, 4:]
    assert found.targets.tolist() == [1, 2, 2, 1]
    for row, (image, side) in enumerate([(0, 0), (0, 1), (1, 1), (1, 0)]):
        np.testing.assert_allclose((left, right)[side][row], means[image, side], rtol=1e-5)
        np.testing.assert_allclose((left, right)[1 - side][row], 0, atol=1e-7)


def test_one_target_each_in_lists_is_as_without_the_lists() -> None:
    explainer, x = Explainer(small_cnn()), images()
    plain = explainer.explain(x, "grad_cam", target=[1, 3])
    listed = explainer.explain(x, "grad_cam", target=[[1], [3]])
    np.testing.assert_array_equal(plain.values, listed.values)
    assert listed.image_index.tolist() == [0, 1]
    tensor = explainer.explain(x, "saliency", target=torch.tensor([[1, 2], [3, 4]]))
    tuples = explainer.explain(x, "saliency", target=((1, 2), (3, 4)))
    np.testing.assert_array_equal(tensor.values, tuples.values)


def test_top_of_one_is_the_predicted_class_and_top_of_all_adds_up() -> None:
    """Of a softmax the gradients of all probabilities cancel; of scores, they are those of the sum."""
    model, x = small_cnn(), images(3)
    explainer = Explainer(model)
    np.testing.assert_array_equal(
        explainer.explain(x, "saliency", target=Top(1)).values, explainer.explain(x, "saliency").values
    )
    every = explainer.explain(x, "saliency", target=Top(5), batch_size=2)
    total = explainer.explain(x, "saliency", target=lambda scores: scores.sum(1))
    close(every.values.reshape(3, 5, 3, 24, 32).sum(1), total.values)
    assert (np.diff(every.scores.reshape(3, 5)) <= 0).all()
    assert sorted(every.targets[:5].tolist()) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(every.probabilities.reshape(3, 5).sum(1), 1, rtol=1e-5)


def test_the_graph_is_free_after_the_last_target() -> None:
    """Guided and plain backwards of several targets share one graph, in any order of the methods."""
    explainer, x = Explainer(small_cnn()), images()
    names = ["guided_grad_cam", "deconvnet", "saliency", "guided_backprop", "integrated_gradients", "cam"]
    both = explainer.explain(x, names, target=[[0, 3], [1, 2]], baseline="mean", steps=4)
    for name in names:
        options = {"baseline": "mean", "steps": 4} if name == "integrated_gradients" else {}
        alone = explainer.explain(x, name, target=[[0, 3], [1, 2]], **options)
        close(both[name].values, alone.values)


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


def test_pairs_of_files_know_their_file(tmp_path: Any) -> None:
    from PIL import Image

    from seewhy import samples

    paths = []
    for name in ("cat", "coffee"):
        paths.append(tmp_path / f"{name}.png")
        samples.photo(name).resize((64, 48), Image.Resampling.BILINEAR).save(paths[-1])
    explainer = Explainer(small_cnn(), transform=_to_tensor, class_names=list("abcde"))
    found = explainer.explain(paths, "saliency", target=Top(2), truth=["a", "b"])
    assert found.sources == (str(paths[0]),) * 2 + (str(paths[1]),) * 2
    assert found.truth == ("a", "a", "b", "b")
    np.testing.assert_array_equal(found.images[0], found.images[1])
    found[1:3].save(tmp_path / "two")
    again = Explanation.load(tmp_path / "two")
    assert again.sources == (str(paths[0]), str(paths[1]))
    assert again.image_index.tolist() == [0, 1]
    assert again.truth == ("a", "b")
    assert found.image().dtype == np.uint8
    assert (tmp_path / "two.png").is_file()


def _to_tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_blank_maps_of_pairs_name_their_image() -> None:
    net, x = small_cnn(), images(2)
    with torch.no_grad():
        net.head.weight[4] = 0
    with pytest.warns(SeewhyWarning, match="0 everywhere for image 1"):
        found = Explainer(net).explain(x, "occlusion", target=[[0, 1], [4, 2]], window=8, stride=8)
    assert found.values.reshape(4, -1).any(1).tolist() == [True, True, False, True]


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
    ([[1, Top(2)], [2, Top(2)]], InputTypeError, "Top"),
    ([Top(2), [1]], TargetError, "2, 1"),
    ([[1, 2], None], TargetError, "2, 1"),
    ([[1, 2], [3, 9]], TargetIndexError, "9 is out of range"),
    ([[1, 2], [3, -1]], TargetIndexError, "negative"),
    ([["a"], ["bb"]], UnknownNameError, "Did you mean 'b'"),
    ([[1.5], [2]], InputTypeError, "float"),
    (torch.zeros(2, 2, 2).long(), InputTypeError, "list of lists"),
    (torch.zeros(3, 2).long(), TargetError, "3 lists of targets for 2 images"),
])  # fmt: skip
def test_mistakes_are_told(target: Any, error: type[Exception], says: str) -> None:
    model = small_cnn()
    with unchanged(model), pytest.raises(error, match=says):
        Explainer(model, class_names=list("abcde")).explain(images(), "saliency", target=target)


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True])
def test_top_takes_a_whole_number(k: Any) -> None:
    with pytest.raises(InputError, match="Top"):
        Top(k)


def test_several_targets_are_of_explain_alone(tmp_path: Any) -> None:
    explainer = Explainer(small_cnn())
    for target, says in ((Top(2), "Top"), ([[1, 2], [1, 2]], "not a list")):
        with pytest.raises(InputTypeError, match=says):
            explainer.run(images(), "saliency", to=tmp_path / "maps.zarr", target=target)
        with pytest.raises(InputTypeError, match=says):
            explainer.evaluate(images(), "saliency", target=target)
    assert len(explainer.run(images(), "saliency", to=tmp_path / "maps.zarr", target=1)) == 2
    from seewhy.notebook import view

    with pytest.raises(InputTypeError, match="Top"):
        view(explainer, images(), methods=["saliency"], targets=Top(2))
    with pytest.raises(InputTypeError, match="Top"):
        view(explainer, images(), methods=["saliency"], targets=[Top(2)])
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
    with pytest.raises(TargetError, match=r"dense scores.*Region"):
        Explainer(Dense()).explain(images(), "occlusion", target=Top(2))

    class Other(Dense):
        def forward(self, x: Tensor) -> Any:
            features = self.a(x)
            if self.kind == "embedding":
                return {"image_embeds": features.mean((2, 3))}
            return [{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "scores": one.mean()[None], "labels": torch.tensor([1])}
                    for one in features]  # fmt: skip

    for kind, says in (("embedding", "Similarity"), ("detections", "Detection")):
        net = Other()
        net.kind = kind
        with pytest.raises(TargetError, match=says):
            Explainer(net).explain(images(), "saliency", target=Top(2))


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


@pytest.mark.parametrize(("measured", "says"), [
    (lambda record: torch.zeros(len(record.input), 2), r"must be a tensor \(2,\)"),
    (lambda record: 0.5, "a number for each row, not float"),
    (lambda record: torch.zeros(()), r"not \(\)"),
])  # fmt: skip
def test_a_measure_is_a_number_for_each_row(measured: Any, says: str) -> None:
    class Measuring(seewhy.Method):
        needs = seewhy.Needs(input_gradient="plain")

        def compute(self, record: Any) -> Tensor:
            record.measures["own"] = measured(record)
            return record.input_gradient

    with pytest.raises(MethodError, match=says):
        Explainer(small_cnn()).explain(images(), Measuring(), target=1)


def test_a_measure_of_some_images_only_is_refused() -> None:
    class Sometimes(seewhy.Method):
        needs = seewhy.Needs(input_gradient="plain")

        def compute(self, record: Any) -> Tensor:
            if float(record.input.max()) > 0.5:
                record.measures["own"] = torch.ones(len(record.input))
            return record.input_gradient

    x = torch.stack([torch.full((3, 24, 32), 0.2), torch.rand(3, 24, 32)])
    with pytest.raises(MethodError, match="for some images only"):
        Explainer(small_cnn()).explain(x, Sometimes(), target=1, batch_size=1)


def test_the_class_itself_is_no_target() -> None:
    with pytest.raises(InputTypeError, match=r"make an instance of it, Top\(...\)"):
        Explainer(small_cnn()).explain(images(), "saliency", target=Top)
