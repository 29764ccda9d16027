"""The documentation is whole: nothing public is missing, every page is found. Building it is another check."""

import csv
import importlib
import re
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.methods.make import options_of
from seewhy.methods.registry import find_method
from seewhy.testing import SmallCNN

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
    assert [name for name in sorted(built_in()) if f"`{name}`" not in text] == []
    classes = {n for n, cls in vars(seewhy.methods).items() if isinstance(cls, type) and cls is not seewhy.Method}
    reference = REFERENCE["methods"]
    assert all(f"autoclass:: seewhy.methods.{name}\n" in reference for name in classes)


def table_of_methods():
    """The columns of each method in the one table of all."""
    text = (DOCS / "choosing.md").read_text()
    _, header, _, *rows = re.search(r"```\{table\}\n.*?\n(\n\|.*?)```", text, re.DOTALL)[1].split("\n")
    columns = [part.strip() for part in header.strip("|").split("|")]
    cells = [[part.strip() for part in row.strip("|").split("|")] for row in rows if row]
    assert len({row[0] for row in cells}) == len(cells), "a method is there twice"
    return {row[0].strip("`"): dict(zip(columns, row, strict=True)) for row in cells}


TABLE = table_of_methods()


def built_in():
    return {name for name in seewhy.list_methods() if find_method(name).__module__.startswith("seewhy.")}


def declared_at(needs):
    if needs.layer:
        return "layer, input" if needs.input_gradient else "layer"
    return "head" if needs.head else "tokens" if needs.attention else "input"


def declared_needs(name):
    """In the words of the table; whether gradients of changed images are asked for is not declared."""
    method, said = find_method(name)(), TABLE[name]["needs"]
    needs = method.needs
    gradients = "gradients" in said if needs.evaluations else bool(needs.ways)
    words = {
        "gradients": gradients,
        "`libra`": "libra" in options_of(type(method)),
        "ReLU": any(way.rule.name in ("guided", "deconvnet") for way in needs.ways),
        "biases": needs.biases,
        "attention": needs.attention,
        "linear head": needs.head,
        "a class": needs.objective,
        "asks again": needs.evaluations,
    }
    return ", ".join(word for word, meant in words.items() if meant) or "–"


def test_every_method_is_in_the_table_of_all():
    assert set(TABLE) == built_in()


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_methods_says_what_they_declare(name):
    method = find_method(name)()
    assert TABLE[name]["at"] == declared_at(method.needs)
    assert TABLE[name]["needs"] == declared_needs(name)
    assert TABLE[name]["signed"] == ("yes" if method.signed else "")
    assert TABLE[name]["passes"]
    assert TABLE[name]["take it for"]


class Frozen(SmallCNN):
    """A network without gradients."""

    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


FEW = {
    "extremal_perturbation": {"steps": 2, "areas": 0.1}, "kernel_shap": {"segments": 4},
    "lime": {"segments": 4, "samples": 8}, "occlusion": {"window": 8, "stride": 8}, "rise": {"masks": 8},
    "sobol": {"grid": 2, "designs": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if "asks again" in row["needs"]])
@pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")
def test_the_table_of_methods_says_which_work_without_gradients(name):
    explainer, x = seewhy.Explainer(Frozen().eval()), torch.rand(1, 3, 16, 24)
    asked = {"target": 1, "layer": "body" if TABLE[name]["at"] == "layer" else None, **FEW.get(name, {})}
    if "gradients" in TABLE[name]["needs"]:
        with pytest.raises(seewhy.SeewhyError, match=r"gradient|does not depend on the input"):
            explainer.explain(x, name, **asked)
    else:
        assert explainer.explain(x, name, **asked).maps.shape == (1, 16, 24)


def test_the_table_of_methods_says_which_maps_stay_for_a_network_that_answers_nonsense():
    measured = {}
    for file in ("methods_digits.csv", "methods_photos.csv"):
        with (DOCS / "_static" / file).open() as rows:
            measured |= {row["method"].strip("`"): row["shuffled"] for row in csv.DictReader(rows)}
    assert {name: row["shuffled"] for name, row in TABLE.items()} == {name: measured[name] for name in TABLE}


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
