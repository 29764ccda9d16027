"""The report of an evaluation, in a real browser."""

import importlib.util
import io
import os
import re
import time

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from test_notebook_browser import CHROMIUM, DRIVER, browser, environment, until

from seewhy.datasets.report import Card, Page, write_report
from seewhy.pictures import in_words

MISSING = [] if importlib.util.find_spec("selenium") else ["selenium"]
MISSING += [name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not found]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sweep,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("SEEWHY_REQUIRE_BROWSER"), reason=f"not installed: {', '.join(MISSING)}"
    ),
]

HOSTILE = "</script><img src=x onerror=alert(1)>"
CLASSES = ["cat", "Übergröße 東京", HOSTILE]
WATCH = """
window.alerts = [];
window.alert = (text) => window.alerts.push(text);
window.refused = [];
document.addEventListener('securitypolicyviolation', (event) => window.refused.push(event.blockedURI));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(environment(tmp_path_factory.mktemp("home"))) as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        driver.execute_cdp_cmd("Network.enable", {})
        yield driver


@pytest.fixture
def opened(driver, tmp_path):
    """Writes a report and opens it; in the end, nothing ran, was fetched or complained that should not."""
    reports = []

    def opening(cards, page=None, order="by number", **options):
        write_report(tmp_path / "report.html", page or Page("Pets"), cards, **options)
        driver.get((tmp_path / "report.html").as_uri())
        reports.append(Report(driver))
        if order and reports[-1].find("#order").is_displayed():
            reports[-1].pick("order", order)
        return reports[-1]

    yield opening
    for report in reports[-1:]:
        assert report.js("return window.alerts") == []
        assert report.js("return window.refused") == []
        assert not report.js("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))")
        assert [entry["message"] for entry in driver.get_log("browser")] == []


class Report:
    """The open page, as a person sees and uses it."""

    def __init__(self, driver):
        self.driver = driver
        until(lambda: self.js("return document.body?.classList.contains('ready')"), "the page")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, css):
        return self.driver.find_element("css selector", css)

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def text(self, css):
        return self.js("return document.querySelector(arguments[0]).innerText", css)

    def texts(self, css):
        return self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css)

    def count(self):
        return self.text("#count")

    def numbers(self):
        """The numbers of the images whose cards are in the page, in their order."""
        labels = self.js("return [...document.querySelectorAll('.card')].map(e => e.ariaLabel)")
        return [int(re.match(r"image (\d+):", label)[1]) for label in labels]

    def pick(self, name, text):
        from selenium.webdriver.support.ui import Select

        select = Select(self.find(f"#{name}"))
        select.select_by_visible_text(next(o.text for o in select.options if o.text.startswith(text)))

    def focused(self):
        return self.js("return document.activeElement.ariaLabel ?? document.activeElement.textContent")

    def keys(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def style(self, css, name):
        script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
        return self.js(script, css, name)

    def loaded(self, css):
        """The sizes of the pictures there, once all are decoded."""
        script = """const all = [...document.querySelectorAll(arguments[0])];
                    return all.length && all.every(e => e.complete) &&
                           all.map(e => [e.naturalWidth, e.naturalHeight])"""
        return until(lambda: self.js(script, css), f"the pictures {css}")


def cards(count=30, maps=("grad_cam", "contrast"), side=80):
    """Cards of three classes, every third one wrong, with probabilities that all differ."""
    draw = np.random.default_rng(0)
    probabilities = draw.permutation(count) / count
    picture = np.full((side, side, 3), 120, np.uint8)
    heat = np.zeros((side, side), np.float32)
    heat[: side // 2], heat[side // 2 :] = 1, -1
    values = {"grad_cam": np.abs(heat), "contrast": heat}
    for i in range(count):
        yield Card(
            i, f"photos/{i % 3}/{i:04d}.jpg", CLASSES[i % 3], CLASSES[(i + (i % 9 == 4)) % 3], probabilities[i],
            i % 9 != 4, picture, {name: values[name] for name in maps}, {"contrast": True},
        )  # fmt: skip


def wrong(count):
    return [i for i in range(count) if i % 9 == 4]


def probabilities(count=30):
    return [card.probability for card in cards(count, ())]


def full_page():
    counts = pd.DataFrame([[9, 1, 0], [0, 5, 2], [3, 0, 1200]], index=CLASSES, columns=CLASSES)
    table = pd.DataFrame(
        {"precision": [0.75, 1.0, np.nan], "recall": [0.9, 0.714, 0.998], "support": [10.0, 7.0, 1203.0]}, index=CLASSES
    )
    file = io.BytesIO()
    PIL.Image.new("RGB", (50, 40)).save(file, "PNG")
    facts = {"model": HOSTILE, "accuracy": "98.7 %"}
    return Page(
        HOSTILE, facts, table, counts, [(HOSTILE, "empty")], {"Calibration": file.getvalue(), HOSTILE: file.getvalue()}
    )


def test_names_stay_text_everywhere(opened):
    report = opened(cards(), full_page())
    assert report.driver.title == HOSTILE
    assert report.text("h1") == HOSTILE
    assert report.texts(".facts dd") == [HOSTILE, "98.7 %"]
    assert report.texts(".matrix tbody th") == report.texts(".classes tbody th") == CLASSES
    assert report.texts(".skipped td") == [HOSTILE, "empty"]
    assert not report.find(".skipped td").is_displayed()
    assert f"{HOSTILE} (10)" in report.texts("#truth option")
    evil = report.all(".card")[2]
    assert HOSTILE in evil.text
    evil.click()
    assert HOSTILE in report.text("#large-verdict")
    assert report.text("#large-path") == "photos/2/0002.jpg"
    assert report.js("return document.querySelectorAll('img[onerror], img:not([src^=\"data:\"])').length") == 0
    assert report.loaded(".figure") == [[50, 40]] * 2
    report.find("#close").click()


def test_a_script_that_was_smuggled_in_would_not_run(opened):
    report = opened(cards(3))
    report.js("""document.body.insertAdjacentHTML('beforeend', '<img src="http://127.0.0.1:9/x" onerror="alert(2)">');
                 const script = document.createElement('script');
                 script.textContent = 'alert(3)';
                 document.body.append(script);""")
    until(lambda: len(report.js("return window.refused")) >= 3, "the refusals")
    assert report.js("return window.alerts") == []
    report.js("window.refused = []; performance.clearResourceTimings()")
    assert report.driver.get_log("browser")


def test_filters(opened):
    report = opened(cards(), full_page())
    assert (report.count(), report.numbers()) == ("All 30 images", list(range(30)))
    report.pick("answer", "wrong")
    assert (report.count(), report.numbers()) == ("3 of 30 images", wrong(30))
    report.pick("truth", "Übergröße")
    assert report.numbers() == wrong(30)
    report.pick("prediction", "cat")
    assert report.numbers() == []
    report.pick("answer", "all")
    report.pick("truth", "all")
    assert report.numbers() == list(range(0, 30, 3))
    report.find("#reset").click()
    report.find("#path").send_keys("0012.JPG\n")  # Enter sends no form
    assert (report.count(), report.numbers()) == ("1 of 30 images", [12])
    report.find("#reset").click()
    assert report.count() == "All 30 images"


def test_order(opened):
    report, known = opened(cards(), order=None), probabilities()
    assert report.numbers() == sorted(range(30), key=lambda i: -known[i])
    assert report.texts(".probability")[:3] == [in_words(p) for p in sorted(known, reverse=True)[:3]]
    report.pick("order", "least")
    assert report.numbers() == sorted(range(30), key=lambda i: known[i])
    report.pick("order", "by number")
    assert report.numbers() == list(range(30))


def test_label_boxes(opened):
    unknown = Card(30, "x.jpg", None, "cat", 0.5, None, np.zeros((80, 80, 3), np.uint8))
    report = opened([*cards(5), unknown])
    colours = {kind: report.style(f".label.{kind}", "background-color") for kind in ("right", "wrong", "unknown")}
    assert colours["right"] == "rgb(255, 255, 255)"
    red, green, blue = map(int, re.findall(r"\d+", colours["wrong"]))
    assert red > 2 * max(green, blue)
    assert len(set(re.findall(r"\d+", colours["unknown"]))) <= 3
    known = in_words(probabilities(5)[4])
    assert report.all(".card")[4].text.split("\n") == ["✗", HOSTILE, known, f"true: {CLASSES[1]}"]
    assert report.texts(".label.unknown") == ["?cat0.50true class unknown"]


def test_maps(opened):
    report = opened(cards())
    assert report.style(".card .map", "opacity") == "0.85"
    slider = report.find("#controls .opacity")
    report.js("arguments[0].value = 30; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert {report.js("return getComputedStyle(arguments[0]).opacity", e) for e in report.all(".card .map")} == {"0.3"}
    assert report.texts("output.percent") == ["30 %", "30 %"]
    slider.send_keys("\ue012")  # the left arrow
    assert report.style(".card .map", "opacity") == "0.29"
    before = report.find(".card .map").get_attribute("src")
    assert report.text("#legend") == "0\nstrongest in the image"
    report.pick("method", "contrast")
    assert report.find(".card .map").get_attribute("src") != before
    assert report.text("#legend") == "against\nfor"
    assert report.style(".card .map", "opacity") == "0.29"
    assert set(map(tuple, report.loaded(".card .map"))) == {(80, 80)}
    assert report.style(".card .photo", "filter") == "none"
    report.find("#grey").click()
    assert report.style(".card .photo", "filter") == "grayscale(1)"
    report.find("#grey").click()


def test_the_map_lies_on_its_photo(opened):
    heat = np.zeros((90, 60), np.float32)
    heat[:30] = 1
    photo = np.full((90, 60, 3), 250, np.uint8)
    report = opened([Card(0, None, "a", "a", 0.9, True, photo, {"grad_cam": heat})])
    report.loaded(".card img")
    taken = PIL.Image.open(io.BytesIO(report.find(".card .picture").screenshot_as_png)).convert("RGB")
    pixels = np.asarray(taken.resize((90, 90))).astype(int)
    assert np.abs(pixels[45:, 20:70] - 250).max() < 8  # the photo, where the map is 0
    assert pixels[3:25, 20:70, 2].max() < 230  # inferno's last colour, a pale yellow
    assert np.abs(pixels[3:25, 20:70] - (0.85 * np.array([252, 255, 164]) + 0.15 * 250)).mean() < 8
    assert np.abs(pixels[20:80, :10] - pixels[3:25, :10].mean((0, 1))).max() < 8  # beside an upright photo: the ground


def test_an_image_enlarged(opened):
    from selenium.webdriver.common.keys import Keys

    report = opened(cards())
    report.pick("answer", "wrong")
    report.all(".card")[1].click()
    assert report.text("#large-title") == "Image 13"
    assert report.texts("#views figcaption") == ["What the model saw", "grad_cam", "contrast"]
    assert report.loaded("#views img") == [[80, 80]] * 5
    report.keys(Keys.ARROW_RIGHT)
    assert report.text("#large-title") == "Image 22"
    assert not report.find("#next").is_enabled()
    report.keys(Keys.ARROW_RIGHT)
    report.keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert report.text("#large-title") == "Image 4"
    report.find("#next").click()
    assert report.text("#large-title") == "Image 13"
    report.find("dialog .opacity").send_keys(Keys.ARROW_LEFT)
    assert report.text("#large-title") == "Image 13"
    assert report.style("#views .map", "opacity") == report.style(".card .map", "opacity") == "0.84"
    report.keys(Keys.ESCAPE)
    until(lambda: not report.find("dialog").is_displayed(), "the end of the dialog")
    assert report.focused().startswith("image 13: ")
    report.keys(Keys.ENTER)
    assert report.text("#large-title") == "Image 13"
    report.keys(Keys.ESCAPE)


def test_the_classes_table(opened):
    report = opened(cards(), full_page())
    assert report.texts(".classes tbody td")[:3] == ["0.750", "0.900", "10"]
    assert report.texts(".classes tbody td")[-3:] == ["–", "0.998", "1,203"]
    order = [report.texts(".classes tbody th")]
    for column in (1, 1, 3, 0):
        report.all(".classes thead button")[column].click()
        order.append(report.texts(".classes tbody th"))
    cat, big, evil = CLASSES
    assert order == [[cat, big, evil], [cat, big, evil], [big, cat, evil], [big, cat, evil], [cat, big, evil]]
    heads = report.js("return [...document.querySelectorAll('.classes thead th')].map(e => e.ariaSort)")
    assert heads == ["ascending", None, None, None]
    report.all(".classes tbody button")[1].click()
    assert report.numbers() == list(range(1, 30, 3))


def test_the_confusion_matrix(opened):
    from selenium.webdriver.common.keys import Keys

    report = opened(cards(), full_page())
    cells = [[c.text for c in row.find_elements("css selector", "td")] for row in report.all(".matrix tbody tr")]
    assert cells == [["9", "1", ""], ["", "5", "2"], ["3", "", "1,200"]]
    report.pick("answer", "right")
    report.all(".matrix tbody tr")[1].find_elements("css selector", "td")[2].click()
    assert report.count() == "3 of 30 images"
    assert report.numbers() == wrong(30)
    assert abs(report.js("return document.getElementById('gallery').getBoundingClientRect().top")) < 100
    first = report.find(".matrix button")
    report.js("arguments[0].focus()", first)
    report.keys(Keys.ARROW_DOWN)  # an empty cell below is passed by
    assert report.focused() == f"3 of {HOSTILE} predicted as cat"
    report.keys(Keys.ARROW_RIGHT)
    assert report.focused() == f"1,200 of {HOSTILE} predicted as {HOSTILE}"
    assert report.js("return document.querySelectorAll('.matrix button[tabindex=\"0\"]').length") == 1
    report.keys(Keys.ENTER)
    assert report.numbers() == list(range(2, 30, 3))
    hit, miss = (report.style(f".matrix .{kind}", "background-color") for kind in ("hit", "miss"))
    assert hit != miss


def test_classes_that_are_only_predicted(opened):
    blank = np.zeros((8, 8, 3), np.uint8)
    some = [
        Card(i, None, "cat", name, 0.5, name == "cat", blank) for i, name in enumerate(["cat", "ant", "cat", "ant"])
    ]
    counts = pd.DataFrame([[2, 2]], index=["cat"], columns=["ant", "cat"])
    report = opened(some, Page("", confusion=counts))
    for place, numbers in enumerate([[1, 3], [0, 2]]):
        report.all(".matrix button")[place].click()
        assert report.numbers() == numbers


def test_many_classes(opened):
    names = [f"class {i}" for i in range(50)]
    counts = np.diag(np.full(50, 30))
    counts[4, 9], counts[7, 1] = 2, 6
    report = opened(
        [Card(i, None, names[7], names[1], 0.5, False, np.zeros((80, 80, 3), np.uint8)) for i in range(4)],
        Page("", confusion=pd.DataFrame(counts, index=names, columns=names)),
    )
    assert report.text("#confusion-title") == "Most confused classes"
    rows = [row.text for row in report.all(".pairs tbody tr")]
    assert rows == ["class 7 class 1 6 16.7 %", "class 4 class 9 2 6.3 %"]
    report.all(".pairs button")[1].click()
    assert report.count() == "0 of 4 images"
    report.all(".pairs button")[0].click()
    assert report.numbers() == [0, 1, 2, 3]


def test_thousands_of_images(opened):
    began = time.monotonic()
    report = opened(cards(3000, ("grad_cam",)))
    assert time.monotonic() - began < 60  # written and opened, on a slow machine
    assert report.count() == "All 3,000 images"
    elements = "return document.body.querySelectorAll('*:not(script)').length"
    assert report.js(elements) < 3000
    began = time.monotonic()
    report.js("window.scrollTo(0, document.documentElement.scrollHeight)")
    until(lambda: 2999 in report.numbers(), "the last image")
    assert time.monotonic() - began < 10
    assert report.js(elements) < 3000
    assert 0 not in report.numbers()
    last = report.all(".card")[-1]
    box = report.js("return arguments[0].getBoundingClientRect().bottom", last)
    assert box <= report.js("return window.innerHeight")
    report.loaded(".card img")
    last.click()
    assert report.text("#large-path") == "photos/2/2999.jpg"
    report.find("#close").click()
    report.pick("order", "most")
    report.js("window.scrollTo(0, document.documentElement.scrollHeight)")
    known = probabilities(3000)
    until(lambda: report.numbers()[-1:] == [int(np.argmin(known))], "the least confident image")
    report.find("#path").send_keys("/0077.")
    assert report.numbers() == [77]


def test_the_focus_goes_on_through_all_images(opened):
    from selenium.webdriver.common.keys import Keys

    report = opened(cards(400, ()))
    report.js("document.querySelector('.card').focus()")
    for i in range(1, 90):
        report.keys(Keys.TAB)
        assert report.focused().startswith(f"image {i}: ")
    report.js("window.scrollTo(0, document.documentElement.scrollHeight)")
    until(lambda: 399 in report.numbers(), "the last image")
    assert report.focused().startswith("image 89: ")  # kept, though it is far away
    assert report.numbers() == sorted(report.numbers())
    report.keys(Keys.TAB)


def test_little_to_show(opened):
    blank = np.zeros((8, 8, 3), np.uint8)
    report = opened([])
    assert report.count() == "This report has no images."
    assert not report.find("#controls").is_displayed()
    assert not [e for e in report.all("#confusion, #classes") if e.is_displayed()]

    report = opened([Card(3, None, None, None, float("nan"), None, blank)])
    assert report.count() == "1 image"
    assert report.texts(".label") == ["?no predictiontrue class unknown"]
    assert not [e for e in report.all(".of-maps") if e.is_displayed()]
    assert report.texts("#truth option") == ["all", "not known (1)"]
    until(lambda: report.style(".card .photo", "image-rendering") == "pixelated", "the tiny picture's pixels")
    report.pick("truth", "not known")
    report.pick("answer", "not known")
    report.find(".card").click()
    assert report.text("#large-title") == "Image 3"
    report.find("#close").click()
    assert report.count() == "1 image"


def test_unknown_probabilities_come_last(opened):
    known = [0.2, float("nan"), 0.9, float("nan"), 0.5]
    report = opened([Card(i, None, "a", "a", p, True, np.zeros((8, 8, 3), np.uint8)) for i, p in enumerate(known)])
    report.pick("order", "most")
    assert report.numbers() == [2, 4, 0, 1, 3]
    report.pick("order", "least")
    assert report.numbers() == [0, 4, 2, 1, 3]
    assert report.texts(".probability") == ["0.20", "0.50", "0.90", "", ""]


def test_a_method_that_only_some_images_have(opened):
    some = list(cards(5, ())) + [*cards(7, ("grad_cam",))][5:]
    report = opened(some)
    assert len(report.all(".card .map")) == 2
    assert report.find("#controls .opacity").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_and_can_be_read(opened, width, scheme):
    report = opened(cards(), full_page())
    driver = report.driver
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                               {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        until(lambda: report.js("return innerWidth") == width, "the width")
        until(lambda: report.js("return document.documentElement.scrollWidth") <= width, "the new layout")
        report.js("document.getElementById('gallery').scrollIntoView()")
        until(lambda: 4 in report.numbers(), "the first wrong image")
        pairs = [(report.style(css, "color"), report.style(css, "background-color"))
                 for css in ("body", ".label.right", ".label.wrong", "select")]  # fmt: skip
        assert min(contrast(*pair) for pair in pairs) > 4.5
        assert (luminance(report.style("body", "background-color")) < 0.2) == (scheme == "dark")
        unlabelled = """return [...document.querySelectorAll('#controls select, #controls input, dialog input')]
                        .filter(e => !e.labels.length).map(e => e.id)"""
        assert report.js(unlabelled) == []
        edge = """const box = arguments[0].getBoundingClientRect(); return box.right <= innerWidth && box.left >= 0"""
        assert all(report.js(edge, card) for card in report.all(".card"))
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(colour):
    """The relative luminance of WCAG 2, 0..1."""
    unit = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
