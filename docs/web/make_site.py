"""Build the web site of the course from an output folder that `patchcore-course run` has filled.

    PYTHONPATH=docs python docs/web/make_site.py --runs output --output output/site

`make site` does it. The site is one folder for any static host: it needs no server, and no page
asks for anything outside the folder. The build needs no network. Its last line is the path of
`index.html`.

Sphinx builds it, with myst-nb for the notebooks and the theme furo: of the tools that build a book
of notebooks, these work without a network, and furo loads no fonts or scripts from elsewhere.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import nbformat
import readme
from front import front_states
from in_browser import write_page as write_browser_page
from site_runtime import read_runtime

import patchcore_helpers
from patchcore_helpers.app.cli import COMMANDS, PROGRAM, build_parser
from patchcore_helpers.course.notebook import COURSE_NOTEBOOKS, is_added_by_papermill
from patchcore_helpers.course.page import for_page, title_of, without_local_paths
from patchcore_helpers.course.page_controls import WEB, controls_html
from patchcore_helpers.course.results import read_summary
from patchcore_helpers.data.credits import ELPV_LICENSE, PREPARED
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_directory, sha256

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOTEBOOKS = ROOT / "notebooks"
# Pages that are Markdown files of the repository; their links to one another keep working.
PAGES = (
    "docs/results.md",
    "docs/photos.md",
    "docs/capstone.md",
    "docs/deploy.md",
    "docs/full.md",
    "docs/scale.md",
    "benchmarks/README.md",
    "data/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
ROOMS = ("core", "data", "experiments", "course", "app")
# What a notebook's source or parameters name, and the credit that is due.
CREDITS = {
    "elpv": ELPV_LICENSE,
    "fabric": "fabrics rendered by this package, MIT",
    "aitex/": PREPARED["aitex"],
    "mvtec_ad/": PREPARED["mvtec_ad"],
    "visa/": PREPARED["visa"],
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)]*)?\)")
MARKDOWN_PICTURE = re.compile(r"!\[[^\]]*\]\((?!\w+:)([^)\s]+)\)")
HTML_PICTURE = re.compile(r'(<img [^>]*?src=")(?!data:|https?:)([^"]+)(")')


def executed_notebooks(runs):
    """The folder of each notebook's run, by the notebook's name, in the order of the course.

    Raises
    ------
    InputError
        If a notebook of the course has no run that passed.
    """
    folders = {}
    for path in sorted(NOTEBOOKS.glob(COURSE_NOTEBOOKS)):
        folder = runs / path.stem
        summary = read_summary(folder)
        if summary is None or summary["status"] != "passed":
            raise InputError(f"{folder}: no run that passed; run `make course` first")
        folders[path.stem] = folder
    if not folders:
        raise InputError(f"{NOTEBOOKS}: no notebooks")
    return folders


class Pictures:
    """Keeps the pictures of pages as files, each once."""

    def __init__(self, folder, prefix):
        self.folder = folder
        self.prefix = prefix
        folder.mkdir(parents=True, exist_ok=True)

    def address(self, uri):
        """Write the picture of a data URI; returns its address on a page."""
        head, _, body = uri.partition(",")
        suffix = re.match(r"data:image/(\w+)", head)[1]
        content = b64decode(body)
        name = f"{sha256(content)[:16]}.{suffix}"
        (self.folder / name).write_bytes(content)
        return f"{self.prefix}/{name}"


# --- notebooks ---


def write_notebook(name, run, source, pictures):
    """A notebook as it was executed, ready for a page, with its downloads and credits."""
    notebook = nbformat.read(run / f"{name}.ipynb", as_version=4)
    notebook = without_local_paths(notebook, run.resolve())
    credits_due = credits_of(notebook)
    notebook = for_page(notebook, pictures.address)
    for cell in notebook.cells:
        if is_added_by_papermill(cell):
            cell.metadata["tags"] = ["hide-input"]
    folder = source / "notebooks"
    downloads = copy_downloads(name, run, folder)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(how_it_was_run(run, name)))
    notebook.cells.append(nbformat.v4.new_markdown_cell(sources_section(downloads, credits_due)))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


def credits_of(notebook):
    """The credits that are due for the images on a notebook's page."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return [credit for word, credit in CREDITS.items() if word in text]


def copy_downloads(name, run, folder):
    """Copy what a reader may take home; returns (what, file name)."""
    files = folder / "files" / name
    files.mkdir(parents=True, exist_ok=True)
    shutil.copy(NOTEBOOKS / f"{name}.ipynb", files / f"{name}.ipynb")
    tables = sorted(run.glob("*.csv"))
    for table in tables:
        shutil.copy(table, files / table.name)
    downloads = [("the notebook, without outputs", f"{name}.ipynb")]
    downloads += [(f"table `{table.stem}`", table.name) for table in tables]
    return [(what, f"files/{name}/{file}") for what, file in downloads]


