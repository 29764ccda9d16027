"""What every result of `inside` does: it is frozen, shows itself, and comes back from disk and pickle as it was."""

import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from seewhy import errors
from seewhy.result import Result


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Found(Result):
    values: np.ndarray
    each: Mapping[str, np.ndarray]
    names: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    nested: tuple[tuple[str | None, ...], ...] = ()
    maybe: np.ndarray | None = None
    number: float = 0.5

    def plot(self, ax=None):
        ax = self._axes(ax)
        ax.imshow(np.atleast_2d(self.values), cmap="gray")
        return ax

    def _size(self):
        return 2.0, 1.5


class Broken(Found):
    def plot(self, ax=None):
        raise RuntimeError("cannot be drawn")


def found(kind=Found, **more):
    values = {
        "values": np.arange(6, dtype=np.float32).reshape(2, 3),
        "each": {"a.b": np.arange(3), "ü/1": np.array([[True], [False]]), "": np.zeros((0, 2))},
        "names": ["x", "y"],
        "shapes": {"a.b": (1, 2), "c": (3,)},
        "nested": [["one", None], ["two"]],
        "provenance": {"model": "Net"},
    }
    return kind(**values | more)


def same(one, other):
    assert type(one) is type(other)
    for name in (part.name for part in fields(one)):
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes(), name
        elif name == "each":
            assert list(a) == list(b)
            for key in a:
                assert a[key].dtype == b[key].dtype
                np.testing.assert_array_equal(a[key], b[key])
        else:
            assert a == b, name


