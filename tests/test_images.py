"""Whatever the user calls an image becomes the model's batch, and the picture shown is what the model saw."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from seewhy.errors import (
    ImageFileError,
    ImageFolderError,
    ImageNotFoundError,
    InputError,
    InputTypeError,
    SeewhyError,
    SeewhyWarning,
)
from seewhy.images import Images, Preprocessing, gather, resolve_preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODEL = nn.Identity()


def random_picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape or (20, 30, 3), dtype=np.uint8)


def plain(mean: Any = MEAN, std: Any = STD) -> Preprocessing:
    """A given transform that keeps the size."""
    return resolve_preprocessing(MODEL, v1.Compose([v1.ToTensor(), v1.Normalize(mean, std)]))


def load(inputs: Any, preprocessing: Preprocessing | None = None) -> tuple[torch.Tensor, np.ndarray]:
    images = gather(inputs)
    batch, seen = images.load(0, len(images), preprocessing or plain())
    assert batch.is_floating_point()
    assert seen.dtype == np.uint8
    assert seen.flags.c_contiguous
    assert seen.shape == (len(images), *batch.shape[2:], 3)
    return batch, seen


def seen_of(inputs: Any, preprocessing: Preprocessing | None = None) -> np.ndarray:
    return load(inputs, preprocessing)[1]


def save(path: Path, image: PIL.Image.Image | np.ndarray | None = None, **options: Any) -> Path:
    image = random_picture() if image is None else image
    (PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


# ---------------------------------------------------------------------------------------------------- forms


def forms(folder: Path) -> dict[str, Any]:
    picture = random_picture()
    chw = torch.from_numpy(picture).permute(2, 0, 1)
    path = save(folder / "a.png")
    return {
        "str": str(path),
        "path": path,
        "bytes path": type("P", (), {"__fspath__": lambda self: os.fsencode(path)})(),
        "pil": PIL.Image.fromarray(picture),
        "uint8 array": picture,
        "uint8 batch": picture[None],
        "float array": picture / 255,
        "float32 array": picture.astype(np.float32) / np.float32(255),
        "half array": (picture / 255).astype(np.float16),
        "flipped strides": picture[::-1].copy()[::-1],
        "big-endian": (picture / 255).astype(">f8"),
        "uint8 tensor": chw,
        "uint8 tensor batch": chw[None],
        "float tensor": plain().transform(PIL.Image.fromarray(picture)),
        "double tensor batch": plain().transform(PIL.Image.fromarray(picture))[None].double(),
        "list": [picture],
        "tuple": (chw,),
        "generator": (p for p in [picture]),
    }


@pytest.mark.parametrize("form", [
    "str", "path", "bytes path", "pil", "uint8 array", "uint8 batch", "float array", "float32 array", "half array",
    "flipped strides", "big-endian", "uint8 tensor", "uint8 tensor batch", "float tensor", "double tensor batch",
    "list", "tuple", "generator",
])  # fmt: skip
def test_every_form_is_the_same_picture(form: str, tmp_path: Path) -> None:
    """One photo in any accepted form gives one batch, and comes back to exactly the same uint8."""
    batch, seen = load(forms(tmp_path)[form])
    assert np.array_equal(seen[0], random_picture())
    assert torch.allclose(batch[0].float(), plain().transform(PIL.Image.fromarray(random_picture())), atol=1e-6)


def test_mixed_list_is_flattened_in_order(tmp_path: Path) -> None:
    """A batch within a list counts as its images; paths are kept as they were given."""
    pictures = random_picture(5, 20, 30, 3)
    ready = torch.stack([plain().transform(PIL.Image.fromarray(p)) for p in pictures[3:]])
    path = str(save(tmp_path / "a.png", pictures[0]))
    images = gather([path, pictures[1:3], ready])
    assert len(images) == 5
    assert images.sources == (path, None, None, None, None)
    batch, seen = images.load(0, 5, plain())
    assert np.array_equal(seen, pictures)
    assert np.array_equal(images.load(2, 4, plain())[1], pictures[2:4])
    assert torch.equal(batch[3:], ready)


@pytest.mark.parametrize("channels", [1, 4])
def test_one_and_four_channels(channels: int) -> None:
    """Grey becomes RGB, an opaque alpha changes nothing; as array and as uint8 tensor."""
    picture = random_picture(20, 30, channels)
    if channels == 4:
        picture[..., 3] = 255
    expected = np.broadcast_to(picture[..., :3], (20, 30, 3))
    for given in (picture, picture / 255, torch.from_numpy(picture).permute(2, 0, 1)):
        assert np.array_equal(seen_of(given)[0], expected)
    assert channels == 4 or np.array_equal(seen_of(picture[..., 0])[0], expected)


def test_transform_gets_rgb_pil_images(tmp_path: Path) -> None:
    """The transform is called with RGB PIL images only, and never for float tensors."""
    got = []

    def transform(image: PIL.Image.Image) -> torch.Tensor:
        got.append((type(image), image.mode, image.size))
        return torch.zeros(3, 20, 30)

    path = save(tmp_path / "a.gif", random_picture(20, 30))
    given = [path, random_picture(20, 30), random_picture(20, 30, 4), torch.zeros(1, 20, 30, dtype=torch.uint8)]
    batch, _ = load([*given, torch.zeros(3, 20, 30)], resolve_preprocessing(MODEL, transform))
    assert batch.shape == (5, 3, 20, 30)
    assert [(issubclass(kind, PIL.Image.Image), *rest) for kind, *rest in got] == [(True, "RGB", (30, 20))] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_float_tensors_are_handed_on(dtype: torch.dtype, channels: int) -> None:
    """Values, dtype and channels as given, in memory of their own; the user's tensor is untouched."""
    given = torch.rand(2, channels, 6, 9).to(dtype).requires_grad_()
    before = given.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)
        batch, _ = load(given)
    assert torch.equal(batch, before)
    assert batch.dtype == dtype
    assert batch.data_ptr() != given.data_ptr()
    assert torch.equal(given, before)
    assert given.requires_grad
    assert given.grad_fn is None


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gathering opens no file; loading one image opens one."""
    paths = [save(tmp_path / f"{i}.png") for i in range(3)]
    opened: list[Any] = []
    real_open = PIL.Image.open

    def counting_open(path: str) -> PIL.Image.Image:
        opened.append(path)
        return real_open(path)

    monkeypatch.setattr(PIL.Image, "open", counting_open)
    images = gather(paths * 1000)
    assert (len(images), opened) == (3000, [])
    images.load(1, 2, plain())
    assert opened == [str(paths[1])]


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_follow_their_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """A photo stored in any of the eight orientations is shown upright; a PIL image stays as its pixels are."""
    upright = random_picture()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1], 7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]  # fmt: skip
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(seen_of(path)[0], upright)
    assert np.array_equal(seen_of(PIL.Image.open(path))[0], stored)


def test_transparency_is_over_white(tmp_path: Path) -> None:
    """RGBA, LA, a palette with a transparent entry and tRNS: what is transparent is white, what is opaque is itself."""
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1, 3], rgba[:, 2, 3] = 255, 51
    palette = PIL.Image.new("P", (3, 2), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 0)
    path = save(tmp_path / "p.png", palette, transparency=0)
    for given in (rgba, torch.from_numpy(rgba).permute(2, 0, 1), PIL.Image.fromarray(rgba).convert("LA")):
        assert seen_of(given)[0, 0, :, 0].tolist() == [255, 0, 204]
    for mode in ("RGBa", "La"):
        premultiplied = PIL.Image.fromarray(rgba).convert({"RGBa": "RGBA", "La": "LA"}[mode]).convert(mode)
        assert seen_of(premultiplied)[0, 0, :, 0].tolist() == [255, 0, 204]
    assert seen_of(path)[0, 0].tolist() == [[255, 255, 255], [0, 255, 0], [0, 255, 0]]
    keyed = save(tmp_path / "t.png", np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8), transparency=(9, 9, 9))
    assert seen_of(keyed)[0, 0].tolist() == [[255, 255, 255], [1, 2, 3]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "PA"])
def test_other_modes_become_rgb(mode: str) -> None:
    white = PIL.Image.new("RGB", (5, 4), "white").convert(mode) if mode not in ("LAB", "PA") else None
    image = white or PIL.Image.new(mode, (5, 4))
    batch, seen = load(image)
    assert batch.shape == (1, 3, 4, 5)
    assert white is None or (seen == 255).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 128, 200]], np.uint16), [0, 0, 1]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.float32), [0, 128, 255]),
        (np.array([[0, 25700, 65535]], np.float32), [0, 100, 255]),
    ],
)
def test_deep_grey_is_scaled_not_clipped(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    """Pillow's own convert would clip 16-bit grey at 255."""
    image = PIL.Image.fromarray(values)
    for given in (image, save(tmp_path / "grey.tiff", image)):
        assert seen_of(given)[0, 0].tolist() == [[v] * 3 for v in expected]


