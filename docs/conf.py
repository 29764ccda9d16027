"""How the documentation is built: pages are notebooks, executed offline, and whatever warns fails the build."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import seewhy

# For the kernels that execute the pages: one thread each, the commands of this environment, pictures in the page.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "82",
    "NO_COLOR": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "TQDM_DISABLE": "1",  # a bar leaves its state in the page, and with it a script from elsewhere
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}

project = "seewhy"
author = "The seewhy developers"
project_copyright = author
release = version = seewhy.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True
nb_output_stderr = "warn"  # a page shows the warnings it means to show, and no others

default_role = "py:obj"  # a link where there is such a thing, else code
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"seewhy {release}"
html_static_path = ["_static"]
html_css_files = ["seewhy.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def _formula(self: Any, node: Any) -> None:
    """Formulas as MathML, which browsers draw without a script from elsewhere."""
    from docutils.nodes import SkipNode

    block = node.tagname == "math_block"
    formula = str(tex2mathml(node.astext(), as_block=block))
    self.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise SkipNode


def _plain_marks(*arguments: Any) -> None:
    """Docstrings are read in a terminal as well: |x| is a magnitude there, and `.x` is no link to any x."""
    lines: list[str] = arguments[-1]
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(?<![`\w])`(\.[^`]+)`(?!`)", r"``\1``", re.sub(r"\|(\w+)\|", r"\|\1\|", line))


def _short_arrays(*arguments: Any) -> tuple[str | None, str | None] | None:
    """NumPy spells NDArray[np.uint8] out."""
    spelled = re.compile(r"~?[\w.]*ndarray\[tuple\[~?[\w.]*Any, \.\.\.\], ~?[\w.]*dtype\[~?[\w.]*?(\w+)\]\]")
    if arguments[-2] is None:
        return None
    signature, returned = (part and spelled.sub(r"NDArray[\1]", part) for part in arguments[-2:])
    return signature, returned


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas, and what is done to docstrings."""
    app.connect("autodoc-process-docstring", _plain_marks)
    app.connect("autodoc-process-signature", _short_arrays)
    app.add_html_math_renderer("mathml", inline_renderers=(_formula, None), block_renderers=(_formula, None))
