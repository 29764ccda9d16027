"""What metrics accept, what they refuse, and that they judge what was explained."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from seewhy import Explainer, Explanation, SeewhyWarning, Similarity, Top, samples, trust
from seewhy.errors import InputError, InputTypeError, NonFiniteError, TargetError
from seewhy.testing import small_cnn, unchanged

IMAGES = torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(1))
FEW = {"step": 60, "baseline": "mean"}


def explained(model=None, **options):
    explainer = Explainer(model or small_cnn())
    return explainer, explainer.explain(IMAGES, "saliency", **{"target": [1, 2, 3], **options})


def test_an_explanation_and_its_maps_with_images_and_targets_are_the_same():
    explainer, found = explained()
    score = trust.deletion(explainer, found, **FEW)
    plain = trust.deletion(explainer, found.maps, images=IMAGES, target=[1, 2, 3], **FEW)
    np.testing.assert_allclose(score.values, plain.values, rtol=1e-6)
    tensors = trust.deletion(explainer, torch.tensor(found.maps), images=list(IMAGES), target=[1, 2, 3], **FEW)
    np.testing.assert_array_equal(plain.values, tensors.values)


def test_one_of_several_and_a_slice_keep_what_they_are_of():
    explainer, found = explained()
    values = trust.deletion(explainer, found, **FEW).values
    assert trust.deletion(explainer, found[1], **FEW).values[0] == pytest.approx(values[1], rel=1e-5)
    np.testing.assert_allclose(trust.deletion(explainer, found[1:], **FEW).values, values[1:], rtol=1e-5)
    one = trust.deletion(explainer, found.maps[2], images=IMAGES[2], target=3, **FEW)
    assert one.values[0] == pytest.approx(values[2], rel=1e-5)


def test_several_targets_of_each_image():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=[[0, 1], [1, 2], [3, 4]])
    values = trust.deletion(explainer, found, **FEW).values
    plain = trust.deletion(explainer, found.maps, images=IMAGES, target=[[0, 1], [1, 2], [3, 4]], **FEW).values
    single = [
        trust.deletion(explainer, explainer.explain(IMAGES[i], "saliency", target=t), **FEW).values[0]
        for i, t in ((0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (2, 4))
    ]
    np.testing.assert_allclose(values, single, rtol=1e-5)
    np.testing.assert_allclose(plain, single, rtol=1e-5)
    top = explainer.explain(IMAGES, "saliency", target=Top(2))
    assert trust.random_logit(explainer, top).values.shape == (6,)


def test_the_predicted_class_is_held_though_another_comes_out():
    explainer, found = explained(target=None)
    named = explainer.explain(IMAGES, "saliency", target=found.targets.tolist())
    np.testing.assert_allclose(
        trust.deletion(explainer, found, **FEW).values, trust.deletion(explainer, named, **FEW).values, rtol=1e-6
    )


def test_every_kind_of_input_is_opened_again(tmp_path):
    explainer = samples.explainer()
    photo = samples.photo("cat")
    photo.save(tmp_path / "cat.png")
    given = [photo, str(tmp_path / "cat.png"), np.asarray(photo), torch.tensor(np.asarray(photo)).movedim(-1, 0)]
    values = [
        trust.average_drop(explainer, explainer.explain(image, "saliency", target="tabby")).values[0] for image in given
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-5)


def test_from_a_file_it_is_judged_all_the_same(tmp_path):
    explainer = samples.explainer()
    photo = samples.photo("coffee")
    photo.save(tmp_path / "coffee.png")
    for given in (photo, tmp_path / "coffee.png"):  # from its picture, and from the file it names
        found = explainer.explain(given, "grad_cam")
        found.save(tmp_path / "found.npz")
        loaded = Explanation.load(tmp_path / "found.npz")
        assert loaded.origin is None
        assert pickle.loads(pickle.dumps(found)).origin is None
        one, other = (trust.deletion(explainer, which, step=10_000).values for which in (found, loaded))
        np.testing.assert_allclose(one, other, atol=0.01)
        again = trust.random_logit(explainer, loaded)  # by the method of its name, at its layer
        np.testing.assert_allclose(again.values, trust.random_logit(explainer, found).values, atol=0.05)
        exact = trust.deletion(explainer, loaded, images=photo, step=10_000).values
        np.testing.assert_allclose(one, exact, rtol=1e-6)


def test_options_that_a_file_does_not_keep_are_asked_for(tmp_path):
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "integrated_gradients", target=1, steps=70, baseline="mean")
    found.save(tmp_path / "found.npz")
    loaded = Explanation.load(tmp_path / "found.npz")
    with pytest.raises(InputError, match="give method="):
        trust.random_logit(explainer, loaded, images=IMAGES)


def test_maps_of_another_network_are_refused():
    explainer, found = explained()
    with pytest.raises(InputError, match="another network, or with other weights"):
        trust.deletion(Explainer(small_cnn(1)), found, **FEW)
    with torch.no_grad():
        explainer.model.head.weight.mul_(5)
    with pytest.raises(InputError, match="image 0 the score"):
        trust.deletion(explainer, found, **FEW)


def test_images_that_changed_are_refused():
    images = IMAGES.clone()
    explainer = Explainer(small_cnn())
    found = explainer.explain(images, "saliency", target=1)
    images[1] = 0
    with pytest.raises(InputError, match="not those that were explained"):
        trust.deletion(explainer, found, **FEW)


def test_further_inputs_follow():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def forward(self, scale, images):
            return self.net(images) * scale[:, None]

    scale = torch.tensor([1.0, 2.0, 3.0])
    explainer = Explainer(Two())
    found = explainer.explain(IMAGES, "saliency", target=1, model_args=(scale, ...))
    value = trust.pixel_flipping(explainer, found, baseline="mean", batch_size=2).values
    single = trust.pixel_flipping(Explainer(small_cnn()), found.maps, images=IMAGES, target=1, baseline="mean").values
    np.testing.assert_allclose(value, single * scale.numpy(), rtol=1e-4, atol=1e-6)
    plain = trust.pixel_flipping(
        explainer, found.maps, images=IMAGES, target=1, baseline="mean", model_args=(scale, ...)
    )
    np.testing.assert_allclose(plain.values, value, rtol=1e-5, atol=1e-7)


def test_layers_and_channels_last_and_transformers_are_judged():
    from seewhy.testing import small_swin, small_vit

    for build in (small_vit, small_swin):
        explainer = Explainer(build())
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
        found = explainer.explain(images, "hires_cam", target=1)
        with unchanged(explainer.model):
            assert trust.random_logit(explainer, found, similarity="pearson").values.shape == (2,)
            assert trust.max_sensitivity(explainer, found, samples=2).values.shape == (2,)
            assert trust.mprt(explainer, found, steps=3).values.shape == (2,)


def test_signals_and_volumes():
    signal = Explainer(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()))
    found = signal.explain(torch.rand(2, 2, 50), "saliency", target=1)
    for metric in (trust.deletion, trust.insertion, trust.average_drop, trust.infidelity, trust.completeness):
        assert metric(signal, found, baseline="mean").values.shape == (2,)
    assert trust.mufidelity(signal, found, baseline="mean", samples=20).values.shape == (2,)
    assert trust.pixel_flipping(signal, found, baseline="mean").values.shape == (2,)
    assert trust.max_sensitivity(signal, found, samples=2).values.shape == (2,)
    for metric in (trust.road, trust.grid_pointing):
        with pytest.raises(InputError, match="images"):
            metric(signal, found)
    volume = Explainer(nn.Sequential(nn.Conv3d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool3d(1), nn.Flatten()))
    found = volume.explain(torch.rand(1, 1, 6, 8, 8), "saliency", target=1)
    assert trust.deletion(volume, found, baseline="mean").values.shape == (1,)
    assert trust.pixel_flipping(volume, found, patch=3, baseline="mean").values.shape == (1,)


def test_half_precision():
    explainer = Explainer(small_cnn().to(torch.bfloat16))
    found = explainer.explain(IMAGES, "saliency", target=1)
    assert np.isfinite(trust.deletion(explainer, found, **FEW).values).all()
    assert np.isfinite(trust.mprt(explainer, found, steps=2).values).all()


def test_what_does_not_fit_is_refused():
    explainer, found = explained()
    with pytest.raises(InputError, match="give images="):
        trust.deletion(explainer, found.maps)
    with pytest.raises(InputError, match="3 maps and 2 images"):
        trust.deletion(explainer, found.maps, images=IMAGES[:2], target=1)
    with pytest.raises(TargetError, match="2 targets"):
        trust.deletion(explainer, found.maps, images=IMAGES, target=[1, 2])
    with pytest.raises(InputError, match="Resize them"):
        trust.deletion(explainer, found.maps[:, :8], images=IMAGES, target=1)
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        trust.deletion(explainer, found.values, images=IMAGES, target=1)
    with pytest.raises(InputTypeError, match="not dict"):
        trust.deletion(explainer, {"a": 1}, images=IMAGES)
    with pytest.raises(InputTypeError, match=r"found\['grad_cam'\]"):
        trust.deletion(explainer, explainer.explain(IMAGES, ["saliency"], target=1))
    with pytest.raises(InputTypeError, match="Explainer"):
        trust.deletion(explainer.model, found)
    with pytest.raises(InputTypeError, match="'stpe'"):
        trust.deletion(explainer, found, stpe=3)
    with pytest.raises(InputError, match="no map"):
        trust.deletion(explainer, found.maps[:0], images=IMAGES, target=1)
    with pytest.raises(NonFiniteError):
        trust.deletion(explainer, np.full((3, 16, 20), np.nan), images=IMAGES, target=1)


def test_activations_have_no_score_and_are_judged_by_a_target():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "activations", layer="stem")
    named = trust.deletion(explainer, found, target=2, **FEW)
    plain = trust.deletion(explainer, found.maps, images=IMAGES, target=2, **FEW)
    np.testing.assert_allclose(named.values, plain.values, rtol=1e-6)


def test_a_layer_that_nobody_named_is_chosen_before_weights_are_random():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "hires_cam", target=1)
    plain = {"images": IMAGES, "target": 1, "method": "hires_cam"}
    expected = trust.mprt(explainer, found, steps=2).values
    for named in ({}, {"layer": found.layer}):
        values = trust.mprt(explainer, found.maps, steps=2, **plain, **named).values
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert explainer.explain(IMAGES, "hires_cam", target=1).layer == found.layer


def test_likeness_to_another_image_can_be_judged():
    explainer = Explainer(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    target = Similarity(to=IMAGES[0] ** 2)
    found = explainer.explain(IMAGES, "saliency", target=target)
    plain = trust.deletion(explainer, found.maps, images=IMAGES, target=target, **FEW)
    np.testing.assert_allclose(plain.values, trust.deletion(explainer, found, **FEW).values, rtol=1e-5)
    np.testing.assert_allclose(plain.curves["deletion"][:, 0], found.scores, rtol=1e-4)


def test_without_a_transform_tensors_cannot_be_told_from_pictures():
    explainer = Explainer(small_cnn())
    found = pickle.loads(pickle.dumps(explainer.explain(IMAGES, "saliency", target=1)))
    with pytest.raises(InputError, match="give images="):
        trust.deletion(explainer, found, **FEW)
    again = trust.max_sensitivity(explainer, found, images=IMAGES).values
    whole = trust.max_sensitivity(explainer, explainer.explain(IMAGES, "saliency", target=1)).values
    np.testing.assert_allclose(again, whole, rtol=1e-4)


def test_the_predicted_class_of_another_network_is_another():
    explainer = Explainer(small_cnn())
    found, images = explainer.explain(IMAGES, "saliency"), IMAGES.clone()
    for seed in range(1, 9):
        with pytest.raises(InputError, match="another network, or with other weights"):
            trust.random_logit(Explainer(small_cnn(seed)), found)
    changed = explainer.explain(images, "saliency", target=1)
    images.mul_(1.5)
    with pytest.raises(InputError, match=r"another network|not those that were explained"):
        trust.random_logit(explainer, changed)


def test_one_target_for_each_map_of_an_explanation():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency")
    for several in (Top(2), [[0, 1]] * len(IMAGES)):
        with pytest.raises(InputError, match="asks for 2 of each"):
            trust.deletion(explainer, found, target=several, **FEW)


def test_plain_maps_are_those_of_the_method_that_is_named():
    explainer = Explainer(small_cnn())
    maps = explainer.explain(IMAGES, "saliency", target=1).maps
    given = {"images": IMAGES, "target": 1}
    assert trust.random_logit(explainer, maps, method="saliency", **given).undefined == 0
    with pytest.raises(InputError, match=r"not what saliency makes of it here \(their correlation is -1.00\)"):
        trust.random_logit(explainer, -maps, method="saliency", **given)
    with pytest.raises(InputError, match="Maps are of one method; method= names 2"):
        trust.random_logit(explainer, maps, method=["saliency", "grad_cam"], **given)


def test_what_is_assumed_is_said():
    explainer = Explainer(small_cnn(), transform=lambda picture: pil_to_tensor(picture) ** 0.5 / 16)
    found = explainer.explain(IMAGES, "saliency", target=1)
    with pytest.warns(SeewhyWarning, match="black is unknown") as told:
        trust.average_drop(explainer, found, batch_size=1)
    assert len(told) == 1


def test_half_precision_maps_are_maps():
    explainer, maps = Explainer(small_cnn()), torch.rand(len(IMAGES), *IMAGES.shape[2:])
    whole = trust.sparseness(explainer, maps.bfloat16().float()).values
    np.testing.assert_array_equal(trust.sparseness(explainer, maps.bfloat16()).values, whole)
