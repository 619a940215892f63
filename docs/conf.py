"""Sphinx: `make docs` builds these pages, without a network and with warnings as errors."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import skae  # noqa: E402

project = "skae"
author = "the skae developers"
release = version = skae.__version__
copyright = "the skae developers, BSD-3-Clause"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "results_page",
    "mathml",
    "names",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.zip"]
templates_path = ["_templates"]
nitpicky = True

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have them, as numpydoc
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False  # the class template shows them
numpydoc_class_members_toctree = False
default_role = "name"  # `fit`, `X`, `Autoencoder`: see _ext/names.py

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"skae {release}"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
}
html_static_path = ["_static"]
html_css_files = ["skae.css"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("skae",),
    "download_all_examples": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "matplotlib_animations": False,
    "plot_gallery": "True",
}
suppress_warnings = ["config.cache"]  # sphinx-gallery's configuration holds objects

# A link out of docs/, such as ../README.md, works in the repository and leads nowhere here.
OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")


def without_outward_links(app, docname, source):
    if Path(app.env.doc2path(docname)).suffix == ".md":
        source[0] = OUTWARD.sub(r"\1", source[0])


def setup(app):
    app.connect("source-read", without_outward_links)
