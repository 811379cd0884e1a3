"""A grid of tasks that can be killed at any moment and continues where it stopped."""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write, sha256
from patchcore_helpers.parallel import code_hash, in_parallel

Row = dict[str, Any]
Task = dict[str, Any]


class Skipped(InputError):
    """A task that cannot run here, and why; it becomes a row without numbers."""


@dataclass
class Outcome:
    """What one task gave.

    Attributes
    ----------
    task : dict
    rows : list of dict
        One per line of the CSV.
    scores : dict of str to list of float
        What intervals are computed from; kept beside the rows, not in the CSV.
    finished : bool
        Whether the task ran to its end; single rows of it may still say why they hold no result.
    """

    task: Task
    rows: list[Row]
    scores: dict[str, list] = field(default_factory=dict)
    finished: bool = True


def _attempt(work: Callable, task: Task) -> Outcome:
    """Run one task; an error becomes a row that says so."""
    try:
        rows, scores = work(**task)
    except Exception as error:
        status = f"{'skipped' if isinstance(error, Skipped) else 'failed'}: {_reason(error)}"
        return Outcome(task, [{**task, "status": status}], finished=False)
    return Outcome(task, [{**task, "status": "ok", **row} for row in rows], scores)


def _reason(error: Exception) -> str:
    """What an error says, on one line; its type too, unless it was written for the user."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if isinstance(error, InputError) else f"{type(error).__name__}: {message}"


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV text in this order of columns; a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


class Grid:
    """Runs `work` once per task, keeps each result as soon as it arrives, and writes the table.

    A finished task is kept in ``rows/`` as one JSON file, named by the hash of the work function's
    name, the task and this package's code, so a second run computes only what is missing; what
    failed or was skipped is tried again. The CSV is rewritten, in one step, after every task: it is
    valid at any moment, and no row is ever in it twice.

    Parameters
    ----------
    work : callable
        Takes a task's entries by keyword; returns (rows, scores), see `Outcome`. It may raise
        `Skipped`. A function at module level, so that other processes can import it.
    columns : sequence of str
        The CSV's columns, in this order.
    folder : path
        Where the CSV and ``rows/`` go; the empty string keeps nothing.
    name : str
        The CSV's name without ``.csv``.
    """

    def __init__(
        self,
        work: Callable,
        columns: Sequence[str],
        folder: str | Path = "",
        name: str = "results",
    ) -> None:
        self.work = work
        self.columns = list(columns)
        self.name = name
        if not folder:
            self._temporary = tempfile.TemporaryDirectory()  # removed together with this object
            folder = self._temporary.name
        self.folder = Path(folder)

    def result_path(self, task: Task) -> Path:
        """The file that keeps the result of a task."""
        function = f"{self.work.__module__}.{self.work.__qualname__}"
        identity = json.dumps([function, task], sort_keys=True)
        return self.folder / "rows" / f"{sha256(code_hash(), identity)[:24]}.json"

    def kept_result(self, task: Task) -> Outcome | None:
        """The result of an earlier run; None if there is none, or none that is valid."""
        path = self.result_path(task)
        try:
            outcome = Outcome(**json.loads(path.read_text()))
            is_valid = outcome.finished and self.result_path(outcome.task) == path
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return outcome if is_valid else None

    def run(
        self,
        tasks: Sequence[Task],
        n_jobs: int = 1,
        progress: bool = False,
        scheduler: str = "",
    ) -> list[Outcome]:
        """Run what is missing.

        Parameters
        ----------
        tasks : sequence of dict
            Their values are plain (JSON); no two tasks are equal.
        n_jobs : int
            Worker processes (joblib); 1 runs the tasks in this process.
        progress : bool
            Show a progress bar.
        scheduler : str
            Address of a Dask cluster that runs the tasks instead, such as ``tcp://10.0.0.1:8786``;
            see `in_parallel`. This process alone writes files.

        Returns
        -------
        list of Outcome
            In the order of the tasks.

        Raises
        ------
        InputError
            If the folder cannot be written, if the cluster is unavailable, or if workers are lost
            again and again; a second run continues from there.
        """
        with translate_os_errors(self.folder, "choose another folder"):
            (self.folder / "rows").mkdir(parents=True, exist_ok=True)
            results = {i: self.kept_result(task) for i, task in enumerate(tasks)}
            done = {i: outcome for i, outcome in results.items() if outcome is not None}
            missing = [i for i in range(len(tasks)) if i not in done]
            self._write_table(done)
            with (
                tqdm(total=len(tasks), initial=len(done), unit="task", disable=not progress) as bar,
                closing(self._compute([tasks[i] for i in missing], n_jobs, scheduler)) as outcomes,
            ):
                for number, outcome in outcomes:
                    done[missing[number]] = outcome
                    self._keep(outcome)
                    self._write_table(done)
                    bar.update()
        return [done[i] for i in range(len(tasks))]

    def _compute(self, tasks, n_jobs, scheduler):
        return in_parallel(_attempt, [(self.work, task) for task in tasks], n_jobs, scheduler)

    def _keep(self, outcome: Outcome) -> None:
        content = json.dumps(vars(outcome), default=lambda array: array.tolist())
        atomic_write(self.result_path(outcome.task), content)

    def _write_table(self, done: Mapping[int, Outcome]) -> None:
        rows = [row for i in sorted(done) for row in done[i].rows]
        atomic_write(self.folder / f"{self.name}.csv", to_csv(rows, self.columns))


def table(outcomes: Sequence[Outcome], columns: Sequence[str]) -> pd.DataFrame:
    """All rows of a grid as a DataFrame; what did not run has NaN and says why in `status`.

    Raises
    ------
    InputError
        If not a single row holds a result.
    """
    rows = [row for outcome in outcomes for row in outcome.rows]
    if not any(row["status"] == "ok" for row in rows):
        reason = f"the first: {rows[0]['status']}" if rows else "there was no task"
        raise InputError(f"no task of the experiment gave a result; {reason}")
    return pd.DataFrame(rows).reindex(columns=list(columns))
