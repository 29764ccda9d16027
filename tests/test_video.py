"""Videos explained frame by frame: what is drawn where, in which colours and sizes, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn
from torchvision import transforms

from seewhy import Explainer, clips, video
from seewhy.errors import (
    GradientError,
    ImageFileError,
    ImageFolderError,
    ImageNotFoundError,
    InputError,
    InputTypeError,
    SeewhyError,
    SeewhyWarning,
    UnknownNameError,
)
from seewhy.render import colorize
from seewhy.video import explain_video

HEIGHT, WIDTH, SIDE = 48, 80, 12
RED, BLUE = (255, 0, 0), (0, 0, 255)
NAMES = ("red", "green", "blue")


class Colours(nn.Module):
    """One class per colour; the score is the mean of how much of it is above 0.6, so that the map is just that."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = nn.Conv2d(3, 3, 1)
        self.bright.weight.data = torch.eye(3)[..., None, None].clone()
        self.bright.bias.data.fill_(-0.6)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.eye(3)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.pool(self.bright(images).relu()).mean((2, 3)))
        return scores


def _explainer(*steps: Callable[[Any], Any]) -> Explainer:
    torch.set_num_threads(1)
    return Explainer(Colours(), transform=transforms.Compose([*steps, transforms.ToTensor()]), class_names=NAMES)


