"""``seewhy check``: what it says, draws and refuses."""

import numpy as np
import pytest
from PIL import Image

from seewhy import samples
from seewhy.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("cat", "coffee"):
        samples.photo(name).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def test_it_says_what_check_says_and_draws_it(here, capsys):
    explainer = samples.explainer()
    found = explainer.explain("photos/coffee.png", "guided_backprop", target="espresso")
    assert main(["check", "photos/coffee.png", "--method", "guided_backprop", "--target", "espresso"]) == 0
    assert capsys.readouterr().out == f"{explainer.check(found)}\n"
    assert main(["check", "photos", "--layer", "_blocks.10", "--seed", "3", "--out", "new/check.png"]) == 0
    both = explainer.explain(["photos/cat.png", "photos/coffee.png"], layer="_blocks.10")
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