class TestFrozen:
    def test_arrays_cannot_be_written(self):
        one = found()
        with pytest.raises(ValueError, match="read-only"):
            one.values[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            one.each["a.b"][0] = 1
        with pytest.raises(TypeError):
            one.each["new"] = np.zeros(1)
        with pytest.raises(TypeError):
            one.provenance["model"] = "Other"
        with pytest.raises(FrozenInstanceError):
            one.values = np.zeros(1)

    def test_lists_become_tuples_all_the_way_down(self):
        assert found().names == ("x", "y")
        assert found().nested == (("one", None), ("two",))

    def test_nobody_else_can_change_it(self):
        whole = np.arange(8.0)
        given = {"a": np.zeros(2)}
        one = found(values=whole[2:5], each=given)
        whole[:] = -1
        given["a"][:] = 5
        given["b"] = np.ones(1)
        assert one.values.tolist() == [2, 3, 4]
        assert one.each["a"].tolist() == [0, 0]
        assert list(one.each) == ["a"]

    def test_a_read_only_view_of_a_writable_array_is_copied(self):
        whole = np.arange(8.0)
        view = whole[:4]
        view.setflags(write=False)
        one = found(values=view)
        whole[:] = -1
        assert one.values.tolist() == [0, 1, 2, 3]

    def test_views_of_views_and_of_what_is_no_array_are_copied(self):
        for base in (bytearray(np.arange(4.0).tobytes()),):
            one = found(values=np.frombuffer(base)[1:].view())
            base[:] = bytes(len(base))
            assert one.values.tolist() == [1, 2, 3]
        whole = np.arange(8.0)
        read_only = whole.view()
        read_only.setflags(write=False)
        one = found(values=read_only[1:3][:1])
        whole[:] = -1
        assert one.values.tolist() == [1]

    def test_read_only_arrays_are_not_copied(self):
        array = np.zeros(3)
        array.setflags(write=False)
        assert found(values=array).values is array


class TestOnDisk:
    def test_what_comes_back_is_equal_to_the_last_bit(self, tmp_path):
        values = np.array([[np.nan, -0.0, 1e-45], [np.inf, 3, -np.inf]], np.float32)
        one = found(values=values, number=float("inf"))
        one.save(tmp_path / "one.npz")
        same(one, Found.load(tmp_path / "one.npz"))
        same(one, Found.load(str(tmp_path / "one")))

    def test_none_and_arrays_of_none_come_back(self, tmp_path):
        for maybe in (None, np.zeros((2, 0))):
            one = found(maybe=maybe, each={})
            one.save(tmp_path / "one.npz")
            same(one, Found.load(tmp_path / "one.npz"))

    @pytest.mark.parametrize(
        ("name", "files"),
        [
            ("deep/er/one", {"one.npz", "one.png"}),
            ("one.png", {"one.png"}),
            ("one.NPZ", {"one.NPZ"}),
            ("one.v2", {"one.v2.npz", "one.v2.png"}),
            ("ünï cödé", {"ünï cödé.npz", "ünï cödé.png"}),
        ],
    )
    def test_suffixes_and_folders(self, tmp_path, name, files):
        found().save(tmp_path / name)
        folder = (tmp_path / name).parent
        assert {file.name for file in folder.iterdir()} == files
        if any(file.lower().endswith(".npz") for file in files):
            same(found(), Found.load(tmp_path / name))
        for file in files:
            if file.endswith(".png"):
                with PIL.Image.open(folder / file) as picture:
                    assert picture.size == (320, 240)

    @pytest.mark.parametrize("name", ["one.jpg", "one.pdf", "one.npy", ""])
    def test_other_kinds_of_files_are_refused(self, tmp_path, name):
        with pytest.raises(errors.InputError, match=r"\.png \(picture\), \.npz"):
            found().save(tmp_path / name if name else name)
        assert not list(tmp_path.iterdir())

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no saved result at"):
            Found.load(tmp_path / "nothing")
        with pytest.raises(errors.SeewhyError):
            Found.load(tmp_path)

    def test_other_results_and_damaged_files(self, tmp_path):
        found().save(tmp_path / "one.npz")
        with pytest.raises(errors.InputError, match="another format"):
            Broken.load(tmp_path / "one.npz")
        whole = (tmp_path / "one.npz").read_bytes()
        for bad in (b"", b"text", whole[: len(whole) // 2], whole[:-30]):
            (tmp_path / "bad.npz").write_bytes(bad)
            with pytest.raises(errors.InputError, match="damaged"):
                Found.load(tmp_path / "bad.npz")

    def test_a_file_of_another_version_of_the_class(self, tmp_path):
        """Fields that are missing, and fields that are too many."""

        @dataclass(frozen=True, eq=False, repr=False, kw_only=True)
        class Other(Result):
            values: np.ndarray
            extra: str = "x"

            @classmethod
            def _form(cls):
                return Found._form()

        Other(values=np.zeros(2)).save(tmp_path / "other.npz")
        with pytest.raises(errors.InputError, match="damaged"):
            Found.load(tmp_path / "other.npz")

    def test_saving_a_picture_that_cannot_be_drawn_says_why(self, tmp_path):
        with pytest.raises(RuntimeError, match="cannot be drawn"):
            found(Broken).save(tmp_path / "one.png")


class TestPickle:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_it_comes_back_frozen(self, protocol):
        again = pickle.loads(pickle.dumps(found(), protocol))
        same(found(), again)
        with pytest.raises(ValueError, match="read-only"):
            again.values[0] = 1


class TestShown:
    def test_the_picture_in_a_notebook(self):
        with PIL.Image.open(BytesIO(found()._repr_png_())) as picture:
            assert picture.size == (320, 240)

    def test_it_is_no_wider_than_a_notebook(self):
        class Wide(Found):
            def _size(self):
                return 40.0, 2.0

        with PIL.Image.open(BytesIO(found(Wide)._repr_png_())) as picture:
            assert picture.width == 1200

    def test_it_never_raises(self):
        assert found(Broken)._repr_png_() is None
        assert Result()._repr_png_() is None

    def test_pyplot_is_left_as_it_was(self):
        from matplotlib import pyplot as plt

        before = plt.get_fignums()
        found()._repr_png_()
        assert plt.get_fignums() == before
        ax = found().plot()
        assert plt.get_fignums() != before
        plt.close(ax.figure)

    def test_on_axes_of_ones_own(self):
        from matplotlib.figure import Figure

        left, right = Figure().subplots(1, 2)
        assert found().plot(right) is right
        assert not left.images
        with pytest.raises(errors.InputTypeError, match="one matplotlib Axes"):
            found().plot([left, right])


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_no_name_is_no_path(path):
    with pytest.raises(errors.InputError, match="load takes the path of a saved result"):
        Found.load(path)
