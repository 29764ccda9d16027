"""Data sets of every kind, and files of every kind of damage."""

import errno
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler
from torchvision.datasets import ImageFolder

from seewhy import Explainer, SeewhyWarning
from seewhy.datasets.reading import PATIENCE, Reader
from seewhy.errors import ImageFileError, InputError, InputTypeError, MissingImagesError
from seewhy.testing import small_cnn, unchanged


def to_tensor(photo):
    return torch.from_numpy(np.array(photo.resize((24, 16)))).permute(2, 0, 1) / 255


@pytest.fixture(scope="module")
def explainer():
    """Its probabilities tell the photos apart."""
    model = small_cnn()
    with torch.no_grad():
        model.head.weight.mul_(50)
    return Explainer(model, transform=to_tensor, class_names=["ant", "bee", "cat", "dog", "eel"])


def photo(seed=0, mode="RGB"):
    """Noise, the brighter the greater the seed."""
    pixels = np.random.default_rng(seed).integers(0, 56 + 40 * (seed % 6), (16, 24, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Six photos, in a folder for each of three classes."""
    for i in range(6):
        path = tmp_path / "photos" / ["ant", "bee", "cat"][i // 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(i).save(path)
    return tmp_path / "photos"


def table(explainer, data, **how):
    return explainer.evaluate(data, progress=False, **how).predictions


@pytest.fixture
def expected(explainer, folder):
    """What the network says of each of the six, which no two have in common."""
    found = [explainer.predict(path)[0][0].probability for path in sorted(folder.rglob("*.png"))]
    assert min(np.diff(sorted(found))) > 1e-4
    return pytest.approx(found, abs=1e-6)


class Plain(Dataset):
    """Images as tensors with labels."""

    def __init__(self, paths):
        self.paths = [str(path) for path in paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        return to_tensor(PIL.Image.open(self.paths[number]).convert("RGB")), number // 2


class Streamed(IterableDataset):
    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return (self.inner[i] for i in range(len(self.inner)))


def hugging_face(paths, **names):
    data = pytest.importorskip("datasets")
    image, label = names.get("image", "image"), names.get("label", "label")
    features = data.Features({image: data.Image(), label: data.ClassLabel(names=["ant", "bee", "cat"])})
    rows = {image: [str(path) for path in paths], label: [i // 2 for i in range(6)]}
    return data.Dataset.from_dict(rows, features=features)


def batched(pairs):
    images, labels = zip(*pairs, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


KINDS = {
    "folder": lambda f, p: f,
    "folder as text": lambda f, p: str(f),
    "pairs": lambda f, p: [(path, path.parent.name) for path in p],
    "mappings": lambda f, p: [{"image": str(path), "label": path.parent.name} for path in p],
    "ImageFolder": lambda f, p: ImageFolder(f),
    "ImageFolder to tensors": lambda f, p: ImageFolder(f, transform=to_tensor),
    "Dataset": lambda f, p: Plain(p),
    "DataLoader": lambda f, p: DataLoader(Plain(p), 4),
    "workers": lambda f, p: DataLoader(Plain(p), 4, num_workers=2),
    "loader of photos": lambda f, p: DataLoader(ImageFolder(f), 4),
    "custom collate": lambda f, p: DataLoader(Plain(p), 3, collate_fn=batched),
    "shuffled loader": lambda f, p: DataLoader(Plain(p), 4, shuffle=True),
    "IterableDataset": lambda f, p: Streamed(Plain(p)),
    "loader of a stream": lambda f, p: DataLoader(Streamed(Plain(p)), 4),
    "generator": lambda f, p: (Plain(p)[i] for i in range(6)),
    "parts": lambda f, p: ConcatDataset([Subset(Plain(p), [0, 1]), Subset(Plain(p), [2, 3, 4, 5])]),
    "Hugging Face": lambda f, p: hugging_face(p),
    "Hugging Face, streamed": lambda f, p: hugging_face(p).to_iterable_dataset(),
}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_data_set(explainer, folder, expected, kind):
    found = table(explainer, KINDS[kind](folder, sorted(folder.rglob("*.png"))))
    assert found.index.tolist() == list(range(6))
    assert found["probability"].tolist() == expected
    assert found["label"].tolist() == ["ant", "ant", "bee", "bee", "cat", "cat"]


def test_columns_of_other_names(explainer, folder, expected):
    paths = sorted(folder.rglob("*.png"))
    for streamed in (False, True):
        data = hugging_face(paths, image="scan", label="finding")
        data = data.to_iterable_dataset() if streamed else data
        found = table(explainer, data, columns=("scan", "finding"))
        assert found["probability"].tolist() == expected
        assert found["label"].tolist() == ["ant", "ant", "bee", "bee", "cat", "cat"]
        assert table(explainer, data, columns=("scan", None))["label_index"].tolist() == [-1] * 6
    with pytest.raises(InputTypeError, match="a mapping with 'scan', 'finding'; expected one of 'pixel_values'"):
        explainer.evaluate(data)
    with pytest.raises(InputTypeError, match="expected one of 'scan', and the label in 'species'"):
        explainer.evaluate(hugging_face(paths, image="scan"), columns=("scan", "species"))


@pytest.mark.parametrize(
    ("data", "sources"),
    [
        (lambda f, p: f, range(6)),
        (lambda f, p: list(p), range(6)),
        (lambda f, p: ImageFolder(f), range(6)),
        (lambda f, p: Subset(ImageFolder(f), [4, 1]), [4, 1]),
        (lambda f, p: ConcatDataset([Subset(ImageFolder(f), [5]), ImageFolder(f)]), [5, *range(6)]),
        (lambda f, p: DataLoader(Plain(p), 2, shuffle=True), range(6)),
        (lambda f, p: [*map(PIL.Image.open, p)], []),
    ],
)
def test_which_file_each_image_is(explainer, folder, data, sources):
    paths = sorted(folder.rglob("*.png"))
    found = table(explainer, data(folder, paths))
    assert [path for path in found["path"] if path] == [str(paths[i]) for i in sources]


def test_numbers_are_those_of_the_data_set(explainer, folder):
    paths = sorted(folder.rglob("*.png"))
    whole = table(explainer, Plain(paths))
    loader = DataLoader(Plain(paths), 4, sampler=WeightedRandomSampler([0, 1, 0, 1, 1, 0], 3, replacement=False))
    some = table(explainer, loader)
    assert sorted(some.index) == [1, 3, 4]
    for number, row in some.iterrows():
        assert row["score"] == pytest.approx(whole.loc[number, "score"], abs=1e-6)
        assert row["path"] == str(paths[number])
    assert len(table(explainer, DataLoader(Plain(paths), 4, drop_last=True))) == 4
    assert len(table(explainer, DataLoader(Plain(paths), 4), batch_size=5)) == 6


class NoLength:
    def __init__(self, numbers):
        self.numbers = numbers

    def __iter__(self):
        return iter(self.numbers)


@pytest.mark.parametrize(
    ("how", "numbers"),
    [
        ({"batch_sampler": [[5, 1], [3]]}, [1, 3, 5]),
        ({"batch_sampler": BatchSampler(SequentialSampler(range(3)), 2, drop_last=True)}, [0, 1]),
        ({"batch_sampler": BatchSampler(RandomSampler(range(6)), 4, drop_last=False)}, range(6)),
        ({"batch_size": 2, "sampler": [4, 2, 2]}, [2, 2, 4]),
        ({"batch_size": 2, "sampler": NoLength([4, 2, 0])}, [0, 2, 4]),
        ({"batch_size": 2, "sampler": NoLength([4, 2, 0]), "drop_last": True}, [2, 4]),
        ({"batch_size": 4, "shuffle": True, "drop_last": True}, range(4)),
        ({"batch_size": 2, "sampler": DistributedSampler(range(6), 3, 1, shuffle=False)}, [1, 4]),
    ],
)
def test_loaders_that_take_some_images(explainer, folder, expected, how, numbers):
    paths = sorted(folder.rglob("*.png"))
    found = table(explainer, DataLoader(Plain(paths), **how))
    assert found.index.tolist() == list(numbers)
    assert found["probability"].tolist() == pytest.approx([expected.expected[i] for i in numbers], abs=1e-6)
    assert found["path"].tolist() == [str(paths[i]) for i in numbers]


def test_whether_the_order_is_the_same_each_time(explainer, folder):
    data = Plain(sorted(folder.rglob("*.png")))
    in_turn, at_random = SequentialSampler(data), RandomSampler(data)
    for how, same in [
        ({"shuffle": True}, True),  # read in the order of the data set
        ({"collate_fn": batched}, True),
        ({"collate_fn": batched, "shuffle": True}, False),
        ({"sampler": RandomSampler(data, num_samples=3)}, False),
        ({"sampler": RandomSampler(data, replacement=True)}, False),
    ]:
        assert Reader(explainer, DataLoader(data, 2, **how)).ordered == same, how
    for sampler in (in_turn, at_random):  # of a batch_sampler nothing is known
        assert not Reader(explainer, DataLoader(data, batch_sampler=BatchSampler(sampler, 2, False))).ordered
    assert Reader(explainer, DataLoader(Streamed(data), 2)).ordered
    assert not Reader(explainer, iter(data)).ordered


def test_generators_are_as_before(explainer, folder):
    data = Plain(sorted(folder.rglob("*.png")))
    generator = torch.Generator().manual_seed(3)
    weighted = WeightedRandomSampler([1] * 6, 4, generator=generator)
    before = generator.get_state()
    for how in (
        {"batch_size": 2, "shuffle": True, "generator": generator},
        {"batch_size": 2, "sampler": weighted},
        {"batch_sampler": BatchSampler(weighted, 2, False)},
        {"batch_size": 2, "shuffle": True, "generator": generator, "collate_fn": batched},
    ):
        explainer.evaluate(DataLoader(data, **how))
        assert torch.equal(generator.get_state(), before), how
        assert next(iter(Reader(explainer, DataLoader(data, **how)).batches())) is not None  # not to its end
        assert torch.equal(generator.get_state(), before), how


def test_tables_and_arrays_of_paths(explainer, folder, expected):
    pd = pytest.importorskip("pandas")
    rows = pd.DataFrame({"file": sorted(folder.rglob("*.png")), "kind": ["ant", "ant", "bee", "bee", "cat", "cat"]})
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 4, 0, 1, 2], [4, 1]):  # whose index is in another order, or has gaps
        mixed = rows.iloc[order]
        chances = pytest.approx([expected.expected[i] for i in order], abs=1e-6)
        files = mixed["file"]
        for data in (files, files.to_numpy(), np.array([str(file) for file in files])):
            found = table(explainer, data, labels=mixed["kind"])
            assert found["probability"].tolist() == chances
            assert found["label"].tolist() == mixed["kind"].tolist()
        found = table(explainer, mixed, columns=("file", "kind"))
        assert found["probability"].tolist() == chances
        assert found["label"].tolist() == mixed["kind"].tolist()


LABELS = {
    "list": ["ant", "bee"] * 3,
    "indices": [0, 1] * 3,
    "NumPy": np.array([0, 1] * 3, np.uint8),
    "names in NumPy": np.array(["ant", "bee"] * 3),
    "tensor": torch.tensor([0, 1] * 3),
    "column": torch.tensor([[0], [1]] * 3),
    "generator": (name for name in ["ant", "bee"] * 3),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_beside_the_data_set(explainer, folder, kind):
    found = table(explainer, Plain(sorted(folder.rglob("*.png"))), labels=LABELS[kind])
    assert found["label"].tolist() == ["ant", "bee"] * 3


def test_labels_of_some(explainer, folder):
    paths = sorted(folder.rglob("*.png"))
    found = table(explainer, Plain(paths), labels=[None, 1, None, "cat", None, None])
    assert found["label_index"].tolist() == [-1, 1, -1, 2, -1, -1]
    assert table(explainer, Plain(paths), labels={0: "eel", 1: 3, 2: "bee"})["label_index"].tolist() == [
        4,
        4,
        3,
        3,
        1,
        1,
    ]
    loader = DataLoader(Plain(paths), 2, sampler=[4, 1])  # one for each of the data set, of which two are taken
    assert table(explainer, loader, labels=[0, 1, 2, 3, 4, 0])["label_index"].tolist() == [1, 4]


@pytest.mark.parametrize("count", [0, 2, 5, 7])
@pytest.mark.parametrize("kind", ["Dataset", "folder", "shuffled loader", "some", "generator", "loader of a stream"])
def test_as_many_labels_as_images(explainer, folder, kind, count):
    kinds = KINDS | {"some": lambda f, p: DataLoader(Plain(p), 2, sampler=[4, 1])}
    with pytest.raises(InputError, match=rf"{count} labels for (6|4 or more|6 or more) images: one is needed"):
        explainer.evaluate(kinds[kind](folder, sorted(folder.rglob("*.png"))), labels=[0] * count)


def test_indices_beside_a_data_set_whose_classes_have_another_order(explainer, folder):
    paths = sorted(folder.rglob("*.png"))

    class Mixed(Plain):
        classes = ("cat", "ant", "bee")

    assert table(explainer, Mixed(paths))["label"].tolist() == ["cat", "cat", "ant", "ant", "bee", "bee"]
    with pytest.raises(InputError, match=r"0 is 'cat', and 'ant'\. Give names"):
        explainer.evaluate(Mixed(paths), labels=[0, 1, 2, 0, 1, 2])
    assert table(explainer, Mixed(paths), labels=["bee"] * 6)["label_index"].tolist() == [1] * 6
    assert table(explainer, ImageFolder(folder), labels=[4] * 6)["label_index"].tolist() == [4] * 6  # in the same order


def test_classes_that_are_tuples_of_synonyms(explainer, folder):
    """As torchvision's ImageNet has them."""

    class Synonyms(Plain):
        classes = (("ant", "emmet"), ("bee",), ("cat", "house cat"), ("dog",), ("eel",))

    found = table(explainer, Synonyms(sorted(folder.rglob("*.png"))))
    assert found["label"].tolist() == ["ant", "ant", "bee", "bee", "cat", "cat"]


def test_random_states_and_the_model_are_as_before(folder):
    paths = sorted(folder.rglob("*.png"))
    model = small_cnn()
    loader = DataLoader(Plain(paths), 4, shuffle=True, generator=torch.Generator().manual_seed(3), num_workers=1)
    for data in (loader, DataLoader(Plain(paths), 2, shuffle=True), Plain(paths)):
        random.seed(0)
        with unchanged(model):
            Explainer(model).evaluate(data)


def test_workers_read_the_same(explainer, folder):
    (folder / "ant" / "broken.png").write_bytes(b"?")
    found = []
    for workers in (0, 2):
        with pytest.warns(SeewhyWarning, match="1 image could not be read"):
            found.append(table(explainer, folder, workers=workers))
    assert found[0].equals(found[1])


# --------------------------------------------------------------------------------------------------------- damage


def cut(path, share):
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: int(len(whole) * share)])


