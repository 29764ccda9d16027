"""The documentation is whole: nothing public is missing, every page is found. Building it is another check."""

import importlib
import re
from pathlib import Path

import pytest

import seewhy

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
REFERENCE = {page.stem: page.read_text() for page in (DOCS / "reference").glob("*.md")}
MODULES = list(seewhy._SUBMODULES)
EXTENSION_POINTS = {
    "own-method": ["@seewhy.register", "check_method", '[project.entry-points."seewhy.methods"]'],
    "own-target": ["(seewhy.Target)", "def classes"],
    "own-transform": ["transform=", "Normalize"],
    "own-layout": ["layout=", '"NHWC"'],
    "odd-outputs": ["output="],
}


def names(page):
    return page.relative_to(DOCS).with_suffix("").as_posix()


def is_notebook(page):
    return page.read_text().startswith("---\nfile_format: mystnb\n")


def test_every_page_is_in_a_table_of_contents():
    listed = [
        entry
        for contents in re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
        for entry in contents.split("\n")
        if entry and not entry.startswith(":")
    ]
    assert sorted(listed) == sorted(names(page) for page in PAGES if page.stem != "index")


@pytest.mark.parametrize("name", [n for n in seewhy.__all__ if n not in MODULES and not hasattr(seewhy.errors, n)])
def test_every_public_name_is_in_the_reference(name):
    home = r"(?:methods\.)?" if hasattr(seewhy.methods, name) else ""
    directive = rf"^\.\. auto\w+:: seewhy\.{home}{name}(?:\(.*\))?$"
    assert re.search(directive, "\n".join(REFERENCE.values()), re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_module_is_in_the_reference_with_all_its_names(name):
    text = "\n".join(REFERENCE.values())
    module = importlib.import_module(f"seewhy.{name}")
    found = re.search(rf"^\.\. automodule:: seewhy\.{name}\n   :members:(.*)", text, re.MULTILINE)
    if found and not found[1].strip():  # all members
        return
    one_by_one = found[1].replace(",", " ").split() if found else []
    one_by_one += re.findall(rf"^\.\. auto\w+:: seewhy\.(?:{name}\.)?(\w+)$", text, re.MULTILINE)
    public = getattr(module, "__all__", None) or [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    assert public
    assert set(public) - set(one_by_one) <= {"SameConv2d", "MBConv", "EfficientNetLite0"}  # parts of the sample network


def test_every_method_is_on_the_page_of_methods():
    text = (DOCS / "methods.md").read_text()
    for name in ["saliency", "guided_backprop", "deconvnet", "cam", "grad_cam", "guided_grad_cam", "activations"]:
        assert f"`{name}`" in text
    built_in = {n for n, cls in vars(seewhy.methods).items() if isinstance(cls, type) and cls is not seewhy.Method}
    reference = REFERENCE["methods"]
    assert all(f"autoclass:: seewhy.methods.{name}\n" in reference for name in built_in)


@pytest.mark.parametrize("page", EXTENSION_POINTS)
def test_every_extension_point_has_its_page(page):
    text = (DOCS / "howto" / f"{page}.md").read_text()
    for said in EXTENSION_POINTS[page]:
        assert said in text


def test_pages_with_cells_are_notebooks_and_only_those():
    for page in PAGES:
        assert ("```{code-cell}" in page.read_text()) == is_notebook(page), page


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_code_fits_the_page(page):
    blocks = re.findall(r"```(?:\{code-cell\} ipython3|python)\n(.*?)```", page.read_text(), re.DOTALL)
    wide = [line for block in blocks for line in block.split("\n") if len(line) > 82]
    assert not wide


def test_links_between_pages_have_a_page():
    for page in PAGES:
        for link in re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
