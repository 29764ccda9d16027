"""``seewhy evaluate`` and ``seewhy run``: what they write, print and refuse."""

import pandas as pd
import pytest

from seewhy import datasets, samples
from seewhy.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
TINY = ["--model", "folder_networks:tiny", "--class-names", "names.txt"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a folder of photos for each of two classes, one of them broken, and a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "folder_networks.py").write_text("from seewhy import testing\ntiny = testing.small_cnn\n")
    (tmp_path / "names.txt").write_text("left\nright\nup\ndown\nback\n")
    cat = samples.photo("cat").resize((60, 60))
    for i in range(8):
        folder = tmp_path / "photos" / ("left" if i < 4 else "right")
        folder.mkdir(parents=True, exist_ok=True)
        cat.crop((i * 3, i, i * 3 + 32, i + 32)).save(folder / f"{i}.png")
    (tmp_path / "photos" / "left" / "broken.jpg").write_bytes(b"no photo")
    return tmp_path


def test_evaluate_says_how_good_it_is(here, capsys):
    assert main(["evaluate", "photos", *TINY]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("SmallCNN: 8 images, 1 could not be read\naccuracy 50.0%, top-5 100.0%")
    assert printed.out.count("wrong: photos/") == 4
    assert "could not be read and was passed by: 'photos/left/broken.jpg'" in printed.err


def test_evaluate_writes_what_it_is_asked_for(here, capsys):
    how = ["--report", "out/report.html", "--table", "out/table.parquet", "--to", "maps.zarr", "--batch-size", "4"]
    assert main(["evaluate", "photos", *TINY, *how]) == 0
    assert capsys.readouterr().out.endswith("Predictions: out/table.parquet\nReport: out/report.html\n")
    assert "SmallCNN on photos" in (here / "out/report.html").read_text()
    table = pd.read_parquet(here / "out/table.parquet")
    assert table["label"].tolist() == ["left"] * 4 + ["right"] * 4
    store = datasets.open(here / "maps.zarr")
    assert (len(store), list(store[0])) == (8, [("grad_cam", "body")])
    assert main(["evaluate", "photos", *TINY, "--table", "t.csv", "--workers", "1"]) == 0
    assert pd.read_csv(here / "t.csv")["prediction"].tolist() == table["prediction"].tolist()


def test_run_goes_on_with_its_store(here, capsys):
    how = ["--to", "maps.zarr", "--method", "saliency", "grad_cam", "--layer", "left", "--target", "up"]
    assert main(["run", "photos", *TINY, *how, "--chunk", "16", "--no-pictures"]) == 0
    assert capsys.readouterr().out == "Explained 8 images: maps.zarr\n"
    store = datasets.open(here / "maps.zarr")
    assert list(store[0]) == ["saliency", ("grad_cam", "left")]
    assert set(store[:]["saliency"].target_names) == {"up"}
    written = (here / "maps.zarr/predictions/00000000.parquet").stat().st_mtime_ns
    assert main(["run", "photos", *TINY, *how, "--no-pictures"]) == 0
    assert (here / "maps.zarr/predictions/00000000.parquet").stat().st_mtime_ns == written
    assert main(["run", "photos", *TINY, "--to", "maps.zarr", "--no-pictures"]) == 1
    assert "was begun with other methods or options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate", "nothing"], "There is no folder at 'nothing'"),
        (["evaluate", "photos", "--report", "report.pdf"], "must end in .html or .htm"),
        (["evaluate", "photos", "--table", "table.xlsx"], "must end in .csv or .parquet"),
        (["evaluate", "photos", "--strict", *TINY], "broken.jpg' cannot be read as an image"),
        (["evaluate", "photos", *TINY, "--report", "photos/left/0.png/report.html"], "cannot be written"),
        (["run", "photos", *TINY, "--to", "names.txt"], "is no store of maps"),
        (["run", "photos", *TINY, "--to", "maps.zarr", "--method", "grad_cm"], "Did you mean 'grad_cam'"),
    ],
)
def test_mistakes(here, capsys, arguments, told):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.count("\n") == printed.err.count("seewhy: ")


def test_a_folder_without_classes(here, capsys):
    assert main(["evaluate", "photos/right", *TINY]) == 0
    assert capsys.readouterr().out.endswith("No labels: the names of the folders in the folder would be.\n")
