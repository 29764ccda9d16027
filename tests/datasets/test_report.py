"""The report of an evaluation, as a file."""

import base64
import hashlib
import html.parser
import io
import json
import os
import sys
import tracemalloc

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from seewhy.datasets.report import Card, Page, thumbnails, write_report
from seewhy.datasets.report.tables import classes_table, confusion_table
from seewhy.errors import ImageFileError, InputError, MissingDependencyError, SeewhyError, StoreError
from seewhy.render import colour, overlay
from seewhy.render.overlay import STRONGEST

HOSTILE = "</script><img src=x onerror=alert(1)>"
PNG = thumbnails.scale(False)


def card(number=0, **given):
    picture = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    usual = {"path": f"{number}.png", "label": "cat", "prediction": "dog", "probability": 0.6, "correct": False}
    return Card(**{"number": number, "picture": picture, **usual, **given})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Reader(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the texts of its scripts and styles."""

    def __init__(self, file):
        super().__init__()
        self.elements, self.texts, self.words, self._in = [], [], [], None
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = (tag, dict(attributes).get("class")) if tag in ("script", "style") else None
        if self._in:
            self.texts.append((*self._in, ""))

    def handle_data(self, data):
        if self._in:
            self.texts[-1] = (*self._in, self.texts[-1][2] + data)
        elif data.strip():
            self.words.append(data.strip())

    def handle_endtag(self, tag):
        self._in = None

    def of(self, kind):
        return [text for _, name, text in self.texts if name == kind]

    def cards(self):
        return [one for block in self.of("said") for one in json.loads(block)["cards"]]

    def pictures(self):
        return [json.loads(line) for block in self.of("pictures") for line in block.split("\n")]


def written(folder, cards, page=None, **options):
    file = folder / "report.html"
    write_report(file, Page("Pets") if page is None else page, cards, **options)
    return Reader(file)


def decoded(uri, mode=None):
    kind, data = uri.split(";base64,")
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{picture.format.lower()}"
    return np.asarray(picture.convert(mode) if mode else picture)


def drawn(values, signed=None):
    """The map's picture, RGBA."""
    return decoded(thumbnails.heat(values, 112, signed), "RGBA")


def test_what_cards_say_comes_back(tmp_path):
    cards = [
        card(0), card(7, path="東京/é 1.png", label="Übergröße", correct=True, probability=0.9991),
        card(8, path=None, label=None, prediction=None, probability=float("nan"), correct=None),
        card(np.int64(9), path="9.png", probability=np.float32(0.001), correct=np.bool_(True), ),
    ]  # fmt: skip
    assert written(tmp_path, iter(cards)).cards() == [
        [0, "0.png", "cat", "dog", 0.6, "0.60", False],
        [7, "東京/é 1.png", "Übergröße", "dog", 0.9991, ">0.99", True],
        [8, None, None, None, None, "", None],
        [9, "9.png", "cat", "dog", 0.001, "<0.01", True],
    ]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_every_card_has_its_own_pictures(tmp_path, count):
    cards = [card(i) for i in range(count)]
    read = written(tmp_path, iter(cards))
    assert [one[0] for one in read.cards()] == list(range(count))
    assert len(read.of("said")) == len(read.of("pictures")) == -(-count // 100)
    pictures = read.pictures()
    assert len(pictures) == count
    for one, (photo, maps) in zip(cards, pictures, strict=True):
        assert np.array_equal(decoded(photo), one.picture)
        assert maps == []


def test_names_stay_text(tmp_path):
    table = pd.DataFrame([[1, 2], [3, 4]], index=[HOSTILE, "b"], columns=[HOSTILE, "b"])
    evil = card(0, path=HOSTILE, label=HOSTILE, prediction="\u2028<!--<script>&amp;", maps={HOSTILE: np.eye(16)})
    png = base64.b64decode(PNG.split(",")[1])
    page = Page(
        HOSTILE, {HOSTILE: HOSTILE + "'\""}, table.astype(float), table, [(HOSTILE, HOSTILE)], {HOSTILE + '" x="': png}
    )
    read = written(tmp_path, [evil], page)
    scripts = [attributes for tag, attributes in read.elements if tag == "script"]
    assert scripts == [
        {"type": "application/json", "id": "data"}, {"type": "application/json", "class": "said"},
        {"type": "application/json", "class": "pictures"}, {},
    ]  # fmt: skip
    assert [set(a) for tag, a in read.elements if tag == "img"] == [{"class", "alt", "src"}]
    assert not [a for _, attributes in read.elements for a in attributes if a.startswith("on")]
    assert read.words.count(HOSTILE) == 5  # title twice, fact, skipped file and reason
    assert read.cards()[0][1:4] == [HOSTILE, HOSTILE, "\u2028<!--<script>&amp;"]
    data = (tmp_path / "report.html").read_text("utf-8")
    assert "\u2028" not in data
    assert "<img src=x" not in data


def test_nothing_is_fetched_and_only_its_own_script_runs(tmp_path):
    read = written(tmp_path, [card(maps={"grad_cam": np.eye(16)})])
    policy = next(a["content"] for tag, a in read.elements if tag == "meta" and "http-equiv" in a)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    texts = {tag: text for tag, kind, text in read.texts if kind is None and not text.startswith("{")}
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(texts[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    text = (tmp_path / "report.html").read_text("utf-8")
    assert not [word for word in ("http:", "https:", "//cdn", "url(", "@import", "innerHTML", "eval(") if word in text]


def failing(error, after=150):
    for i in range(after):
        yield card(i)
    raise error


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError("disk of the photos"),
                                   ImageFileError("corrupt")])  # fmt: skip
def test_an_error_leaves_the_old_file(tmp_path, error):
    file = tmp_path / "report.html"
    file.write_text("old")
    with pytest.raises(type(error)) as raised:
        write_report(file, Page("Pets"), failing(error))
    assert raised.value is error
    assert file.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


def test_the_file_appears_whole(tmp_path):
    file = tmp_path / "new folder" / ("long " * 49 + ".html")

    def watched():
        for i in range(250):
            assert not file.exists()
            yield card(i)

    write_report(file, Page("Pets"), watched())
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.read_text("utf-8").endswith("</html>")
    plain = tmp_path / "plain"
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    for bad in ("file/report.html", "folder.html"):
        with pytest.raises(StoreError, match="cannot be written to"):
            write_report(tmp_path / bad, Page("Pets"), failing(AssertionError("read though it cannot be written"), 0))
    assert names(tmp_path) == ["file", "folder.html"]


def test_a_full_disk(tmp_path):
    resource = pytest.importorskip("resource")
    file, before = tmp_path / "report.html", resource.getrlimit(resource.RLIMIT_FSIZE)
    file.write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot be written to .*report.html"):
            write_report(file, Page("Pets"), (card(i) for i in range(500)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


@pytest.mark.sweep
def test_memory_does_not_grow_with_the_cards(tmp_path):
    picture = np.zeros((16, 16, 3), np.uint8)
    values = {"grad_cam": np.eye(16, dtype=np.float32)}

    def peak(count):
        cards = (card(i, path=f"{i:0200d}", picture=picture, maps=values) for i in range(count))
        tracemalloc.start()
        try:
            write_report(tmp_path / "report.html", Page("Pets"), cards)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # imports
    few, many = peak(200), peak(2000)
    assert (tmp_path / "report.html").stat().st_size > 800_000
    assert many < few + 100_000


def test_empty_pages(tmp_path):
    empty = pd.DataFrame()
    read = written(tmp_path, [], Page("", {}, empty, empty))
    assert (read.cards(), read.pictures()) == ([], [])
    data = json.loads(read.texts[1][2])
    assert (data["classes"], data["confusion"]) == (None, None)


def test_file_names_that_are_no_unicode(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    read = written(tmp_path, [card(path=name)], Page(name, {name: name}, skipped=[(name, name)]))
    assert read.cards()[0][1] == name
    assert read.words.count("caf?.png") == 6


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"probability": 1.5}, "probability of image 0 is not in 0..1, but 1.5"),
        ({"probability": -0.1}, "not in 0..1"),
        ({"picture": np.zeros((8, 8, 3))}, "uint8"),
        ({"picture": np.zeros((8, 8), np.uint8)}, r"\(8, 8\)"),
        ({"picture": np.zeros((0, 8, 3), np.uint8)}, r"\(0, 8, 3\)"),
        ({"maps": {"grad_cam": np.zeros((7, 7))}}, r"'grad_cam' of image 0 is \(7, 7\), the picture \(16, 16\)"),
    ],
)
def test_bad_cards_are_refused(tmp_path, bad, says):
    with pytest.raises(InputError, match=says):
        written(tmp_path, [card(**bad)])
    assert names(tmp_path) == []


def test_bad_pages_are_refused(tmp_path):
    words, shares = pd.DataFrame([["high"]], index=["cat"]), pd.DataFrame([[0.5]])
    for page in (Page("", figures={"a": b"GIF8"}), Page("", classes=words), Page("", confusion=words),
                 Page("", confusion=shares), Page("", confusion=-shares * 2)):  # fmt: skip
        with pytest.raises(InputError):
            written(tmp_path, [], page)
    for side in (0, 1.5, "big"):
        with pytest.raises(InputError, match="thumbnail"):
            written(tmp_path, [], thumbnail=side)
    assert names(tmp_path) == []


def test_without_jinja2(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"seewhy\[datasets\]") as raised:
        written(tmp_path, [])
    assert isinstance(raised.value, SeewhyError)


@pytest.mark.parametrize(("shape", "small"), [((224, 224), (112, 112)), ((300, 150), (112, 56)), ((90, 70), (90, 70)),
                                              ((2, 1000), (1, 112)), ((112, 113), (111, 112))])  # fmt: skip
def test_sizes(shape, small):
    picture = np.zeros((*shape, 3), np.uint8)
    assert decoded(thumbnails.photo(picture, 112)).shape == (*small, 3)
    assert drawn(np.ones(shape, np.float32)).shape == (*small, 4)


def smooth(size=224):
    y, x = np.mgrid[:size, :size] / size
    return np.exp(-((x - 0.3) ** 2 + (y - 0.6) ** 2) / 0.02).astype(np.float32)


def test_photos_and_maps_are_those_that_were_given():
    ramp = np.linspace(0, 255, 224)
    photo = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128.0), 2).astype(np.uint8)
    small = decoded(thumbnails.photo(photo, 112)).astype(int)
    assert np.abs(small - thumbnails.shrunk(photo, 112)).mean() < 3
    heat = thumbnails.shrunk(smooth().astype(np.float64), 112)
    pixels = drawn(smooth()).astype(float)
    opacity = pixels[..., 3:] / 255 * STRONGEST  # as the page shows it at first
    laid = small + opacity * (pixels[..., :3] - small)
    same = overlay(small.astype(np.uint8), heat, limits=colour.limits(heat, percentile=99))
    assert np.abs(laid - same).mean() < 3
    assert pixels[..., 3].min() == 0
    assert np.unravel_index(heat.argmax(), heat.shape) in np.argwhere(pixels[..., 3] == 255)


