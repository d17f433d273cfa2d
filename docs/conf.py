"""Sphinx settings of the documentation site: `make docs` builds it into docs/_build/html.

The shell's reference is written from the commands themselves each time, so it can't be out of date.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import shell_reference

project = "napari-samic"
author = copyright = "napari-samic developers"
release = version = version_of("napari-samic")

extensions = [
    "myst_nb",  # with myst_parser
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]

myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings have the types, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL08", "PR01", "PR02", "RT01"}
numpydoc_validation_exclude = {r"\.[A-Z]"}  # dataclasses have attributes in place of parameters
nitpicky = True

nb_execution_mode = "auto"  # notebooks are stored without outputs, so they run in each build
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600

html_theme = "pydata_sphinx_theme"
html_title = "napari-samic"
html_theme_options = {
    "github_url": "https://github.com/napari-samic/napari-samic",
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
html_show_sourcelink = False

REPOSITORY = "https://github.com/napari-samic/napari-samic/blob/main/"


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the shell's reference in, and lead links out of docs/ to the repository."""
    del app
    if page == "reference/shell":
        source[0] += shell_reference.commands()
    if "/" not in page:
        source[0] = source[0].replace("](../", f"]({REPOSITORY}")


def setup(app: Sphinx) -> None:
    """Join what is ours."""
    app.connect("source-read", _read)
