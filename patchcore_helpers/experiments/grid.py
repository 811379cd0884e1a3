"""A grid of tasks that can be killed at any moment and goes on where it stopped."""

import csv
import io
import json
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write, sha256
from patchcore_helpers.parallel import code_hash as _code
from patchcore_helpers.parallel import in_parallel


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

    task: dict
    rows: list
    scores: dict = field(default_factory=dict)
    finished: bool = True


def _attempt(work, task):
    """Run one task; an error becomes a row that says so."""
    try:
        rows, scores = work(**task)
        return Outcome(task, [{**task, "status": "ok", **row} for row in rows], scores)
    except Exception as error:
        what = "skipped" if isinstance(error, Skipped) else "failed"
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, InputError):
            reason = f"{type(error).__name__}: {reason}"
        return Outcome(task, [{**task, "status": f"{what}: {reason}"}], finished=False)


def to_csv(rows, columns):
    """Rows as CSV text in this order of columns; a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


class Grid:
    """Runs `work` once per task, keeps each result when it is there, and writes the table.

    A finished task lies in ``rows/`` as one JSON file named by the hash of the task and of this
    package's code, so a second run computes only what is missing; what failed or was skipped is
    tried again. The CSV is written anew, in one step, after every task: it is valid at any moment,
    and no row is ever in it twice.

    Parameters
    ----------
    work : callable
        Takes a task's entries by keyword; returns (rows, scores), see `Outcome`. It may raise
        `Skipped`. At module level, so that other processes can import it.
    columns : list of str
        Of the CSV, in this order.
    folder : path
        Where the CSV and ``rows/`` go; the empty string keeps nothing.
    name : str
        The CSV's name without ``.csv``.
    """

    def __init__(self, work, columns, folder="", name="results"):
        self.work, self.columns, self.name = work, list(columns), name
        self._temporary = None if folder else tempfile.TemporaryDirectory()
        self.folder = Path(folder or self._temporary.name)

    def _path(self, task):
        identity = json.dumps([self.work.__module__, task], sort_keys=True)
        return self.folder / "rows" / f"{sha256(_code(), identity)[:24]}.json"

    def _kept(self, task):
        path = self._path(task)
        try:
            kept = Outcome(**json.loads(path.read_text()))
            return kept if kept.finished and self._path(kept.task) == path else None
        except (OSError, ValueError, TypeError, KeyError):  # not there yet, or not ours
            return None

    def run(self, tasks, n_jobs=1, progress=False, scheduler=""):
        """Run what is missing.

        Parameters
        ----------
        tasks : list of dict
            Of plain values; no two alike.
        n_jobs : int
            Worker processes (joblib); 1 runs the tasks in this process.
        progress : bool
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
            If the folder cannot be written, if the cluster is of no use, or if workers are lost
            again and again; a second run goes on from there.
        """
        with translate_os_errors(self.folder, "choose another folder"):
            (self.folder / "rows").mkdir(parents=True, exist_ok=True)
            kept = {place: self._kept(task) for place, task in enumerate(tasks)}
            done = {place: outcome for place, outcome in kept.items() if outcome}
            self._write(done)
            todo = [place for place in range(len(tasks)) if place not in done]
            calls = [(self.work, tasks[place]) for place in todo]
            with (
                tqdm(total=len(tasks), initial=len(done), unit="task", disable=not progress) as bar,
                closing(in_parallel(_attempt, calls, n_jobs, scheduler)) as results,
            ):
                for number, outcome in results:
                    done[todo[number]] = outcome
                    content = json.dumps(vars(outcome), default=lambda array: array.tolist())
                    atomic_write(self._path(outcome.task), content)
                    self._write(done)
                    bar.update()
        return [done[place] for place in range(len(tasks))]

    def _write(self, done):
        rows = [row for place in sorted(done) for row in done[place].rows]
        atomic_write(self.folder / f"{self.name}.csv", to_csv(rows, self.columns))


def table(outcomes, columns):
    """All rows of a grid as a DataFrame; what did not run has NaN and says why in `status`.

    Raises
    ------
    InputError
        If not a single row holds a result.
    """
    rows = [row for outcome in outcomes for row in outcome.rows]
    if not any(row["status"] == "ok" for row in rows):
        why = f"the first: {rows[0]['status']}" if rows else "there was no task"
        raise InputError(f"no task of the experiment gave a result; {why}")
    return pd.DataFrame(rows).reindex(columns=columns)