def test_colours_of_maps():
    values = np.array([[-2.0, 0.0, 1.0, np.nan, 2.0]], np.float32)
    signed = drawn(values, True)[0].astype(int)
    assert signed[:, 3].tolist() == [255, 0, 128, 0, 255]
    assert signed[0, 2] > signed[0, 0] + 50  # blue argues against
    assert signed[4, 0] > signed[4, 2] + 50  # red for
    plain = drawn(np.abs(values), False)[0]
    assert plain[4, :3].tolist() == colour.colorize([[0.0, 1.0]])[0, 1].tolist()
    assert drawn(np.abs(values), True)[0, 4, :3].tolist() == signed[4, :3].tolist()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_a_map_without_values_is_transparent(value):
    assert not drawn(np.full((8, 8), value, np.float32))[..., 3].any()


def test_a_few_pixels_do_not_hide_the_rest():
    values = np.full((112, 112), 0.5, np.float32)
    values[3, 4] = 1000
    assert drawn(values)[50, 50, 3] == 255


def test_tables():
    table = pd.DataFrame({"recall": [0.5, np.nan], "n": [3, 4], "support": [2.0, 0.0]}, index=["a", 7])
    assert classes_table(table) == {
        "columns": ["recall", "n", "support"], "counts": [False, True, True],
        "rows": [["a", 0.5, 3.0, 2.0], ["7", None, 4.0, 0.0]],
    }  # fmt: skip
    few = confusion_table(pd.DataFrame([[5, 0], [2, 1]], index=[0, 1], columns=[0, 1]))
    assert few == {"true": ["0", "1"], "predicted": ["0", "1"], "totals": [5, 3], "counts": [[5, 0], [2, 1]]}


def test_many_classes_are_listed_by_their_mistakes():
    counts = np.diag(np.full(41, 50))
    counts[3, 5], counts[40, 0], counts[7, 8] = 4, 9, 4
    classes = [f"c{i}" for i in range(41)]
    shuffled = classes[::-1]  # columns of another order: a hit is where the names agree
    table = confusion_table(pd.DataFrame(counts, index=classes, columns=classes)[shuffled])
    assert [(table["true"][i], table["predicted"][j], n) for i, j, n in table["pairs"]] == [
        ("c40", "c0", 9), ("c3", "c5", 4), ("c7", "c8", 4),
    ]  # fmt: skip
    assert table["totals"][40] == 59
    assert "counts" not in table
    assert len(confusion_table(pd.DataFrame(np.ones((60, 60), int)))["pairs"]) == 100
