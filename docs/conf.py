"""Configuration of the documentation: `make docs` builds it, strictly and without a network."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Darkroom"
author = "the Darkroom developers"
copyright = "2026, the Darkroom developers"
version = release = installed_version("darkroom-classification")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "generated_pages",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = "Darkroom"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["darkroom.css"]

autodoc_inherit_docstrings = False  # Lightning's refer to pages of its own documentation
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures show them; long ones twice would hide the words
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # an annotation such as numpy.str_ is no valid reference
default_role = "literal"  # docstrings put code in single backticks
nitpicky = True
# Libraries of others are not linked: the build does without a network.
nitpick_ignore_regex = [(r"py:.*", r"(?!darkroom\.).*")]
