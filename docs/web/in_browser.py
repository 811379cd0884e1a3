"""The page "In your browser": PatchCore on the reader's own pictures, without an installation.

Its JavaScript is in `in_browser/`, in modules. A page that is opened from a disk, without a server,
may load neither modules nor data, but only scripts. So the build joins the modules into two
scripts, one for the page and one for its worker, and writes all data as text into further scripts:
ONNX Runtime Web (see `runtime.py`), the graph of the features, and the solar cells.
"""

import base64
import gzip
import io
import json
import re
import tempfile
from pathlib import Path

from PIL import Image
from safetensors import safe_open

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.onnx_graph import build_features_graph

MODULES = Path(__file__).resolve().parent / "in_browser"
SIDE = 256  # pixels of a solar cell, as the network sees it
N_LEARN, N_GOOD, N_DEFECTIVE = 20, 4, 8  # solar cells to learn from, and to judge
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
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
