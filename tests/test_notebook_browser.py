"""The interactive view, in JupyterLab, in a real browser."""

import base64
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = [name for name in ("selenium", "jupyterlab", "ipykernel", "anywidget") if not importlib.util.find_spec(name)]
MISSING += [name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not found]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sweep,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("SEEWHY_REQUIRE_BROWSER"), reason=f"not installed: {', '.join(MISSING)}"
    ),
]

PATIENCE = 90  # seconds, of a slow machine
TOKEN = "seewhy"
CELLS = [
    """
import numpy as np, torch
from seewhy import Explainer, testing
from seewhy.notebook import view

torch.set_num_threads(1)
photos = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
names = ["goldfish", "tabby, tabby cat", "espresso", "tripod", "moped"]
transform = lambda photo: torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255
explainer = Explainer(testing.small_cnn(), transform=transform, class_names=names)
""",
    """
wanted = {
    "shown": explainer.explain(photos[0]),
    "saliency": explainer.explain(photos[0], "saliency"),
    "moped": explainer.explain(photos[0], layer="left", target="moped"),
    "activations": explainer.explain(photos[0], "activations", layer="stem"),
    "second": explainer.explain(photos[1], "activations", layer="stem", target="moped"),
}
np.savez("wanted.npz", photos=photos, **{name: one.map for name, one in wanted.items()},
         **{f"{name} drawn": one.overlay() for name, one in wanted.items()},
         fixed=wanted["shown"].overlay(alpha=0.5))
first = view(explainer, photos)
first
""",
    "second = view(explainer, photos[1], methods=['saliency'], truth='moped')\nsecond",
    "print('picked', first.image, first.method, first.layer, first.target, round(first.opacity, 2), second.opacity)",
    "first.method, first.opacity, first.follow = 'saliency', 0.5, False",
    """
values = np.full((40, 56), np.nan, np.float32)
values[0, 0], values[0, 1] = 1, np.inf
first.follow = True
first._heat = {**first._heat, "map": values.tobytes(), "low": 0.0, "high": 1.0}
""",
]


def notebook():
    cells = [
        {"cell_type": "code", "id": f"c{i}", "source": source.strip(), "metadata": {}, "outputs": [],
         "execution_count": None} for i, source in enumerate(CELLS)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def environment(folder):
    """Everything that Jupyter or the browser would write into the user's home goes into `folder`."""
    names = ["HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"]
    names += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"]
    own = {name: str(folder / name.lower()) for name in names}
    for path in own.values():
        Path(path).mkdir(parents=True)
    news = folder / "jupyterlab_settings_dir/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    return {**inherited, **own, "MPLBACKEND": "Agg"}


def until(ask, what, patience=PATIENCE):
    """What `ask` gives, as soon as that is true."""
    end = time.monotonic() + patience
    while not (found := ask()):
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {patience} s")
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def server(root, env):
    """The URL of a JupyterLab of our own."""
    options = {
        "ServerApp.port": 0, "ServerApp.ip": "127.0.0.1", "ServerApp.root_dir": root, "ServerApp.open_browser": False,
        "ServerApp.allow_root": True, "IdentityProvider.token": TOKEN, "LabApp.expose_app_in_browser": True,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield until(lambda: address(process, root, env), "the server's start")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def address(process, root, env):
    if process.poll() is not None:
        pytest.fail(f"JupyterLab ended: {(root / 'server.log').read_text()[-2000:]}")
    import urllib.request

    for file in Path(env["JUPYTER_RUNTIME_DIR"]).glob("jpserver-*.json"):
        with contextlib.suppress(ValueError, OSError):
            url = json.loads(file.read_text())["url"]
            urllib.request.urlopen(f"{url}api?token={TOKEN}", timeout=5).close()
            return url
    return None


@contextlib.contextmanager
def browser(env):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1500",
                     f"--user-data-dir={env['HOME']}/chromium"):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER, env=env))
    try:
        yield driver
    finally:
        driver.quit()


class Lab:
    """JupyterLab with the notebook, in the browser."""

    def __init__(self, driver, url, root):
        self.driver, self.root = driver, root
        driver.set_script_timeout(PATIENCE)
        driver.get(f"{url}lab/tree/view.ipynb?token={TOKEN}")
        self.until("return !!window.jupyterapp && document.querySelectorAll('.jp-Notebook .jp-CodeCell').length > 3")
        self.until("""const kernel = jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
                      return kernel?.status === 'idle'""")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments):
        return until(lambda: self.js(script, *arguments), script)

    def run(self, number):
        """Run one cell and wait until it has run."""
        from selenium.common import TimeoutException

        run = """const done = arguments[arguments.length - 1];
                 const notebook = jupyterapp.shell.currentWidget.content;
                 notebook.activeCellIndex = arguments[0];
                 jupyterapp.commands.execute('notebook:run-cell').then(() => done(true));"""
        try:
            self.driver.execute_async_script(run, number)
        except TimeoutException:
            pytest.fail(f"cell {number} did not end: {self.output(number)}")

    def output(self, number):
        return self.js("""return jupyterapp.shell.currentWidget.content.widgets[arguments[0]].node
                          .querySelector('.jp-OutputArea')?.innerText""", number)  # fmt: skip

    def views(self):
        self.until("return document.querySelectorAll('.seewhy-view').length === 2")
        return [View(self, element) for element in self.driver.find_elements("css selector", ".seewhy-view")]