def how_it_was_run(run, name):
    """A line below a page's title: what this page is."""
    summary = read_summary(run)
    profile = "" if summary["profile"] == "default" else f" with the profile `{summary['profile']}`"
    return (
        f"*This page is a run of the notebook{profile}, on {summary['finished'][:10]}, in "
        f"{summary['seconds']:.0f} seconds on {summary['cores']} cores. Its controls move here, in "
        "the page. To change the code, [take the notebook](#take-it-home) into JupyterLab.*"
    )


def sources_section(downloads, credits_due):
    """The last section of a notebook's page."""
    lines = ["## Take it home", ""]
    lines += [f"- {{download}}`{what} <{path}>`" for what, path in downloads]
    if credits_due:
        lines += ["", "**Sources of the pictures.** " + ". ".join(credits_due) + "."]
        if ELPV_LICENSE in credits_due:
            lines.append("Pictures made from solar cells are under the license of the cells.")
    return "\n".join(lines).replace("`table `", "`table ").replace("` <", " <")


# --- pages of Markdown ---


def write_page(name, source, names):
    """Copy a Markdown page of the repository, with links that the site can follow."""
    path = ROOT / name
    text = path.read_text("utf-8")
    target = source / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(relinked(text, path, source, names), "utf-8")


def relinked(text, path, source, names):
    """A page's text in which each link leads to a page of the site, or to a file beside it."""

    def replace(match):
        label, link, anchor = match[1], match[2], match[3] or ""
        if re.match(r"\w+:", link):
            return match[0]
        target = (path.parent / link).resolve()
        if not target.exists():
            raise InputError(f"{path}: links to {link}, which does not exist")
        inside = target.relative_to(ROOT).as_posix()
        if inside == "README.md":
            return f"[{label}]({'../' * len(path.relative_to(ROOT).parts[:-1])}index.md)"
        if inside in names:
            return f"[{label}]({link}{anchor})"
        if target.is_dir():
            return label
        copy_into(source, inside)
        return f"{{download}}`{label.strip('`')} <{link}>`"

    text = LINK.sub(replace, text)
    for picture in MARKDOWN_PICTURE.findall(text):
        copy_into(source, (path.parent / picture).resolve().relative_to(ROOT).as_posix())
    for _, picture, _ in HTML_PICTURE.findall(text):
        inside = (path.parent / picture).resolve().relative_to(ROOT).as_posix()
        copy_into(source, f"{inside}", source / "_static" / inside)
    depth = "../" * len(path.relative_to(ROOT).parts[:-1])
    static = rf"\g<1>{depth}_static/docs/\g<2>\g<3>"
    return HTML_PICTURE.sub(static, text)


def copy_into(source, inside, target=None):
    """Copy a file of the repository to the same place below `source`."""
    target = target or source / inside
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / inside, target)


