"""Show and check the exercises of `exercise_records`.

In a notebook, an exercise is one cell tagged ``exercise-<name>``: the stub, two empty lines and
``exercises.check("<name>", <name>)``, with ``_`` for ``-`` in the variable. A stub returns ``...``
and counts as blank.
"""

import copy
import os
from html import escape

from IPython.display import Markdown, display

from patchcore_helpers.errors import CourseError
from patchcore_helpers.exercise_records import EXERCISES

strict = os.environ.get("PATCHCORE_STRICT_EXERCISES") == "1"  # blank and wrong answers raise
_LOOK = {"right": ("#009e73", "✔"), "blank": ("#009e73", "○"), "wrong": ("#c00", "✘")}


class ExerciseError(AssertionError):
    """An answer was blank or wrong where only right ones pass."""


class _Blank(Exception):
    pass


def judge(name, answer, **context):
    """Judge an answer, a function, without showing anything.

    Returns
    -------
    status : {"right", "blank", "wrong"}
    message : str

    Raises
    ------
    CourseError
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
        verdict = record.check(watched, **context)
    except _Blank:
        return "blank", "write the answer and run the cell again"
    except Exception as error:  # whatever an answer does, the lesson goes on
        verdict = f"it stopped with {type(error).__name__}: {error}"
    if verdict is True:
        return "right", "well done"
    return "wrong", f"{verdict}. Hint: {record.hint}"


def check(name, answer, **context):
    """Show whether an answer is right (see `judge`); raise `ExerciseError` if not and `strict`."""
    status, message = judge(name, answer, **context)
    colour, sign = _LOOK[status]
    text = f"{sign} {name}, {status}: {message}"
    box = f'<p style="border-left: 6px solid {colour}; padding: 6px">{escape(text)}</p>'
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


def inject(notebook, answers):
    """Copy a notebook and write answers into its exercise cells, above their line of `check`.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    answers : dict of str to str
        Source by exercise, as `Exercise.source` makes it.

    Raises
    ------
    CourseError
        If an exercise has no cell of its own, or its cell no line of `check`.
    """
    notebook = copy.deepcopy(notebook)
    for name, source in answers.items():
        tag, call = f"exercise-{name}", f'exercises.check("{name}"'
        cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]
        if len(cells) != 1 or call not in cells[0].source:
            raise CourseError(f"exercise {name}: make one cell tagged {tag} that has {call}, ...)")
        cells[0].source = source + "\n\n\n" + cells[0].source[cells[0].source.index(call) :]
    return notebook


def _find(name):
    if name not in EXERCISES:
        raise CourseError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
