"""Formulas as MathML, which browsers show by themselves: no script, and nothing to download."""

import re
from html import unescape
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)
ENTITY = re.compile(r"&(?!amp;|lt;|gt;|quot;|apos;)[A-Za-z]+;")  # known to HTML, not to XML


def index_beside(mathml: str) -> str:
    """An index of an accented letter beside it, where docutils 0.22 sets it below."""
    tree = ElementTree.fromstring(ENTITY.sub(lambda found: unescape(found.group()), mathml))
    for node in tree.iter(f"{{{NAMESPACE}}}munderover"):
        letter, index, accent = node
        if accent.get("stretchy") == "false":
            accented = ElementTree.Element(f"{{{NAMESPACE}}}mover", accent="true")
            accented.extend([letter, accent])
            node.tag, node[:] = f"{{{NAMESPACE}}}msub", [accented, index]
    return ElementTree.tostring(tree, encoding="unicode")


def converted(node: nodes.Element, *, as_block: bool) -> str:
    """The formula of a node; what cannot be read is a warning, and shown as it is."""
    try:
        tex = node.astext().strip().replace(r"\dots", r"\ldots")  # docutils knows the second
        return index_beside(tex2mathml(tex, as_block=as_block))
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
