"""Questions at the end of a lesson: has the idea arrived?

`<notebook>.yaml` beside this file holds the questions of a notebook, each with its options: the
text, whether it is right, and why.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from IPython.display import display

from patchcore_helpers.errors import InputError
from patchcore_helpers.files import sha256


@dataclass(frozen=True)
class Option:
    """One answer to choose from, and the sentence that a reader gets who chooses it."""

    text: str
    right: bool
    why: str


@dataclass(frozen=True)
class Question:
    """One question of a quiz, with its options."""

    question: str
    options: list[Option]


def read_quiz(notebook: str) -> list[Question]:
    """The questions of a notebook, their options in shuffled order.

    Parameters
    ----------
    notebook : str
        Its file name without `.ipynb`.

    Raises
    ------
    InputError
        If there is no quiz for it.
    """
    path = Path(__file__).with_name(f"{notebook}.yaml")
    if not path.is_file():
        raise InputError(f"no quiz for {notebook!r}; write {path.name} in {path.parent}")
    records = yaml.safe_load(path.read_text("utf-8"))
    return [_shuffled(record["question"], record["options"]) for record in records]


def _shuffled(question: str, options: list[dict[str, Any]]) -> Question:
    """A question, its options in an order that knows nothing of which one is right."""
    in_order = sorted(options, key=lambda option: sha256(question, option["text"]))
    return Question(question, [Option(**option) for option in in_order])


def quiz(notebook: str) -> None:
    """Show the quiz of a notebook; each option opens to say whether it is right, and why.

    It needs no kernel: the options are folds of the page.

    Parameters
    ----------
    notebook : str
        Its file name without `.ipynb`.
    """
    questions = read_quiz(notebook)
    items = "".join(f"<li>{_question_html(question)}</li>" for question in questions)
    html = f'<ol class="quiz">{items}</ol>'
    plain = "\n".join(
        f"{number}. {question.question}" for number, question in enumerate(questions, 1)
    )
    display({"text/html": html, "text/plain": plain}, raw=True)


def _question_html(question: Question) -> str:
    options = "".join(_option_html(option) for option in question.options)
    return f"<p><b>{escape(question.question)}</b></p>{options}"


def _option_html(option: Option) -> str:
    verdict = "Yes." if option.right else "No."
    return (
        f'<details style="margin: 4px 0"><summary>{escape(option.text)}</summary>'
        f'<p style="margin: 4px 0 4px 1.5em"><b>{verdict}</b> {escape(option.why)}</p></details>'
    )
