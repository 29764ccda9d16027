"""Explanations hold, index, show, keep and reopen what was computed."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from PIL import Image

from seewhy.errors import ImageNotFoundError, InputError, InputTypeError, SeewhyError, UnknownNameError
from seewhy.explanation import Explanation
from seewhy.explanations import Explanations
from seewhy.pictures import draw, label
from seewhy.render import colorize, figure, overlay

mpl.use("Agg")
ARRAYS = ("values", "maps", "images", "targets", "scores", "probabilities")
HEIGHT, WIDTH = 24, 36


def _make(count: int = 1, method: str = "grad_cam", layer: str | None = "layer4", **parts: Any) -> Explanation:
    rng = np.random.default_rng(count)
    given: dict[str, Any] = {
        "values": rng.random((count, 3, 4), np.float32),
        "maps": rng.random((count, HEIGHT, WIDTH), np.float32),
        "images": rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "targets": np.arange(count),
        "target_names": tuple(f"class {i}" for i in range(count)),
        "scores": np.arange(count, dtype=np.float32),
        "probabilities": np.linspace(0.5, 1, count, dtype=np.float32),
    }
    return Explanation(**(given | {"method": method, "layer": layer, "provenance": {"model": "Net"}} | parts))


def _gradient(count: int = 1, method: str = "saliency", **parts: Any) -> Explanation:
    values = np.random.default_rng(7).normal(size=(count, 3, HEIGHT, WIDTH)).astype(np.float32)
    return _make(count, method, None, **({"values": values, "maps": abs(values).max(1)} | parts))


def _signal(count: int = 1, channels: int = 2, length: int = 50, **parts: Any) -> Explanation:
    rng = np.random.default_rng(count)
    given = {
        "values": rng.random((count, length // 2), np.float32),
        "maps": rng.random((count, length), np.float32),
        "images": rng.integers(0, 256, (count, channels, length, 1), dtype=np.uint8).repeat(3, axis=3),
    }
    return _make(count, **(given | parts))


def _video(count: int = 1, time: int = 5, **parts: Any) -> Explanation:
    rng = np.random.default_rng(count)
    given = {
        "values": rng.random((count, time, 3, 4), np.float32),
        "maps": rng.random((count, time, HEIGHT, WIDTH), np.float32),
        "images": rng.integers(0, 256, (count, time, HEIGHT, WIDTH, 3), dtype=np.uint8),
    }
    return _make(count, **(given | parts))


def _same(one: Explanation, other: Explanation) -> bool:
    words = ("target_names", "method", "layer", "truth", "sources")
    return (
        all(np.array_equal(getattr(one, n), getattr(other, n), equal_nan=n != "images") for n in ARRAYS)
        and all(getattr(one, n).dtype == getattr(other, n).dtype for n in ARRAYS)
        and all(getattr(one, n) == getattr(other, n) for n in words)
        and dict(one.provenance) == dict(other.provenance)
    )


class TestArrays:
    def test_they_are_read_only_and_the_callers_stay_writable_and_apart(self) -> None:
        mine = np.ones((1, HEIGHT, WIDTH), np.float32)
        for given in (mine, mine[:], np.broadcast_to(mine, mine.shape)):
            e = _make(maps=given)
            mine[:] = 5
            assert (e.maps == 1).all()
            mine[:] = 1
        for name in ARRAYS:
            with pytest.raises(ValueError, match="read-only"):
                getattr(e, name)[...] = 0
        with pytest.raises(AttributeError):
            e.method = "other"  # type: ignore[misc]
        with pytest.raises(TypeError):
            e.provenance["model"] = "other"  # type: ignore[index]

    def test_types_are_as_promised(self) -> None:
        e = _make(2, maps=np.ones((2, HEIGHT, WIDTH)), targets=[1, -1], scores=[1, np.nan])
        assert [getattr(e, n).dtype.name for n in ARRAYS] == [
            "float32",
            "float32",
            "uint8",
            "int64",
            "float32",
            "float32",
        ]

    def test_asarray_gives_the_maps(self) -> None:
        e = _make(2)
        assert np.asarray(e) is not None
        assert (np.asarray(e) == e.maps).all()
        assert np.asarray(e, dtype=np.float64).dtype == np.float64
        assert np.array(e).flags.writeable

    @pytest.mark.parametrize(
        "parts",
        [
            {"maps": np.ones((3, 4, 5))},
            {"target_names": ("one",)},
            {"truth": ("a", "b", "c")},
            {"sources": ("a",)},
            {"images": np.zeros((2, HEIGHT, WIDTH), np.uint8)},
            {"images": np.zeros((2, HEIGHT, WIDTH, 3))},
            {"scores": 1.0},
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, parts: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            _make(2, **parts)

    def test_copies_are_explanations_too(self) -> None:
        e = _make(2, truth=("a", "b"))
        for other in (copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
            assert _same(e, other)
            assert not other.maps.flags.writeable


class TestIndexing:
    def test_one_image_keeps_the_first_axis(self) -> None:
        e = _make(3, truth=("a", "b", "c"), sources=("x.png", None, "z.png"))
        one = e[1]
        assert (len(one), one.maps.shape, one.images.shape) == (1, (1, HEIGHT, WIDTH), (1, HEIGHT, WIDTH, 3))
        assert (one.truth, one.sources, one.target_names) == (("b",), (None,), ("class 1",))
        assert (one.map == e.maps[1]).all()
        assert _same(e[-1], e[2])
        assert _same(e[np.int64(1)], one)

    def test_slices_and_iteration(self) -> None:
        e = _make(3)
        assert e[1:].target_names == ("class 1", "class 2")
        assert e[::-1].targets.tolist() == [2, 1, 0]
        assert [one.target_names[0] for one in e] == list(e.target_names)
        assert len(e[3:]) == 0

    @pytest.mark.parametrize("index", [3, -4, 100])
    def test_out_of_range(self, index: int) -> None:
        with pytest.raises(IndexError, match="of 3"):
            _make(3)[index]

    @pytest.mark.parametrize("index", ["a", 1.0, None, (0, 1)])
    def test_other_indices_are_refused(self, index: Any) -> None:
        with pytest.raises(InputTypeError, match="number or a slice"):
            _make(3)[index]

    def test_map_of_several_says_to_index(self) -> None:
        with pytest.raises(InputError, match=r"\[0\]"):
            _ = _make(2).map


def test_repr_is_one_line_and_says_what() -> None:
    assert repr(_make()) == (
        "Explanation(grad_cam, layer='layer4', target='class 0', probability=0.50, maps=(1, 24, 36))"
    )
    several = repr(_make(5, "saliency", None, target_names=("a\nb", *"cdef")))
    assert several == r"Explanation(saliency, targets=['a\nb', 'c', 'd', …], maps=(5, 24, 36))"


class TestPixels:
    def test_a_layers_map_is_laid_over_the_photo(self) -> None:
        e = _make()
        assert (e.image() == overlay(e.images[0], e.map)).all()
        assert (e.image("overlay") == e.overlay()).all()
        assert (e.image("map") == colorize(e.map)).all()

    def test_gradients_of_the_input_are_grey_up_to_their_99th_percentile(self) -> None:
        e = _gradient()
        pixels = e.image()
        assert np.ptp(pixels, axis=2).max() == 0
        assert (pixels[..., 0] == 255).mean() == pytest.approx(0.01, abs=0.006)
        assert pixels[..., 0][e.map.argmin() // WIDTH, e.map.argmin() % WIDTH] < 30

    def test_signed_maps_have_a_neutral_zero(self) -> None:
        maps = np.linspace(-1, 3, HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH)
        maps[0, 5, 6] = 0
        pixel = _make(maps=maps).image("map")[5, 6].astype(int)
        assert np.ptp(pixel) <= 3

    def test_a_batch_has_one_colour_table(self) -> None:
        maps = np.stack([np.full((HEIGHT, WIDTH), 2.0), np.full((HEIGHT, WIDTH), -2.0)])
        tables = {p.scale.colormap for p in draw(_make(2, maps=maps)) if p.scale}
        assert tables == {"RdBu_r"}

    def test_several_are_tiles(self) -> None:
        assert _make(4).image().shape[0] > 2 * HEIGHT
        assert (_make(4).image()[:HEIGHT, :WIDTH] == _make(4)[0].image()).all()

    @pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
    def test_constant_maps_have_a_picture(self, value: float) -> None:
        e = _make(maps=np.full((1, HEIGHT, WIDTH), value))
        assert ((e.image() == e.images[0]).all()) == (value != 3)
        assert e._repr_png_()

    def test_an_unknown_style_offers_a_close_one(self) -> None:
        with pytest.raises(UnknownNameError, match="'overlay'"):
            _make().image("overlai")

    def test_nothing_at_all_has_no_picture(self) -> None:
        for e in (_make(2)[2:], _signal(2)[2:], _video(2)[2:]):
            with pytest.raises(InputError, match="pictures"):
                e.image()
            assert e._repr_png_() is None


class TestSignalsAndVideos:
    @pytest.mark.parametrize("kind", [_signal, _video])
    def test_they_index_iterate_copy_and_reopen_as_images_do(self, kind: Any, tmp_path: Path) -> None:
        e = kind(3)
        assert (e[1].map == e.maps[1]).all()
        assert [len(one) for one in e] == [1, 1, 1]
        assert e[1:].images.shape == (2, *e.images.shape[1:])
        assert (np.asarray(e) == e.maps).all()
        assert repr(e.maps.shape) in repr(e)
        assert _same(pickle.loads(pickle.dumps(e)), e)
        e.save(tmp_path / "why")
        assert _same(Explanation.load(tmp_path / "why"), e)
        assert Image.open(tmp_path / "why.png").size > (400, 300)
        assert Image.open(io.BytesIO(e._repr_png_() or b"")).width <= 1200

    @pytest.mark.parametrize("kind", [_signal, _video])
    def test_there_is_no_photo_to_lay_them_over(self, kind: Any) -> None:
        with pytest.raises(InputError, match="on= is the photo of an image"):
            kind().overlay(on=np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    @pytest.mark.parametrize("kind", [_signal, _video])
    def test_several_are_saved_as_a_grid_and_reopened(self, kind: Any, tmp_path: Path) -> None:
        several = Explanations([kind(2), kind(2, method="cam", layer=None)])
        several.save(tmp_path)
        back = Explanations.load(tmp_path)
        assert list(back) == list(several)
        assert (tmp_path / "panel.png").is_file()

    @pytest.mark.parametrize(
        ("e", "maps", "told"),
        [
            (_make, (2, HEIGHT, WIDTH + 1), r"\(2, 24, 36\).*\(2, 24, 37\)"),
            (_make, (2, WIDTH, HEIGHT), r"\(2, 24, 36\).*\(2, 36, 24\)"),
            (_make, (2, 3, HEIGHT, WIDTH), r"\(N, T, H, W, 3\), got \(2, 24, 36, 3\)"),
            (_signal, (2, 25), r"\(2, 50\).*\(2, 25\)"),
            (_video, (2, 4, HEIGHT, WIDTH), r"\(2, 5, 24, 36\).*\(2, 4, 24, 36\)"),
            (_video, (2, HEIGHT, WIDTH), r"\(N, H, W, 3\), got \(2, 5, 24, 36, 3\)"),
            (_make, (2,), r"\(N, L\), \(N, H, W\) or \(N, T, H, W\), got \(2,\)"),
            (_make, (2, 1, 1, 1, 1), r"or \(N, T, H, W\), got"),
        ],
    )
    def test_maps_that_do_not_fit_the_images_are_refused(self, e: Any, maps: tuple[int, ...], told: str) -> None:
        with pytest.raises(InputError, match=told):
            e(2, maps=np.ones(maps))

    def test_a_notebook_shows_some_of_many_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        titles: list[str] = []
        monkeypatch.setattr(figure, "png", lambda axes, **_: titles.append(axes.get_title()) or b"")
        _video(7, 2)._repr_png_()
        _signal(17)._repr_png_()
        assert titles == [
            "grad_cam\nlayer4\nfirst 6 of 7 videos or volumes",
            "grad_cam\nlayer4\nfirst 16 of 17 signals",
        ]


class TestOverlayOnTheOriginal:
    @staticmethod
    def _explained(photo: np.ndarray) -> Explanation:
        seen = np.asarray(Image.fromarray(photo).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
        heat = np.zeros((1, HEIGHT, WIDTH), np.float32)
        heat[0, 6:9, 24:27] = 1
        return _make(images=seen[None], maps=heat)

    @staticmethod
    def _photo(height: int, width: int) -> np.ndarray:
        coarse = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    @pytest.mark.parametrize("size", [(120, 180), (100, 200)])
    def test_the_map_lies_at_the_same_place_of_the_photo(self, size: tuple[int, int]) -> None:
        photo = self._photo(*size)
        shown = self._explained(photo).overlay(on=photo)
        rows, columns = np.nonzero((shown != photo).any(2))
        assert shown.shape == photo.shape
        assert (rows.mean() + 0.5) / size[0] == pytest.approx(7.5 / HEIGHT, abs=0.02)
        assert (columns.mean() + 0.5) / size[1] == pytest.approx(25.5 / WIDTH, abs=0.02)

    def test_a_square_photo_whose_centre_was_kept_is_refused(self) -> None:
        photo = self._photo(180, 180)
        with pytest.raises(InputError, match="crops"):
            self._explained(photo[30:150]).overlay(on=photo)
        with pytest.raises(InputError, match="crops"):
            self._explained(photo[10:-10, 10:-10]).overlay(on=photo)

    def test_paths_work_and_several_images_are_refused(self, tmp_path: Path) -> None:
        photo = self._photo(120, 180)
        Image.fromarray(photo).save(tmp_path / "a.png")
        e = self._explained(photo)
        assert (e.overlay(on=tmp_path / "a.png", alpha=0.3) == e.overlay(on=photo, alpha=0.3)).all()
        with pytest.raises(InputError, match="one image"):
            _make(2).overlay(on=photo)


class TestFigures:
    def test_plot_draws_on_the_axes_given_and_returns_them(self) -> None:
        from matplotlib.figure import Figure

        ax = Figure().add_subplot()
        assert _make(truth=("class 0",)).plot(ax) is ax
        assert ax.get_title() == "grad_cam\nlayer4"
        assert ax.child_axes[0].get_xlabel() == "class 0 0.50"

    def test_plot_without_axes_makes_one_pyplot_figure(self) -> None:
        import matplotlib.pyplot as plt

        plt.close("all")
        assert _make(3).plot().figure.number in plt.get_fignums()
        assert len(plt.get_fignums()) == 1
        plt.close("all")

    def test_saving_and_showing_leave_nothing_in_pyplot(self, tmp_path: Path) -> None:
        import matplotlib.pyplot as plt

        plt.close("all")
        both = Explanations([_make(2), _gradient(2)])
        both.save(tmp_path / "set")
        _make().save(tmp_path / "one")
        assert both._repr_png_()
        assert _make()._repr_png_()
        assert plt.get_fignums() == []

    @pytest.mark.parametrize("style", ["dark_background", "ggplot", "seaborn-v0_8-whitegrid"])
    def test_the_users_style_does_not_break_it(self, style: str) -> None:
        with mpl.style.context(style), mpl.rc_context({"image.origin": "lower", "savefig.bbox": "tight"}):
            pixels = np.asarray(Image.open(io.BytesIO(_make()._repr_png_() or b"")))
        assert pixels[0, 0].tolist() == [255, 255, 255]

    def test_a_label_shows_the_score_where_there_is_no_probability(self) -> None:
        nan = np.array([np.nan])
        found = label(_make(probabilities=nan, scores=np.array([7.25])), 0)
        assert found is not None
        assert (found.name, found.value) == ("class 0", "score 7.25")
        named = label(_make(probabilities=nan, scores=nan), 0)
        assert named is not None
        assert named.value == ""
        assert label(_make(probabilities=nan, scores=nan, target_names=("",), targets=[-1], truth=("cat",)), 0) is None

    @pytest.mark.parametrize("count", [1, 100])
    def test_the_notebooks_picture_is_capped(self, count: int) -> None:
        layers = [_make(count, layer=f"layer{i}") for i in range(9)]
        for one in (layers[0], Explanations(layers)):
            assert Image.open(io.BytesIO(one._repr_png_() or b"")).width <= 1200

    def test_what_is_no_axes_is_refused(self) -> None:
        import matplotlib.pyplot as plt

        for wrong in (plt.figure(), plt.subplots(1, 2)[1]):
            with pytest.raises(InputTypeError, match="ax is one matplotlib Axes"):
                _make().plot(wrong)  # type: ignore[arg-type]
        plt.close("all")

    def test_the_notebooks_picture_never_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object, **options: object) -> None:
            raise RuntimeError

        monkeypatch.setattr(figure, "png", broken)
        assert _make()._repr_png_() is None
        assert Explanations([_make()])._repr_png_() is None
        assert Explanations([])._repr_png_() is None


class TestSaving:
    @pytest.mark.filterwarnings("ignore:Glyph")  # the font has no Chinese
    def test_a_round_trip_is_exact(self, tmp_path: Path) -> None:
        e = _make(
            2, layer=None, target_names=("Ägyptische Katze 猫", "x\n\x00"), truth=("a", "b"), targets=[-1, 3],
            probabilities=[np.nan, 1 / 3], scores=[np.inf, -0.0], sources=("fоto.png", None), provenance={"torch": "2"},
        )  # fmt: skip
        e.save(tmp_path / "new" / "folder" / "mine")
        for path in (tmp_path / "new/folder/mine", str(tmp_path / "new/folder/mine.npz")):
            assert _same(Explanation.load(path), e)
        assert Image.open(tmp_path / "new/folder/mine.png").format == "PNG"

    def test_arrays_are_stored_raw_and_need_no_pickle(self, tmp_path: Path) -> None:
        e = _make()
        e.save(tmp_path / "a.npz")
        assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
        with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
            assert (stored["maps"] == e.maps).all()
            assert json.loads(stored["metadata"].tobytes())["method"] == "grad_cam"

    def test_png_is_the_picture_only(self, tmp_path: Path) -> None:
        _make().save(tmp_path / "a.png")
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("name", ["a.jpg", "a.npy", "a.PDF"])
    def test_other_suffixes_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match=r"\.png"):
            _make().save(tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_a_name_with_a_dot_is_a_name(self, tmp_path: Path) -> None:
        _make().save(tmp_path / "layer4.0")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["layer4.0.npz", "layer4.0.png"]
        assert _same(Explanation.load(tmp_path / "layer4.0"), _make())

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageNotFoundError, match=r"none\.npz"):
            Explanation.load(tmp_path / "none")
        with pytest.raises(FileNotFoundError):
            Explanations.load(tmp_path / "none")

    def test_foreign_and_damaged_files_are_refused(self, tmp_path: Path) -> None:
        _make().save(tmp_path / "good.npz")
        good = (tmp_path / "good.npz").read_bytes()
        broken = bytearray(good)
        broken[len(good) // 2] ^= 255
        for i, content in enumerate([b"", b"hello", good[:100], good[: len(good) // 2], good[:-30], bytes(broken)]):
            (tmp_path / f"{i}.npz").write_bytes(content)
        np.savez(tmp_path / "6.npz", maps=np.ones(3))
        np.savez(tmp_path / "7.npz", metadata=np.frombuffer(b'{"format": "other"}', np.uint8))
        np.savez(tmp_path / "8.npz", metadata=np.frombuffer(b"[1]", np.uint8))
        np.savez(tmp_path / "9.npz", metadata=np.array([{}], dtype=object))
        np.save(tmp_path / "10", np.ones(3))
        (tmp_path / "10.npy").rename(tmp_path / "10.npz")
        for i in range(11):
            with pytest.raises(SeewhyError, match=rf"{i}\.npz") as caught:
                Explanation.load(tmp_path / f"{i}.npz")
            assert isinstance(caught.value, ValueError | OSError)


class TestExplanations:
    def test_keys(self) -> None:
        both = Explanations([_gradient(), _make(), _make(method="cam", layer="a"), _make(method="cam", layer="b")])
        assert list(both) == ["saliency", ("grad_cam", "layer4"), ("cam", "a"), ("cam", "b")]
        assert both["grad_cam"] is both["grad_cam", "layer4"]
        assert "grad_cam" in both
        assert ("cam", "b") in both
        assert "cam" not in both
        assert ("cam", "c") not in both
        assert 3 not in both
        assert len(both) == 4
        assert repr(both) == ("Explanations('saliency', 'grad_cam' at 'layer4', 'cam' at 'a', 'cam' at 'b'; images=1)")

    def test_several_layers_are_listed(self) -> None:
        both = Explanations([_make(layer="layer3"), _make(layer="layer4")])
        with pytest.raises(UnknownNameError, match=r"layer3.*layer4"):
            both["grad_cam"]

    @pytest.mark.parametrize(
        ("key", "close"), [("grad_cm", "grad_cam"), (("grad_cam", "layr4"), "layer4"), ("salient", "saliency")]
    )
    def test_unknown_names_offer_close_ones(self, key: Any, close: str) -> None:
        with pytest.raises(UnknownNameError, match=f"Did you mean .*{close}"):
            Explanations([_gradient(), _make()])[key]

    def test_two_of_one_name_need_names(self) -> None:
        with pytest.raises(InputError, match="name="):
            Explanations([_make(), _make()])
        with pytest.raises(InputTypeError, match="str"):
            Explanations(["grad_cam"])  # type: ignore[list-item]

    def test_the_grid_has_a_row_per_image_and_a_column_per_map(self) -> None:
        import matplotlib.pyplot as plt

        both = Explanations([_gradient(2), _make(2)])
        axes = both.plot()
        assert axes.shape == (2, 3)
        assert [ax.get_title().strip() for ax in axes[0]] == ["image", "saliency", "grad_cam\nlayer4"]
        assert (axes[1, 0].images[0].get_array() == both["saliency"].images[1]).all()
        assert (axes[1, 2].images[0].get_array() == both["grad_cam"].image(limits="shared")[:, WIDTH + 1 :]).all()
        assert axes[1, 0].get_xlabel() == "class 1 1.00"
        assert axes[1, 2].child_axes[0].get_xlabel() == ""
        plt.close("all")

    def test_a_map_of_another_target_has_its_own_label(self) -> None:
        rows = Explanations([_make(), _make(layer="b", target_names=("dog",))])._rows()
        assert [p.label and p.label.name for p in rows[0]] == ["class 0", None, "dog"]

    def test_a_grid_needs_the_same_number_of_images(self) -> None:
        with pytest.raises(InputError, match="same images"):
            Explanations([_make(1), _gradient(2)]).plot()
        with pytest.raises(InputError, match="'saliency' is of others"):
            Explanations([_make(2), _gradient(2, images=np.zeros((2, HEIGHT, WIDTH, 3), np.uint8))]).plot()
        with pytest.raises(InputError, match="none"):
            Explanations([]).plot()

    def test_a_folder_round_trip_keeps_the_order(self, tmp_path: Path) -> None:
        both = Explanations([_make(layer="layer4.0.conv1"), _gradient(), _make(layer="layer4"), _make(method="cam")])
        both.save(tmp_path / "why")
        names = {p.name for p in (tmp_path / "why").iterdir()}
        assert names >= {"grad_cam-layer4.npz", "grad_cam-layer4.png", "grad_cam-layer4.0.conv1.npz", "panel.png"}
        assert len(names) == 9
        again = Explanations.load(tmp_path / "why")
        assert list(again) == list(both)
        assert all(_same(again[key], both[key]) for key in both)
        assert _same(Explanation.load(tmp_path / "why" / "grad_cam-layer4.0.conv1"), both["grad_cam", "layer4.0.conv1"])

    @pytest.mark.filterwarnings("ignore:Glyph")  # the font has no Chinese
    def test_file_names_are_safe_and_unique(self, tmp_path: Path) -> None:
        names = ["../up", "a/b", "a b", "A_b", "panel", "..", "x" * 300, "猫"]
        Explanations([_make(method=name, layer=None) for name in names]).save(tmp_path / "why")
        assert [p.name for p in tmp_path.iterdir()] == ["why"]
        stems = [p.stem.casefold() for p in (tmp_path / "why").glob("*.npz")]
        assert len(set(stems)) == len(names)
        assert "panel" not in stems
        assert list(Explanations.load(tmp_path / "why")) == names


def test_importing_is_cheap() -> None:
    """Neither module draws in torch, pyplot or cv2; the package around them is replaced, as it may import torch."""
    source = Path(sys.modules["seewhy.explanation"].__file__ or "").parent
    code = (
        "import sys, types; p = types.ModuleType('seewhy'); p.__path__ = [sys.argv[1]]; sys.modules['seewhy'] = p\n"
        "import seewhy.explanation, seewhy.render.panel\n"
        "print([m for m in ('torch', 'cv2', 'matplotlib', 'matplotlib.pyplot') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_set_is_saved_as_one_picture_or_a_folder_and_no_other_file(tmp_path: Path) -> None:
    both = Explanations([_make(), _gradient()])
    both.save(tmp_path / "new" / "grid.png")
    assert (tmp_path / "new" / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("**/*.npz"))
    with pytest.raises(InputError, match=r"a folder, or to a \.png"):
        both.save(tmp_path / "grid.jpg")
    assert not (tmp_path / "grid.jpg").exists()
