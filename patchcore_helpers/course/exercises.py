"""Show and check the exercises that `exercises.yaml` holds.

In a notebook, an exercise is one cell tagged ``exercise-<name>``: the stub, two empty lines and
``exercises.check("<name>", <name>)``, with ``_`` for ``-`` in the variable. A stub returns ``...``
and counts as blank.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import yaml
from IPython.display import Markdown, display

from patchcore_helpers.course import exercise_cases
from patchcore_helpers.errors import InputError

strict = os.environ.get("PATCHCORE_STRICT_EXERCISES") == "1"  # blank and wrong answers raise
_LOOK = {"right": ("#009e73", "✔"), "blank": ("#009e73", "○"), "wrong": ("#c00", "✘")}


@dataclass(frozen=True)
class Exercise:
    """One exercise: the learner writes the body of a function.

    `solution` is a body that is right, `wrong` are bodies that a learner might well write. `cases`
    yields (what the case is, the arguments, the right answer).
    """

    name: str
    notebook: str
    signature: str
    question: str
    hint: str
    solution: str
    wrong: list
    cases: Callable

    def source(self, body="return ..."):
        """Return the source of the function with this body; without one, the stub."""
        return f"def {self.signature}:\n{indent(dedent(body).strip(), '    ')}"

    def check(self, answer):
        """Return True if an answer, a function, is right, else a sentence on what is wrong."""
        for case, arguments, right in self.cases():
            given = answer(*copy.deepcopy(arguments))
            if difference := _difference(given, right):
                return f"for {case} it gave {difference}"
        return True


def _difference(given, right):
    """How an answer differs from the right one, a number, array, list or None; else ""."""
    if isinstance(right, list):
        given = list(given)
    elif np.shape(given) != np.shape(right) and (np.ndim(right) or np.size(given) != 1):
        return f"shape {np.shape(given)}, not {np.shape(right)}"
    if isinstance(right, list | None) or isinstance(given, str | None):
        return "" if given == right else f"{given}, not {right}"
    given, right = np.ravel(given), np.ravel(right)
    wrong = np.flatnonzero(~np.isclose(given, right))
    return f"{float(given[wrong[0]]):.6g}, not {right[wrong[0]]:.6g}" if len(wrong) else ""


def _read_exercises():
    """The exercises by name, in the order of the file."""
    text = Path(__file__).with_name("exercises.yaml").read_text("utf-8")
    return {
        name: Exercise(name, cases=getattr(exercise_cases, name.replace("-", "_")), **record)
        for name, record in yaml.safe_load(text).items()
    }


EXERCISES = _read_exercises()


class ExerciseError(AssertionError):
    """An answer was blank or wrong where only right ones pass."""


class _Blank(Exception):
    pass


def judge(name, answer):
    """Judge an answer, a function, without showing anything.

    Returns
    -------
    status : {"right", "blank", "wrong"}
    message : str

    Raises
    ------
    InputError
        If there is no such exercise.

    Examples
    --------
    >>> judge("nearest-distance", lambda patch, bank: ...)
    ('blank', 'write the answer and run the cell again')
    >>> judge("nearest-distance", lambda patch, bank: 0)[0]
    'wrong'
    """
    record = _find(name)

    def watched(*arguments, **options):
        result = answer(*arguments, **options)
        if result is ...:
            raise _Blank
        return result

    try:
        verdict = record.check(watched)
    except _Blank:
        return "blank", "write the answer and run the cell again"
    except Exception as error:  # whatever an answer does, the lesson goes on
        verdict = f"it stopped with {type(error).__name__}: {error}"
    if verdict is True:
        return "right", "well done"
    return "wrong", f"{verdict}. Hint: {record.hint}"


def check(name, answer):
    """Show whether an answer is right (see `judge`); raise `ExerciseError` if not and `strict`."""
    status, message = judge(name, answer)
    color, sign = _LOOK[status]
    text = f"{sign} {name}, {status}: {message}"
    box = f'<p style="border-left: 6px solid {color}; padding: 6px">{escape(text)}</p>'
    metadata = {"exercise": {"name": name, "status": status}}
    display({"text/html": box, "text/plain": text}, metadata=metadata, raw=True)
    if strict and status != "right":
        raise ExerciseError(text)


def question(name):
    """Show what is asked."""
    return Markdown(f"**Exercise: {name}.** {_find(name).question}")


def hint(name):
    """Show the hint."""
    return Markdown(f"**Hint.** {_find(name).hint}")


def solution(name):
    """Show an answer that is right."""
    return Markdown(f"```python\n{_find(name).source(_find(name).solution)}\n```")


def _find(name):
    if name not in EXERCISES:
        raise InputError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