def _frame(
    colour: tuple[int, int, int] | None, x: int = 4, y: int = 16, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> Any:
    """A square of the colour on grey that darkens to the right, so that a crop can be told."""
    shade = np.linspace(130, 50, size[1]).astype(np.uint8)
    frame = np.repeat(np.broadcast_to(shade, size)[..., None], 3, axis=2).copy()
    if colour:
        frame[y : y + SIDE, x : x + SIDE] = colour
    return frame


def _clip(path: Path, frames: Iterable[np.ndarray], rate: float = 12.5) -> Path:
    writer = None
    for frame in frames:
        if writer is None:
            code = cv2.VideoWriter.fourcc(*clips.CODECS[path.suffix])
            writer = cv2.VideoWriter(str(path), code, rate, (frame.shape[1], frame.shape[0]))
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    assert writer is not None
    writer.release()
    return path


def _read(path: Path) -> tuple[np.ndarray, float]:
    """All frames, RGB (N, H, W, 3), and the frame rate."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        frames.append(found[1][..., ::-1])
    return np.stack(frames), capture.get(cv2.CAP_PROP_FPS)


def _moving(count: int = 20, colour: tuple[int, int, int] = RED) -> list[np.ndarray]:
    return [_frame(colour, x=2 + 3 * i) for i in range(count)]


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return _clip(tmp_path / "clip.mp4", _moving())


def _change(out: Path, source: Path) -> np.ndarray:
    """How much each pixel (N, H, W) differs, summed over colours; encoding alone shifts them by about 10."""
    return np.abs(_read(out)[0].astype(int) - _read(source)[0]).sum(-1)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWhatIsDrawn:
    def test_the_heat_follows_the_square(self, moving: Path, tmp_path: Path) -> None:
        assert explain_video(_explainer(), moving, tmp_path / "why.mp4", target="red", labels=False) == 20
        change = _change(tmp_path / "why.mp4", moving)
        for i, x in enumerate(range(2, 62, 3)):
            inside = change[i, 16 : 16 + SIDE, x : x + SIDE]
            assert inside[3:-3, 3:-3].min() > 150
            outside = change[i].copy()
            outside[12 : 20 + SIDE, max(0, x - 4) : x + SIDE + 4] = 0
            assert outside.max() < 60  # what the encoder does
            assert inside.mean() > 15 * outside.mean()

    def test_colours_are_rgb_on_the_way_in_and_out(self, tmp_path: Path) -> None:
        """A blue square is blue to the model, and another blue that is not explained stays blue in the file."""
        frames = _moving(6, BLUE)
        source = _clip(tmp_path / "blue.mp4", frames)
        with pytest.warns(SeewhyWarning, match="0 everywhere for 6 of 6 frames"):
            explain_video(_explainer(), source, tmp_path / "not.mp4", target="red", labels=False)
        assert _change(tmp_path / "not.mp4", source).mean() < 15
        explain_video(_explainer(), source, tmp_path / "why.mp4", target="blue", labels=False)
        hot = _read(tmp_path / "why.mp4")[0][:, 20:24, 8:12][:1].reshape(-1, 3).mean(0)
        expected = 0.15 * np.array(BLUE) + 0.85 * colorize(np.ones((1, 1)))[0, 0]  # the hottest yellow, not cyan
        assert np.abs(hot - expected).max() < 45

    def test_the_colours_mean_the_same_in_all_frames(self, tmp_path: Path) -> None:
        """A square of half the heat is half way up the scale, though nothing hotter is in its frame."""
        frames = [_frame((255, 0, 0) if i % 2 else (204, 0, 0)) for i in range(8)]
        source = _clip(tmp_path / "clip.avi", frames)
        explain_video(_explainer(), source, tmp_path / "why.avi", target=0, alpha=1.0, colormap="gray", labels=False)
        levels = _read(tmp_path / "why.avi")[0][:, 20:24, 8:12].mean((1, 2, 3))
        assert levels[1::2].min() > 240
        assert levels[::2] / levels[1::2] == pytest.approx(0.5, abs=0.04)

    def test_given_limits_are_the_ends_of_the_colours(self, moving: Path, tmp_path: Path) -> None:
        most, levels = float(_explainer().explain(_read(moving)[0][0]).maps.max()), []
        for low, high in ((0, 0.5), (0, 1), (0, 2), (0.5, 1.5)):
            out, ends = tmp_path / f"{low}{high}.avi", (low * most, high * most)
            explain_video(_explainer(), moving, out, limits=ends, alpha=1.0, colormap="gray", labels=False)
            levels.append(_read(out)[0][0, 20:24, 6:10].mean() / 255)
        assert levels == pytest.approx([1, 1, 0.5, 0.5], abs=0.06)

    def test_the_target_is_the_class_predicted_most_often(self, tmp_path: Path) -> None:
        """Red in 9 of 12 frames, though blue is more probable in the others."""
        frames = [_frame(BLUE if i in (0, 7, 8) else RED) for i in range(12)]
        for i in (0, 7, 8):
            frames[i][:, 30:] = BLUE
        source = _clip(tmp_path / "clip.mp4", frames)
        with pytest.warns(SeewhyWarning, match="for 3 of 12 frames"):
            explain_video(_explainer(), source, tmp_path / "why.mp4", labels=False)
        heat = _change(tmp_path / "why.mp4", source)[:, 20:24, 8:12].mean((1, 2))
        assert [i for i in range(12) if heat[i] < 60] == [0, 7, 8]

    def test_what_shows_for_a_moment_is_found_by_looking_at_every_frame(self, tmp_path: Path) -> None:
        frames = [_frame(RED if i == 22 else None) for i in range(60)]  # none of the 16 evenly spread
        source = _clip(tmp_path / "clip.mp4", frames)
        with pytest.warns(SeewhyWarning, match="for 59 of 60 frames"):
            explain_video(_explainer(), source, tmp_path / "why.mp4", target="red", labels=False)
        heat = _change(tmp_path / "why.mp4", source)[:, 20:24, 8:12].mean((1, 2))
        assert heat.argmax() == 22
        assert heat[22] > 250

    def test_gradients_of_the_input_are_drawn_alone_in_grey(self, moving: Path, tmp_path: Path) -> None:
        explain_video(_explainer(), moving, tmp_path / "why.avi", "saliency", target="red", labels=False)
        first = _read(tmp_path / "why.avi")[0][0].astype(int)
        assert np.abs(np.diff(first, axis=-1)).max() < 12
        assert first[20:24, 6:10].min() > 240  # the gradient is the same wherever red is above 0.6
        assert first[:, 30:].max() < 15

    def test_batch_size_changes_nothing(self, moving: Path, tmp_path: Path) -> None:
        for size in (1, 7):
            explain_video(_explainer(), moving, tmp_path / f"{size}.avi", batch_size=size)
        assert (tmp_path / "1.avi").read_bytes() == (tmp_path / "7.avi").read_bytes()


class TestLabels:
    def test_they_are_in_the_corner_only_where_wanted(self, moving: Path, tmp_path: Path) -> None:
        for labels in (True, False):
            explain_video(_explainer(), moving, tmp_path / f"{labels}.avi", labels=labels)
        difference = np.abs(_read(tmp_path / "True.avi")[0].astype(int) - _read(tmp_path / "False.avi")[0]).sum(-1)
        assert difference[:, :15, :50].max() > 200  # white on dark
        assert difference[:, 24:].max() < 50
        assert difference[:, :, 72:].max() < 50

    @pytest.mark.parametrize("shape", [(48, 64), (90, 120), (224, 224), (720, 1280)])
    @pytest.mark.parametrize("name", ["cat", "a very long name of a class that nobody would want to read at all"])
    def test_no_letter_is_cut(self, shape: tuple[int, int], name: str) -> None:
        """Around the box nothing is drawn, and in its margin there is no white."""
        drawn = video._labelled(np.full((*shape, 3), 200, np.uint8), name, "0.75")[..., 0]
        box = np.argwhere(drawn != 200)
        (top, left), (bottom, right) = box.min(0), box.max(0)
        assert 0 < top < bottom < shape[0] - 1
        assert 0 < left < right < shape[1] - 1
        inner = drawn[top : bottom + 1, left : right + 1].copy()
        assert inner.max() > 230
        assert max(inner[0].max(), inner[-1].max(), inner[:, 0].max(), inner[:, -1].max()) < 200

    def test_name_and_value_are_whole_where_they_fit(self) -> None:
        assert video._arranged("tiger cat", "0.75", 200, 10, 3) == "tiger cat 0.75"
        assert video._arranged("tiger cat", "0.75", 60, 10, 3) == "tiger cat\n0.75"
        assert video._arranged("great grey owl of the north", "0.75", 60, 10, 2).endswith("…\n0.75")


class TestFiles:
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm"])
    @pytest.mark.parametrize("rate", [12.5, 29.97])
    def test_what_is_written_reads_back(self, moving: Path, tmp_path: Path, suffix: str, rate: float) -> None:
        source = _clip(tmp_path / "clip.avi", _moving(7), rate)
        explain_video(_explainer(), source, tmp_path / "deep" / f"why{suffix}")
        written, found = _read(tmp_path / "deep" / f"why{suffix}")
        assert written.shape == (7, HEIGHT, WIDTH, 3)
        assert found == pytest.approx(rate, abs=0.01)
        assert _files(tmp_path / "deep") == [f"why{suffix}"]

    def test_an_odd_side_gets_one_more_row_or_column(self, tmp_path: Path) -> None:
        source = tmp_path / "odd.gif"  # video proper has even sides
        frames = [PIL.Image.fromarray(_frame(RED, 4 + i, size=(49, 81))) for i in range(5)]
        frames[0].save(source, save_all=True, append_images=frames[1:], duration=100)
        assert explain_video(_explainer(), source, tmp_path / "why.mp4", labels=False) == 5
        written = _read(tmp_path / "why.mp4")[0].astype(int)
        assert written.shape == (5, 50, 82, 3)
        assert np.abs(written[:, -1] - written[:, -2]).max() < 20

    def test_where_the_transform_resizes_the_clip_keeps_its_size(self, moving: Path, tmp_path: Path) -> None:
        explain_video(_explainer(transforms.Resize((32, 32))), moving, tmp_path / "why.mp4")
        assert _read(tmp_path / "why.mp4")[0].shape == (20, HEIGHT, WIDTH, 3)

    def test_where_the_transform_crops_what_the_model_saw_is_shown(self, tmp_path: Path) -> None:
        source = _clip(tmp_path / "clip.mp4", [_frame(RED, 30)] * 40)
        with pytest.warns(SeewhyWarning, match="does not see the whole frames") as caught:
            explain_video(_explainer(transforms.CenterCrop(32)), source, tmp_path / "why.mp4")
        assert len(caught) == 1
        assert _read(tmp_path / "why.mp4")[0].shape == (40, 32, 32, 3)

    def test_a_clip_that_begins_black_keeps_its_size(self, tmp_path: Path) -> None:
        frames = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3 + _moving(10)
        source = _clip(tmp_path / "clip.mp4", frames)
        with pytest.warns(SeewhyWarning, match="for 3 of 13 frames"):
            explain_video(_explainer(transforms.Resize((32, 32))), source, tmp_path / "why.mp4")
        assert _read(tmp_path / "why.mp4")[0].shape == (13, HEIGHT, WIDTH, 3)

    def test_a_clip_filmed_upright_stays_upright(self, tmp_path: Path) -> None:
        source = _clip(tmp_path / "clip.mp4", [_frame(RED, 4, 4)] * 3)
        content = bytearray(source.read_bytes())
        start = content.index(b"tkhd") + 4 + 40  # the matrix of the track's header
        turned = [0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0, 0, 0, 0x40000000]  # a quarter clockwise
        content[start : start + 36] = b"".join(number.to_bytes(4, "big") for number in turned)
        source.write_bytes(content)
        explain_video(_explainer(), source, tmp_path / "why.avi", alpha=1.0, colormap="gray", labels=False)
        written = _read(tmp_path / "why.avi")[0]
        assert written.shape == (3, WIDTH, HEIGHT, 3)
        y, x = np.argwhere(written[0, ..., 0] > 200).mean(0)
        assert (y, x) == pytest.approx((10, HEIGHT - 10), abs=2)

    def test_a_clip_that_cannot_be_sought_is_read_through(self, moving: Path, tmp_path: Path) -> None:
        explain_video(_explainer(), moving, tmp_path / "sought.avi")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clips, "_sought", lambda *_: None)
            explain_video(_explainer(), moving, tmp_path / "read.avi")
        assert (tmp_path / "sought.avi").read_bytes() == (tmp_path / "read.avi").read_bytes()

    @pytest.mark.parametrize("seeks", [True, False])
    def test_the_first_look_is_spread_evenly(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeks: bool
    ) -> None:
        source = _clip(tmp_path / "clip.avi", [np.full((16, 16, 3), 4 * i, np.uint8) for i in range(46)])
        if not seeks:
            monkeypatch.setattr(clips, "_sought", lambda *_: None)
        levels = [frame.mean() / 4 for frame in clips.open_clip(source).spread(16)]
        assert np.abs(np.array(levels) - np.arange(0, 46, 3)).max() < 0.6

    def test_a_count_that_is_too_large_still_gives_a_look_at_the_end(self, moving: Path) -> None:
        frames = list(clips.Clip(moving, 12.5, 40).spread(4))  # asked for 0, 13, 26 and 39; there are 20
        assert len(frames) == 3
        assert np.abs(frames[-1].astype(int) - _moving()[-1]).mean() < 5

    def test_a_clip_that_is_cut_off_is_told(
        self, moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = clips.open_clip(moving)
        monkeypatch.setattr(clips, "open_clip", lambda _: clips.Clip(whole.path, whole.rate, 30))
        with pytest.warns(SeewhyWarning, match="30 frames, and only 20"):
            assert explain_video(_explainer(), moving, tmp_path / "why.mp4") == 20


class TestStreaming:
    def test_memory_holds_a_few_chunks_whatever_the_length(self, tmp_path: Path) -> None:
        source = _clip(tmp_path / "clip.avi", [_frame(RED, 2 + i % 60) for i in range(120)])
        alive: list[weakref.ref[np.ndarray]] = []
        most: list[int] = []
        inner = _explainer()

        class Watching:
            def explain(self, frames: list[np.ndarray], *args: Any, **kwargs: Any) -> Any:
                alive.extend(map(weakref.ref, frames))
                most.append(sum(ref() is not None for ref in alive))
                return inner.explain(frames, *args, **kwargs)

        assert explain_video(Watching(), source, tmp_path / "why.avi", batch_size=4) == 120  # type: ignore[arg-type]
        assert len(alive) == 16 + 120
        assert max(most) <= 3 * 4

    def test_warnings_come_once(self, tmp_path: Path) -> None:
        source = _clip(tmp_path / "clip.mp4", [_frame(None if i % 3 else RED) for i in range(60)])

        def strange(picture: Any) -> Any:
            warnings.warn("a strange picture", UserWarning, stacklevel=1)
            return picture

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            explain_video(_explainer(strange), source, tmp_path / "why.mp4", batch_size=4)
        assert [str(one.message) for one in caught] == [
            "a strange picture",
            "grad_cam at 'pool' is 0 everywhere for 40 of 60 frames: nothing there argues for the target.",
        ]
        assert caught[-1].filename == __file__

    def test_frames_without_any_gradient_fail_no_clip(self, tmp_path: Path) -> None:
        """Nothing red for a whole chunk: the explainer alone refuses it at a layer before the ReLU."""
        frames = _moving(8) + [_frame(None)] * 8
        source = _clip(tmp_path / "clip.mp4", frames)
        with pytest.raises(GradientError):
            _explainer().explain(frames[8:], target="red", layer="bright")
        with pytest.warns(SeewhyWarning, match="for 8 of 16 frames"):
            explain_video(_explainer(), source, tmp_path / "why.mp4", target="red", layer="bright", batch_size=4)
        dark = _clip(tmp_path / "dark.mp4", frames[8:])
        with pytest.raises(GradientError):
            explain_video(_explainer(), dark, tmp_path / "dark.avi", target="red", layer="bright")
        assert not (tmp_path / "dark.avi").exists()

    def test_the_bar_shows_on_a_terminal_or_when_asked(
        self, moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for progress in (None, False):
            explain_video(_explainer(), moving, tmp_path / "why.mp4", progress=progress)
            assert "frame" not in capsys.readouterr().err
        explain_video(_explainer(), moving, tmp_path / "why.mp4", progress=True)
        assert "20/20" in capsys.readouterr().err


class TestRefusals:
    @pytest.fixture
    def untouched(self) -> Any:
        """An explainer that must not be asked."""

        class Untouched:
            def explain(self, *_: Any, **__: Any) -> Any:
                raise AssertionError("work was done before the check")

        return Untouched()

    def test_sources(self, untouched: Any, tmp_path: Path) -> None:
        (tmp_path / "words.mp4").write_text("no video" * 1000)
        (tmp_path / "empty.mp4").touch()
        PIL.Image.new("RGB", (32, 32)).save(tmp_path / "photo1.png")
        cases: dict[Any, tuple[type[SeewhyError], str]] = {
            "none.mp4": (ImageNotFoundError, "no file"),
            "words.mp4": (ImageFileError, "not a video"),
            "empty.mp4": (ImageFileError, "is empty"),
            "photo1.png": (ImageFileError, "is a photo"),
            ".": (ImageFolderError, "is a folder"),
        }
        for name, (error, message) in cases.items():
            with pytest.raises(error, match=message):
                explain_video(untouched, tmp_path / name, tmp_path / "why.mp4")
        with pytest.raises(InputTypeError, match="path of a video"):
            explain_video(untouched, 0, tmp_path / "why.mp4")  # type: ignore[arg-type]
        assert _files(tmp_path) == ["empty.mp4", "photo1.png", "words.mp4"]

    def test_outs(self, untouched: Any, moving: Path, tmp_path: Path) -> None:
        (tmp_path / "folder.mp4").mkdir()
        (tmp_path / "file").touch()
        before = moving.read_bytes()
        cases = {
            "clip.mp4": "is the video to be explained",
            "folder.mp4/../clip.mp4": "is the video to be explained",
            "folder.mp4": "is a folder",
            "why.mp3": "got '.mp3' in 'why.mp3'",
            "why": r"\.mp4, \.m4v",
            "file/why.mp4": "cannot be written",
        }
        for name, message in cases.items():
            with pytest.raises(InputError, match=message):
                explain_video(untouched, moving, tmp_path / name)
        with pytest.raises(InputTypeError, match="path of the video to write"):
            explain_video(untouched, moving, None)  # type: ignore[arg-type]
        assert moving.read_bytes() == before
        assert _files(tmp_path) == ["clip.mp4", "file", "folder.mp4"]

    def test_arguments(self, untouched: Any, moving: Path, tmp_path: Path) -> None:
        cases: list[tuple[dict[str, Any], type[SeewhyError]]] = [
            ({"method": ["grad_cam"]}, InputTypeError),
            ({"target": [0, 1]}, InputTypeError),
            ({"target": np.array([0, 1])}, InputTypeError),
            ({"layer": ["pool"]}, InputTypeError),
            ({"limits": "shared"}, InputTypeError),
            ({"batch_size": 0}, InputError),
            ({"alpha": 2}, InputError),
            ({"colormap": "infermo"}, UnknownNameError),
        ]
        for arguments, error in cases:
            with pytest.raises(error):
                explain_video(untouched, moving, tmp_path / "why.mp4", **arguments)
        for arguments in ({"limits": (1, 0)}, {"limits": 3}, {"target": "rde"}, {"window": 3}, {"method": "grad_cm"}):
            with pytest.raises(SeewhyError):
                explain_video(_explainer(), moving, tmp_path / "why.mp4", **arguments)  # type: ignore[arg-type]
        assert _files(tmp_path) == ["clip.mp4"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_nothing_half_written_is_left(self, moving: Path, tmp_path: Path, error: type[BaseException]) -> None:
        out = tmp_path / "why.mp4"
        out.write_text("what was there before")
        calls = iter(range(30))

        def breaks(picture: Any) -> Any:
            if next(calls) == 29:  # past the first look, in the middle of the clip
                raise error("enough")
            return picture

        with pytest.raises(error):
            explain_video(_explainer(breaks), moving, out, batch_size=2)
        assert out.read_text() == "what was there before"
        assert _files(tmp_path) == ["clip.mp4", "why.mp4"]

    def test_frames_that_were_not_written_are_told(
        self, moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, kept = clips.Writer.write, iter([True] * 11 + [False] * 9)
        monkeypatch.setattr(clips.Writer, "write", lambda self, picture: next(kept) and real(self, picture))
        with pytest.raises(InputError, match="of 20 frames only 11"):
            explain_video(_explainer(), moving, tmp_path / "why.mp4")
        assert _files(tmp_path) == ["clip.mp4"]


def test_the_import_is_cheap() -> None:
    code = "import seewhy.video, sys; print([m for m in ('cv2', 'tqdm.auto', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
