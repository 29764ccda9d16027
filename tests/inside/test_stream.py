"""Many images batch by batch: every kind of input, its labels and counts, and that nothing is kept."""

import gc
import weakref

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from seewhy import Explainer, errors, testing
from seewhy.inside.stream import Stream, as_labels

torch.set_num_threads(1)
IMAGES = torch.rand(7, 3, 8, 12, generator=torch.Generator().manual_seed(0))
LABELS = [3, 1, 0, 0, 2, 1, 4]


def to_tensor(picture):
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255


@pytest.fixture
def explainer():
    return Explainer(testing.small_cnn(), transform=to_tensor)


def batches(explainer, images, **how):
    stream = Stream(explainer, images, progress=False, **how)
    return list(stream), stream


def whole(found):
    """All of what came: the inputs, the labels, and that pictures, sources and numbers fit them."""
    first = 0
    for batch in found:
        assert batch.first == first
        assert len(batch.pictures) == len(batch.sources) == len(batch.input)
        assert batch.pictures.dtype == np.uint8
        assert len(batch.labels) in (0, len(batch.input))
        first += len(batch.input)
    return torch.cat([batch.input for batch in found]), [label for batch in found for label in batch.labels]


class Pairs(Dataset):
    """Pictures with labels, as torchvision's datasets are."""

    classes = ("ant", "bee", "cat", "dog", "elk")

    def __init__(self, labels=LABELS, kind=PIL.Image.fromarray):
        self.labels, self.kind = labels, kind

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.kind(uint8()[i]), self.labels[i]


