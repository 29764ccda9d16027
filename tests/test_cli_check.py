"""``seewhy check``: what it says, draws and refuses."""

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, samples, testing
from seewhy.cli import main

TINY = ["--model", "checked_networks:tiny"]
pytestmark = pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two small photos, and a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "checked_networks.py").write_text("from seewhy import testing\ntiny = testing.small_cnn\n")
    (tmp_path / "photos").mkdir()
    for name in ("cat", "coffee"):
        samples.photo(name).resize((48, 40)).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def test_it_says_what_check_says_and_draws_it(here, capsys):
    explainer = Explainer(testing.small_cnn())
    found = explainer.explain("photos/coffee.png", "guided_backprop", target=2)
    assert main(["check", "photos/coffee.png", *TINY, "--method", "guided_backprop", "--target", "2"]) == 0
    assert capsys.readouterr().out == f"{explainer.check(found)}\n"
    assert main(["check", "photos", *TINY, "--layer", "body", "--seed", "3", "--out", "new/check.png"]) == 0
    both = explainer.explain(["photos/cat.png", "photos/coffee.png"], layer="body")
    assert capsys.readouterr().out == f"{explainer.check(both, seed=3)}\nDrawn: new/check.png\n"
    picture = np.asarray(Image.open("new/check.png"))
    assert picture.shape[1] > 1400
    assert picture.std() > 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.jpg"], "There is no file at 'nothing.jpg'"),
        (["photos", "--method", "grad_cm"], "Did you mean 'grad_cam'"),
        (["photos", "--out", "check.jpg"], "the picture is a .png file"),
        (["photos/cat.png", "--out", "photos/cat.png"], "would write over the photo"),
        (["photos", "--weights", "none"], "name it with --model"),
    ],
)
def test_mistakes(here, capsys, arguments, told):
    assert main(["check", *arguments]) == 1
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
