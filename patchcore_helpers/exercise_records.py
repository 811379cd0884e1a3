"""The exercises: question, hint, solution, wrong answers and check in one record each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent, indent

import numpy as np

EXERCISES = {}


@dataclass(frozen=True)
class Exercise:
    """One exercise: the learner writes the body of a function.

    `solution` is a body that is right, `wrong` are bodies that a learner might well write. `check`
    takes the learner's function, and what the notebook passes on, and returns True if it is right,
    else a sentence on what is wrong.
    """

    name: str
    notebook: str
    signature: str
    question: str
    hint: str
    solution: str
    wrong: tuple
    check: Callable

    def source(self, body="return ..."):
        """Return the source of the function with this body; without one, the stub."""
        return f"{self.signature}\n{indent(dedent(body).strip(), '    ')}"


def exercise(notebook, **record):
    """Keep the decorated check, and the rest of its record, in `EXERCISES`."""

    def keep(check):
        name = check.__name__.replace("_", "-")
        EXERCISES[name] = Exercise(name, notebook, check=check, **record)
        return check

    return keep


@exercise(
    "01_introduction",
    signature="def conformal_threshold(calibration_scores, alpha):",
    question="You have the image scores of normal images that the model has not seen. Return a "
    "threshold that the score of one more normal image exceeds with probability at most `alpha`, "
    "and the lowest one that keeps this promise. With too few scores only infinity keeps it.",
    hint="Among n + 1 normal images, every rank is equally likely for the new one. Sort the n "
    "scores and take the k-th smallest with k = ceil((n + 1) * (1 - alpha)); if k > n, np.inf.",
    solution="""
        n = len(calibration_scores)
        k = int(np.ceil((n + 1) * (1 - alpha)))
        return np.sort(calibration_scores)[k - 1] if k <= n else np.inf
        """,
    wrong=(
        "return np.quantile(calibration_scores, 1 - alpha)",
        "return np.quantile(calibration_scores, alpha)",
        "return np.max(calibration_scores)",
        "n = len(calibration_scores)\n"
        "return np.sort(calibration_scores)[min(n, int(np.ceil((n + 1) * (1 - alpha)))) - 1]",
    ),
)
def conformal_threshold(answer):
    random = np.random.default_rng(0)
    for n, alpha in [(9, 0.5), (19, 0.05), (50, 0.13), (99, 0.1), (9, 0.05)]:
        scores = random.normal(size=n)
        # n + 1 - rank of the n + 1 equally likely places of a new score lie above this candidate.
        candidates = enumerate([*np.sort(scores), np.inf], start=1)
        right = min(score for rank, score in candidates if n + 1 - rank <= alpha * (n + 1) + 1e-9)
        given = answer(scores.copy(), alpha)
        if not np.isclose(given, right):
            return f"for {n} scores and alpha = {alpha} it gave {given:.4g}, not {right:.4g}"
    return True


@exercise(
    "01_introduction",
    signature="def nearest_distance(patch, bank):",
    question="Return the Euclidean distance from one patch, an array of shape (c,), to its nearest "
    "row of the memory bank, an array of shape (rows, c). This is the patch score.",
    hint="`bank - patch` subtracts the patch from every row. Take the length of every row of the "
    "difference with np.linalg.norm and axis=1, then the smallest.",
    solution="return np.linalg.norm(bank - patch, axis=1).min()",
    wrong=(
        "return np.linalg.norm(bank - patch)",
        "return ((bank - patch) ** 2).sum(axis=1).min()",
        "return np.abs(bank - patch).sum(axis=1).min()",
        "return np.linalg.norm(bank - patch, axis=1).mean()",
        "return np.linalg.norm(bank - patch, axis=1).argmin()",
    ),
)
def nearest_distance(answer):
    random = np.random.default_rng(0)
    for rows, width in [(1, 3), (5, 2), (40, 16)]:
        patch, bank = random.normal(size=width), random.normal(size=(rows, width))
        right = min(math.dist(patch, row) for row in bank)
        given = answer(patch.copy(), bank.copy())
        if not np.isclose(given, right):
            return f"for a bank of {rows} rows it gave {given:.4g}, not {right:.4g}"
    return True
