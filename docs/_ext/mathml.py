"""Formulas as MathML, which browsers draw without a script or a network."""

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node, as_block=False):
    try:
        return tex2mathml(node.astext(), as_block)
    except MathError as error:
        logger.warning('%s in the formula %s', error, node.astext(), location=node)
        return ''


def visit_inline(self, node):
    self.body.append(mathml(node))
    raise SkipNode


def visit_block(self, node):
    self.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer('mathml', (visit_inline, None), (visit_block, None))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