def licenses_section():
    """The README's section on licenses."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.search(r"^## Licenses\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]


def link_browser_page(path):
    """Say on the page on own photos, before its first section, that a browser is enough to try."""
    introduction, section, rest = path.read_text("utf-8").partition("\n## ")
    hint = "\nWithout an installation: [in your browser](../in_browser.md).\n"
    path.write_text(introduction + hint + section + rest, "utf-8")


# --- references ---


def write_references(source):
    """The command's reference from its own help, and the package's from its docstrings."""
    folder = source / "reference"
    folder.mkdir()
    (folder / "command.md").write_text(command_reference(), "utf-8")
    (folder / "package.rst").write_text(public_reference(), "utf-8")
    for room in ROOMS:
        (folder / f"{room}.rst").write_text(room_reference(room), "utf-8")


def command_reference():
    """The help of every sub-command."""
    lines = ["# The command", "", f"`{PROGRAM} COMMAND --help` prints these texts.", ""]
    subparsers = build_parser()._subparsers._group_actions[0].choices  # noqa: SLF001
    for name, description in COMMANDS.items():
        parser = subparsers[name]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_known_args(["--help"])  # it now knows its arguments
        lines += [f"## {name}", "", f"{description[0].upper()}{description[1:]}.", ""]
        lines += ["```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def heading(text, line="="):
    return f"{text}\n{line * len(text)}\n\n"


def public_reference():
    """What `from patchcore_helpers import ...` gives."""
    text = heading("The package") + (
        "What ``from patchcore_helpers import NAME`` gives. The rooms of the package follow on "
        "pages of their own.\n\n"
    )
    for name in sorted(patchcore_helpers.__all__):
        thing = getattr(patchcore_helpers, name)
        where = f"{thing.__module__}.{name}"
        if isinstance(thing, type):
            text += f".. autoclass:: {where}\n   :members:\n   :inherited-members:\n\n"
        else:
            text += f".. autofunction:: {where}\n\n"
    return text


def room_reference(room):
    """Every module of a room."""
    text = heading(f"patchcore_helpers.{room}")
    text += f"{importlib.import_module(f'patchcore_helpers.{room}').__doc__}\n\n"
    for path in sorted((ROOT / "patchcore_helpers" / room).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if module.count(".") < 2:
            continue
        title = module.removeprefix("patchcore_helpers.")
        text += heading(title, "-") + f".. automodule:: {module}\n   :members:\n   :noindex:\n\n"
    return text


# --- the front page ---


TRY = """<div>
<h3>Try it here</h3>
<p>Drop some good pictures of your own and one more, and see where it differs. There is nothing
to install, and nothing leaves your machine.</p>
<p><a href="in_browser.html">Try your photos in the browser</a></p>
</div>"""
TRY_LINK = '<a href="in_browser.html">Try your photos in the browser</a> '


def write_front(source, folders, pictures, states, has_browser_page):
    """The front page: what it finds, live; for whom; three ways in; what was measured."""
    template = (HERE / "index.md").read_text("utf-8")
    notebooks = [f"notebooks/{name}" for name in folders]
    text = template
    for mark, content in {
        "CONTROL": controls_html(states, 0, pictures.address),
        "FINDINGS": findings(folders),
        "NOTEBOOKS": "\n".join(notebooks),
        "ROOMS": "\n".join(f"reference/{room}" for room in ROOMS),
        "FIRST": f"notebooks/{next(iter(folders))}.html",
        "COUNT": str(len(folders)),
        "TRY_LINK": TRY_LINK if has_browser_page else "",
        "TRY": TRY if has_browser_page else "",
        "WAYS": "Four ways in" if has_browser_page else "Three ways in",
        "IN_BROWSER": "in_browser" if has_browser_page else "",
    }.items():
        text = text.replace(f"@{mark}@", content)
    (source / "index.md").write_text(text, "utf-8")
    names = {*PAGES, *(f"notebooks/{name}.ipynb" for name in folders)}
    licenses = "# Sources and licenses\n" + licenses_section()
    (source / "licenses.md").write_text(
        relinked(licenses, ROOT / "README.md", source, names), "utf-8"
    )


def findings(folders):
    """Three findings, from the runs on the site."""
    lines = []
    for name in readme.ON_THE_FRONT_PAGE:
        results = read_summary(folders[name])["results"]
        title = title_of(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
        sentence = readme.FINDINGS[name](results)
        lines.append(f"- {sentence} [{title}](notebooks/{name}.ipynb)")
    return "\n".join(lines)


# --- the whole ---


def prepare(source, runs, states, runtime):
    """Write all that Sphinx builds from; `runtime` is that of `read_runtime`, or None."""
    folders = executed_notebooks(runs)
    static = source / "_static"
    shutil.copytree(HERE / "static", static)
    for file in ("controls.js", "controls.css"):
        shutil.copy(WEB / file, static / file)
    (source / "notebooks").mkdir()
    on_pages = Pictures(static / "pictures", "../_static/pictures")
    for name, run in folders.items():
        write_notebook(name, run, source, on_pages)
    names = {*PAGES, *(f"notebooks/{name}.ipynb" for name in folders)}
    for page in PAGES:
        write_page(page, source, names)
    write_references(source)
    if runtime:
        write_browser_page(source, runtime)
        link_browser_page(source / "docs" / "photos.md")
    on_front = Pictures(static / "pictures", "_static/pictures")
    write_front(source, folders, on_front, states, has_browser_page=bool(runtime))


def runtime_or_none():
    """ONNX Runtime Web; None where it is missing, which costs the site one page."""
    try:
        return read_runtime()
    except InputError as error:
        print(f"make_site.py: without the page `In your browser`: {error}", file=sys.stderr)
        return None


def build(source, output):
    """Let Sphinx build the site; warnings are errors."""
    shutil.copy(HERE / "conf.py", source)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-j", "2", "--fail-on-warning"]
    command += ["--keep-going", "-d", str(source.parent / "doctrees")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    built = subprocess.run([*command, str(source), str(output)], env=environment, check=False)
    if built.returncode:
        raise InputError("the site was not built; see the warnings of Sphinx above")
    for unneeded in (".buildinfo", "objects.inv"):
        (output / unneeded).unlink(missing_ok=True)
    (output / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with _


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "output", metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "site", metavar="FOLDER")
    args = parser.parse_args()
    try:
        executed_notebooks(args.runs)
        with atomic_directory(args.output) as folder:
            work = folder.with_name(f"{folder.name}-source")
            try:
                source = work / "source"
                source.mkdir(parents=True)
                prepare(source, args.runs, front_states(), runtime_or_none())
                build(source, work / "site")
                shutil.copytree(work / "site", folder, dirs_exist_ok=True)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except InputError as error:
        print(f"make_site.py: {error}", file=sys.stderr)
        return 2
    print(args.output / "index.html")


if __name__ == "__main__":
    sys.exit(main())
