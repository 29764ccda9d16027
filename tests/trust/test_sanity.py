"""Randomised weights and other classes: what must change, what need not, and that everything comes back."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from skimage.metrics import structural_similarity
from torch import nn
from trust_known import Constant, bright

from seewhy import Explainer, samples, trust
from seewhy.errors import InputError, NonFiniteError, UnknownNameError
from seewhy.testing import small_cnn, small_vit, unchanged
from seewhy.trust.alike import pearson, spearman, ssim
from seewhy.trust.randomise import learned, randomised

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
    names = list(learned(model))[::-1]
    assert score.labels == tuple(names)
    assert names[0] == "head"
    for step in range(len(names)):
        other = copy.deepcopy(model)
        with randomised(model, names[: step + 1], 0):
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
    assert sorted(names) == sorted(learned(explainer.model))
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
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1e30, -1e30, 1.0]))

        def forward(self, images):
            return images.mean((2, 3)) * self.weight**3 * torch.tensor([0.0, 0, 1])

    explainer = Explainer(Exploding())
    with pytest.raises(NonFiniteError):
        trust.mprt(explainer, torch.rand(1, 8, 8), images=torch.rand(1, 3, 8, 8), target=2, method="saliency")


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


def test_a_constant_network_may_be_randomised():
    explainer = Explainer(Constant())
    assert trust.mprt(explainer, torch.rand(2, 24, 24), images=bright(), target=1, method="saliency").mean == 0


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
