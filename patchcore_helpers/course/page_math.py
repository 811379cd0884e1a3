"""Formulas as MathML, which browsers draw by themselves: no script, and no network."""

import re
from html import escape
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

# In a displayed formula, what an operator runs over is below it.
LIMITS = re.compile(r"<msub>(<mo>(?:min|max)</mo>.*?)</msub>")


def mathml(latex: str, is_displayed: bool = False) -> str:
    """A formula as the HTML of a MathML element.

    Parameters
    ----------
    latex : str
        Without dollar signs.
    is_displayed : bool
        Whether it has a line of its own.

    Returns
    -------
    str
        The formula itself, as code, if it cannot be read.

    Examples
    --------
    >>> mathml("x^2").partition("inline")[2]
    '"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    >>> mathml("x^")
    '<code>x^</code>'
    """
    try:
        element = convert(latex.strip(), display="block" if is_displayed else "inline")
    except Exception:  # whatever the library makes of a slip, the page goes on
        return f"<code>{escape(latex.strip())}</code>"
    if is_displayed:
        element = LIMITS.sub(r"<munder>\1</munder>", element)
        return f'<div class="formula">{element}</div>'
    return element


class MathMLRenderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, with formulas as MathML."""

    def block_math(self, body: str) -> str:
        return mathml(body, is_displayed=True)

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", is_displayed=True)


class MathMLExporter(HTMLExporter):
    """nbconvert's exporter of pages, with formulas as MathML in cells and in outputs."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        renderer = MathMLRenderer(escape=False, anchor_link_text=self.anchor_link_text)
        return MarkdownWithMath(renderer=renderer).render(source)