@pytest.mark.parametrize("values", [[[-1.0, 2.0]], [[0.0, 1e9]], [[np.nan, 0.0]], [[np.inf, 0.0]]])
def test_deep_grey_outside_every_usual_range_is_refused(values: list[list[float]]) -> None:
    with pytest.raises(InputError, match="image 0 has"):
        load(PIL.Image.fromarray(np.array(values, np.float32)))


def test_sixteen_bit_png(tmp_path: Path) -> None:
    """As cameras and microscopes write it."""
    path = save(tmp_path / "a.png", PIL.Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)))
    assert seen_of(path)[0, 0, :, 0].tolist() == [0, 128, 255]


def broken_file(folder: Path, how: str) -> Path:
    path = save(folder / "photo.png")
    data = path.read_bytes()
    path.write_bytes({
        "empty": b"", "text": b"not an image\n", "truncated": data[: len(data) // 2], "header only": data[:20],
        "corrupt": data[:60] + bytes(60) + data[120:],
    }[how])  # fmt: skip
    return path


@pytest.mark.parametrize("how", ["empty", "text", "truncated", "header only", "corrupt"])
def test_broken_files(tmp_path: Path, how: str) -> None:
    """An OSError that names the file; the good ones of the list can still be loaded."""
    good, bad = save(tmp_path / "good.png"), broken_file(tmp_path, how)
    images = gather([good, bad])
    images.load(0, 1, plain())
    with pytest.raises(ImageFileError, match=r"photo\.png' cannot be read as an image: \w+") as raised:
        images.load(0, 2, plain())
    assert isinstance(raised.value, OSError)


def test_broken_pil_image(tmp_path: Path) -> None:
    """A truncated image that the user opened, lazily, himself."""
    with pytest.raises(ImageFileError, match="image 1"):
        load([random_picture(), PIL.Image.open(broken_file(tmp_path, "truncated"))])


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's limit is an ImageFileError; its warning below that stays Pillow's."""
    path = save(tmp_path / "big.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(ImageFileError, match="decompression bomb"):
        load(path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.warns(PIL.Image.DecompressionBombWarning):
        load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        with pytest.raises(PIL.Image.DecompressionBombWarning):
            load(path)


def test_missing_file_offers_close_names(tmp_path: Path) -> None:
    """Known when the images are gathered, before any work."""
    good = save(tmp_path / "kitten.jpg")
    with pytest.raises(ImageNotFoundError, match=r"Did you mean 'kitten\.jpg'") as raised:
        gather([good, tmp_path / "kiten.jpg"])
    assert isinstance(raised.value, FileNotFoundError)
    assert isinstance(raised.value, SeewhyError)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "no file at ''"),
        ("nowhere/at/all.png", "folder 'nowhere/at' does not exist"),
        ("https://example.org/cat.jpg", "Web addresses are not fetched"),
        ("zero\0byte.png", "no file"),
    ],
)
def test_paths_that_are_none(path: str, words: str) -> None:
    with pytest.raises(ImageNotFoundError, match=words):
        gather(path)


def test_overlong_path() -> None:
    with pytest.raises(ImageFileError, match="too long"):
        gather("x" * 5000)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageFolderError, match=r"is a folder; pass its files: sorted") as raised:
        gather(tmp_path)
    assert isinstance(raised.value, IsADirectoryError)


# ------------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "empty batch"),
        (iter(()), "empty batch"),
        (np.zeros((0, 4, 5, 3), np.uint8), "empty batch"),
        (np.array([]), "empty batch"),
        (torch.zeros(0, 3, 4, 5), "empty batch"),
        ([torch.zeros(0, 3, 4, 5)], "empty batch"),
        (np.zeros((0, 5, 3), np.uint8), "side of length 0"),
        (np.zeros((5, 0), np.uint8), "side of length 0"),
        (torch.zeros(3, 5, 0), "side of length 0"),
        (PIL.Image.new("RGB", (0, 5)), "side of length 0"),
        (np.zeros((4, 5, 3), bool), r"\* 255\)\.astype"),
        (np.zeros((4, 5, 3), np.int64), r"astype\('uint8'\)"),
        (np.zeros((4, 5, 3), np.uint16), "divide by the largest"),
        (np.zeros((4, 5, 3), complex), "expected uint8, or floats"),
        (np.array(["a.png"]), "expected uint8, or floats"),
        (np.full((4, 5, 3), 255.0), "Divide by 255"),
        (np.full((4, 5, 3), -0.5), "expected 0..1"),
        (np.full((4, 5, 3), 1000.0), "expected 0..1"),
        (np.zeros((3, 4, 5), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 4, 5), np.float32), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((6, 5, 7)), "float tensor"),
        (np.zeros(5, np.uint8), "expected"),
        (np.zeros((1, 1, 4, 5, 3), np.uint8), "expected"),
        (np.ones((1,), np.uint8), "expected"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "torch.uint8"),
        (torch.zeros(3, 4, 5, dtype=torch.bool), "torch.uint8"),
        (torch.zeros(3, 4, 5, dtype=torch.complex64), "float tensor"),
        (torch.zeros(4, 5), r"tensor\[None\]"),
        (torch.zeros(1, 1, 3, 4, 5), "expected"),
        (torch.tensor(1.0), "has no pixels"),
        (torch.zeros(8, 5, 3, dtype=torch.uint8), r"permute\(2, 0, 1\)"),
        (torch.zeros(2, 8, 5, 3, dtype=torch.uint8), r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(7, 4, 5, dtype=torch.uint8), "1, 3 or 4 channels"),
    ],
)
def test_values_that_are_no_image(given: Any, words: str) -> None:
    """An InputError, which is a ValueError, when the images are gathered."""
    with pytest.raises(InputError, match=words) as raised:
        gather(given)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [lambda a: a, lambda a: torch.from_numpy(a).permute(0, 3, 1, 2)])
def test_non_finite_pixels(value: float, make: Callable[[np.ndarray], Any]) -> None:
    """Counted, and said of which image of all."""
    batch = np.zeros((3, 4, 5, 3))
    batch[1, 0, :2, 0] = value
    with pytest.raises(InputError, match="image 3 has 2 NaN or infinite"):
        gather([torch.zeros(3, 4, 5), random_picture(), make(batch)])


@pytest.mark.parametrize("given", [None, 3, 1.5, {"a": 1}, {1}, object(), b"bytes", io.BytesIO(b"x"), [["a.png"]], [1]])
def test_unknown_types(given: Any) -> None:
    """An InputTypeError, which is a TypeError, that names what is accepted."""
    with pytest.raises(InputTypeError, match=r"expected a path, a PIL image, a NumPy array .*, or a list") as raised:
        gather(given)
    assert isinstance(raised.value, TypeError)


def test_unequal_sizes(tmp_path: Path) -> None:
    """Named with their images, within a chunk and across chunks."""
    images = gather([random_picture(), save(tmp_path / "b.png", random_picture(8, 9, 3)), torch.zeros(1, 20, 30)])
    with pytest.raises(InputError, match=r"\(3, 20, 30\) \(image 0\), \(3, 8, 9\) \(image 1 .*one at a time"):
        images.load(0, 2, plain())
    images.load(0, 1, plain())
    with pytest.raises(InputError, match=r"\(3, 20, 30\) \(image 0\), \(3, 8, 9\) \(image 1 "):
        images.load(1, 2, plain())
    with pytest.raises(InputError, match=r"\(1, 20, 30\) \(image 2\)"):
        images.load(2, 3, plain())


# -------------------------------------------------------------------------------------------------- transforms


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (PIL.Image.new("RGB", (3, 2)), InputTypeError, "returned Image .*ToTensor"),
        (np.zeros((3, 4, 5)), InputTypeError, "returned ndarray"),
        ({"pixel_values": torch.zeros(1, 3, 4, 5)}, InputTypeError, "returned dict .*pixel_values"),
        (None, InputTypeError, "returned NoneType"),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), InputError, "torch.uint8 .*scale=True"),
        (torch.zeros(4, 5), InputError, r"shape \(4, 5\)"),
        (torch.zeros(5, 3, 4, 5), InputError, r"shape \(5, 3, 4, 5\)"),
        (torch.zeros(3, 0, 5), InputError, r"shape \(3, 0, 5\)"),
        (torch.full((3, 4, 5), torch.nan), InputError, "has 60 NaN"),
    ],
)
def test_bad_results_of_the_transform(result: Any, error: type[Exception], words: str) -> None:
    """What was returned, for which image, and what to do."""
    with pytest.raises(error, match=words) as raised:
        load(random_picture(), resolve_preprocessing(MODEL, lambda image: result))
    assert "image 0" in str(raised.value)


def test_batch_of_one_from_the_transform() -> None:
    preprocessing = resolve_preprocessing(MODEL, lambda image: torch.zeros(1, 3, 4, 5))
    assert load([random_picture()] * 2, preprocessing)[0].shape == (2, 3, 4, 5)


def test_exceptions_of_the_transform_pass(tmp_path: Path) -> None:
    """Unchanged, with a note of which image it was."""
    path = save(tmp_path / "b.png")
    error = ZeroDivisionError("mine")

    def transform(image: PIL.Image.Image) -> torch.Tensor:
        raise error

    with pytest.raises(ZeroDivisionError) as raised:
        load([path], resolve_preprocessing(MODEL, transform))
    assert raised.value is error
    assert "b.png" in error.__notes__[0]


# ---------------------------------------------------------------------------------------- what the model saw


FLOAT = v2.ToDtype(torch.float32, scale=True)


def assumed() -> Preprocessing:
    return resolve_preprocessing(MODEL, None)


@pytest.mark.parametrize(
    "transform",
    [
        v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)]),
        v2.Compose([v2.PILToTensor(), FLOAT, v2.Normalize(MEAN, STD)]),
        v1.ToTensor(),
    ],
)
def test_every_byte_comes_back(transform: Any) -> None:
    """All 256 values in each channel survive normalisation and its undoing."""
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    picture = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)
    assert np.array_equal(seen_of(picture, resolve_preprocessing(MODEL, transform))[0], picture)


def test_crop_and_resize_are_seen() -> None:
    transform = v1.Compose([v1.CenterCrop((10, 12)), v1.ToTensor()])
    seen = seen_of(random_picture(), resolve_preprocessing(MODEL, transform))
    assert np.array_equal(seen[0], random_picture()[5:15, 9:21])


def test_grey_models() -> None:
    """One channel is shown as grey."""
    transform = v1.Compose([v1.Grayscale(), v1.ToTensor(), v1.Normalize([0.5], [0.5])])
    grey = random_picture(20, 30)
    batch, seen = load(grey, resolve_preprocessing(MODEL, transform))
    assert batch.shape == (1, 1, 20, 30)
    assert np.array_equal(seen[0], np.stack([grey] * 3, -1))


def test_unknown_transform() -> None:
    """Its result is shown as it is within 0..1, else stretched, said once per call."""
    picture = random_picture()
    as_it_is = resolve_preprocessing(MODEL, lambda image: v1.functional.to_tensor(image))
    assert np.array_equal(seen_of(picture, as_it_is)[0], picture)
    scaled = resolve_preprocessing(MODEL, lambda image: v1.functional.to_tensor(image) * 6 - 3)
    with pytest.warns(SeewhyWarning, match="normalisation is unknown") as said:
        seen = seen_of([picture, picture], scaled)
    assert len(said) == 1
    low, high = int(picture.min()), int(picture.max())
    assert np.abs(seen[1] - (picture.astype(float) - low) * 255 / (high - low)).max() <= 0.5001


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_are_their_mean(channels: int) -> None:
    values = torch.rand(2, channels, 4, 6) * 7 - 2
    with pytest.warns(SeewhyWarning, match=f"{channels} channels") as said:
        seen = seen_of(values)
    assert len(said) == 1
    mean = values.double().mean(1).numpy()
    low, high = mean.min((1, 2), keepdims=True), mean.max((1, 2), keepdims=True)
    assert np.array_equal(seen[..., 1], np.rint((mean - low) / (high - low) * 255))


class TestFloatTensors:
    """How tensors that are already transformed are shown."""

    def test_known_normalisation_is_undone_and_clipped(self) -> None:
        """Also where values happen to lie in 0..1."""
        found = plain([0.5], [0.5])
        given = torch.tensor([-3.0, 0.0, 0.5, 1.0, 9.0]).expand(3, 1, 5)
        assert seen_of(given, found)[0, 0, :, 0].tolist() == [0, 128, 191, 255, 255]

    def test_assumed_within_0_to_1_is_shown_as_it_is(self) -> None:
        picture = random_picture()
        given = torch.from_numpy(picture).permute(2, 0, 1) / 255
        assert np.array_equal(seen_of(given, assumed())[0], picture)

    def test_assumed_that_looks_like_imagenets_is_undone(self) -> None:
        picture = random_picture()
        given = plain().transform(PIL.Image.fromarray(picture))
        assert np.array_equal(seen_of(given, assumed())[0], picture)

    def test_assumed_with_anything_else_is_stretched(self) -> None:
        """Per image, so that a chunk's size changes nothing; said once for the call."""
        given = torch.randn(2, 3, 8, 9) * torch.tensor([5.0, 50.0]).view(2, 1, 1, 1)
        with pytest.warns(SeewhyWarning, match="normalisation is unknown") as said:
            seen = seen_of(given, assumed())
        assert len(said) == 1
        assert seen.min((1, 2, 3)).tolist() == [0, 0]
        assert seen.max((1, 2, 3)).tolist() == [255, 255]

    def test_grey_tensor_and_three_channel_normalisation(self) -> None:
        """A mean of three channels says nothing of one."""
        assert seen_of(torch.full((1, 2, 3), 0.2))[0, 0, 0].tolist() == [51] * 3
        with pytest.warns(SeewhyWarning, match="normalisation is unknown"):
            seen_of(torch.linspace(-1, 2, 6).view(1, 2, 3))

    @pytest.mark.parametrize("shape", [(3, 4, 5), (2, 4, 5)])
    def test_a_constant_image_stays_finite(self, shape: tuple[int, ...]) -> None:
        with pytest.warns(SeewhyWarning, match="stretched"):
            seen = seen_of(torch.full(shape, 7.0), assumed())
        assert (seen == 128).all()


def test_load_changes_nothing_of_the_users(tmp_path: Path) -> None:
    """Arrays, images and tensors are as they were, though the batch is written over."""
    picture, image = random_picture(), PIL.Image.fromarray(random_picture())
    tensor = torch.rand(3, 20, 30)
    copy = tensor.clone()
    batch, seen = load([picture, image, tensor])
    batch.zero_()
    seen[:] = 0
    assert np.array_equal(picture, random_picture())
    assert np.array_equal(np.asarray(image), random_picture())
    assert torch.equal(tensor, copy)


def test_images_has_a_length_and_sources() -> None:
    images = gather(np.zeros((4, 2, 2, 3), np.uint8))
    assert isinstance(images, Images)
    assert (len(images), images.sources) == (4, (None,) * 4)
