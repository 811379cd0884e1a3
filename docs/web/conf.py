"""How Sphinx builds the site; `make_site.py` prepares the folder that it builds from."""

import logging
import os

from docutils import nodes

from patchcore_helpers.course.page_math import mathml

project = "PatchCore, hands on"
author = "the PatchCore course authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["notebooks/files"]  # what readers download

# Notebooks are shown as `patchcore-course run` executed them.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# ref.python: the name of an attribute that two classes have; either target would do.
suppress_warnings = [
    "myst.header",
    "mystnb.unknown_mime_type",
    "misc.highlighting_failure",
    "ref.python",
]

# Docstrings name code in single backticks, and take their types from the signature.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False  # other projects write theirs for other readers
logging.getLogger("faiss").setLevel(logging.WARNING)
napoleon_google_docstring = False
napoleon_use_rtype = False
toc_object_entries = False

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["controls.css", "site.css", "in_browser.css"]
html_js_files = [("controls.js", {"defer": "defer"}), ("site.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    # Links, and comments in code, with a contrast of at least 4.5.
    "light_css_variables": {"color-brand-primary": "#005a8c", "color-brand-content": "#005a8c"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
if os.environ.get("PATCHCORE_SITE_URL"):
    html_baseurl = os.environ["PATCHCORE_SITE_URL"]


def visit_formula(self, node):
    """Write a formula as MathML, in a line or displayed."""
    self.body.append(mathml(node.astext(), is_displayed=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def leave_out(app, what, name, thing, skip, options):
    """Leave out what scikit-learn puts into every estimator; its own site has it."""
    home = getattr(thing, "__module__", None) or ""
    return skip or home.startswith("sklearn.")


def setup(app):
    """Draw formulas without a script, and document what is ours."""
    app.connect("autodoc-skip-member", leave_out)
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