def turned():
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # by 90 degrees
    return exif


def bomb(path):
    """A PNG that says that it is 60,000 pixels wide and high."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))


BROKEN = {
    "bomb.png": bomb,
    "empty.jpg": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("I am no photo"),
    "cut.jpg": lambda path: (photo().resize((200, 200)).save(path), cut(path, 0.5)),
    "cut.png": lambda path: (photo().resize((200, 200)).save(path), cut(path, 0.5)),
    "header.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    "gif.gif": lambda path: path.write_bytes(b"GIF89a"),
    "negative.tif": lambda path: PIL.Image.fromarray(np.full((16, 24), -5.0, np.float32)).save(path),
    "link.png": lambda path: path.symlink_to("nowhere.png"),
}
FINE = {
    "grey.png": lambda path: photo(mode="L").save(path),
    "one-bit.png": lambda path: photo(mode="1").save(path),
    "palette.png": lambda path: photo(mode="P").save(path),
    "alpha.png": lambda path: photo(mode="RGBA").save(path),
    "cmyk.jpg": lambda path: photo(mode="CMYK").save(path),
    "deep.png": lambda path: PIL.Image.fromarray((np.arange(384).reshape(16, 24) * 170).astype(np.uint16)).save(path),
    "unit.tif": lambda path: PIL.Image.fromarray(np.random.default_rng(0).random((16, 24), np.float32)).save(path),
    "ünïcode 猫 #%&.png": lambda path: photo().save(path),
    "new\nline <b>'\".PNG": lambda path: photo(1).save(path, "PNG"),
    "turned.jpg": lambda path: photo(2).save(path, exif=turned()),
    "linked.png": lambda path: path.symlink_to("grey.png"),
}


@pytest.mark.parametrize("as_list", [False, True])
def test_what_cannot_be_read_is_passed_by_and_listed(explainer, tmp_path, as_list):
    for name, make in (BROKEN | FINE).items():
        make(tmp_path / name)
    data = sorted(tmp_path.iterdir()) if as_list else tmp_path
    with pytest.warns(SeewhyWarning, match="images could not be read and were passed by"):
        found = explainer.evaluate(data)
    assert {Path(path).name for path in found.predictions["path"]} == set(FINE)
    names = {Path(one.source).name for one in found.skipped}
    assert names == (set(BROKEN) if as_list else set(BROKEN) - {"link.png"})  # a folder holds no such file
    assert all(one.reason for one in found.skipped)
    for path, chance in zip(found.predictions["path"], found.predictions["probability"], strict=True):
        assert explainer.predict(path)[0][0].probability == pytest.approx(chance, abs=1e-6)
    with pytest.raises((ImageFileError, InputError)):
        explainer.evaluate(data, strict=True)


def test_broken_files_in_an_image_folder(explainer, folder):
    BROKEN["cut.png"](folder / "bee" / "2.png")
    for data in (ImageFolder(folder), DataLoader(ImageFolder(folder, transform=to_tensor), 3, num_workers=1)):
        with pytest.warns(SeewhyWarning, match=r"1 image could not be read and was passed by: '.*2\.png'"):
            found = explainer.evaluate(data)
        assert found.predictions.index.tolist() == [0, 1, 3, 4, 5]
        assert found.predictions["label"].tolist() == ["ant", "ant", "bee", "cat", "cat"]
        assert [(one.number, Path(one.source).name) for one in found.skipped] == [(2, "2.png")]


def test_a_file_that_torchvision_cannot_decode(explainer, folder):
    from torchvision.io import decode_image

    class Decoded(Plain):
        def __getitem__(self, number):
            return decode_image(self.paths[number]), number // 2

    BROKEN["text.jpg"](folder / "ant" / "0.png")
    with pytest.warns(SeewhyWarning, match="1 image could not be read"):
        assert len(table(explainer, Decoded(sorted(folder.rglob("*.png"))))) == 5


def test_a_broken_image_of_hugging_face(explainer, folder):
    BROKEN["text.jpg"](folder / "ant" / "0.png")
    with pytest.warns(SeewhyWarning, match="1 image could not be read"):
        assert table(explainer, hugging_face(sorted(folder.rglob("*.png")))).index.tolist() == [1, 2, 3, 4, 5]


def test_none_that_can_be_read(explainer, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"?")
    with pytest.raises(MissingImagesError, match=r"None of the first 3 images can be read. Image 0 \('.*0\.jpg'\)"):
        explainer.evaluate(tmp_path)
    read = []

    class Nothing(Dataset):
        def __len__(self):
            return 100_000

        def __getitem__(self, number):
            read.append(number)
            raise OSError("gone")

    with pytest.raises(MissingImagesError, match=r"None of the first 112 images can be read\. Image 0: gone"):
        explainer.evaluate(Nothing())
    assert len(read) < PATIENCE + 2 * 16


class Raises(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 8

    def __getitem__(self, number):
        if number == 5:
            raise self.error
        return torch.zeros(3, 16, 24)


@pytest.mark.parametrize("error", [TypeError("bug"), KeyError("bug"), ZeroDivisionError("bug"), RuntimeError("bug")])
def test_a_bug_of_the_users_comes_through(explainer, error):
    with pytest.raises(type(error), match="bug") as raised:
        explainer.evaluate(Raises(error))
    assert "seewhy: image 5 of the data set" in raised.value.__notes__
    broken = Explainer(small_cnn(), transform=lambda photo: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.evaluate([photo()] * 3)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_machine_at_its_end_is_no_broken_file(explainer, folder, code, monkeypatch):
    with pytest.raises(OSError, match="the machine"):
        explainer.evaluate(Raises(OSError(code, "the machine")))
    paths = sorted(folder.rglob("*.png"))
    opened = PIL.Image.open

    def failing(path, *rest):
        if Path(path) == paths[3]:
            raise OSError(code, "the machine")
        return opened(path, *rest)

    monkeypatch.setattr(PIL.Image, "open", failing)
    with pytest.raises(ImageFileError, match="the machine"):
        explainer.evaluate(folder)


@pytest.mark.parametrize(
    ("transform", "error", "match"),
    [
        (lambda photo: (to_tensor(photo) * 255).byte(), InputError, "returned a torch.uint8 tensor"),
        (lambda photo: to_tensor(photo)[0], InputError, r"tensor of shape \(16, 24\)"),
        (lambda photo: to_tensor(photo) / 0, InputError, "NaN or infinite"),
        (lambda photo: Path("/no/such/font").read_text(), FileNotFoundError, "font"),
    ],
)
def test_a_fault_of_the_transform_is_none_of_the_files(folder, transform, error, match):
    """It comes through at the first photo that shows it, though the others are fine."""
    third = np.array(PIL.Image.open(folder / "bee" / "2.png"))
    broken = Explainer(
        small_cnn(), transform=lambda photo: (transform if (np.array(photo) == third).all() else to_tensor)(photo)
    )
    for data in (folder, ImageFolder(folder), sorted(folder.rglob("*.png"))):
        with pytest.raises(error, match=match) as raised:
            broken.evaluate(data)
        assert "seewhy: image 2 of the data set" in raised.value.__notes__[-1]


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 16, 24, dtype=torch.long), torch.zeros(16, 24), torch.full((3, 16, 24), torch.nan)]
)
def test_a_fault_of_the_data_set_is_none_of_the_files(explainer, folder, image):
    class Faulty(Plain):
        def __getitem__(self, number):
            return (image, 0) if number == 3 else super().__getitem__(number)

    with pytest.raises(InputError, match=r"image 3 (is a|has)"):
        explainer.evaluate(Faulty(sorted(folder.rglob("*.png"))))


def test_workers_say_which_image(explainer, folder):
    (folder / "bee" / "2.png").write_bytes(b"?")
    with pytest.raises(ImageFileError, match=r"2\.png' cannot be read") as raised:
        explainer.evaluate(folder, workers=1, strict=True)
    assert "seewhy: image 2 of the data set" in str(raised.value)


def test_an_error_in_what_is_iterated(explainer):
    images = (rest for rest in [torch.zeros(3, 16, 24)] * 20)
    with pytest.raises(ZeroDivisionError) as raised:
        explainer.evaluate(1 / 0 if i == 18 else image for i, image in enumerate(images))
    assert "from image 16 of the data set on" in raised.value.__notes__[0]


def test_too_much_text_in_a_png(explainer, folder):
    """Pillow raises a ValueError then."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("much", "a" * 2_000_000, zip=True)
    photo().save(folder / "ant" / "0.png", pnginfo=info)
    for data in (folder, ImageFolder(folder)):
        with pytest.warns(SeewhyWarning, match="1 image could not be read"):
            assert table(explainer, data).index.tolist() == [1, 2, 3, 4, 5]


