"""Methods of other distributions: really installed, in an environment of their own."""

import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

import seewhy

pytestmark = pytest.mark.sweep

METHOD = '''
from dataclasses import dataclass
import seewhy

{decorator}
@dataclass(frozen=True)
class {cls}(seewhy.Method):
    """{line}"""

    factor: float = 1.0
    needs = seewhy.Needs(activation=True)

    def compute(self, record):
        return self.factor * record.activation.amax(1)
'''


def wheel(folder: Path, name: str, code: str, entries: str) -> Path:
    """A small distribution of one module, with entry points."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[seewhy.methods]\n{entries}",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of a new environment with five small distributions; what seewhy needs comes from this one."""
    folder = tmp_path_factory.mktemp("plugins")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    there = next((folder / "env").glob("lib/python*/site-packages"))
    here = [sysconfig.get_paths()["purelib"], str(Path(seewhy.__file__).parents[1])]
    (there / "here.pth").write_text("\n".join(here))
    good = METHOD.format(decorator='@seewhy.register("peak")', cls="Peak", line="Peak: the largest activation.")
    plain = METHOD.format(decorator="", cls="Summit", line="Summit: the same without a decorator.")
    shared = METHOD.format(decorator='@seewhy.register("extra")', cls="Extra", line="Extra: of a module that works.")
    broken = "import helping\n" + good.replace('"peak"', '"half"') + "\nimport not_there_at_all\n"
    wheels = [
        wheel(folder, "good-peak", good + plain, "peak = good_peak:Peak\nsummit = good_peak:Summit\n"),
        wheel(folder, "broken-one", broken, "half = broken_one:Peak\n"),
        wheel(folder, "helping", shared, ""),
        wheel(folder, "rival", plain, "grad_cam = rival:Summit\npeak = rival:Summit\n"),
        wheel(folder, "no-method", "thing = 3\n", "thing = no_method:thing\ngone = no_method:gone\n"),
    ]
    arguments = ["install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(there)]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *map(str, wheels)], check=True, cwd=folder)
    return folder / "env" / "bin" / "python"


def run(python, code):
    """What the code prints there, and its warnings."""
    code = "import warnings; warnings.simplefilter('always')\n" + textwrap.dedent(code)
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "SeewhyWarning" in line]


@pytest.fixture(scope="module")
def listed(python):
    return run(python, "import seewhy; print(*seewhy.list_methods().items(), sep='\\n'); seewhy.list_methods()")


def test_methods_of_other_distributions_are_listed(listed):
    assert "('peak', 'Peak: the largest activation.')" in listed[0]
    assert "('summit', 'Summit: the same without a decorator.')" in listed[0]
    assert "('grad_cam', " in listed[0]


def test_a_broken_one_is_left_out_and_warned_of_once_by_its_distributions_name(listed):
    broken = [line for line in listed[1] if "'broken-one'" in line]
    assert len(broken) == 1
    assert "'half' (broken_one:Peak)" in broken[0]
    assert "No module named 'not_there_at_all'" in broken[0]
    assert "half" not in listed[0]
    assert "('extra', 'Extra: of a module that works.')" in listed[0]
    assert len(listed[1]) == 5


def test_a_clash_names_both(listed):
    clashes = [line for line in listed[1] if "'rival'" in line]
    assert len(clashes) == 2
    assert "'grad_cam' (rival:Summit)" in clashes[0]
    assert "already: seewhy.methods.gradient_cam.GradCAM" in clashes[0]
    assert "'peak' (rival:Summit)" in clashes[1]
    assert "('peak', 'Peak: the largest activation.')" in listed[0]


def test_what_is_no_method_is_left_out(listed):
    lines = [line for line in listed[1] if "'no-method'" in line]
    assert "has no attribute 'gone'" in lines[0]
    assert "decorates a subclass of seewhy.Method, not 3" in lines[1]


def test_one_is_used_by_name_with_its_options_like_any_other(python):
    out, _ = run(
        python,
        """
        import torch, seewhy
        from seewhy.testing import small_cnn
        explainer = seewhy.Explainer(small_cnn())
        x = torch.rand(1, 3, 16, 16)
        one, two = (explainer.explain(x, "peak", layer="stem", factor=f) for f in (1.0, 2.0))
        print(one.method, bool((2 * one.values == two.values).all()), one.values.any())
        """,
    )
    assert out.split() == ["peak", "True", "True"]


def test_they_are_loaded_at_the_first_look_up_and_not_before(python):
    out, _ = run(
        python,
        """
        import sys, seewhy, seewhy.methods
        print("good_peak" in sys.modules)
        seewhy.methods.registry.find_method("saliency")
        print("good_peak" in sys.modules)
        """,
    )
    assert out.split() == ["False", "True"]


def test_a_name_that_the_user_took_first_stays_the_users(python):
    code = METHOD.format(decorator='@seewhy.register("peak")', cls="Mine", line="Mine.")
    out, warned = run(python, code + "\nprint(seewhy.list_methods()['peak'])")
    assert out == "Mine.\n"
    assert any("'peak' (good_peak:Peak)" in line and "already: __main__.Mine" in line for line in warned)


def test_a_registered_class_under_another_entry_name_is_told(monkeypatch):
    from importlib.metadata import EntryPoint

    from seewhy.methods import registry

    entry = EntryPoint("other", "seewhy.methods.gradient_cam:GradCAM", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    monkeypatch.setattr(registry, "_waiting", [registry.GROUP])
    with pytest.warns(seewhy.SeewhyWarning, match="registered as 'grad_cam', and the entry point is called 'other'"):
        assert "other" not in seewhy.list_methods()


def test_an_interrupted_load_is_tried_again(monkeypatch):
    from seewhy.methods import registry

    def entries(group):
        if not tried:
            tried.append(group)
            raise KeyboardInterrupt
        return []

    tried = []
    monkeypatch.setattr(registry, "entry_points", entries)
    monkeypatch.setattr(registry, "_waiting", [registry.GROUP])
    with pytest.raises(KeyboardInterrupt):
        seewhy.list_methods()
    assert registry._waiting == [registry.GROUP]
    assert "saliency" in seewhy.list_methods()
    assert registry._waiting == []


def test_a_failing_plug_in_takes_nothing_of_the_users_away(monkeypatch):
    """A method of a file that was loaded by its path, whose module nobody put into sys.modules."""
    from importlib.metadata import EntryPoint

    from seewhy.methods import registry

    space = {"__name__": "loaded_by_path"}
    exec(METHOD.format(decorator='@seewhy.register("users_own")', cls="Own", line="Own."), space)
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("gone", "not_there_at_all:X", group)])
    monkeypatch.setattr(registry, "_waiting", [registry.GROUP])
    with pytest.warns(seewhy.SeewhyWarning, match="'gone'"):
        assert "users_own" in seewhy.list_methods()
    del registry._registry["users_own"]
