"""The web page of an executed notebook."""

import json
import re
from base64 import b64decode
from copy import deepcopy
from html import escape
from pathlib import Path

import nbformat

from patchcore_helpers.course.notebook import tags
from patchcore_helpers.course.page_controls import Address, controls_html, script, style
from patchcore_helpers.course.page_math import MathMLExporter
from patchcore_helpers.course.page_states import STATES, smaller
from patchcore_helpers.files import atomic_write

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# nbconvert's page, with the code of bookkeeping cells in a fold, and without what it loads from
# other addresses: a script for formulas, one for widgets, one for diagrams.
TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block input_group %}
{% if 'hide-input' in cell.metadata.tags %}
<details class="bookkeeping">
<summary>{{ 'imports' if 'setup' in cell.metadata.tags else 'code' }}</summary>
{{ super() }}</details>
{% else %}{{ super() }}{% endif %}
{% endblock input_group %}
{% block html_head_js %}{% endblock html_head_js %}
{% block html_head_js_mathjax %}{% endblock html_head_js_mathjax %}
{% block html_head_js_mermaidjs %}{% endblock html_head_js_mermaidjs %}
{% block extra_css %}
<style>
CONTROLS_STYLE
details.bookkeeping > summary { font-size: 80%; color: #6b6b6b; margin-left: 6em; cursor: pointer; }
.jp-InputPrompt, .jp-OutputPrompt { color: #5f5f5f; }
.highlight .c1 { color: #2f6868; }
.formula { margin: 1em 0; text-align: center; overflow-x: auto; }
.jp-OutputArea-output, .jp-RenderedHTMLCommon { overflow-x: auto; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
</style>
<script>
CONTROLS_SCRIPT
</script>
{% endblock extra_css %}
"""
PICTURE_QUALITY = 90  # of WebP
LESSON_LINK = re.compile(r'href="((\d\d_\w+)\.ipynb)"')


def relocated(notebook: nbformat.NotebookNode, old: Path, new: Path) -> nbformat.NotebookNode:
    """A copy of a notebook in which the paths of one folder are those of another.

    A notebook runs in a temporary folder, which takes its final name afterwards. Its parameters
    and its outputs name the folder.
    """
    old_text = json.dumps(str(old), ensure_ascii=False)[1:-1]
    new_text = json.dumps(str(new), ensure_ascii=False)[1:-1]
    return nbformat.reads(nbformat.writes(notebook).replace(old_text, new_text), as_version=4)


def for_page(notebook: nbformat.NotebookNode, address: Address = str) -> nbformat.NotebookNode:
    """A copy of an executed notebook whose outputs need no kernel, with small pictures.

    The imports, tagged ``setup``, are folded like the cells that are tagged ``hide-input``.
    Widgets are left out. An interactive figure becomes plain controls over its picture, if the run
    left its states behind; else its picture takes its place. Pictures become WebP files, a fraction
    of the PNG files that they were; those are in the run's folder.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    address : callable
        Of a picture's data URI; returns where the page finds it.
    """
    notebook = deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "setup" in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "hide-input"]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    for number, output in enumerate(outputs):
        data = output.get("data", {})
        data.pop(WIDGET_VIEW, None)
        states = data.pop(STATES, None)
        if states:
            data["text/html"] = controls_html(states, number, address)
        elif "image/png" in data:
            alt = output.metadata.get("image/png", {}).get("alt", data.get("text/plain", "figure"))
            data["text/html"] = picture_html(b64decode(data["image/png"]), alt, address)
        if "text/html" in data:
            data.pop("image/png", None)
    return notebook


def picture_html(png: bytes, alt: str, address: Address = str) -> str:
    """The HTML of a picture that is fetched when a reader comes near it."""
    uri, (width, height) = smaller(png, PICTURE_QUALITY)
    size = f'width="{width}" height="{height}"'
    return f'<img alt="{escape(alt)}" src="{address(uri)}" {size} loading="lazy">'


def without_local_paths(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A copy in which the run's folder has only its last two names, such as `output/lesson`."""
    return relocated(notebook, folder, Path(*folder.parts[-2:]))


def write_page(notebook: nbformat.NotebookNode, path: Path, folder: Path | None = None) -> None:
    """Write `<name>.html` beside an executed notebook.

    A page has no kernel: see `for_page`. It stands alone, and asks for nothing outside itself. The
    code of cells tagged ``hide-input`` is folded. Links to other lessons lead to the pages of their
    runs.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    path : Path
        The notebook's file, `<name>.ipynb`.
    folder : Path, optional
        The run's folder, of which the page shows only the last two names.
    """
    if folder is not None:
        notebook = without_local_paths(notebook, folder)
    notebook = for_page(notebook)
    notebook.metadata["title"] = title_of(notebook) or path.stem
    resources = {"metadata": {"name": path.stem}}
    template = TEMPLATE.replace("CONTROLS_STYLE", style())
    template = template.replace("CONTROLS_SCRIPT", f"{{% raw %}}{script()}{{% endraw %}}")
    exporter = MathMLExporter(raw_template=template)
    page, _ = exporter.from_notebook_node(notebook, resources)
    atomic_write(path.with_suffix(".html"), LESSON_LINK.sub(r'href="../\2/\2.html"', page))


def title_of(notebook: nbformat.NotebookNode) -> str | None:
    """The first heading of a notebook."""
    for cell in notebook.cells:
        found = re.search(r"^# (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and found:
            return found[1]
    return None