class View:
    """One view on the page, as a person sees and uses it."""

    def __init__(self, lab, element):
        self.lab, self.element = lab, element
        self.canvas = element.find_element("css selector", "canvas.seewhy-picture")

    def control(self, name):
        return self.element.find_element("css selector", f"[data-seewhy='{name}']")

    def pick(self, name, text):
        """Pick the option that begins so, and wait for the answer."""
        from selenium.webdriver.support.ui import Select

        select = Select(self.control(name))
        select.select_by_visible_text(next(o.text for o in select.options if o.text.startswith(text)))
        self.settled()

    def type(self, text):
        control = self.control("typed")
        control.clear()
        control.send_keys(text, "\n")
        self.settled()

    def settled(self):
        self.lab.until("return !arguments[0].classList.contains('seewhy-busy')", self.element)

    def selected(self, name):
        return self.lab.js("return arguments[0].selectedOptions[0].text", self.control(name))

    def text(self, css):
        return self.lab.js(
            "return [...arguments[0].querySelectorAll(arguments[1])].map(e => e.textContent).join('|')",
            self.element, css)  # fmt: skip

    def pixels(self):
        script = """const {width, height} = arguments[0];
                    const data = arguments[0].getContext('2d').getImageData(0, 0, width, height).data;
                    return [height, width, btoa(String.fromCharCode(...data))];"""
        height, width, data = self.lab.js(script, self.canvas)
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]

    def shows(self, pixels):
        until(lambda: np.array_equal(self.pixels(), pixels), "the expected picture")

    def slide(self, opacity):
        self.lab.js("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
                    self.control("opacity"), opacity)  # fmt: skip

    def hover(self, row, column):
        """What is read at a pixel."""
        script = """const box = arguments[0].getBoundingClientRect(), [canvas, row, column] = arguments;
                    const at = (n, of, from, size) => from + (n + 0.5) * size / of;
                    canvas.dispatchEvent(new PointerEvent('pointermove', {bubbles: true,
                        clientX: at(column, canvas.width, box.left, box.width),
                        clientY: at(row, canvas.height, box.top, box.height)}));"""
        self.lab.js(script, self.canvas, row, column)
        return self.text(".seewhy-readout")

    def reads(self, values):
        for row, column in [(0, 0), (7, 50), (20, 31), (39, 55), np.unravel_index(values.argmax(), values.shape)]:
            read = self.hover(int(row), int(column))
            assert read.startswith(f"(row {row}, column {column}): ")
            assert read.split(": ")[1] == in_words(values[row, column])


def in_words(value):
    """Python's own three digits, without the padding of exponents."""
    digits, e, power = f"{value:.3g}".partition("e")
    return f"{digits}{e}{int(power)}" if e else digits


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root, env = tmp_path_factory.mktemp("root"), environment(tmp_path_factory.mktemp("home"))
    (root / "view.ipynb").write_text(notebook())
    with server(root, env) as url, browser(env) as driver:
        lab = Lab(driver, url, root)
        for number in range(3):
            lab.run(number)
        yield lab


@pytest.fixture(scope="module")
def wanted(lab):
    """What Python computes, in the notebook itself."""
    return np.load(lab.root / "wanted.npz")


def test_the_view_does_what_it_says(lab, wanted):
    """One walk through the view: each step begins where the one before ended."""
    first, second = lab.views()
    for step in (
        opens, opacity_is_blended_here, pickers_ask_python, mistakes_are_told, another_image, keys_stay_in_the_view,
        python_reads_what_was_picked, python_sets_what_is_shown, no_value_shows_the_photo, dark_theme,
    ):  # fmt: skip
        step(lab, wanted, first, second)
    assert not [entry for entry in lab.driver.get_log("browser") if "seewhy" in entry["message"]]


