"""The examples and the README's own code run as printed, in an empty folder."""

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}  # two of them on busy cores wait for each other


QUICK = ("quickstart.py",)
SCRIPTS = (
    *QUICK,
    "custom_method.py",
    "layer_by_layer.py",
    "what_filters_look_for.py",
    "feature_space_of_digits.py",
    "top_images.py",
    "where_networks_agree.py",
    "judge_a_classifier.py",
    "grid_of_cams.py",
    "confused_by.py",
)


@pytest.mark.parametrize(
    "example", [pytest.param(name, marks=() if name in QUICK else pytest.mark.sweep) for name in SCRIPTS]
)
def test_example(example, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / example], cwd=tmp_path, capture_output=True, text=True, env=ONE_THREAD
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert list(tmp_path.glob("*.png"))


def test_every_example_is_run():
    names = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert names == {*SCRIPTS, "vgg16_walkthrough.py", "notebook.ipynb"}


@pytest.mark.sweep
def test_the_readmes_code(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 8
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert "There is no method 'grad_cm'. Did you mean 'grad_cam' or 'xgrad_cam' or 'grad_cam_pp'?" in done.stdout
    assert "tiger cat" in done.stdout
    assert (tmp_path / "why.png").stat().st_size > 10_000
    assert (tmp_path / "why" / "panel.png").exists()
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_the_readmes_commands_are_those_that_ci_runs():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert 'pip install ".[demo]" && seewhy explain' in lines
    found = [line for line in lines if line.startswith("pip install -e")]
    assert found == ['pip install -e ".[test]" && pytest -n 2']
    assert "grep -m 1 '^pip install -e' README.md" in (ROOT / ".ci" / "run").read_text()


def test_what_the_readme_links_to_is_there():
    """A file that git ignores is on the author's disk only, so this fails in a clone without it."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert "docs/seewhy.png" in links
    missing = [link for link in links if not (ROOT / link).is_file()]
    assert not missing
    assert 50_000 < (ROOT / "docs/seewhy.png").stat().st_size < 700_000


@pytest.mark.sweep
def test_the_walk_through_of_a_vgg(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "vgg16_walkthrough.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=ONE_THREAD,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^ *\d+ \S.* +\d+\.\d%$", done.stdout, re.MULTILINE)) == 3
    with Image.open(tmp_path / "cat.png") as photo, Image.open(tmp_path / "vgg16_grad_cam.png") as laid_over:
        assert laid_over.size == photo.size == (451, 300)
        assert np.abs(np.asarray(photo).astype(int) - np.asarray(laid_over)).max() > 30
    with Image.open(tmp_path / "vgg16_panels.png") as panels:
        assert panels.width > 2 * panels.height


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The notebook after its cells have run, in an empty folder."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    book = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)  # else figures are not shown in cells
        return nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=resources).execute()


def outputs(book):
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.sweep
def test_the_notebooks_cells_run_and_show_pictures_and_no_warning(notebook):
    shown = [output.data for output in outputs(notebook) if "data" in output]
    pictures = [data["image/png"] for data in shown if "image/png" in data]
    assert len(pictures) == 5
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"))
        assert pixels.std() > 30
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    assert not [output for output in outputs(notebook) if output.output_type == "stream"]


def test_the_notebook_is_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in book.cells if cell.cell_type == "code")
