"""Formulas as MathML, which browsers show by themselves: no script, and nothing to download."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# docutils 0.22 knows no \\dots, and sets an index of an accented letter below it, not beside it.
DOTS = re.compile(r"\\dots\b")
ACCENTED = re.compile(r"\\(?:hat|tilde|bar)\s*(?:\\[a-zA-Z]+|\{\w+\}|\w)(?=\s*[_^])")


def spelled(tex: str) -> str:
    """The formula in words that docutils reads well."""
    return ACCENTED.sub(lambda found: f"{{{found.group()}}}", DOTS.sub(r"\\ldots", tex)).strip()


def converted(node: nodes.Element, *, as_block: bool) -> str:
    """The formula of a node; what cannot be read is a warning, and shown as it is."""
    try:
        return tex2mathml(spelled(node.astext()), as_block=as_block)
    except MathError as error:
        logger.warning("no MathML for %r: %s", node.astext(), error, location=node)
        return f"<code>{node.astext()}</code>"


def visit_math(self, node: nodes.math) -> None:
    self.body.append(converted(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{converted(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True}
