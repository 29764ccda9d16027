"""The public names, and what importing them costs."""

import subprocess
import sys

import pytest

import seewhy

HEAVY = ["matplotlib", "cv2", "torchvision", "sklearn", "skimage", "captum", "tqdm.auto", "pandas", "anywidget"]


def test_every_public_name_is_there_and_documented():
    for name in seewhy.__all__:
        thing = getattr(seewhy, name)
        assert name == "__version__" or thing.__doc__
        assert name in dir(seewhy)
    with pytest.raises(AttributeError, match="no attribute 'Explaner'"):
        _ = seewhy.Explaner


def imported(code, names):
    code = f"import sys; {code}; print([m for m in {names} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_seewhy_imports_nothing_heavy():
    assert imported("import seewhy", [*HEAVY, "torch", "numpy", "PIL"]) == "[]"


def test_its_names_import_nothing_heavy_but_torch():
    assert imported("import torch; from seewhy import *", [*HEAVY, "torch._dynamo"]) == "[]"


def test_rendering_imports_no_torch():
    assert imported("import seewhy.render.panel", ["torch"]) == "[]"


def test_errors_are_also_the_builtin_that_one_expects():
    from seewhy import errors

    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.SeewhyError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert str(kind("it says so")) == "it says so"
        if kind is not errors.SeewhyError:
            assert any(base.__module__ == "builtins" and base not in (Exception, object) for base in kind.__mro__[1:-3])
