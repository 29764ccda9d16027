"""Randomised weights and other classes: what must change, what need not, and that everything comes back."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn.utils.prune import l1_unstructured
from trust_known import Blank, Constant, bright

from seewhy import Contrast, Explainer, Probability, SeewhyWarning, samples, trust
from seewhy.errors import InputError, NonFiniteError, UnknownNameError
from seewhy.testing import small_cnn, small_vit, unchanged
from seewhy.trust.alike import pearson, spearman, ssim
from seewhy.trust.randomise import learned, randomised
from seewhy.trust.subject import Subject

IMAGES = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def test_correlations_are_scipys():
    one, other = np.random.default_rng(0).normal(size=(2, 2, 9, 11))
    other[0] += one[0]
    one[1] = one[1].round()  # ties
    a, b = torch.tensor(one), torch.tensor(other)
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, rtol=1e-10)
    expected = [pearsonr(x.ravel(), y.ravel()).statistic for x, y in zip(one, other, strict=True)]
    np.testing.assert_allclose(pearson(a, b), expected, rtol=1e-10)


def test_ssim_is_scikit_images():
    one, other = np.random.default_rng(0).random((2, 40, 50))
    other += one
    a, b = ((x - x.min()) / (x.max() - x.min()) for x in (one, other))
    _, picture = structural_similarity(
        a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, truncate=3.0, full=True
    )
    found = float(ssim(torch.tensor(one)[None], torch.tensor(other)[None]))
    assert found == pytest.approx(picture.mean(), abs=5e-3)  # they reflect at the edges, and we repeat
    assert float(ssim(torch.tensor(one)[None], torch.tensor(one)[None])) == pytest.approx(1)


@pytest.mark.parametrize("alike", [pearson, spearman])
def test_constant_maps(alike):
    maps = torch.rand(2, 4, 5)
    flat = torch.ones(2, 4, 5)
    assert alike(maps, flat).tolist() == [0, 0]
    assert alike(flat, 0 * flat).tolist() == [1, 1]
    assert alike(maps, -3 * maps).tolist() == pytest.approx([-1, -1])


def test_randomised_weights_come_back_bit_for_bit():
    model = small_vit().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    names = list(learned(model))
    with unchanged(model):
        with randomised(model, names, 0):
            moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
            assert len(moved) == len(before)
            for name, p in model.named_parameters():
                assert float(p.detach().std()) == pytest.approx(float(before[name].detach().std()), rel=0.9)
        with pytest.raises(KeyboardInterrupt), randomised(model, names[:3], 1):
            raise KeyboardInterrupt
    assert pointers == {name: p.data_ptr() for name, p in model.named_parameters()}


def test_shared_weights_are_drawn_once_and_stay_shared():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = shared.weight
    assert list(learned(model)) == ["0", "2"]
    before = model[2].weight
    with randomised(model, ["2", "0"], 0):
        assert model[0].weight is model[2].weight
    assert model[2].weight is before


def test_a_graph_that_was_built_before_can_still_be_run_backwards():
    model = nn.Linear(4, 2)
    loss = model(torch.rand(3, 4, requires_grad=True)).sum()
    with randomised(model, [""], 0):
        pass
    loss.backward()


def test_cascading_from_the_top_by_hand():
    model = small_cnn()
    explainer = Explainer(model)
    found = explainer.explain(IMAGES, "saliency", target=[1, 2, 3])
    with unchanged(model):
        score = trust.mprt(explainer, found, steps=99)
    names = [name for name in list(learned(model))[::-1] if name != "stem.1"]  # the norm, which goes with its layer
    assert score.labels == tuple(names)
    assert names[0] == "head"
    for step in range(len(names)):
        other = copy.deepcopy(model)
        drawn = names[: step + 1] + ["stem.1"] * ("stem.0" in names[: step + 1])
        with randomised(model, drawn, 0):
            for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
                mine.data = theirs.data.clone()
        maps = Explainer(other).explain(IMAGES, "saliency", target=[1, 2, 3]).maps
        expected = spearman(torch.tensor(found.maps), torch.tensor(maps))
        np.testing.assert_allclose(score.curves["similarity"][:, step], expected, atol=1e-4)
    np.testing.assert_allclose(score.values, score.curves["similarity"].mean(1), rtol=1e-5)
    assert not score.higher_is_better


def test_each_layer_alone():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=1)
    alone = trust.mprt(explainer, found, order="independent", layers=["left", "head"])
    first, second = (trust.mprt(explainer, found, layers=[name]).values for name in ("left", "head"))
    np.testing.assert_allclose(alone.curves["similarity"], np.stack([first, second], 1), atol=1e-5)


def test_steps_are_spread_with_the_top_and_the_last():
    explainer = Explainer(small_vit())
    found = explainer.explain(IMAGES, "saliency", target=1)
    names = trust.mprt(explainer, found, steps=99).labels
    assert len(names) > 5
    labels = trust.mprt(explainer, found, steps=3).labels
    assert labels == (names[0], names[round((len(names) - 1) / 2)], names[-1])


def test_the_network_comes_back_after_an_exception_while_it_is_random():
    model = small_cnn().train()
    explainer = Explainer(model)
    found = explainer.explain(IMAGES, "saliency", target=1)
    before, weight = model.head.weight.clone(), model.head.weight

    def interrupt(*_):
        if not torch.equal(model.head.weight, before):
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        trust.mprt(explainer, found)
    assert model.head.weight is weight


def test_weights_that_overflow_are_an_error():
    class Balanced(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(1e4 * torch.tensor([[1.0, -1], [-1, 1]]))  # which add up to 0, unless random

        def forward(self, images):
            return torch.exp(images.mean((2, 3)) * (1 + self.weight.sum().abs()))

    explainer = Explainer(Balanced())
    found = explainer.explain(IMAGES**2, "input_x_gradient", target=2)
    with pytest.raises(NonFiniteError):
        trust.mprt(explainer, found)
    assert "overflows" in explainer.check(found)["weights"].sentence


def test_a_network_that_learned_nothing_gives_the_same_map():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, images):
            brightness = (images**2).sum((1, 2, 3))
            return torch.stack([brightness, brightness + 0 * self.scale.sum()], 1)

    explainer = Explainer(Fixed())
    found = explainer.explain(IMAGES, "saliency", target=1)
    assert trust.mprt(explainer, found).mean == pytest.approx(1)
    assert trust.random_logit(explainer, found).mean == pytest.approx(1)


def test_random_logit_by_hand():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=[1, 4, 0])
    score = trust.random_logit(explainer, found, others=4)
    expected = []
    for i, own in enumerate([1, 4, 0]):
        others = [explainer.explain(IMAGES[i], "saliency", target=c).map for c in range(5) if c != own]
        expected.append(np.mean([spearmanr(found.maps[i].ravel(), o.ravel()).statistic for o in others]))
    np.testing.assert_allclose(score.values, expected, atol=1e-5)
    singles = [trust.random_logit(explainer, found[i], others=4).values[0] for i in range(3)]
    np.testing.assert_allclose(score.values, singles, atol=1e-5)


def test_random_logit_of_what_is_no_class_is_undefined():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=lambda scores: scores[:, 1])
    assert trust.random_logit(explainer, found).undefined == 3
    assert np.isnan(trust.random_logit(explainer, found).mean)
    one = Explainer(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)))
    found = one.explain(IMAGES, "saliency", target=0)
    assert trust.random_logit(one, found).undefined == 3


def test_refusals():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=1)
    with pytest.raises(UnknownNameError, match="Did you mean 'head'"):
        trust.mprt(explainer, found, layers=["haed"])
    for wrong in ({"order": "upwards"}, {"similarity": "hog"}, {"layers": []}, {"steps": 0}):
        with pytest.raises(InputError):
            trust.mprt(explainer, found, **wrong)
    all_others, more = (trust.random_logit(explainer, found, others=n).values for n in (4, 99))
    np.testing.assert_array_equal(all_others, more)
    with pytest.raises(InputError, match="give method="):
        trust.mprt(explainer, found.maps, images=IMAGES, target=1)
    bare = Explainer(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(InputError, match="no weights"):
        trust.mprt(bare, bare.explain(IMAGES, "saliency", target=1))


def test_of_a_constant_network_nothing_can_be_told():
    explainer = Explainer(Constant())
    blank = {"images": bright(), "target": 1, "method": "saliency"}
    assert trust.mprt(explainer, torch.zeros(2, 24, 24), **blank).undefined == 2
    assert trust.random_logit(explainer, torch.zeros(2, 24, 24), **blank).undefined == 2
    with pytest.raises(InputError, match="is not what saliency makes of it"):
        trust.mprt(explainer, torch.rand(2, 24, 24), **blank)


def test_guided_backprop_does_not_depend_on_the_trained_classifier():
    """Adebayo 2018; the others are as they fell when this was written, with room."""
    explainer = samples.explainer()
    photos = [samples.photo(name) for name in samples.PHOTOS]
    methods = ["guided_backprop", "deconvnet", "saliency", "guided_grad_cam", "grad_cam"]
    found = explainer.explain(photos, methods)
    same = {one.method: trust.mprt(explainer, one, layers=["_fc"], similarity="pearson").mean for one in found.values()}
    assert same["guided_backprop"] > 0.9
    assert same["deconvnet"] > 0.9
    assert 0.2 < same["saliency"] < 0.7
    assert same["guided_grad_cam"] < 0.5
    assert same["grad_cam"] < 0.5


def trunk(*head):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), *head).eval()


class LowRank(nn.Module):
    """A linear layer beside a product of two, the second of which is still 0."""

    def __init__(self):
        super().__init__()
        self.base, self.a, self.b = nn.Linear(128, 5), nn.Linear(128, 2, bias=False), nn.Linear(2, 5, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class HeadEach(nn.Module):
    """A head for each class, and an offset of the model's own."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(128, 1) for _ in range(5))
        self.offset = nn.Parameter(torch.rand(5))

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], 1) + self.offset