def test_an_interruption_comes_through(explainer):
    with pytest.raises(KeyboardInterrupt):
        explainer.evaluate(Raises(KeyboardInterrupt()))


def test_a_transform_that_gives_no_tensor_is_told_and_nothing_is_called_unreadable(folder):
    with pytest.raises(InputTypeError, match="The transform returned Image"):
        Explainer(small_cnn(), transform=lambda photo: photo).evaluate(folder)


# ------------------------------------------------------------------------------------------------------- mistakes


def test_folders(explainer, tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="There are no photos in the folder"):
        explainer.evaluate(tmp_path / "empty")
    flat = table(explainer, folder / "ant")
    assert flat["label"].isna().all()
    (tmp_path / "one" / "cat").mkdir(parents=True)
    photo().save(tmp_path / "one" / "cat" / "a.png")
    assert table(explainer, tmp_path / "one")["label"].tolist() == ["cat"]


@pytest.mark.parametrize("data", [[], iter([]), torch.zeros(0, 3, 8, 8), TensorDataset(torch.zeros(0, 3, 8, 8))])
def test_nothing_at_all(explainer, data):
    with pytest.raises(InputError, match=r"no images|no pixels|empty"):
        explainer.evaluate(data)


def test_links_to_folders(explainer, tmp_path, folder):
    (folder / "again").symlink_to(folder)  # a circle, which is not gone round
    assert len(table(explainer, folder)) == 6
    (tmp_path / "linked").symlink_to(folder)
    assert table(explainer, tmp_path / "linked")["label"].notna().all()
    (tmp_path / "some" / "ant").mkdir(parents=True)
    photo().save(tmp_path / "some" / "ant" / "a.png")
    (tmp_path / "some" / "bee").symlink_to(folder / "bee")
    with pytest.raises(InputError, match="bee' is a link to a folder"):
        explainer.evaluate(tmp_path / "some")


