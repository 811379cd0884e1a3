"""Runs notebooks at the same time; each result appears complete or not at all, and is kept."""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from patchcore_helpers.course.jobs import Job
from patchcore_helpers.course.results import (
    MADE_BY,
    file_sizes,
    read_summary,
    still_valid,
    versions,
)
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import (
    atomic_write,
    remove_leftovers,
    replace_directory,
    temporary_sibling,
)

THREAD_LIMITS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")  # ..._NUM_THREADS


def cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Batch:
    """Jobs, and the folder where their results go.

    Parameters
    ----------
    jobs : list of Job
    output : Path
    timeout : float
        Seconds for each notebook.
    n_jobs : int
        Notebooks at a time.
    """

    def __init__(self, jobs: Sequence[Job], output: Path, timeout: float, n_jobs: int):
        self.jobs = jobs
        self.output = output
        self.timeout = timeout
        self.n_jobs = n_jobs
        self.stop = threading.Event()
        self._writing = threading.Lock()

    def folder(self, job: Job) -> Path:
        """Where the results of a run that passed are."""
        return self.output / job.stem

    def failed_folder(self, job: Job) -> Path:
        """Where the results of a run that failed are, as far as it came."""
        return self.output / f"{job.stem}.failed"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Prepare the output folder, and keep other runners out of it during the block."""
        with translate_os_errors(self.output, "use --output DIR"):
            self.output.mkdir(parents=True, exist_ok=True)
            with open(self.output / ".lock", "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise InputError(
                        f"{self.output}: another run writes there; use --output DIR"
                    ) from None
                self._clean_up()
                yield

    def _clean_up(self) -> None:
        """Put right what a killed runner left, and refuse folders that are not from a run."""
        leftovers = list(self.output.glob(".*.part"))
        if leftovers:
            from patchcore_helpers.course.engine import end_processes  # takes seconds to import

            for folder in leftovers:
                end_processes(folder)
        for job in self.jobs:
            for folder in (self.folder(job), self.failed_folder(job)):
                remove_leftovers(folder)
                if folder.exists() and read_summary(folder) is None:
                    raise InputError(f"{folder}: not from a run; move it, or use --output")

    def kept(self, job: Job) -> dict[str, Any] | None:
        """Summary of an earlier run of the job that need not be repeated, or None."""
        return None if job.failures else still_valid(self.folder(job), job.fingerprint())

    def run_all(self, jobs: Sequence[Job]) -> None:
        """Run jobs in parallel, with a live line on a terminal; ends all kernels on Ctrl-C."""
        self.n_jobs = max(1, min(self.n_jobs, len(jobs)))
        live_line = "{n_fmt}/{total_fmt} notebooks, {elapsed}{postfix}"
        with (
            tqdm(total=len(jobs), bar_format=live_line, leave=False, disable=None) as bar,
            ThreadPoolExecutor(self.n_jobs) as pool,
        ):
            try:
                waiting = {pool.submit(self.run, job) for job in jobs}
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2)
                    for future in done:
                        future.result()
                    runs = [(job.stem, job.run) for job in jobs]
                    progress = [f"{stem} {run.progress}" for stem, run in runs if run]
                    bar.n = len(jobs) - len(waiting)
                    bar.set_postfix_str(", ".join(progress))
            finally:  # after an error or Ctrl-C; else nothing runs any more
                self.stop.set()

    def run(self, job: Job) -> None:
        """Run a job in a temporary folder, which takes its final name when it is complete."""
        if self.stop.is_set():
            return
        fingerprint = job.fingerprint()  # before the kernel imports the code
        work = temporary_sibling(self.folder(job))
        work.mkdir()
        tqdm.write(f"{job.stem}: started", sys.stderr)
        try:
            if not job.failures:
                self._execute(job, work)
            if not self.stop.is_set():
                self._publish(job, work, fingerprint)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _execute(self, job: Job, work: Path) -> None:
        from patchcore_helpers.course.engine import NotebookRun  # takes seconds to import

        parameters = dict(job.parameters)
        if "output_dir" in job.declared:
            parameters["output_dir"] = str(work)
        environment = {}
        if self.n_jobs > 1:
            environment = {f"{name}_NUM_THREADS": str(self._threads()) for name in THREAD_LIMITS}
        job.run = NotebookRun(job.path, work, parameters, self.timeout, environment, self.stop)
        job.failures = job.run.execute(self.folder(job))

    def _publish(self, job: Job, work: Path, fingerprint: dict[str, str]) -> None:
        """Write the summary, give the folder its final name, and say how it went."""
        target = self.failed_folder(job) if job.failures else self.folder(job)
        if job.run:
            job.run.relocate(target)
        summary = {
            "made_by": MADE_BY,
            "notebook": job.stem,
            "status": "failed" if job.failures else "passed",
            "failures": job.failures,
            "seconds": round(job.run.seconds, 1) if job.run else 0.0,
            "peak_rss_mb": round(job.run.peak_rss_mb) if job.run else 0,
            "cores": self._threads(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": {p.name: p.default for p in job.declared.values()} | job.parameters,
            "results": job.run.results if job.run else {},
            "versions": versions(),
            **fingerprint,
            "files": file_sizes(work),
        }
        atomic_write(work / "summary.json", json.dumps(summary, indent=1) + "\n")
        shutil.rmtree(self.failed_folder(job), ignore_errors=True)
        replace_directory(work, target)
        lines = [f"{job.stem}: {summary['status']} in {summary['seconds']:.1f} s"]
        lines += [f"{job.stem}: {failure}" for failure in job.failures]
        with self._writing:
            tqdm.write("\n".join(lines), sys.stderr)
            job.summary = summary
            job.run = None
            self.write_summary()

    def _threads(self) -> int:
        """Cores for each notebook."""
        return max(1, cores() // self.n_jobs)

    def write_summary(self) -> None:
        """Write the batch's own `summary.json`."""
        keys = ("status", "failures", "profile", "seconds", "peak_rss_mb", "results")
        summaries = {job.stem: job.summary for job in self.jobs if job.summary}
        notebooks = {
            stem: {key: summary[key] for key in keys} for stem, summary in summaries.items()
        }
        text = json.dumps({"made_by": MADE_BY, "notebooks": notebooks}, indent=1) + "\n"
        atomic_write(self.output / "summary.json", text)
