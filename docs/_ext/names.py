"""The role of single backticks: a link for a public name of skae, else code."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole

import skae


def name_role(name, rawtext, text, lineno, inliner, options=None, content=()):
    """`Autoencoder` is a link to its page; `fit`, `X` or `PCA` are code."""
    if text.removesuffix("()") in skae.__all__:
        link = PyXRefRole(warn_dangling=True)
        target = f"~skae.{text.removesuffix('()')}"
        return link("py:obj", f":py:obj:`{target}`", target, lineno, inliner, {}, [])
    return [nodes.literal(rawtext, text)], []


def setup(app: Sphinx) -> dict:
    app.add_role("name", name_role)
    return {"parallel_read_safe": True}