def test_what_is_no_data_set(explainer, folder):
    split = {"train": folder, "test": folder}
    with pytest.raises(InputTypeError, match="A dict is no data set: give one of its values, of 'train', 'test'"):
        explainer.evaluate(split)

    class Endless(Dataset):
        def __getitem__(self, number):
            return torch.zeros(3, 16, 24)

    with pytest.raises(InputTypeError, match="Endless has no length"):
        explainer.evaluate(Endless())
    with pytest.raises(InputTypeError, match="int is none of these"):
        explainer.evaluate(3)
    with pytest.raises(OSError, match="There is no file at 'nothing'"):
        explainer.evaluate("nothing")
    with pytest.raises(InputError, match=r"Item 0 of the data set holds 2 images"):
        explainer.evaluate([torch.zeros(2, 3, 16, 24)])
    with pytest.raises(InputError, match=r"differ in size .*\(3, 16, 24\) \(image 0\), \(3, 16, 25\) \(image 20\)"):
        explainer.evaluate([*torch.zeros(20, 3, 16, 24), torch.zeros(3, 16, 25)])
    with pytest.raises(InputError, match="makes its own batches"):
        explainer.evaluate(DataLoader(Plain([]), 4, collate_fn=batched), batch_size=3)


def test_nothing_is_kept_of_the_images():
    """Neither by the reader nor by those who ask it."""
    import weakref

    refs = []

    class Fresh(Dataset):
        def __len__(self):
            return 400

        def __getitem__(self, number):
            image = torch.rand(3, 16, 24)
            refs.append(weakref.ref(image))
            return image

    alive = []
    model = small_cnn()
    model.register_forward_hook(lambda *_: alive.append(sum(ref() is not None for ref in refs)))
    Explainer(model).evaluate(Fresh())
    assert len(refs) == 400
    assert max(alive) <= 48


def test_some_images_again(explainer, folder):
    paths = sorted(folder.rglob("*.png"))
    reader = Reader(explainer, ImageFolder(folder))
    batch = reader.some([5, 0, 3])
    assert batch.numbers.tolist() == [5, 0, 3]
    assert torch.equal(batch.input, torch.stack([to_tensor(PIL.Image.open(paths[i])) for i in (5, 0, 3)]))
    assert batch.labels == (2, 0, 1)
    ranges = [one.numbers.tolist() for one in Reader(explainer, folder, batch_size=2).batches([(1, 4), (5, 6)])]
    assert ranges == [[1, 2], [3], [5]]
    with pytest.raises(InputError, match="only be read once through"):
        Reader(explainer, Streamed(Plain(paths))).some([0])


def test_signals():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    found = Explainer(model).evaluate(torch.rand(10, 2, 30), labels=[0] * 10)
    assert len(found) == 10
