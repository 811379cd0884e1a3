"""The web page of an executed notebook."""

import json
import re
from copy import deepcopy
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from patchcore_helpers.files import atomic_write

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# nbconvert's page, with the code of bookkeeping cells in a fold.
TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block input_group %}
{% if 'hide-input' in cell.metadata.tags %}
<details class="bookkeeping"><summary>code</summary>{{ super() }}</details>
{% else %}{{ super() }}{% endif %}
{% endblock input_group %}
{% block html_head %}
{{ super() }}
<style>
details.bookkeeping > summary { font-size: 80%; color: #767676; margin-left: 6em; cursor: pointer; }
</style>
{% endblock html_head %}
"""
LESSON_LINK = re.compile(r'href="((\d\d_\w+)\.ipynb)"')


def relocated(notebook: nbformat.NotebookNode, old: Path, new: Path) -> nbformat.NotebookNode:
    """A copy of a notebook in which the paths of one folder are those of another.

    A notebook runs in a temporary folder, which takes its final name afterwards. Its parameters
    and its outputs name the folder.
    """
    old_text = json.dumps(str(old), ensure_ascii=False)[1:-1]
    new_text = json.dumps(str(new), ensure_ascii=False)[1:-1]
    return nbformat.reads(nbformat.writes(notebook).replace(old_text, new_text), as_version=4)


def write_page(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write `<name>.html` beside an executed notebook.

    A page has no kernel, so widgets are left out and their pictures take their place. The code of
    cells tagged ``hide-input`` is folded. Links to other lessons lead to the pages of their runs.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    path : Path
        The notebook's file, `<name>.ipynb`.
    """
    notebook = deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET_VIEW, None)
    resources = {"metadata": {"name": path.stem}}
    exporter = HTMLExporter(raw_template=TEMPLATE)
    page, _ = exporter.from_notebook_node(notebook, resources)
    atomic_write(path.with_suffix(".html"), LESSON_LINK.sub(r'href="../\2/\2.html"', page))
