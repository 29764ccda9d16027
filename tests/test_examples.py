"""The examples and the README's own code run as printed, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_example(example, tmp_path):
    done = subprocess.run([sys.executable, ROOT / "examples" / example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert list(tmp_path.glob("*.png"))


def test_the_readmes_code(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "There is no method 'grad_cm'. Did you mean 'grad_cam' or 'guided_grad_cam'?" in done.stdout
    assert "tiger cat" in done.stdout
    assert (tmp_path / "why.png").stat().st_size > 10_000
    assert (tmp_path / "why" / "panel.png").exists()


def test_the_readmes_commands_are_those_that_ci_runs():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert 'pip install ".[demo]" && seewhy explain' in lines
    found = [line for line in lines if line.startswith("pip install -e")]
    assert found == ['pip install -e ".[test]" && pytest']
    assert "grep -m 1 '^pip install -e' README.md" in (ROOT / ".ci" / "run").read_text()


def test_what_the_readme_links_to_is_there():
    """A file that git ignores is on the author's disk only, so this fails in a clone without it."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert "docs/seewhy.png" in links
    missing = [link for link in links if not (ROOT / link).is_file()]
    assert not missing
    assert 50_000 < (ROOT / "docs/seewhy.png").stat().st_size < 700_000
