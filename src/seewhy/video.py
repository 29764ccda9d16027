"""Video: each frame of a clip explained, streaming, with one target and one colour scale for the whole clip."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import PIL.Image

from . import clips, pictures
from .clips import Clip, Frame
from .errors import GradientError, InputError, InputTypeError, SeewhyWarning, warn
from .progress import bar
from .render import colorize, overlay
from .render.overlay import resized
from .render.photo import require_whole
from .render.text import fit, width_of

if TYPE_CHECKING:
    from .explainer import Explainer
    from .explanation import Explanation
    from .methods import Method

Span: TypeAlias = tuple[float, float]

LOOKS = 16  # frames of the first look
BATCH = 16  # frames per pass
MISSING = 0.05  # share of the announced frames that may lack: the number in the file is often an estimate
LETTERS, SHARE = 10, 0.05  # height of a label's letters: pixels at least, and share of the frame's shorter side
EMPTY = " is 0 everywhere for image "  # of the explainer's warnings, the one that is counted over the clip here


def explain_video(
    explainer: Explainer,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    method: str | Method | type[Method] = "grad_cam",
    *,
    target: Any = None,
    layer: Any = None,
    batch_size: int | None = None,
    limits: tuple[float, float] | None = None,
    alpha: float | None = None,
    colormap: str | None = None,
    labels: bool = True,
    progress: bool | None = None,
    **options: Any,
) -> int:
    """Explain a video frame by frame, write the pictures as a video, and return how many frames were written.

    The clip is streamed: memory does not grow with its length. First, 16 frames evenly spread over it are looked at
    for what holds for all frames: the target, the layer and the colour scale. Where the map is 0 in all of these, every
    frame is looked at, which takes twice as long.

    Args:
        explainer: over the network to explain.
        source: the video file, anything that OpenCV reads; frames are turned upright as the file says.
        out: the video to write: .mp4, .m4v, .mov, .mkv (MPEG-4), .avi (Motion JPEG) or .webm (VP8, which also browsers
            and notebooks play). It has the clip's mean frame rate and no sound; folders are made. It is written under
            another name beside it and is there only once it is whole.
        method: one name, `Method` class or instance.
        target: as for `Explainer.explain`, but one for the whole clip. None: the class predicted for most of the 16
            frames (of equals the more probable), not each frame's own: a colour then means the same in all frames.
        layer: one layer, as for `Explainer.explain`. None: chosen at the first look.
        batch_size: frames per pass; 16 unless given. It changes no result.
        limits: the values ``(low, high)`` at the ends of the colours, the same for every frame; values beyond have the
            colours of the ends. None: the largest that `Explanation.image` would give one of the 16 frames, so a
            stronger value elsewhere in the clip is beyond.
        alpha: the map's opacity in 0..1; None follows the map. Gradients of the input are drawn alone, as by
            `Explanation.image`, and over the frame where `alpha` is given.
        colormap: any name in matplotlib.colormaps.
        labels: whether the target's name and its probability in the frame are written in the corner.
        progress: whether to show a progress bar. None: where it takes more than 2 s and stderr is a terminal, or in a
            notebook.
        options: of the method.

    The pictures have the clip's own size where the transform only resizes, and are else what the model saw, told by a
    `SeewhyWarning`; an odd side gets one more row or column, since video has even sides. Frames of which the map is 0
    everywhere stay as they are and are counted in one warning.

    Raises:
        ImageFileError: `source` is missing (ImageNotFoundError), a folder (ImageFolderError), no video, or empty.
        InputError: `out` has another suffix, is `source` or a folder, or cannot be written; or a bad argument.
        InputTypeError: several methods, targets or layers are given.
        SeewhyError: as by `Explainer.explain`. Whatever is raised, nothing half-written is left.

    >>> import cv2, tempfile
    >>> from pathlib import Path
    >>> from seewhy import Explainer, testing
    >>> from torchvision import transforms
    >>> clip = Path(tempfile.mkdtemp(), "clip.avi")
    >>> writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    >>> for i in range(5):
    ...     _ = writer.write(np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    >>> writer.release()
    >>> explainer = Explainer(testing.small_cnn(), transform=transforms.ToTensor())
    >>> explain_video(explainer, clip, clip.with_name("why.mp4"), target=3)
    5
    """
    _check_arguments(method, target, layer, batch_size, limits)
    overlay(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1)), alpha=alpha, colormap=colormap)  # refuses wrong ones
    clip = clips.open_clip(source)
    asker = _Asker(explainer, method, options)
    with (
        clips.whole_or_nothing(out, clip.path) as part,
        bar(progress, clip.count, doing="explaining", unit="frame") as told,
    ):
        look = _look(asker, clip, _Look(target, layer, limits), batch_size)
        brush = _Brush(look.span, look.shows_whole(), look.of_input and alpha is None, alpha, colormap, labels)
        written, empty = 0, 0
        with closing(clips.Writer(part, clip.rate)) as writer:
            for frames in _chunks(clip.frames(), batch_size):
                e = asker.steady(frames, look)
                for i, frame in enumerate(frames):
                    writer.write(brush.draw(frame, e, i))
                written += len(frames)
                empty += int((np.isfinite(e.scores) & ~e.maps.any((1, 2))).sum())
                told.update(len(frames))
        clips.check_written(part, written)
    _tell(clip, look, written, empty)
    return written


def _check_arguments(method: Any, target: Any, layer: Any, batch_size: Any, limits: Any) -> None:
    for name, given in {"method": method, "target": target, "layer": layer}.items():
        if isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim):
            raise InputTypeError(f"a video has one {name} for the whole clip, got {given!r}: call once for each.")
    if batch_size is not None and not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
        raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}.")
    if isinstance(limits, str):
        raise InputTypeError(f"limits is None or a pair of numbers (low, high), not {limits!r}.")


def _tell(clip: Clip, look: _Look, written: int, empty: int) -> None:
    if clip.count and written < (1 - MISSING) * clip.count:
        warn(f"{clip.name} says that it has {clip.count} frames, and only {written} could be read: is it cut off?")
    if empty:
        warn(
            f"{look.method}{f' at {look.layer!r}' if look.layer else ''} is 0 everywhere for {empty} of {written} "
            "frames: nothing there argues for the target."
        )


# --------------------------------------------------------------------------------------------------------- explaining


@dataclass
class _Asker:
    """Asks the explainer, and passes on each of its warnings once."""

    explainer: Explainer
    method: Any
    options: dict[str, Any]
    said: set[str] = field(default_factory=set)

    def ask(self, frames: list[Frame], target: Any, layer: Any) -> Explanation:
        size = len(frames)
        with self._once():
            e: Explanation = self.explainer.explain(
                frames, self.method, target=target, layer=layer, batch_size=size, **self.options
            )
        return e

    def steady(self, frames: list[Frame], look: _Look) -> Explanation:
        """As the first look says; frames without any gradient have one beside them that has, and so are not refused."""
        try:
            return self.ask(frames, look.target, look.layer)
        except GradientError:
            if look.witness is None:
                raise
            return self.ask([look.witness, *frames], look.target, look.layer)[1:]

    @contextmanager
    def _once(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for one in caught:
            words = str(one.message)
            if words in self.said or EMPTY in words:
                continue
            self.said.add(words)
            if issubclass(one.category, SeewhyWarning):
                warn(words)
            else:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@dataclass
class _Look:
    """What some frames of the clip tell about all of it."""

    target: Any
    layer: Any
    limits: Span | None
    method: str = ""
    of_input: bool = False
    ends: Span = (0.0, 0.0)  # the least and greatest of the frames' own
    votes: dict[int, list[float]] = field(default_factory=dict)  # the probabilities by class explained
    witness: Frame | None = None  # a frame of which the map is not 0
    contrast: float = -1.0
    sharpest: tuple[Frame, Frame] | None = None  # the frame with most contrast, and what the model saw of it
    refused: GradientError | None = None

    def through(self, asker: _Asker, chunks: Iterable[list[Frame]]) -> _Look:
        """Look at the frames; those without any gradient tell nothing."""
        for frames in chunks:
            try:
                self._add(frames, asker.ask(frames, self.target, self.layer))
            except GradientError as error:
                self.refused = error
        return self

    def _add(self, frames: list[Frame], e: Explanation) -> None:
        self.method, self.layer, self.of_input = e.method, e.layer, pictures.is_of_input(e)
        spans = np.array([self.ends, *pictures.spans(e, "own" if self.limits is None else self.limits)])
        self.ends = float(spans[:, 0].min()), float(spans[:, 1].max())
        for i, frame in enumerate(frames):
            self.votes.setdefault(int(e.targets[i]), []).append(float(e.probabilities[i]))
            if self.witness is None and e.maps[i].any():
                self.witness = frame
            if (contrast := float(e.images[i].std())) > self.contrast:
                self.contrast, self.sharpest = contrast, (frame, e.images[i])

    @property
    def favourite(self) -> int | None:
        """The class explained most often, of equals the more probable; None where no class was."""
        best = max(self.votes, key=lambda index: (len(self.votes[index]), sum(self.votes[index])))
        return best if best >= 0 else None

    @property
    def span(self) -> Span:
        """The values at the ends of the colours."""
        if self.limits is not None:
            return self.limits
        low, high = self.ends
        return (min(low, -high), max(-low, high)) if low < 0 else (low, high)

    def shows_whole(self) -> bool:
        """Whether the model sees whole frames, told by the one with most contrast."""
        if self.sharpest is None:
            return False
        frame, seen = self.sharpest
        try:
            require_whole(frame, seen)
        except InputError:
            warn(
                f"The model does not see the whole frames (or that cannot be told), so the video shows what it sees, "
                f"{seen.shape[1]} x {seen.shape[0]} pixels of it. Whole frames need a transform that only resizes."
            )
            return False
        return True


def _look(asker: _Asker, clip: Clip, start: _Look, batch_size: int | None) -> _Look:
    """The first look: at 16 frames, and where these tell too little at all."""
    look = start
    for frames in (partial(clip.spread, LOOKS), clip.frames):
        look = replace(start, votes={}).through(asker, _chunks(frames(), batch_size))
        if start.target is None and look.votes:
            start = replace(start, target=look.favourite, layer=look.layer)
            several, look.target = len(look.votes) > 1, start.target
            if several:
                look = replace(start, votes={}).through(asker, _chunks(frames(), batch_size))
        if look.witness is not None or (look.method and look.limits is not None):
            return look
    if look.refused and not look.method:
        raise look.refused
    return look


# ------------------------------------------------------------------------------------------------------------ drawing


@dataclass(frozen=True)
class _Brush:
    """Draws every frame in one way."""

    span: Span
    whole: bool
    alone: bool  # the map without the frame
    alpha: float | None
    colormap: str | None
    labels: bool

    def draw(self, frame: Frame, e: Explanation, i: int) -> Frame:
        ground = frame if self.whole else e.images[i]
        if self.alone:
            heat = resized(e.maps[i].astype(np.float64), (ground.shape[0], ground.shape[1]))
            picture = colorize(heat, self.colormap or ("gray" if self.span[0] == 0 else None), self.span)
        else:
            picture = overlay(ground, e.maps[i], alpha=self.alpha, colormap=self.colormap, limits=self.span)
        label = pictures.label(e, i) if self.labels else None
        return _labelled(picture, label.name, label.value) if label else picture


def _labelled(picture: Frame, name: str, value: str) -> Frame:
    """The picture with the words in white on a dark glass in its upper left corner, whole words where they fit."""
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import ImageDraw, ImageFont

    height, width = picture.shape[:2]
    size = max(LETTERS, round(SHARE * min(height, width)))
    pad = size // 3
    words = _arranged(name, value, 0.96 * (width - 4 * pad), size, (height - 4 * pad) // round(1.3 * size))
    image = PIL.Image.fromarray(picture)
    pen = ImageDraw.Draw(image, "RGBA")  # blends
    font = ImageFont.truetype(findfont(FontProperties()), size)
    left, top, right, bottom = pen.multiline_textbbox((2 * pad, 2 * pad), words, font=font)
    pen.rectangle((left - pad, top - pad, right + pad, bottom + pad), fill=(0, 0, 0, 150))
    pen.multiline_text((2 * pad, 2 * pad), words, fill="white", font=font)
    return np.asarray(image)


def _arranged(name: str, value: str, width: float, size: float, lines: int) -> str:
    """Name and value on one line, or where they are too long for it the name on one or two and the value below."""
    one = " ".join(f"{name} {value}".split())
    if width_of(one, size) <= width or lines < 2 or not value:
        return fit(one, width, size, lines=max(1, min(2, lines)))
    return f"{fit(name, width, size, lines=min(2, lines - 1))}\n{value}"


def _chunks(frames: Iterator[Frame], size: int | None) -> Iterator[list[Frame]]:
    while chunk := list(islice(frames, size or BATCH)):
        yield chunk
