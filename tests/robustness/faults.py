"""Faults and bad input on purpose, over the whole project: a table of what was tried and became.

    python tests/faults.py --kills 40 --files 1000 --seed 0 --markdown docs/faults.md

Commands run in forked processes of a server that has imported the package before, so a kill falls
into the work and not into the imports. Each has a time limit. A row holds if nothing was lost, hung
or half-written, and if no user met a traceback; the exit status is 1 if a row does not hold.
"""

import argparse
import csv
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from helpers.miniatures import make_mvtec, picture
from PIL import Image

LIMIT = 180  # seconds after which a process counts as hung
SMALL = ["--image-size", "64", "--coreset-ratio", "0.1"]
PACKAGE = [f"patchcore_helpers.{name}" for name in ("cli", "evaluation", "report", "runner")]
PACKAGE += ["patchcore_helpers.data.prepare", "patchcore_helpers.experiments.exp2"]
FAULTS = {}  # name of a row: function that tries the fault


class BrokenPromise(AssertionError):
    """What a row found that must not be."""


class Unable(Exception):
    """Why a fault cannot be tried on this machine."""


def hold(condition, text):
    """Go on only if a promise is kept."""
    if not condition:
        raise BrokenPromise(text)


def fault(name):
    """Add a function to the table; it returns how often it tried, and what happened."""

    def add(function):
        FAULTS[name] = function
        return function

    return add


# Processes


@dataclass
class Ended:
    """How a process ended: status (negative: killed by a signal), output, seconds, memory."""

    status: int
    out: str
    err: str
    seconds: float
    grown_mb: float = 0.0  # peak memory beyond what the server had when it was forked
    value: object = None

    def __str__(self):
        return f"status {self.status}, said {self.out[-200:]!r} and {self.err[-400:]!r}"


def _peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _child(work, folder, environment, outputs, report, file_limit):
    """In the forked process: a command (list of words), or a function of this module."""
    before = _peak_mb()
    os.chdir(folder)
    os.environ.update(environment)
    for target, place in enumerate(outputs, 1):
        place = os.open(place, os.O_WRONLY) if isinstance(place, str) else place.fileno()
        os.dup2(place, target)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False, encoding="utf-8") for n in (1, 2))  # noqa: SIM115
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    status, value = 0, None
    try:
        if isinstance(work, list):
            from patchcore_helpers.app import cli

            status = cli.main(work)
        else:
            value = work[0](*work[1:])
    finally:
        with suppress(BrokenPipeError):
            report.send((_peak_mb() - before, value))
    sys.exit(status)


class Process:
    """A command or a function in a process of its own, whose output is collected."""

    def __init__(self, work, folder, environment=None, file_limit=None, full_output=False):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PACKAGE)
        pipes = [context.Pipe(duplex=False) for _ in range(3)]
        writers = [writer for _, writer in pipes]
        outputs = ["/dev/full" if full_output else writers[0], writers[1]]
        work = [str(word) for word in work] if isinstance(work, list) else work
        environment = {"OMP_NUM_THREADS": "1", **(environment or {})}
        given = (work, str(folder), environment, outputs, writers[2], file_limit)
        self.process = context.Process(target=_child, args=given, daemon=False)
        self.texts, self.report = [b"", b""], pipes[2][0]
        self.process.start()
        self.start = time.monotonic()
        for writer in writers:
            writer.close()
        self.readers = []
        for number, (reader, _) in enumerate(pipes[:2]):
            thread = threading.Thread(target=self._collect, args=(number, reader), daemon=True)
            thread.start()
            self.readers.append(thread)

    def _collect(self, number, reader):
        while part := os.read(reader.fileno(), 65536):
            self.texts[number] += part
        reader.close()

    def kill(self, after):
        """SIGKILL after so many seconds; False if it had ended by itself.

        Raises
        ------
        BrokenPromise
            If processes that it had started are still there 20 s later.
        """
        self.process.join(max(0, self.start + after - time.monotonic()))
        below = []
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.join()
        _, alive = psutil.wait_procs(below, 20)
        for each in alive:
            each.kill()
        hold(not alive, f"{len(alive)} processes were left behind by a kill")
        return self.process.exitcode == -signal.SIGKILL

    def end(self, limit=LIMIT):
        """Wait for the end.

        Raises
        ------
        BrokenPromise
            If it takes longer than the limit.
        """
        self.process.join(limit)
        if self.process.exitcode is None:
            self.kill(0)
            raise BrokenPromise(f"hung: nothing after {limit} s")
        seconds = time.monotonic() - self.start
        for reader in self.readers:
            reader.join(20)
        grown, value = 0.0, None
        with suppress(EOFError, OSError):
            if self.report.poll():
                grown, value = self.report.recv()
        texts = [text.decode(errors="surrogateescape") for text in self.texts]
        return Ended(self.process.exitcode, *texts, seconds, grown, value)


# What promises look like


def is_clean(ended, statuses, what, noise=False):
    """One of these statuses, no traceback, one line about an error; warnings have their own.

    `noise` allows lines that are not the command's: libtiff writes some about damaged files.
    """
    hold("Traceback" not in ended.out + ended.err, f"{what}: traceback; {ended}")
    hold(ended.status in statuses, f"{what}: {ended}")
    lines = [x for x in ended.err.splitlines() if not x.startswith("patchcore-course: warning: ")]
    if noise:
        lines = [line for line in lines if line.startswith("patchcore-course")]
    if ended.status == 2:
        good = len(lines) == 1 and lines[0].startswith("patchcore-course") and "error: " in lines[0]
        hold(good, f"{what}: not one line; {ended}")
    return ended


def listing(folder):
    """Every file below a folder with its content's check sum, folders with None."""
    return {
        os.path.relpath(path, folder): None if path.is_dir() else zlib.crc32(path.read_bytes())
        for path in sorted(Path(folder).rglob("*"))
    }


def leftovers(folder):
    """Hidden temporary files and folders directly or further below."""
    ends = (".part", ".old", ".running")
    return [p for p in Path(folder).rglob(".*") if p.name.endswith(ends)]


