"""Sphinx builds the documentation from the root of the repository, so that links between files work in both places."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402 - beside this file

logger = logging.getLogger(__name__)

project = "mmib"
author = "The mmib developers"
copyright = author
release = metadata.version("mmib")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "experiments/**.md", "*.md"]
exclude_patterns = [
    ".*",
    "build",
    "data",
    "datamodules",
    "dist",
    "exports",
    "lightning_configs",
    "runs",
    "src",
    "tests",
]
exclude_patterns += ["README.md", "**/__pycache__"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

# Docstrings are plain text with `code` in single backticks.
default_role = "code"
smartquotes_action = "qe"  # no dashes: options begin with two hyphens
add_module_names = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
# Short names in annotations, such as those of two classes Post, are left without a link.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "mmib"
html_copy_source = False
html_show_sphinx = False
templates_path = ["_templates"]
html_additional_pages = {"index": "to_home.html"}
copybutton_prompt_text = "$ "


def skip_tuple_fields(
    _app: Sphinx, _what: str, _name: str, member: object, skip: bool, _options: object
) -> bool | None:
    """Fields of named tuples: their class says what they hold."""
    return True if type(member).__name__ == "_tuplegetter" else None


def check_completeness(_app: Sphinx, environment: BuildEnvironment) -> None:
    """Warn of public names without documentation; `make docs` takes warnings for errors."""
    for name in sorted(generate.undocumented(environment.get_domain("py").objects)):
        logger.warning("%s is public and not in the documentation", name)


def setup(app: Sphinx) -> None:
    """Write the pages that are made from the code before Sphinx looks for pages."""
    app.connect("builder-inited", lambda _: generate.write_pages(DOCS / "reference" / "generated"))
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("env-check-consistency", check_completeness)
