"""`patchcore-course run`: notebooks in strict batch runs, which cannot be green by accident.

Papermill passes notebooks that ignored a misspelled parameter, left cells out, called `sys.exit`,
or caught their exception in a widget. Here each of these fails, with one line that names the
notebook, the cell and the fix. Parameters are checked before anything runs (`parameters`, `jobs`);
each notebook then runs in a kernel of its own (`engine`), is checked again (`executed`), and leaves
a folder with a summary (`results`). A run that passed is kept until something that decides it
changes (`batch`).
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from patchcore_helpers.course.batch import Batch
from patchcore_helpers.course.jobs import Job, plan

PROFILES = ("fast", "default", "full")


def _positive(text: str) -> float:
    """A positive, finite number from the command line."""
    value = float(text) if "." in text else int(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course run`."""
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="path, name or number; none: all")
    add("--profile", choices=PROFILES, default="default", help="set of parameter files")
    add("--output", type=Path, default=Path("output"), metavar="DIR", help="where results go")
    add(
        "-p",
        dest="parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter, as YAML",
    )
    add("-f", dest="file", action="append", default=[], metavar="FILE", help="YAML parameters")
    add("-j", dest="jobs", type=_positive, default=1, metavar="JOBS", help="how many at a time")
    add("--timeout", type=_positive, default=1800, metavar="SECONDS", help="for each notebook")
    add("--scheduler", metavar="ADDRESS", help="Dask scheduler, for notebooks that can use one")
    add("--fresh", action="store_true", help="run again what an earlier batch has finished")


def command(args: argparse.Namespace) -> int:
    """Run notebooks; returns 0 if all passed, 1 if one failed, 130 after Ctrl-C.

    Raises
    ------
    InputError
        For invalid input, before anything runs.
    """
    jobs = plan(args)
    if args.scheduler:
        _check_scheduler(args.scheduler, jobs)
    batch = Batch(jobs, args.output.resolve(), args.timeout, int(args.jobs))
    with batch.claimed():
        if not args.fresh:
            for job in jobs:
                job.summary = batch.kept(job)
        kept = [job for job in jobs if job.summary]
        for job in kept:
            print(f"{job.stem}: kept from the earlier run (--fresh runs it again)", file=sys.stderr)
        try:
            batch.run_all([job for job in jobs if job not in kept])
        except KeyboardInterrupt:
            print("interrupted; the next run goes on from here", file=sys.stderr)
            return 130
        batch.write_summary()
    _print_table(batch, kept)
    return 1 if any(job.failures for job in jobs) else 0


def _check_scheduler(address: str, jobs: Sequence[Job]) -> None:
    """Check that a Dask scheduler answers, and say which notebooks cannot use it."""
    from patchcore_helpers import parallel  # joblib takes a while to import

    parallel.connect(address).close()
    idle = [job.stem for job in jobs if "scheduler" not in job.declared]
    if idle:
        print(f"--scheduler: not for {', '.join(idle)}, which run here", file=sys.stderr)


def _print_table(batch: Batch, kept: Sequence[Job]) -> None:
    """Print how each notebook went, and where the results are."""
    width = max(len(job.stem) for job in batch.jobs)
    print(f"{'notebook':<{width}}  seconds  peak MB  outcome")
    for job in batch.jobs:
        summary = job.summary or {}
        outcome = "kept" if job in kept else summary["status"].replace("failed", "FAILED")
        numbers = f"{summary['seconds']:7.1f}  {summary['peak_rss_mb']:7d}"
        print(f"{job.stem:<{width}}  {numbers}  {outcome}")
    print(f"Executed notebooks, pages, figures, tables: {batch.output}/<notebook>/")
    for job in batch.jobs:
        if job.failures:
            print(f"As far as it came: {batch.failed_folder(job)}/")
    print(f"Summary: {batch.output / 'summary.json'}", flush=True)