def opens(lab, wanted, first, second):
    first.shows(wanted["shown drawn"])
    first.reads(wanted["shown"])
    assert first.selected("layer").startswith("automatic: ")
    assert first.selected("target").startswith("predicted: ")
    assert first.selected("image") == "image 0"
    assert first.text(".seewhy-ticks span") == f"0|{in_words(wanted['shown'].max())}"
    ids = lab.js("return [...document.querySelectorAll('.seewhy-view [id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    assert not second.control("image").is_displayed()
    assert second.text(".seewhy-truth") == "true: moped"


def opacity_is_blended_here(lab, wanted, first, second):
    photo = wanted["photos"][0]
    lab.js("jupyterapp.shell.currentWidget.content.activeCellIndex = 0")
    before = first.pixels()
    first.slide(0.3)
    weaker = first.pixels()  # at once: nobody is asked
    assert not np.array_equal(weaker, before)
    assert np.abs(weaker.astype(int) - photo).sum() < np.abs(before.astype(int) - photo).sum()
    first.slide(0)
    assert np.array_equal(first.pixels(), photo)
    first.slide(0.5)
    first.control("follow").click()
    assert np.array_equal(first.pixels(), wanted["fixed"])
    first.control("follow").click()
    first.slide(0.85)
    assert np.array_equal(first.pixels(), before)


def pickers_ask_python(lab, wanted, first, second):
    first.pick("method", "saliency")
    first.shows(wanted["saliency drawn"])
    first.reads(wanted["saliency"])
    assert not first.control("layer").is_enabled()
    first.pick("method", "grad_cam")
    first.shows(wanted["shown drawn"])
    first.pick("layer", "left")
    first.pick("target", "moped")
    first.shows(wanted["moped drawn"])
    first.pick("target", "predicted")
    first.type("4")
    first.shows(wanted["moped drawn"])
    first.reads(wanted["moped"])
    assert first.control("typed").get_property("value") == ""
    assert first.selected("target").startswith("moped")


def mistakes_are_told(lab, wanted, first, second):
    first.type("expresso")
    assert first.text(".seewhy-error") == "No class is called 'expresso'. Did you mean 'espresso'?"
    assert first.control("typed").get_property("value") == "expresso"
    assert first.selected("target").startswith("moped")
    first.shows(wanted["moped drawn"])
    assert not second.text(".seewhy-error")
    first.pick("method", "activations")
    assert not first.text(".seewhy-error")
    first.pick("layer", "stem (")
    first.shows(wanted["activations drawn"])
    first.reads(wanted["activations"])


def another_image(lab, wanted, first, second):
    quickly = [[first.control("image"), 0], [first.control("layer"), 0], [first.control("image"), 1]]
    lab.js("""for (const [control, number] of arguments[0]) {
                  control.selectedIndex = number;
                  control.dispatchEvent(new Event('change'));
              }""", quickly)  # fmt: skip
    first.settled()  # what was picked while Python was busy counts as well
    assert (first.selected("image"), first.selected("layer").split(":")[0]) == ("image 1", "automatic")
    first.pick("layer", "stem (")
    first.shows(wanted["second drawn"])
    first.reads(wanted["second"])


def keys_stay_in_the_view(lab, wanted, first, second):
    from selenium.webdriver.common.keys import Keys

    active = "return jupyterapp.shell.currentWidget.content.activeCellIndex"
    lab.js("arguments[0].focus()", first.canvas)
    first.hover(7, 50)
    before = lab.js(active)
    first.canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert first.element.find_element("css selector", ".seewhy-cross").is_displayed()
    assert first.text(".seewhy-readout") == f"(row 8, column 52): {in_words(wanted['second'][8, 52])}"
    first.control("method").send_keys(Keys.ARROW_UP)
    first.settled()
    assert first.text(".seewhy-subtitle") == "guided_backprop"
    first.pick("method", "activations")
    first.control("opacity").send_keys(Keys.ARROW_LEFT)
    assert first.text(".seewhy-opacity output") == "80 %"
    first.control("follow").send_keys(Keys.SPACE, Keys.SPACE, "b")
    assert lab.js(active) == before
    assert lab.js("return jupyterapp.shell.currentWidget.content.widgets.length") == len(CELLS)


def python_reads_what_was_picked(lab, wanted, first, second):
    first.slide(0.4)  # the browser sends it when the message before has been answered

    def says():
        lab.run(3)
        return "picked 1 activations stem 4 0.4 0.85" in lab.output(3)

    until(says, "what was picked, in Python")


def python_sets_what_is_shown(lab, wanted, first, second):
    lab.run(4)
    until(lambda: first.selected("method") == "saliency", "the method that Python set")
    assert first.text(".seewhy-opacity output") == "50 %"
    assert not first.control("follow").is_selected()
    assert first.selected("image") == "image 1"
    assert second.text(".seewhy-opacity output") == "85 %"


def no_value_shows_the_photo(lab, wanted, first, second):
    photo = wanted["photos"][1]
    lab.run(5)
    until(lambda: first.hover(20, 20).endswith(": no value"), "the map without values")
    changed = (first.pixels() != photo).any(2)
    assert changed[0, :2].all()
    assert changed.sum() == 2
    assert first.hover(0, 1).endswith(": infinite")


def dark_theme(lab, wanted, first, second):
    colour = "return getComputedStyle(arguments[0]).color.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    assert max(lab.js(colour, first.element)) < 128
    lab.js("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    until(lambda: min(lab.js(colour, first.element)) > 128, "light text in the dark theme")
