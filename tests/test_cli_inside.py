"""``seewhy inside``: what it writes, prints and refuses."""

import numpy as np
import PIL.Image
import pytest

from seewhy import inside, samples
from seewhy.cli import main
from seewhy.cli_inside import _numbers

TINY = ["--model", "cli_networks:tiny"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with two folders of photos, and a module that makes networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cli_networks.py").write_text(
        "from seewhy import testing\ntiny = testing.small_cnn\n\n\ndef other():\n    return testing.small_cnn(1)\n"
    )
    cat = samples.photo("cat").resize((60, 60))
    for i in range(8):
        folder = tmp_path / "photos" / ("left" if i < 4 else "right")
        folder.mkdir(parents=True, exist_ok=True)
        cat.crop((i * 3, i, i * 3 + 32, i + 32)).save(folder / f"{i}.png")
    return tmp_path


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["channels", "photos/left/0.png", "--top", "3", "--layer", "left"], inside.Channels),
        (["channels", "photos/left/0.png", "--by", "gradient", "--target", "1", "--channels", "0-2"], inside.Channels),
        (["maximize", "--layer", "left", "--channels", "0-2", "--size", "24", "--steps", "3"], inside.Maximized),
        (["maximize", "--class", "1", "--method", "maco", "--size", "24", "--steps", "3"], inside.Maximized),
        (["dream", "photos/left/0.png", "--layer", "left", "--steps", "2"], inside.Dream),
        (["embed", "photos"], inside.Embedding),
        (["embed", "photos/left/0.png", "photos/right", "--method", "tsne", "--layer", "left"], inside.Embedding),
        (["top-images", "photos", "--layer", "left", "-k", "2", "--channels", "1"], inside.TopImages),
        (["cka", "photos"], inside.Agreement),
        (["cka", "photos", "--other", "cli_networks:other", "--layer", "left"], inside.Agreement),
    ],
)
def test_each_writes_its_picture_and_its_arrays(here, capsys, arguments, kind):
    assert main(["inside", *arguments, *TINY, "--out", "deep/result"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{kind.__name__}(")
    assert printed.out.endswith(": deep/result\n")
    with PIL.Image.open(here / "deep/result.png") as picture:
        assert min(picture.size) > 50
        assert np.asarray(picture).std() > 1
    assert isinstance(kind.load("deep/result"), kind)


def test_without_anything_the_sample_photo_goes_through_the_sample_network(here, capsys):
    assert main(["inside", "channels", "--layer", "_blocks.3"]) == 0
    assert "seewhy-channels.png" in capsys.readouterr().out
    assert (here / "seewhy-channels.png").stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_the_folders_are_classes(here):
    assert main(["inside", "embed", "photos", *TINY, "--out", "points.npz"]) == 0
    assert sorted(set(inside.Embedding.load("points.npz").labels)) == ["left", "right"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["channels", "nope.png"], "no file at 'nope.png'"),
        (["channels", "photos/left/0.png", "--layer", "lefd"], "Did you mean 'left'"),
        (["channels", "photos/left/0.png", "--out", "photos/left/0.png"], "would write over the photo"),
        (["maximize"], "Say what to maximize"),
        (["maximize", "--layer", "left", "--class", "1"], "one of the two"),
        (["maximize", "--layer", "left", "--method", "macro", "--steps", "1"], "Did you mean 'maco'"),
        (["maximize", "--layer", "left", "--channels", "99"], "99"),
        (["embed", "photos", "--method", "pcs"], "Did you mean 'pca'"),
        (["cka", "photos", "--other-layer", "left"], "name it with --other"),
        (["top-images", "photos", "--layer", "left", "--out", "top.jpg"], ".png (picture)"),
    ],
)
@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_mistakes_are_one_line_and_exit_code_1(here, capsys, arguments, message):
    assert main(["inside", *arguments, *TINY]) == 1
    printed = capsys.readouterr()
    error = printed.err.splitlines()[-1]
    assert error.startswith("seewhy: error: ")
    assert message in error


@pytest.mark.parametrize(("text", "numbers"), [("3", [3]), ("0-2", [0, 1, 2]), ("5, 1-2", [5, 1, 2])])
def test_numbers_of_channels(text, numbers):
    assert _numbers(text) == numbers


@pytest.mark.parametrize("arguments", [[], ["channel"], ["maximize", "--channels", "x"], ["top-images", "photos"]])
def test_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["inside", *arguments])
    assert caught.value.code == 2
    assert "usage: seewhy inside" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["channels", "maximize", "dream", "embed", "top-images", "cka"])
def test_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        main(["inside", command, "--help"])
    assert caught.value.code == 0
    assert f"seewhy-{command}.png" in capsys.readouterr().out