class Ground:
    """A folder to work in, with the inputs that several faults share; seeded."""

    def __init__(self, folder, kills=40, files=1000, seed=0):
        self.folder, self.kills, self.files, self.seed = Path(folder), kills, files, seed
        self.random = np.random.default_rng(seed)
        self.environment = {"PATCHCORE_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        make_mvtec(self.folder / "data/mvtec_ad")
        self.category = self.folder / "data/mvtec_ad/bottle"
        self.images = sorted((self.category / "test").rglob("*.png"))
        self._bank = None

    @property
    def bank(self):
        """A saved bank with a threshold, of the category."""
        if self._bank is None:
            self.run("new", self.category, "--output", self.folder / "first_report", *SMALL)
            self._bank = self.folder / "first_report/bank.safetensors"
        return self._bank

    def new_folder(self):
        """An empty folder; names are not used twice."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def start(self, *words, folder=None, environment=None, **more):
        environment = {**self.environment, **(environment or {})}
        work = words if callable(words[0]) else list(words)
        return Process(work, folder or self.folder, environment, **more)

    def run(self, *words, ok=True, **more):
        ended = self.start(*words, **more).end()
        hold(not ok or ended.status == 0, f"undisturbed, {words[0]} failed: {ended}")
        return ended

    def share(self, stage):
        """How many of the kills fall to a stage."""
        number = KILLED.index(stage)
        return len(range(number, self.kills, len(KILLED)))

    def tries(self, share=1.0):
        """A count that grows with the number of files asked for."""
        return max(2, round(share * self.files))

    # A kill at a random moment, again and again

    def killings(self, stage, command, between, whole, finish, environment=None):
        """Kill a command at random moments; look at what it leaves; let it end; compare.

        Parameters
        ----------
        stage : str
        command : list of words, or (function, arguments...)
        between : callable
            Called with a number before each start that is to begin anew; not after a kill whose
            work the next start takes up again.
        whole : callable
            Raises BrokenPromise if what is there after a kill is neither whole nor absent.
        finish : callable
            What the undisturbed command's result is, in a form that can be compared.
        """
        between(0)
        run = self.run(*command, environment=environment)
        expected = finish(run)
        between(1)  # now everything is warm
        duration = self.run(*command, environment=environment).seconds
        wanted, done, tries, left = self.share(stage), 0, 0, 0
        between(2)
        while done < wanted:
            tries += 1
            hold(tries <= 10 * wanted + 20, f"the kills miss: {done} of {tries} hit")
            process = self.start(*command, environment=environment)
            if process.kill(self.random.uniform(0.02, 1) * duration):
                done, left = done + 1, left + bool(leftovers(self.folder))
                whole()
                if stage in AGAIN:
                    between(done)
            else:
                between(done)
        hold(finish(self.run(*command, environment=environment)) == expected, "another result")
        still = leftovers(self.folder)
        for path in still:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        hold(
            not still,
            f"{len(still)} temporary files stay for good: {still[0].name if still else ''}",
        )
        return done, (
            f"killed at random moments of {duration:.1f} s; after each the old result or none, "
            f"never half; {left} left temporary files, which the next run removed; its result is "
            "the undisturbed one"
        )


KILLED = ["prepare", "cache", "grid", "new", "save", "predict", "run"]
AGAIN = {"new", "save", "predict"}  # which do not go on where they stopped


@fault("SIGKILL in prepare")
def kill_prepare(ground):
    root = make_mvtec(ground.new_folder() / "root", ("bottle", "cable", "grid"), size=128)
    archive, data = root.with_suffix(".tar.gz"), ground.new_folder() / "data"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root, ".")
    words = ["prepare", "mvtec_ad", "--source", archive, "--data-dir", data]
    words += ["--categories", "bottle,cable,grid"]
    truth = listing(root)

    def whole():
        for place in (data / "mvtec_ad").glob("[!.]*"):
            if place.is_dir():
                own = {k: v for k, v in truth.items() if k.startswith(place.name + "/")}
                found = {f"{place.name}/{k}": v for k, v in listing(place).items()}
                hold(found == own, f"{place.name} is there and not whole")

    def finish(_):
        hold(listing(data / "mvtec_ad") == truth, "prepared files are not the archive's")
        return sorted(os.listdir(data))

    def between(_):
        shutil.rmtree(data, ignore_errors=True)

    return ground.killings("prepare", words, between, whole, finish)


def _results(ended):
    """What evaluate printed, without times and memory."""
    result = json.loads(ended.out)
    return {k: v for k, v in result.items() if "seconds" not in k and k != "peak_rss_mb"}


@fault("SIGKILL while the feature cache is filled")
def kill_cache(ground):
    cache, good = ground.new_folder(), {}
    category = Path(shutil.copytree(ground.category, ground.new_folder() / "many"))
    for path in list(category.glob("train/good/*.png")):  # so that most of the time is filling
        for copy in range(9):
            shutil.copy(path, path.with_name(f"{path.stem}_{copy}.png"))
    words = ["evaluate", category, "--json", "--image-size", "224", "--coreset-ratio", "0.002"]

    def whole():
        for path in cache.rglob("*-*.npy"):
            if not path.name.startswith("."):
                hold(zlib.crc32(path.read_bytes()) == good.get(path.name), "half an entry")

    def finish(ended):
        good.update({p.name: zlib.crc32(p.read_bytes()) for p in cache.rglob("[!.]*.npy")})
        hold(good, "nothing was cached")
        return _results(ended)

    def between(_):
        shutil.rmtree(cache)
        cache.mkdir()

    environment = {"PATCHCORE_CACHE": str(cache)}
    return ground.killings("cache", words, between, whole, finish, environment)


def run_grid(folder, category):
    """Experiment 2 on tiny settings."""
    from patchcore_helpers.experiments import exp2
    from patchcore_helpers.experiments.grid import Grid

    settings = exp2.Settings(
        methods=["v1_random", "k_center"], ratios=[0.05, 0.2], image_size=64, use_cache=False
    )
    tasks = exp2.make_tasks(settings, [category], range(10))
    Grid(exp2.run_task, exp2.COLUMNS_BY_SEED, folder, "results").run(tasks)


def _rows(folder):
    """The rows of a grid's table, without times; the table must be whole."""
    text = (Path(folder) / "results.csv").read_text()
    hold(text.endswith("\n"), "the table ends in the middle of a line")
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
    for row in rows:
        hold(None not in row and None not in row.values(), "a row of the table is cut short")
        del row["seconds"]
    return rows


@fault("SIGKILL in an experiment's grid")
def kill_grid(ground):
    folder, good = ground.new_folder() / "grid", []

    def whole():
        rows = _rows(folder) if (folder / "results.csv").exists() else []
        hold(all(row in good for row in rows), "a row that an undisturbed run does not have")
        hold(len({json.dumps(row) for row in rows}) == len(rows), "a row is there twice")
        for path in folder.glob("rows/[!.]*.json"):
            json.loads(path.read_text())

    def finish(_):
        good[:] = good or _rows(folder)
        return _rows(folder)

    def between(_):
        shutil.rmtree(folder, ignore_errors=True)

    command = [run_grid, str(folder), str(ground.category)]
    return ground.killings("grid", command, between, whole, finish)


def _kill_folder(ground, stage, output, words, other):
    """For a command that writes a whole folder; `other` words write another content there."""
    ground.run(*other)
    old = listing(output)
    kept = Path(shutil.copytree(output, ground.new_folder() / "kept"))
    known, had = [old], [True]

    def between(number):
        shutil.rmtree(output, ignore_errors=True)
        had[:] = [number % 2 == 0]
        if had[0]:
            shutil.copytree(kept, output)

    def whole():
        aside = [p for p in leftovers(output.parent) if p.suffix == ".old"]
        if output.exists():
            hold(listing(output) in known, "half a folder")
        elif had[0]:  # between the two renames: the next run gives the old one its name again
            hold(any(listing(p) == old for p in aside), "the earlier folder is gone")

    def finish(_):
        hold(listing(output) != old, "the folder is still the earlier one")
        known.append(listing(output))
        return known[-1]

    return ground.killings(stage, words, between, whole, finish)


@fault("SIGKILL in new (a report), over an earlier one and over none")
def kill_new(ground):
    output = ground.new_folder() / "report"
    words = ["new", ground.category, "--output", output, *SMALL]
    return _kill_folder(ground, "new", output, words, [*words, "--pictures", "2"])


@fault("SIGKILL in predict --output, over an earlier folder and over none")
def kill_predict(ground):
    output = ground.new_folder() / "verdicts"
    words = ["predict", ground.bank, *ground.images * 4, "--output", output]
    return _kill_folder(ground, "predict", output, words, [*words[:6], *words[-2:]])


def make_model(category, ratio=0.1, repeat=1):
    """A fitted model; its bank may be made larger by repetition, to take a while to write."""
    from patchcore_helpers import PatchCore, load_category

    images = load_category(category).train
    model = PatchCore(image_size=64, coreset_ratio=ratio).fit(images)
    if repeat > 1:
        model.bank_.vectors_ = np.tile(model.bank_.vectors_, (repeat, 1))
        model.bank_.index_.fit(model.bank_.vectors_)
    return model


def save_banks(path, category, repeat=1, times=1):
    """Write two banks in turns over the same file; the second is the last."""
    models = [make_model(category, ratio, repeat) for ratio in (0.1, 0.2)]
    for _ in range(times):
        for model in models:
            model.save(path)


@fault("SIGKILL in model.save, over an existing bank")
def kill_save(ground):
    path, known = ground.new_folder() / "bank.safetensors", []
    for ratio in (0.1, 0.2):
        ground.run(save_one, str(path), str(ground.category), ratio, 100)
        known.append(zlib.crc32(path.read_bytes()))

    def whole():
        hold(zlib.crc32(path.read_bytes()) in known, "neither bank is whole")

    command = [save_banks, str(path), str(ground.category), 100, 40]
    count, text = ground.killings(
        "save", command, lambda _: None, whole, lambda _: zlib.crc32(path.read_bytes())
    )
    return count, f"{text}; {path.stat().st_size / 1e6:.0f} MB a bank"


def save_one(path, category, ratio=0.1, repeat=1):
    make_model(category, ratio, repeat).save(path)


def make_notebook(path):
    """A notebook of a few seconds that keeps the form of a lesson."""
    import nbformat

    cells = [
        'output_dir: str = ""  # where to write\nn: int = 6  # a number',
        "import time\nfrom patchcore_helpers.lesson import Lesson\n"
        "lesson = Lesson('small', output_dir)",
        "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\n"
        "axes.plot(range(n))\nlesson.figure(figure, 'line', alt='a rising line')",
        "lesson.record(n=n)\nlesson.finish()",
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "P"}
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    return path


def _run_is_whole(folder):
    """What a run left has all files of its summary; returns its results."""
    summary = json.loads((folder / "summary.json").read_text())
    sizes = {name: (folder / name).stat().st_size for name in summary["files"]}
    hold(sizes == summary["files"] and summary["status"] == "passed", "a run that is not whole")
    results = summary["results"]
    return {key: results[key] for key in results if key == "n"}, sorted(sizes)


@fault("SIGKILL in run (runner, papermill and kernel)")
def kill_run(ground):
    output = ground.new_folder() / "out"
    notebook = make_notebook(ground.new_folder() / "small.ipynb")

    def whole():
        for folder in output.glob("[!.]*"):
            if folder.is_dir():
                _run_is_whole(folder)

    def between(_):
        shutil.rmtree(output, ignore_errors=True)

    words = ["run", notebook, "--output", output]
    finish = lambda _: _run_is_whole(output / "small")  # noqa: E731
    count, text = ground.killings("run", words, between, whole, finish)
    return count, f"{text}; workers and kernels ended by themselves each time"


# Two at once


def _pairs(ground, times, words, look, statuses=(0,)):
    """Start the same command twice, the second a random moment later."""
    seen = {}
    for _ in range(times):
        pair = [ground.start(*words)]
        time.sleep(ground.random.uniform(0, 0.3))
        pair.append(ground.start(*words))
        ends = [process.end() for process in pair]
        for ended in ends:
            is_clean(ended, statuses, words[0])
        both = tuple(sorted(ended.status for ended in ends))
        hold(both[0] == 0, f"neither of two came through: {ends[0]}")
        seen[both] = seen.get(both, 0) + 1
        look(ends)
    hold(not leftovers(ground.folder), "temporary files stay")
    return times, ", ".join(
        f"{n} times {'both ended well' if both == (0, 0) else 'the second was refused in one line'}"
        for both, n in seen.items()
    )


@fault("two at once: evaluate with one cache")
def two_caches(ground):
    expected = _results(ground.run("evaluate", ground.category, "--json", "--no-cache", *SMALL))

    def look(ends):
        hold(all(_results(ended) == expected for ended in ends), "other scores")
        shutil.rmtree(ground.folder / "cache/features")

    words = ["evaluate", ground.category, "--json", *SMALL]
    return _pairs(ground, 4, words, look)


@fault("two at once: one grid's folder")
def two_grids(ground):
    folder = ground.new_folder() / "grid"
    ground.run(run_grid, str(folder), str(ground.category))
    expected = _rows(folder)
    shutil.rmtree(folder)

    def look(_):
        hold(_rows(folder) == expected, "another table")
        shutil.rmtree(folder)

    return _pairs(ground, 3, [run_grid, str(folder), str(ground.category)], look)


@fault("two at once: one report's folder")
def two_reports(ground):
    output = ground.new_folder() / "report"
    words = ["new", ground.category, "--output", output, *SMALL]
    ground.run(*words)
    expected = listing(output)

    def look(_):
        hold(listing(output) == expected, "another report")

    return _pairs(ground, 4, words, look, (0, 2))


@fault("two at once: prepare, and run, into one folder")
def two_prepares(ground):
    root = make_mvtec(ground.new_folder() / "root", ("bottle",))
    data, output = ground.new_folder() / "data", ground.new_folder() / "out"
    words = ["prepare", "mvtec_ad", "--source", root, "--data-dir", data, "--categories", "bottle"]

    def look(_):
        hold(listing(data / "mvtec_ad") == listing(root), "other files")
        shutil.rmtree(data)

    times, text = _pairs(ground, 3, words, look, (0, 2))
    notebook = make_notebook(ground.new_folder() / "small.ipynb")
    pair = [ground.start("run", notebook, "--output", output) for _ in range(2)]
    ends = [process.end() for process in pair]
    hold(sorted(e.status for e in ends) == [0, 2], f"two runs: {ends[0]} {ends[1]}")
    _run_is_whole(output / "small")
    return times + 1, f"prepare: {text}; run: one went through, one was refused in one line"


# What cannot be written


@contextmanager
def mounted(folder, options):
    """A small file system of its own, where this process may mount one."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
        reason = done.stderr.strip()
    except OSError as error:
        reason = str(error)
    if not os.path.ismount(folder):
        raise Unable(f"no file system could be mounted here ({reason})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def writers(ground, place):
    """Every command that writes, into this folder: name, words, the statuses it may end with."""
    archive = ground.folder / "data/mvtec_ad"
    notebook = ground.folder / "small.ipynb"
    if not notebook.exists():
        make_notebook(notebook)
    prepare = ["prepare", "mvtec_ad", "--source", archive, "--data-dir", place / "data"]
    return {
        "new": ["new", ground.category, "--output", place / "report", *SMALL],
        "predict": ["predict", ground.bank, *ground.images, "--output", place / "verdicts"],
        "prepare": [*prepare, "--categories", "bottle,cable"],
        "save": [save_or_say, str(place / "bank.safetensors"), str(ground.category)],
        "grid": [grid_or_say, str(place / "grid"), str(ground.category)],
        "run": ["run", notebook, "--output", place / "out"],
    }


def save_or_say(path, category):
    """`model.save` as a command would call it."""
    _or_say(save_one, path, category)


def grid_or_say(folder, category):
    _or_say(run_grid, folder, category)


def _or_say(function, *arguments):
    from patchcore_helpers import InputError

    try:
        function(*arguments)
    except InputError as error:
        print(f"patchcore-course: error: {error}", file=sys.stderr)
        sys.exit(2)


def _refused(ground, place, statuses=(2,), names=None, **more):
    """Every writing command into a place that takes nothing, or not enough."""
    texts, count = {}, 0
    for name, words in writers(ground, place).items():
        if names and name not in names:
            continue
        ended = ground.start(*words, **more).end()
        count += 1
        if name == "run" and ended.status == 1:  # the notebook failed, and the runner says why
            hold("Traceback" not in ended.out + ended.err, f"run: traceback; {ended}")
        else:
            is_clean(ended, statuses, name, noise=name == "run")  # which says what it starts
        texts.setdefault(ended.status, []).append(name)
    said = "; ".join(f"status {s}: {', '.join(dict.fromkeys(n))}" for s, n in texts.items())
    return count, said


@contextmanager
def read_only(ground):
    """A folder that takes nothing: mounted so for root, whom permissions do not bind."""
    place = ground.new_folder()
    if os.geteuid() == 0:
        with mounted(place, "ro"):
            yield place, "a file system mounted read-only"
    else:
        place.chmod(0o555)
        try:
            yield place, "a folder of mode 555"
        finally:
            place.chmod(0o755)


@fault("read-only folders for every output")
def no_permission(ground):
    with read_only(ground) as (place, how):
        count, said = _refused(ground, place)
        hold(listing(place) == {}, "something was written")
    return count, f"{how}: {said}, one line each"


@fault("a file where a folder should be")
def file_in_the_way(ground):
    (ground.folder / "file").write_text("mine")
    count, said = _refused(ground, ground.folder / "file")
    hold((ground.folder / "file").read_text() == "mine", "the user's file was changed")
    return count, f"{said}, one line each; the file stayed as it was"


@fault("a read-only cache")
def no_cache(ground):
    words = ["evaluate", ground.category, "--json", *SMALL]
    expected = _results(ground.run(*words, "--no-cache"))
    with read_only(ground) as (place, how):
        for environment in ({"PATCHCORE_CACHE": str(place)},):
            ended = is_clean(ground.start(*words, environment=environment).end(), (2,), "evaluate")
            hold("set PATCHCORE_CACHE" in ended.err, f"no mend: {ended}")
    cache = ground.new_folder()
    (cache / "features").mkdir()
    with read_only_mount(cache / "features"):
        ended = ground.start(*words, environment={"PATCHCORE_CACHE": str(cache)}).end()
        is_clean(ended, (0,), "evaluate")
        hold(_results(ended) == expected and ended.err.count("\n") == 1, f"not a warning: {ended}")
    return 2, f"{how}: no folder can be made: status 2; one that is there: a warning, same scores"


@contextmanager
def read_only_mount(folder):
    if os.geteuid() == 0:
        with mounted(folder, "ro"):
            yield
    else:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)


@fault("a write that fails half-way (EFBIG, by a limit on the size of files)")
def too_big(ground):
    count, saids = 0, []
    for limit in (0, 2000, 9000, 30_000):
        place = ground.new_folder()
        tried, said = _refused(ground, place, (0, 2), file_limit=limit)
        count += tried
        saids.append(f"{limit} bytes: {said}")
        left = [p for p in leftovers(place) if ".running" not in p.name]
        hold(not left, f"left after {limit} bytes: {left}")
        for name in ("report", "verdicts"):
            hold(not (place / name).exists() or (place / name / ".patchcore-course").stat().st_size,
                 f"half a {name}")  # fmt: skip
    hold("status 2" in saids[0], "no limit was met")
    return count, "; ".join(saids)


@fault("a cache on a full disk, or with a limit on the size of files")
def cache_without_room(ground):
    words, count = ["evaluate", ground.category, "--json", *SMALL], 0
    expected = _results(ground.run(*words, "--no-cache"))

    def check(cache, **more):
        ended = ground.start(*words, environment={"PATCHCORE_CACHE": str(cache)}, **more).end()
        is_clean(ended, (0,), "evaluate")
        hold(_results(ended) == expected, "other scores")
        hold(ended.err.count("features are not kept") == 1, f"not one warning: {ended}")
        hold(not leftovers(cache), "half an entry")

    for limit in (0, 100, 5000, 20_000):
        check(ground.new_folder(), file_limit=limit)
        count += 1
    said = "a full disk could not be mounted here"
    with suppress(Unable), mounted(ground.new_folder(), "size=32k") as place:
        check(place)
        count, said = count + 1, "full disk too"
    return count, f"one warning, the same scores, no half entry ({said})"


@fault("a full disk for every output")
def full_disk(ground):
    count, saids = 0, []
    for size in (16, 64, 200):
        with mounted(ground.new_folder(), f"size={size}k") as place:
            for name in writers(ground, place):
                for old in place.iterdir():
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
                tried, said = _refused(ground, place, (0, 2), [name])
                count += tried
                saids.append(f"{size} kB, {said}")
                left = [p for p in leftovers(place) if ".running" not in p.name]
                hold(not left, f"left: {left}")
    hold(any("status 2" in said for said in saids), "the disk was never full")
    refused = sum("status 2" in said for said in saids)
    failed = sum("status 1" in said for said in saids)
    return count, (
        f"on file systems of 16, 64 and 200 kB: {refused} refused in one line, {failed} runs "
        f"failed with a reason, {count - refused - failed} fitted"
    )


@fault("standard output on a full disk (/dev/full)")
def full_output(ground):
    commands = [["list"], ["cache", "info"], ["predict", ground.bank, ground.images[0]]]
    commands += [["evaluate", ground.category, *SMALL], ["new", ground.category, *SMALL]]
    for words in commands:
        place = ground.new_folder()
        is_clean(ground.start(*words, folder=place, full_output=True).end(), (2,), words[0], True)
    return len(commands), "status 2 and one line each"


# Corrupt files


def damage(content, random):
    """A corrupt version of a file's content: cut, flipped, emptied, or of another array."""
    kind = random.integers(6)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        return b""
    if kind == 2:
        other = io.BytesIO()
        np.save(other, random.normal(size=random.integers(1, 9, 4)).astype(np.float32))
        return other.getvalue()
    if kind == 3:
        return random.bytes(len(content))
    changed = bytearray(content)
    for _ in range(random.integers(1, 4)):
        changed[random.integers(len(changed))] ^= 1 << random.integers(8)
    return bytes(changed)


def corrupt_entries(folder, category, count, seed):
    """Damage one file of a filled cache again and again; returns how often scores differed."""
    from patchcore_helpers import PatchCore, load_category

    category, random = load_category(category), np.random.default_rng(seed)

    def scores():
        model = PatchCore(image_size=64, coreset_ratio=0.1, cache=folder).fit(category.train[:4])
        return model.anomaly_scores(category.test[:4])

    right, wrong = scores(), 0
    for _ in range(count):
        path = random.choice(sorted(Path(folder).glob("[!.]*.npy")))
        path.write_bytes(damage(path.read_bytes(), random))
        wrong += not np.array_equal(scores(), right)
    return wrong


@fault("corrupt cache files: cut short, bits flipped, empty, another array, random bytes")
def corrupt_cache(ground):
    count = ground.tries(0.06)
    work = (corrupt_entries, str(ground.new_folder()), str(ground.category), count, ground.seed)
    ended = ground.run(*work)
    hold(ended.value == 0, f"{ended.value} of {count} gave other scores")
    return count, "found out and computed anew: the same scores each time"


# Fuzzed images


def valid_images(random):
    """Small valid files of every format that is read: (ending, content)."""
    gray = Image.fromarray(random.integers(0, 256, (40, 30), dtype=np.uint8))
    color = Image.fromarray(picture("fuzz", 0, 48)[0])
    wide = Image.fromarray(random.integers(0, 65536, (30, 40), dtype=np.uint16))
    palette, alpha = color.quantize(20), color.convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    ways = [
        *[("png", i, {}) for i in (gray, color, wide, palette, alpha, gray.convert("1"))],
        ("png", alpha.convert("LA"), {"exif": exif}),
        ("jpg", color, {"quality": 90, "exif": exif}),
        ("jpg", color, {"progressive": True}),
        ("jpg", color.convert("CMYK"), {}),
        ("jpg", gray, {"restart_marker_blocks": 2}),
        *[("tif", color, {"compression": c}) for c in (None, "tiff_lzw", "tiff_deflate", "jpeg")],
        *[("tif", i, {}) for i in (wide, gray.convert("F"), gray.convert("I"), palette)],
        ("tif", gray.convert("1"), {"compression": "group4"}),
        ("tif", color, {"save_all": True, "append_images": [alpha.convert("RGB")]}),
        *[("bmp", i, {}) for i in (color, gray, palette, gray.convert("1"))],
        *[("webp", color, {"lossless": lossless, "exif": exif}) for lossless in (True, False)],
        ("webp", alpha, {"save_all": True, "append_images": [alpha.rotate(90)]}),
        ("gif", palette, {}),
        ("gif", palette, {"save_all": True, "append_images": [palette.rotate(90)]}),
    ]
    found = []
    for ending, image, options in ways:
        content = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
        image.save(content, kind, **{k: v for k, v in options.items() if v is not None})
        found.append((ending, content.getvalue()))
    return found


def chunk(name, body):
    """A chunk of a PNG, with its check sum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb(random):
    """A small file that says it is, or unpacks to, something huge."""
    width, height = (int(x) for x in random.choice([2**16, 2**31 - 1, 13_000, 9_000, 9_000, 0], 2))
    kind = random.integers(5)
    if kind == 0:
        body = zlib.compress(bytes(50_000_000), 1)
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return "png", b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    if kind == 1:
        text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 1)
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
        body = chunk(b"zTXt", text) + chunk(b"IDAT", zlib.compress(bytes(72)))
        return "png", b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")
    if kind == 2:
        head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width % 2**31,
                           height % 2**31, 1, 24, 0, 0, 0, 0, 0, 0)  # fmt: skip
        return "bmp", head + random.bytes(60)
    if kind == 3:
        screen = struct.pack("<HHBBB", width % 65536, height % 65536, 0x80, 0, 0) + bytes(6)
        frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"
        return "gif", b"GIF89a" + screen + frame
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 100)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return "tif", struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + bytes(200)


def edit_chunk(content, random):
    """Change a chunk or segment in its own terms: its length, its name, its body, its order."""
    changed = bytearray(content)
    if content[:4] == b"\x89PNG":
        places, place = [], 8
        while place + 12 <= len(content):
            places.append(place)
            place += 12 + int.from_bytes(content[place : place + 4], "big")
        place = int(random.choice(places))
        size = int.from_bytes(content[place : place + 4], "big")
        name, body = content[place + 4 : place + 8], bytearray(content[place + 8 :][:size])
        if body:
            body[random.integers(len(body))] = random.integers(256)
        extra = int(random.integers(3))
        return content[:place] + chunk(name, bytes(body)) * extra + content[place + 12 + size :]
    marks = [i for i in range(2, len(content) - 4) if content[i] == 0xFF and content[i + 1] > 0xBF]
    if content[:2] == b"\xff\xd8" and marks:
        place = int(random.choice(marks))
        changed[place + 2 : place + 4] = random.bytes(2)
        return bytes(changed)
    for _ in range(4):  # a number of two or four bytes, by an extreme value
        size = int(random.choice([2, 4]))
        place = int(random.integers(max(1, min(len(content), 400) - size)))
        value = int(random.choice([0, 1, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1]))
        changed[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(changed)


def fuzzed(valid, random):
    """One damaged image file: (ending, content, kind of damage)."""
    ending, content = valid[random.integers(len(valid))]
    kind = str(random.choice(["flip", "flip", "cut", "head", "chunk", "chunk", "mix", "bomb"]))
    changed = bytearray(content)
    if kind == "flip":
        for _ in range(random.integers(1, 50)):
            changed[random.integers(len(changed))] ^= 1 << random.integers(8)
    elif kind == "cut":
        changed = changed[: random.integers(len(changed))]
    elif kind == "head":
        for _ in range(random.integers(1, 8)):
            changed[random.integers(min(64, len(changed)))] = random.integers(256)
    elif kind == "chunk":
        changed = edit_chunk(content, random)
    elif kind == "mix":
        other = valid[random.integers(len(valid))][1] if random.random() < 0.7 else b""
        place = random.integers(len(content))
        changed = content[:place] + (other[place:] or random.bytes(random.integers(400)))
    else:
        ending, changed = bomb(random)
    return ending, bytes(changed), kind


def read_files(requests, answers):
    """In a worker: read each file asked for; say how it went, its processor time, its memory."""
    from patchcore_helpers.data.images import read_image
    from patchcore_helpers.errors import InputError

    warnings.simplefilter("ignore")
    before = _peak_mb()
    while path := requests.recv():
        start = time.process_time()
        try:
            image = read_image(path)
            array = np.asarray(image)
            right = image.mode == "RGB" and array.dtype == np.uint8 and array.shape[2:] == (3,)
            verdict = "read" if right else f"gave {image.mode} {array.shape}"
        except InputError as error:
            verdict = "refused"
            if not str(error).startswith(path) or "\n" in str(error):
                verdict = f"an error that is not a line with the file's name: {error}"
        except BaseException as error:
            verdict = f"raised {type(error).__name__}: {error}"
        answers.send((verdict, time.process_time() - start, _peak_mb() - before))


class Reader:
    """A worker that reads images, started anew after a crash or a hang."""

    def __init__(self, seconds=60):
        self.seconds, self.worker = seconds, None
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PACKAGE)

    def ask(self, path):
        if self.worker is None:
            requests, self.to = self.context.Pipe(duplex=False)
            self.answers, answer = self.context.Pipe(duplex=False)
            self.worker = self.context.Process(target=read_files, args=(requests, answer))
            self.worker.start()
            requests.close()
            answer.close()
        self.to.send(str(path))
        try:
            if self.answers.poll(self.seconds):
                return self.answers.recv()
            verdict = f"hung for {self.seconds} s"
        except EOFError:
            verdict = "crashed"
        self.close()
        return verdict, float(self.seconds), 0.0

    def close(self):
        if self.worker is not None:
            self.worker.kill()
            self.worker.join()
            self.worker = None


@fault("fuzzed image files through the reader (PNG, JPEG, TIFF, BMP, WebP, GIF; bombs)")
def fuzz_images(ground):
    random, valid = ground.random, valid_images(ground.random)
    folder, reader = ground.folder / "fuzzed", Reader()
    folder.mkdir()
    seen, slowest, peak, bad = {}, 0.0, 0.0, []
    try:
        for number, (ending, content) in enumerate(valid):
            (folder / f"valid.{ending}").write_bytes(content)
            verdict, *_ = reader.ask(folder / f"valid.{ending}")
            hold(verdict in ("read", "refused"), f"valid file {number}: {verdict}")
            (folder / f"valid.{ending}").unlink()
        for number in range(ground.files):
            ending, content, kind = fuzzed(valid, random)
            path = folder / f"{number:05}_{kind}.{ending}"
            path.write_bytes(content)
            verdict, seconds, grown = reader.ask(path)
            seen[verdict.split(" ")[0]] = seen.get(verdict.split(" ")[0], 0) + 1
            slowest, peak = max(slowest, seconds), max(peak, grown)
            if verdict not in ("read", "refused") or seconds > 5:
                bad.append(f"{path.name} {verdict} in {seconds:.1f} s")
    finally:
        reader.close()
    hold(not bad, f"{len(bad)} files: {'; '.join(bad[:3])}")
    hold(peak < 1000, f"{peak:.0f} MB")
    read, refused = seen.get("read", 0), seen.get("refused", 0)
    hold(min(read, refused) > 0, "fuzz that only does one thing tests nothing")
    return ground.files, (
        f"{read} read as RGB, {refused} refused by a line with their name; no crash, no hang; the "
        f"slowest took {slowest:.1f} s, memory grew by {peak:.0f} MB at most"
    )


def _fuzzed_sample(ground, count):
    folder, random = ground.new_folder(), ground.random
    valid = valid_images(random)
    for number in range(count):
        ending, content, kind = fuzzed(valid, random)
        (folder / f"{number:05}_{kind}.{ending}").write_bytes(content)
    return sorted(folder.iterdir())


@fault("fuzzed images through predict, among good ones")
def fuzz_predict(ground):
    files = _fuzzed_sample(ground, ground.tries(0.1))
    alone = ground.run("predict", ground.bank, *ground.images).out.splitlines()
    mixed = [path for pair in zip(files, ground.images * len(files)) for path in pair]  # noqa: B905
    output = ground.new_folder() / "out"
    ended = ground.start("predict", ground.bank, *mixed, "--output", output).end()
    is_clean(ended, (1,), "predict")
    lines = ended.out.splitlines()
    hold(set(lines) >= set(alone[: len(files)]), "a good image has no verdict, or another one")
    refused = ended.err.count("patchcore-course: ") - 1
    hold(len(lines) + refused == len(mixed), f"{len(mixed)} images, {len(lines)} + {refused} lines")
    hold(len(listing(output / "heatmaps")) == len(lines), "heat maps are missing")
    return len(
        files
    ), f"{refused} refused by a line each, status 1; every good image judged as alone"


@fault("fuzzed images through new, one among good ones")
def fuzz_new(ground):
    counts = {0: 0, 2: 0}
    files = _fuzzed_sample(ground, ground.tries(0.015))
    for path in files:
        folder = Path(shutil.copytree(ground.category, ground.new_folder() / "mine"))
        name = f"a{path.suffix if path.suffix in ('.png', '.jpg', '.bmp', '.tif') else '.png'}"
        shutil.copy(path, folder / "test/good" / name)
        output = folder.parent / "report"
        ended = ground.start("new", folder, "--output", output, *SMALL).end()
        is_clean(ended, (0, 2), "new", noise=True)
        hold(ended.status == 0 or name in ended.err, f"the line does not name the file: {ended}")
        hold((ended.status == 0) == output.exists(), "a report after an error, or none")
        counts[ended.status] += 1
    return len(files), f"{counts[2]} refused by one line with the file's name, {counts[0]} reports"


def predict_many(banks, image):
    """Judge an image by many banks in one process: (status, output, errors) of each."""
    from patchcore_helpers.app import cli

    found = []
    for bank in banks:
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        try:
            status = cli.main(["predict", bank, image])
        except BaseException as error:
            status = f"{type(error).__name__}: {error}"
        texts = []
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        found.append((status, *texts))
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    return found


def damaged_bank(content, random):
    """A bank file that was cut, flipped, lengthened, or whose header says something else."""
    size = int.from_bytes(content[:8], "little")
    kind = random.integers(6)
    changed = bytearray(content)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        return content + random.bytes(random.integers(1, 100))
    if kind == 2:
        changed[: random.integers(1, 9)] = random.bytes(8)[: random.integers(1, 9)]
    elif kind == 3:  # a number or a word of the header
        for _ in range(random.integers(1, 4)):
            changed[8 + random.integers(size)] = random.choice(list(b'0123456789"{}[]:,-eaN\\'))
    elif kind == 4:
        start = 8 + random.integers(size)
        changed[start : start + random.integers(1, 30)] = b""
    else:
        for _ in range(random.integers(1, 5)):
            changed[random.integers(len(changed))] ^= 1 << random.integers(8)
    return bytes(changed)


@fault("fuzzed bank files through predict")
def fuzz_banks(ground):
    folder, random = ground.new_folder(), ground.random
    content, count = ground.bank.read_bytes(), ground.tries(0.3)
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for path in paths:
        path.write_bytes(damaged_bank(content, random))
    image = str(ground.images[0])
    ((_, right, _),) = ground.run(predict_many, [str(ground.bank)], image).value
    ended = ground.run(predict_many, [str(path) for path in paths], image)
    hold(len(ended.value) == count, "some were not tried")
    rows_from, refused, same = 8 + int.from_bytes(content[:8], "little"), 0, 0
    for path, (status, out, err) in zip(paths, ended.value, strict=True):
        is_clean(Ended(status, out, err, 0), (0, 2), path.name)
        hold(status == 0 or path.name in err, f"the line does not name the file: {err}")
        refused, same = refused + (status == 2), same + (out == right)
        damaged = path.read_bytes()[rows_from:] != content[rows_from:]
        hold(status == 2 or not damaged, f"{path.name}: rows were changed, and believed")
    hold(refused > 0, "fuzz that changes nothing")
    return count, (
        f"{refused} refused by one line, {same} used with the same score, {count - refused - same} "
        "used with another setting in the header (rows have a check sum, settings have bounds)"
    )


# Odd names, many files, large files, odd images, bad words


NAMES = ["a b", "new\nline", "tab\there", "smile 🙂", "ümläut", os.fsdecode(b"latin-\xe9"), "'q\"",
         "%s {0} $HOME `x`", "<b>&amp;", "x" * 120, "a::b", "semi;colon,comma"]  # fmt: skip


@fault("odd names: spaces, newlines, quotes, emoji, bytes in no encoding, a leading dash")
def odd_names(ground):
    count = 0
    for name in [*NAMES, "-dash"]:
        place = ground.new_folder()
        folder = Path(shutil.copytree(ground.category, place / name))
        for image in list(folder.glob("test/square/*.png")):
            image.rename(image.with_name(f"{name} {image.name}"))
        shutil.rmtree(folder / "ground_truth")
        given = f"./{name}"
        for words in (
            ["new", given, "--output", f"./{name} out", *SMALL],
            ["predict", f"./{name} out/bank.safetensors", given, "--output", f"./{name} two"],
            ["predict", f"./{name} out/bank.safetensors", given, "--json"],
            ["evaluate", given, *SMALL],
            ["evaluate", given, "--json", *SMALL],
            ["evaluate", "mvtec/" + name, "--data-dir", "."],  # not there: one line
        ):
            ended = ground.start(*words, folder=place).end()
            is_clean(ended, (2,) if words[1].startswith("mvtec") else (0,), f"{words[0]} {name!r}")
            if words[0] == "predict":
                hold(ended.out.count("\n") == 24, f"not a line an image: {ended}")
            count += 1
        rows = (place / f"{name} two/scores.csv").read_text(errors="surrogateescape")
        found = {row["path"] for row in csv.DictReader(io.StringIO(rows, newline=""))}
        hold(all((place / path).is_file() for path in found), "a path of scores.csv leads nowhere")
    words = ["new", "-dash"], ["predict", "-dash"], ["evaluate", "-dash"]
    for each in words:
        is_clean(ground.start(*each, folder=place).end(), (2,), "a leading dash")
    is_clean(ground.start("evaluate", *SMALL, "--", "-dash", folder=place).end(), (0,), "--")
    return count + len(words) + 1, "all done as with plain names; a bare leading dash is refused"


@fault("a terminal that knows only ASCII")
def ascii_only(ground):
    place = ground.new_folder()
    shutil.copy(ground.images[0], place / "smile 🙂 ümläut.png")
    environment = os.environ | ground.environment | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    environment |= {"PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
    for words, status in ((["predict", ground.bank, place], 0), (["evaluate", "🙂"], 2)):
        words = [sys.executable, "-m", "patchcore_helpers.app.cli", *map(str, words)]
        done = subprocess.run(words, env=environment, capture_output=True, timeout=LIMIT, cwd=place)
        ended = Ended(done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii"), 0)
        is_clean(ended, (status,), words[3])
    return 2, "what ASCII cannot say is escaped"


@fault("thousands of tiny images through predict, in flat memory")
def many_images(ground):
    folder, most = ground.new_folder(), ground.tries(3)
    for number in range(most):
        Image.fromarray(picture("tiny", number % 50, 8)[0]).save(folder / f"{number:05}.png")
    few = ground.run("predict", ground.bank, *sorted(folder.iterdir())[: most // 10])
    many = ground.run("predict", ground.bank, folder)
    hold(many.out.count("\n") == most, "images without a verdict")
    more = many.grown_mb - few.grown_mb
    hold(more < 100, f"{most} images take {more:.0f} MB more than {most // 10}")
    return most, (
        f"a verdict each in {many.seconds:.0f} s; {more:.0f} MB more than for {most // 10} images"
    )


def write_large(path, mode, width, height):
    """A file of many pixels that is quickly made."""
    if mode == "I;16":
        image = Image.fromarray(np.full((height, width), 9, np.uint16))
    else:
        image = Image.new(mode, (width, height))
    options = {"compression": "tiff_lzw"} if path.suffix == ".tif" else {"compress_level": 1}
    image.save(path, **(options if path.suffix != ".jpg" else {}))


@fault("large images: 30,000 x 200, 89 million pixels in every mode, 12,000 x 12,000")
def large_images(ground):
    folder, said, peak = ground.new_folder(), [], 0.0
    sizes = [("RGB", ".png", 30_000, 200), ("L", ".png", 30_000, 200)]
    sizes += [(m, ".png", 9_450, 9_450) for m in ("L", "RGB", "RGBA", "P", "I;16", "1")]
    sizes += [("I", ".tif", 9_450, 9_450), ("CMYK", ".jpg", 9_450, 9_450)]
    sizes += [("L", ".png", 12_000, 12_000), ("1", ".png", 100_000, 100_000)]
    for mode, ending, width, height in sizes:
        path = folder / f"large{ending}"
        ground.run(write_large, path, mode, width, height)
        reader = Reader(120)
        verdict, seconds, grown = reader.ask(path)
        reader.close()
        right = "read" if width * height < 89_478_485 else "refused"
        hold(verdict == right, f"{mode} {width} x {height}: {verdict}")
        hold(grown < 1000 and seconds < 30, f"{mode} {width}: {grown:.0f} MB, {seconds:.0f} s")
        peak = max(peak, grown)
        said.append(verdict)
    wide = folder / "wide.png"
    ground.run(write_large, wide, "RGB", 30_000, 200)
    is_clean(ground.start("predict", ground.bank, wide).end(), (0,), "predict")
    return len(sizes) + 1, (
        f"{said.count('read')} read, {said.count('refused')} refused (limit 89 million pixels); "
        f"memory grew by {peak:.0f} MB at most"
    )


def odd_images(folder):
    """Images that are unusual and valid, or not: name, and whether they are read."""
    folder.mkdir(exist_ok=True)
    gray = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    color = Image.fromarray(picture("odd", 0, 48)[0])
    known = {}

    def put(name, image, read=True, **options):
        image.save(folder / name, **options)
        known[name] = read

    for name, value in (("nan", np.nan), ("inf", np.inf), ("float", 0.5)):
        put(f"{name}.tif", Image.fromarray(np.full((20, 20), value, np.float32)), read=False)
    put("16_bit.png", Image.fromarray(gray.astype(np.uint16) * 257))
    put("16_bit.tif", Image.fromarray(gray.astype(np.uint16) * 257))
    put("32_bit.tif", Image.fromarray(gray.astype(np.int32)))
    put("beyond.tif", Image.fromarray(gray.astype(np.int32) + 70_000), read=False)
    put("negative.tif", Image.fromarray(-1 - gray.astype(np.int32)), read=False)
    put("one_pixel.png", Image.new("RGB", (1, 1), "red"))
    put("one_row.png", Image.new("RGB", (500, 1)))
    put("cmyk.jpg", color.convert("CMYK"))
    put("palette.png", color.quantize(9), transparency=b"\x00\x80" * 4)
    put("alpha.png", color.convert("RGBA"))
    put("one_bit.png", color.convert("1"))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        put(f"turned_{turn}.jpg", color, exif=exif)
    put("pages.tif", color, save_all=True, append_images=[color] * 3)
    put("moves.gif", color, save_all=True, append_images=[color.rotate(90)])
    put("moves.webp", color, save_all=True, append_images=[color.rotate(90)])
    for name, content in (("empty.png", b""), ("text.png", b"<html>"), ("zeros.jpg", bytes(99))):
        (folder / name).write_bytes(content)
        known[name] = False
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    known["loop.png"] = False
    return known


@fault("odd images: NaN, 16 and 32 bit, one pixel, CMYK, palette, EXIF turns, animations, none")
def unusual(ground):
    folder = ground.new_folder() / "odd"
    known = odd_images(folder)
    ended = ground.start("predict", ground.bank, *(folder / name for name in known)).end()
    is_clean(ended, (1,), "predict")
    judged = {Path(line.split("\t")[2]).name for line in ended.out.splitlines()}
    expected = {name for name, read in known.items() if read}
    hold(judged == expected, f"other images were judged: {sorted(judged ^ expected)}")
    os.mkfifo(folder / "pipe.png")
    whole = ground.start("predict", ground.bank, folder).end(60)
    is_clean(whole, (1,), "predict")
    return len(known) + 1, (
        f"{len(expected)} judged, {len(known) - len(expected)} refused by a line each; a pipe, a "
        "folder and a link to itself among a folder's images do not stop it"
    )


@fault("a PostScript file called .png, which would start another program")
def postscript(ground):
    place = ground.new_folder()
    (place / "gs").write_text("#!/bin/sh\ntouch started\nexit 1\n")
    (place / "gs").chmod(0o755)
    color = Image.fromarray(picture("odd", 0, 48)[0])
    color.save(place / "a.eps")
    (place / "a.eps").rename(place / "a.png")
    path = f"{place}:{os.environ['PATH']}"
    ended = ground.start(
        "predict", ground.bank, "a.png", folder=place, environment={"PATH": path}
    ).end()
    is_clean(ended, (1,), "predict")
    hold(not (place / "started").exists(), "the program was started")
    return 1, "refused by a line; the program was not started"


def bad_words(ground):
    """Bad arguments of every command."""
    category, bank, image = ground.category, ground.bank, ground.images[0]
    evaluate, new = ["evaluate", category], ["new", category, "--output", "out"]
    number = ["--image-size", "64"]
    for words in (evaluate, new):
        for name, values in {
            "--backbone": ["none", "../x", "", "a b"],
            "--layers": ["9,10", "x", "", "-1,2", "2,2"],
            "--weights": ["nowhere.pth", str(image), "/"],
            "--image-size": ["0", "-5", "x", "64x", "10000", "64x64x64", "9" * 30],
            "--aggregation": ["sum", ""],
            "--coreset-ratio": ["0", "-1", "1.1", "nan", "inf", "x", "1e400"],
            "--sampler": ["greedy"],
            "--n-neighbors": ["0", "-1", "1.5"],
            "--image-score": ["median"],
            "--metric": ["l1"],
            "--precision": ["int8"],
            "--seed": ["-1", "x", "1.5", "9" * 40],
            "--good": ["nothing"],
        }.items():
            yield from (
                [*words, *([] if name == "--image-size" else number), name, v] for v in values
            )
    yield from ([*new, *number, "--false-alarm-rate", value] for value in ("0", "1", "-1", "nan"))
    yield from ([*new, *number, "--pictures", value] for value in ("-1", "x"))
    yield ["new", category, "--output", category / "report"]
    yield from (["evaluate", name] for name in ("", "nowhere", "mvtec_ad/none", "elpv/none", "/"))
    yield from (["new", name] for name in ("", "nowhere", image))
    yield from (["predict", b, image] for b in ("nowhere", image, category, "", "/dev/null"))
    yield ["predict", bank, ground.new_folder()]
    yield ["predict", bank, image, "--weights", "nowhere"]
    yield ["predict", bank, category, "--output", category / "x"]
    yield ["predict", bank]
    run = ["run", "5", "--output", "out"]
    yield from ([*run, "-j", value] for value in ("0", "-1", "x", "nan"))
    yield from ([*run, "--timeout", value] for value in ("0", "-1", "inf"))
    yield from ([*run, "-p", *p] for p in (("x", "1"), ("n_seeds", "many"), ("output_dir", "y")))
    yield from ([*run, "-f", value] for value in ("nowhere", str(image), "/"))
    yield from (["run", name] for name in ("99", "none.ipynb", str(image), "/"))
    yield from ([*run, "--scheduler", address] for address in ("x", "tcp://127.0.0.1:9"))
    yield [*run, "--profile", "quick"]
    prepare = ["prepare", "mvtec_ad", "--source"]
    yield from (["prepare", "none", "--source", "x"], ["prepare", "visa"], [*prepare, "nowhere"])
    yield from ([*prepare, image], [*prepare, ground.new_folder()], [*prepare, "/dev/null"])
    yield from ([*prepare, category.parent, "--categories", c] for c in ("", "none", "bottle,,"))
    yield from (["fetch-weights"], ["fetch-weights", "none"], ["fetch-weights", ""])
    yield from (["cache"], ["cache", "shrink"], ["list", "all"], [], ["none"], ["--none"])


@fault("bad arguments of every command")
def bad_arguments(ground):
    table, place = list(bad_words(ground)), ground.new_folder()
    broken = []
    for words in table:
        try:
            is_clean(
                ground.start(*(words or ["--"]), folder=place).end(60),
                (2,),
                " ".join(map(str, words)),
            )
        except BrokenPromise as error:
            broken.append(str(error))
    hold(not broken, f"{len(broken)} of {len(table)}: " + " | ".join(broken))
    hold(not os.listdir(place), f"something was written: {os.listdir(place)}")
    return len(table), "status 2 and one line each, nothing written"


# The table


@dataclass
class Row:
    """A row of the table."""

    name: str
    count: int
    text: str
    holds: str  # yes, no, or skipped


def try_faults(ground, names=None, faults=None, say=lambda text: None):
    """Try faults one after the other.

    Parameters
    ----------
    ground : Ground
    names : iterable of str, optional
        Rows to try; all by default.
    faults : dict of str to callable, optional
    say : callable
        Called with a line after each.

    Returns
    -------
    list of Row
    """
    rows = []
    for name, function in (FAULTS if faults is None else faults).items():
        if names is not None and name not in names:
            continue
        start, count = time.monotonic(), 0
        if ground:  # a row does not depend on those before it
            ground.random = np.random.default_rng([ground.seed, zlib.crc32(name.encode())])
        try:
            (count, text), holds = function(ground), "yes"
        except Unable as reason:
            text, holds = str(reason), "skipped"
        except Exception as error:  # the harness' own errors are no pass, either
            text, holds = f"{type(error).__name__}: {error}", "no"
        rows.append(Row(name, count, " ".join(text.split()), holds))
        say(f"{holds:7} {time.monotonic() - start:6.1f} s  {name}: {count}, {rows[-1].text}")
    return rows


def to_markdown(rows, command):
    """The table as Markdown; the first line says how it was made."""
    lines = [
        f"Made by `{command}`: faults and bad input on purpose, and what became of each.",
        "",
        "| fault | tried | what happened | holds |",
        "|---|---|---|---|",
    ]
    for row in rows:
        text = row.text.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {row.name} | {row.count:,} | {text} | {row.holds} |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    """Try all faults and print the table; 1 if a row does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="over all stages")
    parser.add_argument("--files", type=int, default=1000, help="fuzzed images; others in step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose name holds a word")
    args = parser.parse_args(arguments)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # of what is killed
    start = time.monotonic()
    names = [n for n in FAULTS if not args.only or any(word in n for word in args.only)]
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults_", ignore_cleanup_errors=True) as folder:
        ground = Ground(folder, args.kills, args.files, args.seed)
        rows = try_faults(ground, names, say=lambda text: print(text, flush=True))
    command = f"tests/faults.py --kills {args.kills} --files {args.files} --seed {args.seed}"
    table = to_markdown(rows, command)
    print("\n" + table)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if args.markdown and not args.only:
        args.markdown.write_text(table, "utf-8")
    return int(any(row.holds == "no" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
