"""The course's notebooks as files: finding them, reading them, naming their cells."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from patchcore_helpers.errors import InputError

COURSE_NOTEBOOKS = "[0-9][0-9]_*.ipynb"
PAPERMILL_TAGS = {"injected-parameters", "papermill-error-cell-tag"}  # cells that papermill adds


def notebooks_folder() -> Path:
    """The course's `notebooks` folder: beside the package, else in the current folder."""
    beside_package = Path(__file__).resolve().parents[2] / "notebooks"
    if any(beside_package.glob(COURSE_NOTEBOOKS)):
        return beside_package
    return Path.cwd() / "notebooks"


def find_notebooks(names: Iterable[str | Path] = ()) -> list[Path]:
    """Find notebooks by path, name or number.

    Parameters
    ----------
    names : iterable of str or Path
        Paths of any notebooks, or names or numbers of the course's (``"04"``, ``"4"``). If empty,
        all notebooks of the course.

    Returns
    -------
    list of Path
        Absolute paths in the order of the names, each once.

    Raises
    ------
    InputError
        If a notebook does not exist, or if two notebooks have the same name.
    """
    course = sorted(notebooks_folder().glob(COURSE_NOTEBOOKS))
    by_name: dict[str, Path] = {}
    for path in course:
        number = path.stem[:2]
        by_name |= dict.fromkeys([path.stem, path.name, number, number.lstrip("0")], path)

    notebooks: dict[str, Path] = {}
    for name in list(names) or course:
        path = Path(name) if Path(name).is_file() else by_name.get(str(name), Path())
        if path.suffix != ".ipynb":
            choices = ", ".join(path.stem for path in course)
            raise InputError(f"{name}: no such notebook; give an .ipynb file or one of: {choices}")
        path = path.resolve()
        namesake = notebooks.setdefault(path.stem, path)
        if namesake != path:
            raise InputError(f"{path}: {namesake} has the same name; run them separately")
    if not notebooks:
        raise InputError(f"{notebooks_folder()}: no numbered notebooks; run this in the course")
    return list(notebooks.values())


def read_notebook(path: str | Path) -> dict[str, Any]:
    """Read a notebook's JSON, with each cell's source as one string.

    Raises
    ------
    InputError
        If the file cannot be read or is not a notebook.
    """
    try:
        notebook = json.loads(Path(path).read_text("utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
            tags(cell)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: not a notebook ({reason}); save it again in JupyterLab"
        ) from None
    return notebook


def tags(cell: dict[str, Any]) -> list[str]:
    """The cell's tags."""
    return cell["metadata"].get("tags", [])


def is_added_by_papermill(cell: dict[str, Any]) -> bool:
    """Whether papermill put the cell into the notebook that it executed."""
    return not PAPERMILL_TAGS.isdisjoint(tags(cell))


def code_sources(notebook: dict[str, Any]) -> list[str]:
    """The sources of a notebook's code cells."""
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def label(number: int, cell: dict[str, Any]) -> str:
    """Name a cell by its number in the file, counted from 1, its id and its first line.

    >>> label(3, {"id": "a1", "source": "\\nx = 1\\ny = 2"})
    'cell 3 (id a1, `x = 1`)'
    """
    lines = (line.strip() for line in cell["source"].splitlines())
    first_line = next(filter(None, lines), "")
    if len(first_line) > 48:
        first_line = first_line[:45] + "..."
    return f"cell {number} (id {cell.get('id', 'missing')}, `{first_line}`)"
