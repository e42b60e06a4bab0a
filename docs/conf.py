"""Sphinx settings. Build with ``sphinx-build -W --keep-going docs docs/_build/html`` from the root of the repository."""

import shutil
import sys
from pathlib import Path

import balancedfact

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

import callers  # noqa: E402, beside this file
import gallery  # noqa: E402
import ledger  # noqa: E402

# Sphinx reads only what lies below this folder; the notebooks are shown with the outputs they are stored with. Their links lead
# to the pages here from where they are stored, and from here once they are copied.
shutil.rmtree(here / "notebooks", ignore_errors=True)
(here / "notebooks").mkdir()
for notebook in sorted((here.parent / "notebooks").glob("*.ipynb")):
    text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
    (here / "notebooks" / notebook.name).write_text(text, encoding="utf-8")

ledger.write(here / "theorems.md")
gallery.build(here)

project = "balancedfact"
author = "The balancedfact authors"
copyright = "2026, the balancedfact authors"
release = version = balancedfact.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas are set without a network: MathJax is copied into the site
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
]
exclude_patterns = ["_build", "examples"]
templates_path = ["_templates"]
default_role = "py:obj"

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameter tables already have them
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = True
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL01", "GL05", "GL06", "GL07", "GL09", "SS01", "PR02", "PR03"}

smartquotes_action = "qe"  # quotes and ellipses; two hyphens begin an option
nb_execution_mode = "off"
nb_merge_streams = True  # one box for what a cell prints, not one for each call
myst_enable_extensions = ["amsmath", "deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

html_theme = "furo"
html_title = "balancedfact"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_copy_source = False
html_js_files = [(name, {"defer": "defer"}) for name in ("claims.js", "narrow.js", "pictures.js")]


def public_bases(app, name, obj, options, bases):
    """Leave out base classes that have no page because they are private."""
    bases[:] = [each for each in bases if not each.__module__.startswith("balancedfact.") or id(each) in ledger.public()] or [
        object
    ]


def setup(app):
    """Link the reference with the ledger and the notebooks, after numpydoc has set the docstrings."""
    app.connect("autodoc-process-docstring", ledger.lead_on, priority=900)
    app.connect("autodoc-process-docstring", callers.lead_on, priority=901)
    app.connect("autodoc-process-bases", public_bases)
