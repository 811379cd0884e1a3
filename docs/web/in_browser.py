"""The page "In your browser": PatchCore on the reader's own pictures, without an installation.

Its JavaScript is in `in_browser/`, in modules. A page that is opened from a disk, without a server,
may load neither modules nor data, but only scripts. So the build joins the modules into two
scripts, one for the page and one for its worker, and writes all data as text into further scripts:
ONNX Runtime Web (see `site_runtime.py`), the graph of the features, and the solar cells.
"""

import ast
import base64
import gzip
import inspect
import io
import json
import re
import tempfile
from pathlib import Path

from PIL import Image
from safetensors import safe_open
from site_runtime import VERSION

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.coreset import k_center_greedy_reference
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.engines.modules import PipelineModule
from patchcore_helpers.core.onnx_graph import build_features_graph
from patchcore_helpers.core.smoothing import resize_and_smooth
from patchcore_helpers.core.threshold import conformal_threshold, recalibrated_threshold
from patchcore_helpers.data.credits import ELPV_LICENSE

MODULES = Path(__file__).resolve().parent / "in_browser"
SIDE = 256  # pixels of a solar cell, as the network sees it
N_LEARN, N_GOOD, N_DEFECTIVE = 20, 4, 8  # solar cells to learn from, and to judge
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
FUNCTION = re.DOTALL | re.MULTILINE
EXPORT = re.compile(r"^export (?=function|async function|const)", re.MULTILINE)


def write_parts(folder, runtime):
    """Write the scripts of the page.

    Parameters
    ----------
    folder : Path
        Where the page looks for them.
    runtime : (script, WebAssembly), as bytes
        From `read_runtime`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script, wasm = runtime
    graph, texts = trained_parts()
    parts = {
        "worker": joined("worker"),
        "runtime": script.decode(),
        "wasm": packed(wasm),
        "graph": packed(graph),
        "texts": texts,
        "samples": samples(),
    }
    for name, part in parts.items():
        content = f"(self.patchcoreParts ??= {{}}).{name} = {json.dumps(part)};\n"
        (folder / f"{name}.js").write_text(content, "utf-8")
    (folder / "page.js").write_text(joined("page"), "utf-8")


def joined(name):
    """A module and all that it imports, as one script."""
    parts = {}
    collect(name, parts)
    return f'(() => {{\n"use strict";\n{"".join(parts.values())}}})();\n'


def collect(name, parts):
    """Put the modules that a module imports into `parts`, and then itself, each once."""
    if name in parts:
        return
    text = (MODULES / f"{name}.js").read_text("utf-8")
    for imported in IMPORT.findall(text):
        collect(imported, parts)
    parts[name] = EXPORT.sub("", IMPORT.sub("", text))


def packed(content):
    """Bytes as text: compressed, then in base 64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def trained_parts():
    """The graph of the features, and the texts of a bank file that this package has written.

    The page puts its own numbers into these texts, so what it saves says which weights and
    versions it is from.
    """
    model = PatchCore(image_size=SIDE, engine="torch")
    category = load_category("elpv/mono")
    model.fit(category.train[:1])
    graph = build_features_graph(model.extractor_.task())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "bank.safetensors"
        model.save(path)
        with safe_open(path, "numpy") as file:
            texts = file.metadata()
    del texts["digest"]
    return graph.SerializeToString(deterministic=True), texts


def samples():
    """Solar cells for those who have no pictures at hand: normal ones to learn, others to judge."""
    category = load_category("elpv/mono")
    good = [sample for sample in category.test if sample.label == 0]
    defective = [sample for sample in category.test if sample.label == 1]
    to_judge = [*spread(good, N_GOOD), *spread(defective, N_DEFECTIVE)]
    learn = [sample_of(sample, "learn") for sample in spread(category.train, N_LEARN)]
    return {"samples": learn + [sample_of(sample, "judge") for sample in to_judge]}


def spread(everything, count):
    """So many of a list, evenly."""
    return [everything[at * len(everything) // count] for at in range(count)]


def sample_of(sample, use):
    """A solar cell as the page takes it."""
    image = sample.read().convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    kind = "good" if sample.label == 0 else "defective"
    name = f"{sample.image.stem} ({kind}).png"
    return {"name": name, "use": use, "picture": base64.b64encode(buffer.getvalue()).decode()}


def page_body(folder):
    """The HTML of the page; `folder` is the address of its scripts."""
    return (MODULES / "page.html").read_text("utf-8").replace("@FOLDER@", folder)


# The five steps of the method: what they do, in JavaScript (module, function), in Python.
TWINS = (
    (
        "Describe: patch vectors",
        ("features", "extract"),
        (PipelineModule,),
    ),
    (
        "Learn: choose what to remember",
        ("coreset", "kCenterGreedy"),
        (k_center_greedy_reference,),
    ),
    (
        "Compare: the nearest row of banks of several sizes",
        ("bank", "nestedNearest"),
        (nested_min_distances,),
    ),
    (
        "Judge: a threshold from held-out good pictures",
        ("bank", "conformalThreshold"),
        (conformal_threshold, recalibrated_threshold),
    ),
    (
        "Show: the anomaly map",
        ("map", "anomalyMap"),
        (resize_and_smooth,),
    ),
)


def twins():
    """The five steps in both languages, as Markdown."""
    sections = []
    for title, (module, function), things in TWINS:
        python = "\n\n".join(without_docstring(thing) for thing in things)
        sections += [
            f"### {title}",
            '<div class="twins">',
            f"```javascript\n{javascript(module, function)}\n```",
            f"```python\n{python}\n```",
            "</div>",
        ]
    return "\n\n".join(sections)


def javascript(module, name):
    """The source of a function in a module of the page."""
    text = (MODULES / f"{module}.js").read_text("utf-8")
    found = re.search(rf"^export ((?:async )?function\*? {name}\(.*?^\}})", text, FUNCTION)
    return found[1]


def without_docstring(thing):
    """The source of a function or class, without its docstrings, which the reference has."""
    lines = inspect.getsource(thing).splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or not ast.get_docstring(node):
            continue
        docstring = node.body[0]
        lines[docstring.lineno - 1 : docstring.end_lineno] = [None] * (
            docstring.end_lineno - docstring.lineno + 1
        )
    return "\n".join(line for line in lines if line is not None)


def write_page(source, runtime):
    """The page for Sphinx: its text, and its scripts in `_static`."""
    parts = source / "_static" / "in_browser"
    write_parts(parts, runtime)
    size = sum(path.stat().st_size for path in parts.iterdir() if path.stem != "samples")
    text = (MODULES.parent / "in_browser.md").read_text("utf-8")
    for mark, content in {
        "PAGE": page_body("_static/in_browser"),
        "MEGABYTES": f"{size / 1e6:.0f}",
        "VERSION": VERSION,
        "CELLS": ELPV_LICENSE,
        "TWINS": twins(),
    }.items():
        text = text.replace(f"@{mark}@", content)
    (source / "in_browser.md").write_text(text, "utf-8")