HEADS = {
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(128, 5)),
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(128, 5)),
    "old weight_norm": lambda: nn.utils.weight_norm(nn.Linear(128, 5)),
    "a norm after it": lambda: nn.Sequential(nn.Linear(128, 5), nn.BatchNorm1d(5)),
    "low rank": LowRank,
    "a head for each class": HeadEach,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", HEADS)
def test_no_alarm_because_of_how_a_head_is_written(name):
    torch.manual_seed(1)
    explainer = Explainer(trunk(HEADS[name]()))
    found = explainer.explain(IMAGES, "saliency", target=[0, 3, 4])
    checked = explainer.check(found)["weights"]
    assert checked.answer == "yes", checked
    score = trust.mprt(explainer, found)
    singles = [trust.mprt(explainer, found[i]).values[0] for i in range(3)]
    np.testing.assert_allclose(score.values, singles, atol=1e-4)
    assert score.mean < 0.9


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "make", [nn.utils.weight_norm, nn.utils.spectral_norm, partial(l1_unstructured, name="weight", amount=0.5)]
)
def test_what_hooks_make_of_weights_comes_back(make):
    layer = make(nn.Linear(128, 5))
    model = trunk(layer)
    model(IMAGES)
    before = layer.weight.detach().clone()
    explainer = Explainer(model)
    trust.mprt(explainer, explainer.explain(IMAGES, "saliency", target=1))
    assert torch.equal(layer.weight, before)