class Endless(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def uint8():
    return (IMAGES * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


class TestKinds:
    @pytest.mark.parametrize(
        "images",
        [
            lambda: IMAGES,
            lambda: list(IMAGES),
            lambda: tuple(IMAGES),
            lambda: iter(IMAGES),
            lambda: (image for image in IMAGES),
            lambda: [IMAGES[:3], IMAGES[3], IMAGES[4:]],
            lambda: (IMAGES[i : i + 3] for i in (0, 3, 6)),
            lambda: TensorDataset(IMAGES),
            lambda: DataLoader(TensorDataset(IMAGES), batch_size=3),
            lambda: DataLoader(IMAGES, batch_size=3),
            lambda: DataLoader(IMAGES, batch_size=None),
            lambda: DataLoader([IMAGES[:3], IMAGES[3:]], batch_size=None),
            lambda: DataLoader(IMAGES, batch_size=3, collate_fn=list),
            lambda: DataLoader(IMAGES, batch_size=3, collate_fn=tuple),
            lambda: DataLoader(IMAGES, batch_sampler=[[0, 1], [2, 3, 4, 5], [6]]),
            lambda: Endless(IMAGES),
            lambda: DataLoader(Endless(list(IMAGES)), batch_size=4),
            lambda: [{"image": image} for image in IMAGES],
            lambda: ({"pixel_values": image} for image in IMAGES),
            lambda: DataLoader([{"img": image} for image in IMAGES], batch_size=2),
        ],
        ids=lambda images: type(images()).__name__,
    )
    @pytest.mark.parametrize("batch_size", [None, 2, 100])
    def test_float_tensors(self, explainer, images, batch_size):
        found, _ = batches(explainer, images(), batch_size=batch_size)
        inputs, labels = whole(found)
        torch.testing.assert_close(inputs, IMAGES, rtol=0, atol=0)
        assert labels == []
        assert all(len(batch.input) <= (batch_size or 16) for batch in found)

    @pytest.mark.parametrize("make", [list, tuple, iter, np.asarray], ids=["list", "tuple", "iter", "array"])
    def test_arrays_and_pictures(self, explainer, make):
        expected = torch.from_numpy(uint8()).permute(0, 3, 1, 2) / 255
        inputs, _ = whole(batches(explainer, make(uint8()), batch_size=3)[0])
        torch.testing.assert_close(inputs, expected)
        if make is not np.asarray:
            inputs, _ = whole(batches(explainer, make([PIL.Image.fromarray(a) for a in uint8()]), batch_size=3)[0])
            torch.testing.assert_close(inputs, expected)

    def test_uint8_tensors(self, explainer):
        pictures = torch.from_numpy(uint8()).permute(0, 3, 1, 2)
        for given in (pictures, list(pictures), DataLoader(pictures, batch_size=3)):
            inputs, _ = whole(batches(explainer, given)[0])
            torch.testing.assert_close(inputs, pictures / 255)

    @pytest.mark.parametrize(
        "loader",
        [
            lambda data: data,
            lambda data: DataLoader(data, batch_size=3, collate_fn=list),
            lambda data: DataLoader(data, batch_size=3, collate_fn=lambda items: tuple(zip(*items, strict=True))),
            lambda data: DataLoader(data, batch_size=None),
            lambda data: DataLoader(data, batch_size=1, collate_fn=lambda items: items[0]),
            lambda data: DataLoader(data, batch_size=2, collate_fn=lambda items: items),
            lambda data: (data[i] for i in range(len(data))),
            lambda data: [data[i] for i in range(len(data))],
            lambda data: [list(data[i]) for i in range(len(data))],
            lambda data: [{"image": data[i][0], "label": data[i][1]} for i in range(len(data))],
            lambda data: DataLoader(
                [{"image": data[i][0], "label": data[i][1]} for i in range(len(data))], 3, collate_fn=list
            ),
            lambda data: Subset(data, range(7)),
        ],
        ids=[
            "data",
            "listed",
            "zipped",
            "unbatched",
            "undone",
            "as they are",
            "generator",
            "list",
            "lists",
            "mappings",
            "listed maps",
            "subset",
        ],
    )
    def test_pictures_with_labels(self, explainer, loader):
        found, _ = batches(explainer, loader(Pairs()), batch_size=3)
        inputs, labels = whole(found)
        torch.testing.assert_close(inputs, torch.from_numpy(uint8()).permute(0, 3, 1, 2) / 255)
        assert labels == LABELS

    @pytest.mark.parametrize(
        "labels", [LABELS, torch.tensor(LABELS), np.array(LABELS), [f"name {i}" for i in LABELS]], ids=type
    )
    def test_tensors_with_labels(self, explainer, labels):
        pairs = list(zip(IMAGES, labels, strict=True))
        plain = labels if isinstance(labels, list) else labels.tolist()
        in_batches = [(IMAGES[:4], labels[:4]), (IMAGES[4:], labels[4:])]
        unbatched = DataLoader(in_batches, batch_size=None)
        for given in (pairs, iter(pairs), DataLoader(pairs, batch_size=4), unbatched, in_batches, iter(in_batches)):
            for size in (None, 2):
                inputs, found = whole(batches(explainer, given, batch_size=size)[0])
                if len(inputs):
                    torch.testing.assert_close(inputs, IMAGES, rtol=0, atol=0)
                assert found == plain
                assert all(type(label) in (int, str) for label in found)
                given = iter(pairs) if hasattr(given, "__next__") else given

    def test_files_folders_and_the_folders_of_classes(self, explainer, tmp_path):
        files = []
        for i, picture in enumerate(uint8()):
            folder = tmp_path / "photos" / ("left" if i < 4 else "right")
            folder.mkdir(parents=True, exist_ok=True)
            files.append(str(folder / f"{i}.png"))
            PIL.Image.fromarray(picture).save(files[-1])
        expected = torch.from_numpy(uint8()).permute(0, 3, 1, 2) / 255
        for given in (files, tuple(files), iter(files), DataLoader(files, batch_size=3), np.array(files).tolist()):
            found, _ = batches(explainer, given)
            inputs, labels = whole(found)
            torch.testing.assert_close(inputs, expected)
            assert labels == []
            assert [source for batch in found for source in batch.sources] == files
        found, stream = batches(explainer, tmp_path / "photos", batch_size=5)
        inputs, labels = whole(found)
        torch.testing.assert_close(inputs, expected)
        assert labels == ["left"] * 4 + ["right"] * 3
        assert stream.count == 7
        _, labels = whole(batches(explainer, str(tmp_path / "photos" / "left"))[0])
        assert labels == []
        (only,), stream = batches(explainer, files[2])
        assert (len(only.input), stream.count) == (1, 1)
        _, labels = whole(batches(explainer, list(zip(files, "abcdefg", strict=True)))[0])
        assert labels == [*"abcdefg"]

    def test_other_collections(self, explainer):
        """Whatever can be iterated: a data set of another library, a column of a table."""

        class Column:
            def __len__(self):
                return 7

            def __iter__(self):
                return ({"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True))

        found, stream = batches(explainer, Column(), batch_size=3)
        inputs, labels = whole(found)
        torch.testing.assert_close(inputs, IMAGES)
        assert labels == LABELS
        assert stream.count == 7

    def test_signals(self):
        model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.Flatten())
        signals = torch.rand(5, 2, 20)
        for given in (signals, list(signals), DataLoader(signals, batch_size=2), DataLoader(signals, batch_size=None)):
            inputs, _ = whole(batches(Explainer(model), given, batch_size=2)[0])
            torch.testing.assert_close(inputs, signals)


class TestCounts:
    @pytest.mark.parametrize(
        ("images", "count"),
        [
            (IMAGES, 7),
            (IMAGES[0], 1),
            (uint8(), 7),
            (uint8()[0], 1),
            (list(IMAGES), 7),
            (TensorDataset(IMAGES), 7),
            (DataLoader(TensorDataset(IMAGES), batch_size=3), 7),
            (DataLoader(TensorDataset(IMAGES), batch_size=3, drop_last=True), 6),
            (DataLoader(TensorDataset(IMAGES), batch_size=2, sampler=[0, 1, 2]), 4),  # at most: the last may be short
            (DataLoader(TensorDataset(IMAGES), batch_size=None), None),
            (DataLoader(TensorDataset(IMAGES), batch_sampler=[[0], [1, 2]]), None),
            (iter(IMAGES), None),
            (Endless(IMAGES), None),
            (DataLoader(Endless(list(IMAGES)), batch_size=3), None),
        ],
        ids=range(14),
    )
    def test_how_many(self, explainer, images, count):
        assert Stream(explainer, images).count == count

    def test_batch_sizes(self, explainer):
        assert [len(b.input) for b in batches(explainer, IMAGES, batch_size=3)[0]] == [3, 3, 1]
        assert [len(b.input) for b in batches(explainer, DataLoader(IMAGES, 4))[0]] == [4, 3]
        assert [len(b.input) for b in batches(explainer, DataLoader(IMAGES, 4), batch_size=3)[0]] == [3, 1, 3]
        assert [len(b.input) for b in batches(explainer, [IMAGES] * 5)[0]] == [7] * 5
        for wrong in (0, -1, 2.5, "3"):
            with pytest.raises(errors.InputError, match="batch_size must be"):
                Stream(explainer, IMAGES, batch_size=wrong)

    def test_twice(self, explainer):
        stream = Stream(explainer, list(IMAGES), batch_size=3)
        assert [len(b.input) for b in stream] == [len(b.input) for b in stream] == [3, 3, 1]

    def test_the_names_of_classes(self, explainer):
        assert Stream(explainer, Pairs()).classes == Pairs.classes
        assert Stream(explainer, DataLoader(Pairs())).classes == Pairs.classes
        assert Stream(explainer, Subset(Subset(Pairs(), range(3)), [0])).classes == Pairs.classes
        assert Stream(explainer, DataLoader(Subset(Pairs(), range(3)))).classes == Pairs.classes
        assert Stream(explainer, IMAGES).classes == ()
        data = Pairs()
        data.classes = np.array(["a", "b"])
        assert Stream(explainer, data).classes == ("a", "b")

    def test_the_bar(self, explainer, capsys):
        for _ in Stream(explainer, IMAGES, batch_size=3, progress=True, doing="walking"):
            pass
        shown = capsys.readouterr().err
        assert "walking" in shown
        assert "7/7" in shown


class TestLaziness:
    def test_a_generator_is_read_batch_by_batch(self, explainer):
        read = []

        def images():
            for i, image in enumerate(IMAGES):
                read.append(i)
                yield image

        stream = iter(Stream(explainer, images(), batch_size=2))
        assert read == []
        next(stream)
        assert read == [0, 1]
        next(stream)
        assert read == [0, 1, 2, 3]

    def test_batches_of_a_generator_are_taken_one_by_one(self, explainer):
        read = []

        def images():
            for i in range(4):
                read.append(i)
                yield IMAGES

        stream = iter(Stream(explainer, images(), batch_size=16))
        assert len(next(stream).input) == 7
        assert read == [0]

    def test_a_data_set_is_asked_only_for_what_is_needed(self, explainer):
        asked = []

        class Asked(Pairs):
            def __getitem__(self, i):
                asked.append(i)
                return super().__getitem__(i)

        next(iter(Stream(explainer, Asked(), batch_size=3)))
        assert asked == [0, 1, 2]

    @pytest.mark.sweep
    def test_nothing_is_kept(self, explainer):
        """At most the batch at hand and the one before it are alive."""
        alive = []

        def images():
            for _ in range(12):
                image = torch.rand(3, 8, 12)
                alive.append(weakref.ref(image))
                yield image
                del image

        most = 0
        for batch in Stream(explainer, images(), batch_size=2):
            assert len(batch.input) == 2
            gc.collect()
            most = max(most, sum(image() is not None for image in alive))
        del batch
        assert most <= 4
        gc.collect()
        assert sum(image() is not None for image in alive) == 0

    def test_an_endless_one_can_be_left(self, explainer):
        def images():
            while True:
                yield IMAGES[0]

        for batch in Stream(explainer, images(), batch_size=4, progress=True):
            if batch.first >= 8:
                break
        assert batch.first == 8


class TestMistakes:
    @pytest.mark.parametrize(
        "images",
        [[], (), iter(()), TensorDataset(IMAGES[:0]), Endless([]), DataLoader(IMAGES[:0]), IMAGES[:0]],
        ids=type,
    )
    def test_empty(self, explainer, images):
        with pytest.raises(errors.InputError, match=r"no images|empty"):
            batches(explainer, images)

    def test_an_empty_folder(self, explainer, tmp_path):
        with pytest.raises(errors.InputError, match="no photos in the folder"):
            batches(explainer, tmp_path)

    def test_a_file_that_is_not_there(self, explainer, tmp_path):
        with pytest.raises(FileNotFoundError):
            batches(explainer, tmp_path / "none.png")
        PIL.Image.fromarray(uint8()[0]).save(tmp_path / "one.png")
        with pytest.raises(FileNotFoundError, match=r"none\.png"):
            batches(explainer, [str(tmp_path / "one.png"), str(tmp_path / "none.png")])

    def test_uneven_sizes_in_one_batch(self, explainer):
        with pytest.raises(errors.InputError, match=r"differ in size.*image 2"):
            batches(explainer, [IMAGES[0], IMAGES[1], torch.rand(3, 9, 9)])
        assert len(batches(explainer, [IMAGES[0], torch.rand(3, 9, 9)], batch_size=1)[0]) == 2

    def test_labels_missing_for_some(self, explainer):
        with pytest.raises(errors.InputTypeError, match="label of image 1 is None"):
            batches(explainer, [(IMAGES[0], 1), (IMAGES[1], None)])
        with pytest.raises(errors.InputTypeError, match="label of image 1 is None"):
            batches(explainer, [(IMAGES[0], 1), IMAGES[1]])
        with pytest.raises(errors.InputError, match="1 of 2 images have a label"):
            as_labels(None, [3], 2)

    @pytest.mark.parametrize("label", [1.5, True, [1], (1, 2), {"a": 1}, torch.tensor([1.0, 0.0]), np.array(0.5), b"a"])
    def test_labels_of_another_type(self, explainer, label):
        for given in ([(IMAGES[0], label)], iter([(IMAGES[0], label)]), DataLoader([(IMAGES[0], label)], None)):
            with pytest.raises(errors.InputTypeError, match="label of image 0 is"):
                batches(explainer, given)

    def test_one_hot_labels_of_a_loader(self, explainer):
        with pytest.raises(errors.InputTypeError, match=r"label of image 0 is \[0\.0, 1\.0\]"):
            batches(explainer, DataLoader([(image, torch.tensor([0.0, 1.0])) for image in IMAGES], batch_size=3))

    @pytest.mark.parametrize("count", [1, 3])
    def test_too_few_or_too_many_labels(self, explainer, count):
        with pytest.raises(errors.InputError, match=f"{count} labels for the 2 images from number 0"):
            batches(explainer, DataLoader([(IMAGES[:2], LABELS[:count])], batch_size=None))
        with pytest.raises(errors.InputError, match=f"{count} labels for the 2 images from number 0"):
            as_labels(LABELS[:count], (), 2)

    @pytest.mark.parametrize("labels", ["ab", b"ab", 3, {0: "a", 1: "b"}, torch.tensor(1)])
    def test_labels_that_are_no_list(self, labels):
        with pytest.raises(errors.InputTypeError, match="a list with one for each image"):
            as_labels(labels, (), 2)

    def test_a_column_of_labels(self, explainer):
        """As some data sets have them: (N, 1)."""
        loader = DataLoader([(image, np.array([label])) for image, label in zip(IMAGES, LABELS, strict=True)], 3)
        assert whole(batches(explainer, loader)[0])[1] == LABELS
        assert as_labels(np.array(LABELS)[:, None], (), 7) == tuple(LABELS)

    def test_items_that_hold_no_image(self, explainer):
        with pytest.raises(errors.InputTypeError, match=r"mapping with 'text', 'y'; expected one of 'pixel_values'"):
            batches(explainer, [{"text": "a", "y": 1}])
        with pytest.raises(errors.InputTypeError, match="item of the data set is empty"):
            batches(explainer, [()])
        with pytest.raises(errors.InputTypeError, match="image 0 is of type int"):
            batches(explainer, [3, 4])
        for given in (None, 3, {"image": IMAGES[0]}, b"bytes"):
            with pytest.raises(errors.InputTypeError, match="image 0 is of type"):
                batches(explainer, given)

    def test_a_data_set_without_a_length(self, explainer):
        class Lengthless(Dataset):
            def __getitem__(self, i):
                return IMAGES[i]

        with pytest.raises(errors.InputTypeError, match="Lengthless has no length"):
            batches(explainer, Lengthless())
        loader = DataLoader(Lengthless(), batch_size=2, sampler=[4, 2, 0])
        assert torch.equal(whole(batches(explainer, loader)[0])[0], IMAGES[[4, 2, 0]])

    def test_an_error_of_the_data_set_passes_through(self, explainer):
        def images():
            yield IMAGES[0]
            raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            batches(explainer, images())
