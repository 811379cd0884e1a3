"""Hashes of this package's code, so that results of other code are not taken for this code's."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from patchcore_helpers import _HOMES as HOMES  # where each name of the top level lives
from patchcore_helpers.files import sha256

PACKAGE = Path(__file__).parent
NAME = PACKAGE.name
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def package_hash() -> str:
    """SHA-256 of every module and YAML file of the package, to the byte."""
    files = sorted(path for path in PACKAGE.rglob("*.*") if path.suffix in (".py", ".yaml"))
    return sha256(*(path.read_bytes() for path in files))


def imported_code_hash(source: str) -> str:
    """SHA-256 of the modules of this package that some code imports, directly or through others.

    Comments, docstrings and formatting do not count, so that a better explanation leaves results
    valid. Imports inside functions count. A data file counts with the module of the same name,
    and the YAML files of a package with its `__init__.py`. Imports of names that are computed are
    not seen.

    Parameters
    ----------
    source : str
        Python code, such as all cells of a notebook. If it is not plain Python (a notebook may
        hold magic commands), the whole package is hashed.

    Returns
    -------
    str

    Examples
    --------
    >>> imported_code_hash("import math") == imported_code_hash("import json")
    True
    >>> imported_code_hash("from patchcore_helpers.errors import InputError") == package_hash()
    False
    """
    try:
        pending = _imported_names(ast.parse(source))
    except SyntaxError:
        return package_hash()
    modules: dict[str, Path] = {}
    while pending:
        name = pending.pop()
        path = _module_path(name)
        if path is None or name in modules:
            continue
        modules[name] = path
        pending |= _analyze(path.read_text("utf-8"))[1]
    parts = []
    for name in sorted(modules):
        parts += [name, _analyze(modules[name].read_text("utf-8"))[0]]
        parts += [data.read_text("utf-8") for data in _data_files(modules[name])]
    return sha256(*parts)


@cache
def _analyze(source: str) -> tuple[str, frozenset[str]]:
    """The code of a module without comments and docstrings, and the names that it imports."""
    tree = ast.parse(source)
    names = frozenset(_imported_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree), names


def _imported_names(tree: ast.AST) -> set[str]:
    """Names of modules of this package that code may import; not all of them need exist."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if node.module == NAME:
                homes = (HOMES.get(alias.name) for alias in node.names)
                imported += [f"{NAME}.{home}" for home in homes if home]
        else:
            continue
        for name in imported:
            names.update(_with_parents(name))
    return {name for name in names if name.split(".")[0] == NAME}


def _with_parents(name: str) -> Iterator[str]:
    """`a.b.c` and the packages that Python runs before it: `a` and `a.b`."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _module_path(name: str) -> Path | None:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    candidates = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in candidates if file.is_file()), None)


def _data_files(module: Path) -> list[Path]:
    if module.stem == "__init__":
        return sorted(module.parent.glob("*.yaml"))
    return sorted(set(module.parent.glob(f"{module.stem}.*")) - {module})