def test_scripted_models_and_modules_as_layers():
    model = trunk(nn.Linear(128, 5))
    explainer = Explainer(model)
    found = explainer.explain(IMAGES, "saliency", target=1)
    named = trust.mprt(explainer, found, layers=["4"]).values
    np.testing.assert_array_equal(trust.mprt(explainer, found, layers=model[4]).values, named)
    np.testing.assert_array_equal(trust.mprt(explainer, found, layers=["4"], seed=np.uint8(0)).values, named)
    scripted = Explainer(torch.jit.script(model))
    made = scripted.explain(IMAGES, "saliency", target=1)
    np.testing.assert_allclose(trust.mprt(scripted, made, layers=["4"]).values, named, atol=1e-4)


def test_another_class_is_asked_what_its_own_was_asked():
    two = Explainer(trunk(nn.Linear(128, 2)))
    found = two.explain(IMAGES, "saliency", target=Probability(1))  # the gradients of both are each other's negatives
    np.testing.assert_allclose(trust.random_logit(two, found).values, 1, atol=1e-5)
    found = two.explain(IMAGES, "saliency", target=Contrast(1, 0))
    assert trust.random_logit(two, found).undefined == 3  # there is no third class to set against the other
    five = Explainer(trunk(nn.Linear(128, 5)))
    found = five.explain(IMAGES, "saliency", target=Contrast(1, 2))
    others = [five.explain(IMAGES, "saliency", target=Contrast(other, 2)).maps for other in (0, 3, 4)]
    expected = np.mean([spearman(torch.tensor(found.maps), torch.tensor(maps)).numpy() for maps in others], 0)
    np.testing.assert_allclose(trust.random_logit(five, found, others=9).values, expected, atol=1e-5)


def test_of_blank_maps_nothing_can_be_told():
    explainer = Explainer(small_cnn())
    with pytest.warns(SeewhyWarning, match="0 everywhere"):
        found = explainer.explain(IMAGES, Blank(), target=2)
    assert trust.mprt(explainer, found).undefined == 3
    assert trust.random_logit(explainer, found).undefined == 3
    assert trust.adcc(explainer, found, baseline="mean").undefined == 3
    checked = explainer.check(found)
    assert {one.name for one in checked.alarms} == {"evidence"}
    assert {one.answer for one in checked if one.name != "evidence"} == {"not asked"}


def test_a_norm_before_all_kernels_is_random_with_the_last_of_them():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(8, 5))  # fmt: skip
    nn.init.uniform_(model[0].weight)
    explainer = Explainer(model)
    steps = Subject(explainer, explainer.explain(IMAGES, "saliency", target=1)).steps_down()
    assert [step.names for step in steps] == [("5",), ("1", "0")]


@pytest.mark.parametrize("thorough", [False, True])
def test_the_layer_that_is_named_is_the_one_of_the_number(thorough):
    explainer = Explainer(trunk(HeadEach()))
    found = explainer.explain(IMAGES, "saliency", target=[0, 3, 4])  # the head of each is another layer
    checked = explainer.check(found, thorough=thorough)["weights"]
    name = next(iter(checked.numbers))
    assert checked.value == checked.numbers[name]
    assert repr(name) in checked.sentence
    assert ("down to" in checked.sentence) == (not thorough)
