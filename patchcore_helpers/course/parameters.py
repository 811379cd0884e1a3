"""What a notebook declares in its `parameters` cell, and the strict check of what it is given.

Papermill only warns about a parameter that the notebook does not have, and takes any value. Here
both are refused before anything runs.
"""

import ast
import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from patchcore_helpers.course.notebook import is_added_by_papermill, label, tags
from patchcore_helpers.errors import InputError, error_line

TYPES = {"float": float, "bool": bool, "int": int, "str": str, "list": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """A parameter that a notebook declares.

    Attributes
    ----------
    name : str
    annotation : str
        The declared type, such as ``"list[float]"``; where none is written, that of the default.
    default : object
    """

    name: str
    annotation: str
    default: Any

    def convert(self, value: Any) -> Any:
        """Return a value as the declared type: an int may become a float, nothing else changes.

        Raises
        ------
        ValueError
            If the value is of another type.
        TypeError
            If the annotation is not of the kind that can be checked.

        Examples
        --------
        >>> Parameter("ratio", "float", 0.5).convert(1)
        1.0
        >>> Parameter("n", "int | None", None).convert(True)
        Traceback (most recent call last):
        ValueError: True is not of type int | None
        """
        try:  # evaluated with nothing but the names of these types
            declared_type = eval(self.annotation, {"__builtins__": {}}, TYPES | {"Any": Any})
            adapter: pydantic.TypeAdapter = pydantic.TypeAdapter(declared_type)
        except Exception:
            choices = ", ".join(TYPES)
            raise TypeError(
                f"{self.annotation} cannot be checked; use {choices}, list[], | None"
            ) from None
        try:
            return adapter.validate_python(value, strict=True)
        except pydantic.ValidationError:
            raise ValueError(f"{value!r} is not of type {self.annotation}") from None

    def parse(self, text: str) -> Any:
        """Read a value typed on the command line: YAML, or else the text itself.

        A name that ends in ``_dir`` or ``_path`` is a path from the folder of the caller, while
        the notebook runs in its own folder.

        Raises
        ------
        ValueError
            If it is not of the declared type.
        """
        if text and self.name.endswith(("_dir", "_path")):
            candidates = [os.path.abspath(os.path.expanduser(text))]
        else:
            candidates = [text]
            with contextlib.suppress(yaml.YAMLError):
                candidates.insert(0, yaml.load(text, _CourseYaml))
        for candidate in candidates:
            with contextlib.suppress(ValueError):
                return self.convert(candidate)
        raise ValueError(f"{candidates[0]!r} is not of type {self.annotation}")


def declared_parameters(notebook: Mapping[str, Any]) -> tuple[dict[str, Parameter], list[str]]:
    """Read the `parameters` cell.

    Papermill's own inspection reads line by line and skips `a: str = "x=y"` and
    `b: int | None = None`, so the cell is parsed as Python here.

    Parameters
    ----------
    notebook : dict
        As `read_notebook` returns it.

    Returns
    -------
    parameters : dict of str to Parameter
    problems : list of str
        What is wrong with the declarations, one line each; empty for a valid notebook.
    """
    cells = list(enumerate(notebook["cells"], start=1))
    for number, cell in cells:
        if is_added_by_papermill(cell):
            return {}, [f"{label(number, cell)}: left over from an earlier run; remove the cell"]
    tagged = [(number, cell) for number, cell in cells if "parameters" in tags(cell)]
    if len(tagged) != 1:
        count = "more than one cell" if tagged else "no cell"
        return {}, [f"{count} is tagged `parameters`; tag the one cell that holds them"]
    number, cell = tagged[0]
    where = label(number, cell)
    try:
        statements = ast.parse(cell["source"]).body
    except SyntaxError as error:
        return {}, [f"{where}: {error.msg}; write one `name: type = literal  # why` a line"]

    parameters = {}
    problems = []
    for statement in statements:
        try:
            parameter = _declaration(statement)
            parameters[parameter.name] = parameter
            parameter.convert(parameter.default)
        except _NoLiteral:  # papermill would override what it is computed from, but not this one
            problem = "not a name and a literal, so it would go stale; move it to the next cell"
        except ValueError:
            problem = "the value is not of its declared type"
        except TypeError as error:
            problem = str(error)
        else:
            continue
        problems.append(f"{where}: `{ast.unparse(statement)}`: {problem}")
    return parameters, problems


class _NoLiteral(Exception):
    """The statement does not give a name a literal."""


def _declaration(statement: ast.stmt) -> Parameter:
    try:
        match statement:
            case ast.AnnAssign(ast.Name(id=name), annotation, ast.expr() as value):
                return Parameter(name, ast.unparse(annotation), ast.literal_eval(value))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                default = ast.literal_eval(value)
                inferred = "Any" if default is None else type(default).__name__
                return Parameter(name, inferred, default)
    except ValueError:
        pass
    raise _NoLiteral


def profile_file(path: Path, profile: str) -> Path | None:
    """The parameter file of a notebook under a profile, if there is one.

    `configs/<profile>/<notebook>.yaml` beside the notebook; for the profile `full` also
    `configs/expN_config.yaml` where the notebook's name contains `_expN_`.
    """
    candidates = [path.parent / "configs" / profile / f"{path.stem}.yaml"]
    experiment = re.search(r"_(exp\d+)_", path.stem)
    if profile == "full" and experiment:
        candidates.append(path.parent / "configs" / f"{experiment[1]}_config.yaml")
    return next((file for file in candidates if file.is_file()), None)


class _CourseYaml(yaml.SafeLoader):
    """YAML 1.1 with `1e-3` as a number, which PyYAML reads as text."""


_CourseYaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_parameter_file(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of parameters, `name: value` on each line.

    Raises
    ------
    InputError
        If it cannot be read, or holds something else.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _CourseYaml) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error_line(error)
        raise InputError(f"{path}: cannot be read as a parameter file ({reason})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a parameter file; write one `name: value` on each line")
    return content
