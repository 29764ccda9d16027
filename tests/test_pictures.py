"""What an explanation looks like in each style, and which values its colours span."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError, InputTypeError, UnknownNameError
from seewhy.explanation import Explanation
from seewhy.explanations import Explanations
from seewhy.pictures import draw, in_words, spans
from seewhy.render import channel_grid, colorize, figure, in_colour, overlay, panel
from seewhy.render.frames import places
from seewhy.render.signal import lanes, strip

HEIGHT, WIDTH = 24, 36


def _make(values: np.ndarray, maps: np.ndarray, method: str = "grad_cam", layer: str | None = "layer4") -> Explanation:
    count = len(maps)
    return Explanation(
        values=values,
        maps=maps,
        images=np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8),
        targets=np.zeros(count, int),
        target_names=("cat",) * count,
        scores=np.ones(count),
        probabilities=np.ones(count),
        method=method,
        layer=layer,
    )


def _gradient(count: int = 2) -> Explanation:
    values = (
        np.random.default_rng(7).normal(size=(count, 3, HEIGHT, WIDTH)) * np.arange(1, count + 1)[:, None, None, None]
    )
    return _make(values, abs(values).max(1), "guided_backprop", None)


def _heat(*peaks: float) -> Explanation:
    maps = np.stack([np.linspace(0, peak, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) for peak in peaks])
    return _make(maps[:, ::6, ::6], maps)


def _activations(channels: int = 20, count: int = 1) -> Explanation:
    values = np.random.default_rng(3).normal(size=(count, channels, 4, 6))
    values[:, 1], values[:, 2] = 0, 5
    return _make(values, np.ones((count, HEIGHT, WIDTH)), "activations")


def _signal(*peaks: float, channels: int = 2, length: int = 60, **parts: Any) -> Explanation:
    maps = np.stack([np.linspace(0, peak, length) for peak in peaks])
    images = np.random.default_rng(0).integers(0, 256, (len(peaks), channels, length, 1), dtype=np.uint8)
    return replace(_heat(*peaks), **({"values": maps[:, ::2], "maps": maps, "images": images.repeat(3, 3)} | parts))


def _video(*peaks: float, time: int = 5, **parts: Any) -> Explanation:
    ramp = np.arange(time * HEIGHT * WIDTH).reshape(time, HEIGHT, WIDTH) / (time * HEIGHT * WIDTH - 1)
    maps = np.stack([ramp * peak for peak in peaks])
    images = np.random.default_rng(0).integers(0, 256, (*maps.shape, 3), dtype=np.uint8)
    return replace(_heat(*peaks), **({"values": maps[:, ::2, ::4], "maps": maps, "images": images} | parts))


class TestSignals:
    def test_the_pixels_are_the_lanes_over_the_maps_colours_of_its_limits(self) -> None:
        e = _signal(1.0, 4.0)
        shared = [p.pixels for p in draw(e, limits="shared")]
        own = [p.pixels for p in draw(e, limits="own")]
        for i, most in enumerate((1.0, 4.0)):
            assert (shared[i] == lanes(e.images[i], e.maps[i], limits=(0.0, 4.0))).all()
            assert (own[i] == lanes(e.images[i], e.maps[i], limits=(0.0, most))).all()
            assert (e[i].image() == own[i]).all()
            assert (e[i].overlay() == own[i]).all()
        assert not (shared[0] == own[0]).all()

    def test_the_bar_has_the_colours_behind_the_curves_and_its_ends_are_honest(self) -> None:
        heat = np.linspace(0, 1, 60)
        (picture,) = draw(_signal(1.0, channels=1, images=np.zeros((1, 1, 60, 3), np.uint8)), limits=(0.0, 0.5))
        assert picture.scale is not None
        assert [text for _, text in picture.scale.ticks()] == ["0", "≥ 0.5"]
        bar = picture.scale.bar()[0]
        column = picture.pixels.shape[1] // 60
        for i in (0, 10, 29, 59):
            nearest = bar[min(255, round(heat[i] / 0.5 * 255))].astype(int)
            assert abs(picture.pixels[0, i * column].astype(int) - nearest).max() <= 4

    def test_gradients_of_the_input_are_drawn_behind_the_curves_up_to_their_largest(self) -> None:
        values = np.random.default_rng(0).normal(size=(1, 2, 60))
        e = _signal(1.0, values=values, maps=abs(values).max(1), layer=None, method="saliency")
        (picture,) = draw(e)
        assert picture.scale is not None
        assert picture.scale.high == pytest.approx(abs(values).max())
        assert not picture.scale.beyond
        assert (picture.pixels == lanes(e.images[0], e.maps[0])).all()

    def test_signed_maps_have_white_at_0_in_the_middle_of_the_bar(self) -> None:
        maps = np.linspace(-1, 3, 60)[None]
        (picture,) = draw(_signal(1.0, maps=maps))
        assert picture.scale is not None
        assert (picture.scale.low, picture.scale.high) == (-3.0, 3.0)
        assert picture.scale.bar()[0, 127:129].min() > 240

    def test_the_map_alone_is_a_band_in_its_usual_colours(self) -> None:
        (picture,) = draw(_signal(2.0), "map")
        assert (picture.pixels == strip(np.linspace(0, 2, 60), "inferno", (0.0, 2.0))).all()
        assert picture.across
        assert not picture.down

    def test_each_channel_of_an_activation_is_a_row(self) -> None:
        values = np.random.default_rng(0).normal(size=(1, 7, 30))
        values[:, 3] = 0
        (picture,) = draw(_signal(1.0, values=values, method="activations"), "channels")
        row = len(picture.pixels) // 7
        assert picture.pixels.shape == (7 * row, 990, 3)
        assert (picture.pixels[3 * row : 4 * row] == 255).all()
        expected = np.clip(128 + 64 * (values[0, 5] - values[0, 5].mean()) / values[0, 5].std(), 0, 255)
        assert abs(picture.pixels[5 * row, ::33, 0] - expected).max() <= 0.51
        assert [text for _, text in picture.down] == ["channel 0", "1", "2", "3", "4", "5", "6"]

    def test_they_have_no_colours_and_maps_of_a_layer_no_channels(self) -> None:
        values = np.ones((1, 3, 60))
        three = _signal(1.0, channels=3, values=values, layer=None)
        with pytest.raises(InputError, match="which a signal has not"):
            three.image("color")
        with pytest.raises(InputError, match=r"activations \(N, C, l\)"):
            _signal(1.0).image("channels")

    def test_a_grid_numbers_channels_once_and_samples_at_the_foot(self) -> None:
        grid = Explanations([_signal(1.0, 2.0), _signal(1.0, 2.0, layer="layer3")])._rows()
        assert [[bool(p.down) for p in row] for row in grid] == [[True, False, False]] * 2
        assert grid[0][0].heading == ("signal",)
        assert (grid[1][0].pixels == lanes(_signal(1.0, 2.0).images[1])).all()


class TestVideos:
    def test_each_frame_has_its_map_over_it_in_one_colour_range(self) -> None:
        e = _video(2.0, time=6)
        pixels = e.image()
        for t, (x, y) in enumerate(places(6, HEIGHT, WIDTH)):
            expected = overlay(e.images[0, t], e.maps[0, t], limits=(0.0, 2.0))
            assert (pixels[y : y + HEIGHT, x : x + WIDTH] == expected).all()
        assert (e.overlay() == pixels).all()

    def test_of_many_frames_sixteen_are_drawn_and_it_is_said_which(self) -> None:
        (picture,) = draw(_video(1.0, time=31), "map")
        assert picture.heading == ("grad_cam", "layer4", "16 of 31 frames")
        assert [mark.label.name for mark in picture.marks] == [f"frame {t}" for t in range(0, 31, 2)]
        for mark, t in zip(picture.marks, range(0, 31, 2), strict=True):
            expected = colorize(_video(1.0, time=31).maps[0, t], limits=(0.0, 1.0))
            assert (picture.pixels[int(mark.y) :, int(mark.x) :][:HEIGHT, :WIDTH] == expected).all()
        assert draw(_video(1.0, time=16))[0].heading == ("grad_cam", "layer4")

    def test_a_batch_is_named_by_target_and_not_by_frame(self) -> None:
        whole = panel.merge(draw(_video(1.0, 2.0)))
        assert [mark.label.name for mark in whole.marks] == ["cat", "cat"]

    def test_gradients_have_their_colours_in_each_frame(self) -> None:
        values = np.random.default_rng(7).normal(size=(1, 3, 5, HEIGHT, WIDTH))
        e = _video(1.0, values=values, maps=abs(values).max(1), layer=None)
        x, y = places(5, HEIGHT, WIDTH)[4]
        most = float(np.percentile(abs(values), 99))
        expected = in_colour(values[0, :, 4], most)
        assert abs(e.image("color")[y : y + HEIGHT, x : x + WIDTH].astype(int) - expected).max() <= 1
        assert draw(e)[0].scale == draw(e, "map")[0].scale

    def test_channels_are_those_of_the_middle_of_the_time(self) -> None:
        values = np.random.default_rng(3).normal(size=(1, 20, 4, 4, 6))
        (picture,) = draw(_video(1.0, values=values, method="activations"), "channels")
        assert (picture.pixels == channel_grid(values[0, :, 2])).all()
        assert picture.heading == ("activations", "layer4", "time step 2 of 0..3")

    def test_a_grid_shows_the_frames_first(self) -> None:
        ((seen, drawn),) = Explanations([_video(1.0, time=20)])._rows()
        assert seen.heading == ("frames", "16 of 20 frames")
        assert drawn.heading == ("grad_cam", "layer4")
        x, y = places(16, HEIGHT, WIDTH)[15]
        assert (seen.pixels[y : y + HEIGHT, x : x + WIDTH] == _video(1.0, time=20).images[0, 19]).all()


class TestColour:
    def test_guided_gradients_have_their_three_colours_about_mid_grey(self) -> None:
        e = _gradient(1)
        pixels = e.image("color")
        most = np.percentile(abs(e.values), 99)
        expected = 127.5 + 127.5 * np.clip(e.values[0] / most, -1, 1).transpose(1, 2, 0)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert abs(pixels - expected).max() <= 0.51

    def test_zero_is_grey_and_signs_are_symmetric(self) -> None:
        values = np.zeros((1, 3, HEIGHT, WIDTH))
        values[0, 0, 5, 6], values[0, 2, 7, 8] = 2, -2
        pixels = _make(values, abs(values).max(1), layer=None).image("color", limits=(-2.0, 2.0))
        assert pixels[0, 0].tolist() == [128, 128, 128]
        assert pixels[5, 6].tolist() == [255, 128, 128]
        assert pixels[7, 8].tolist() == [128, 128, 0]

    def test_only_attributions_of_three_colours_have_it(self) -> None:
        with pytest.raises(InputError, match=r"style='color'.*'grad_cam' are \(1, 4, 6\)"):
            _heat(1.0).image("color")
        values = np.ones((1, 1, HEIGHT, WIDTH))
        with pytest.raises(InputError, match="three colours"):
            _make(values, values[:, 0], "saliency").image("color")


class TestChannels:
    def test_there_are_sixteen_a_row(self) -> None:
        e = _activations(20)
        assert (e.image("channels") == channel_grid(e.values[0])).all()
        side, gap = 28, 1
        assert e.image("channels").shape == (2 * side + gap, 16 * 42 + 15 * gap, 3)

    def test_they_get_the_room_of_sixteen_alone_and_of_one_in_a_panel(self) -> None:
        assert draw(_activations(), "channels")[0].columns == 16
        assert draw(_activations(), "channels", beside=True)[0].columns == 1
        assert draw(_heat(1.0))[0].columns == 1

    def test_in_a_panel_they_are_about_square(self) -> None:
        grid = Explanations([_activations(100)])._rows(style="channels")[0][1].pixels
        assert 0.5 < grid.shape[0] / grid.shape[1] < 2

    def test_only_activations_have_it(self) -> None:
        for e in (_heat(1.0), _gradient(1)):
            with pytest.raises(InputError, match="activations"):
                e.image("channels")


class TestLimits:
    def test_each_its_own_or_one_for_all(self) -> None:
        e = _heat(1.0, 4.0)
        assert spans(e, "own") == [(0.0, 1.0), (0.0, 4.0)]
        assert spans(e, "shared") == [(0.0, 4.0)] * 2
        assert spans(e, (-1, 2)) == [(-1.0, 2.0)] * 2
        assert (e.image(limits=np.array([0.0, 2.0])) == e.image(limits=(0.0, 2.0))).all()  # type: ignore[arg-type]

    def test_gradients_span_to_the_99th_percentile(self) -> None:
        e = _gradient()
        assert spans(e, "shared")[0][1] == pytest.approx(np.percentile(e.maps, 99))
        assert spans(e, "own")[0][1] == pytest.approx(np.percentile(e.maps[0], 99))
        most = np.percentile(abs(e.values), 99)
        assert spans(e, "shared", "color")[0] == pytest.approx((-most, most))
        assert spans(e, (-1, 3), "color") == [(-3.0, 3.0)] * 2

    def test_in_a_figure_images_share_a_scale_and_as_pixels_each_has_its_own(self) -> None:
        e = _heat(1.0, 4.0)
        own, shared = (p.pixels for p in (draw(e)[0], draw(e, limits="shared")[0]))
        assert (e[0].image() == own).all()
        assert (e[0].image() != shared).any()
        ax = e.plot()
        assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == ["0", "4"]
        ax = e.plot(limits="own")
        assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == ["0", "max of each"]

    def test_the_same_value_has_the_same_colour_where_the_scale_is_shared(self) -> None:
        one, two = draw(_heat(1.0, 4.0), "map", "shared")
        flat_one, flat_two = one.pixels.reshape(-1, 3), two.pixels.reshape(-1, 3)
        assert abs(flat_one[-1].astype(int) - flat_two[(HEIGHT * WIDTH - 1) // 4]).max() <= 3

    def test_a_signed_method_has_two_colours_whatever_its_values(self) -> None:
        positive = replace(_heat(2.0), signed=True)
        assert spans(positive) == [(-2.0, 2.0)]
        assert [p.scale and p.scale.colormap for p in (*draw(positive), *draw(_heat(2.0)))] == ["RdBu_r", "inferno"]

    def test_values_beyond_are_told(self) -> None:
        def texts(e: Explanation, **options: Any) -> list[str]:
            return [text for p in draw(e, **options) if p.scale for _, text in p.scale.ticks()]

        assert texts(_heat(4.0), limits=(0.0, 2.0)) == ["0", "≥ 2"]
        assert texts(_heat(4.0), limits=(0.0, 8.0)) == ["0", "8"]
        assert texts(_heat(4.0), limits=(1.0, 2.0)) == ["≤ 1", "≥ 2"]
        assert texts(_heat(1.0, 4.0), limits=(0.0, 2.0)) == ["0", "≥ 2"] * 2  # one scale, so one text
        assert all(text.startswith(("0", "≥ ")) for text in texts(_gradient()))

    def test_an_overlay_takes_limits(self) -> None:
        e = _heat(1.0)
        assert (e.overlay(limits=(0.0, 1.0)) == e.overlay()).all()
        assert (e.overlay(limits=(0.0, 4.0)) == _heat(4.0).overlay()).mean() < 0.9

    def test_each_overlay_has_its_own(self) -> None:
        e = _heat(1.0, 4.0)
        assert (e.overlay()[:, -WIDTH:] == e[1].overlay()).all()

    def test_the_bar_of_an_overlay_fades_and_that_of_a_map_does_not(self) -> None:
        over = [p.scale and p.scale.over for style in ("overlay", "map") for p in draw(_heat(1.0), style)]
        assert over == [True, False]

    def test_a_grid_passes_them_on(self) -> None:
        both = Explanations([_heat(1.0, 4.0), _gradient()])
        own, shared, given = (both._rows(limits=limits)[0][1].scale for limits in ("own", "shared", (0.0, 9.0)))
        assert own
        assert shared
        assert given
        assert (own.high, shared.high, given.high) == (1.0, 4.0, 9.0)

    @pytest.mark.parametrize(
        ("limits", "error"),
        [
            ("each", UnknownNameError),
            ((2.0, 1.0), InputError),
            ((0.0, np.nan), InputError),
            ((0.0,), InputTypeError),
            (3, InputTypeError),
            (("a", "b"), InputTypeError),
        ],
    )
    def test_others_are_refused(self, limits: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="limits"):
            _heat(1.0).image(limits=limits)


class TestStylesOfASet:
    def test_a_style_is_taken_by_those_that_it_fits(self) -> None:
        both = Explanations([_gradient(), _heat(1.0, 2.0)])
        row = both._rows(style="color")[0]
        assert (row[1].pixels == draw(both["guided_backprop"], "color", "shared")[0].pixels).all()
        assert (row[2].pixels == draw(both["grad_cam"], "overlay", "shared")[0].pixels).all()

    def test_a_style_that_fits_none_or_is_none_is_an_error(self) -> None:
        with pytest.raises(InputError, match="fits none of 'grad_cam' at 'layer4'"):
            Explanations([_heat(1.0)]).plot(style="color")
        with pytest.raises(UnknownNameError, match="Did you mean 'color'"):
            Explanations([_gradient()]).plot(style="colour")

    def test_saving_takes_it_too(self, tmp_path: Any) -> None:
        both = Explanations([_gradient(), _heat(1.0, 2.0)])
        both.save(tmp_path / "plain")
        both.save(tmp_path / "color", style="color")
        same = {
            f.name: f.read_bytes() == (tmp_path / "color" / f.name).read_bytes() for f in (tmp_path / "plain").iterdir()
        }
        assert {name for name, equal in same.items() if not equal} == {"panel.png", "guided_backprop.png"}


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.004, "<0.01"), (0.005, "0.01"), (0.0, "0.00"), (0.994, "0.99"), (0.996, ">0.99"), (1.0, "1.00")],
)
def test_a_probability_is_never_said_to_be_0_or_1_when_it_is_not(probability: float, words: str) -> None:
    assert in_words(probability) == words


def test_a_capped_notebook_picture_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    many = _heat(*np.linspace(1, 2, 70))
    drawn: list[Any] = []
    monkeypatch.setattr(figure, "png", lambda axes, **_: drawn.append(axes.get_title()) or b"")
    many._repr_png_()
    many[:64]._repr_png_()
    assert drawn == ["grad_cam\nlayer4\nfirst 64 of 70 images", "grad_cam\nlayer4"]
    assert Explanations([many])._rows(8)[0][0].heading == ("image", "first 8 of 70")
    assert Explanations([many[:8]])._rows(8)[0][0].heading == ("image",)


def test_activations_of_many_images_are_tiles_of_grids() -> None:
    one, two = _activations(20, 1), _activations(20, 2)
    assert two.image("channels").shape[0] > one.image("channels").shape[0]
