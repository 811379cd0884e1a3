"""Strict batch runs of notebooks: papermill, and a verdict that cannot go green by accident.

Papermill passes notebooks that ignored a misspelt parameter, left cells out, called `sys.exit`,
or caught their exception in a widget. Here each of these fails, with one line that names the
notebook, the cell and the mend. Each notebook runs in a worker process of its own::

    patchcore-course run  ->  worker (the function `work`)  ->  papermill  ->  kernel

The worker reports on its standard output, one JSON object a line. Its standard input is a pipe
that carries the job and stays open: when it closes, however the runner ended, the worker ends its
kernel and itself.
"""

import ast
import contextlib
import ctypes
import difflib
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

import psutil
import yaml
from tqdm import tqdm

from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write, package_hash, sha256
from patchcore_helpers.process import peak_rss_mb

PROFILES = ("fast", "default", "full")
NUMBERED = "[0-9][0-9]_*.ipynb"
PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}  # tags of its own cells
TYPES = {"bool": bool, "int": int, "str": str, "list": list, "dict": dict}
VERSIONED = ("torch", "torchvision", "timm", "faiss-cpu", "scikit-learn", "numpy", "papermill")
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
MADE_BY = "patchcore-course run"


# Notebooks


def notebooks_folder():
    """The course's `notebooks` folder: beside the package, else in the current folder."""
    beside = Path(__file__).resolve().parents[2] / "notebooks"
    return beside if any(beside.glob(NUMBERED)) else Path.cwd() / "notebooks"


def find_notebooks(names=()):
    """Paths of notebooks given as paths, bare names or numbers; of all numbered ones for none.

    Raises
    ------
    InputError
        For a notebook that does not exist, and for two notebooks of one name.
    """
    course = sorted(notebooks_folder().glob(NUMBERED))
    known = {key: p for p in course for key in (p.stem, p.name, p.stem[:2], p.stem[:2].lstrip("0"))}
    found = {}
    for name in names or course:
        path = Path(name) if Path(name).is_file() else known.get(str(name))
        if path is None or path.suffix != ".ipynb":
            known = ", ".join(p.stem for p in course)
            raise InputError(f"{name}: no such notebook; give an .ipynb file or one of: {known}")
        path = path.resolve()
        if found.setdefault(path.stem, path) != path:
            raise InputError(f"{path}: {found[path.stem]} has the same name; run them apart")
    if not found:
        raise InputError(f"{notebooks_folder()}: no numbered notebooks; run this in the course")
    return list(found.values())


def read_notebook(path):
    """Read a notebook as it stands in the file, sources joined; a `InputError` if it is none."""
    try:
        notebook = json.loads(Path(path).read_text("utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
            tags(cell)
        return notebook
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        line = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not a notebook ({line}); save it anew in JupyterLab") from None


def tags(cell):
    """The cell's tags."""
    return cell["metadata"].get("tags", [])


def label(number, cell):
    """Name a cell by its number in the file, counted from 1, its id and its first line."""
    line = next((line.strip() for line in cell["source"].splitlines() if line.strip()), "")
    line = line if len(line) <= 48 else line[:45] + "..."
    return f"cell {number} (id {cell.get('id', 'missing')}, `{line}`)"


# Parameters


def fits(value, annotation):
    """Whether a value has the type that an annotation declares; an int is a float, a bool no int.

    >>> fits([1, 2.5], ast.parse("list[float]", mode="eval").body)
    True
    >>> fits(True, ast.parse("int | None", mode="eval").body)
    False
    """
    match annotation:
        case None:
            return True
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="float"):
            return type(value) in (int, float)
        case ast.Name(id=name) if name in TYPES:
            return type(value) is TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return fits(value, left) or fits(value, right)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return type(value) is list and all(fits(each, item) for each in value)
    known = ", ".join(["float", *TYPES])
    raise TypeError(f"{ast.unparse(annotation)} cannot be checked; use {known}, list[], | None")


def declared_parameters(notebook):
    """Read the `parameters` cell.

    Papermill's own inspection reads line by line and skips `a: str = "x=y"` and
    `b: int | None = None`, so the cell is parsed as Python here.

    Returns
    -------
    parameters : dict of str to (annotation, default)
        The annotation is an `ast.expr`; where none is written, the default's type, or None.
    problems : list of str
    """
    for number, cell in enumerate(notebook["cells"], 1):
        if PAPERMILL & {*tags(cell)}:
            return {}, [f"{label(number, cell)}: left over from an earlier run; remove the cell"]
    cells = [(i, c) for i, c in enumerate(notebook["cells"], 1) if "parameters" in tags(c)]
    if len(cells) != 1:
        found = "no cell" if not cells else "more than one cell"
        return {}, [f"{found} is tagged `parameters`; tag the one cell that holds them"]
    parameters, problems, where = {}, [], label(*cells[0])
    try:
        statements = ast.parse(cells[0][1]["source"]).body
    except SyntaxError as error:
        return {}, [f"{where}: {error.msg}; write one `name: type = literal  # why` a line"]
    for statement in statements:
        try:
            match statement:
                case ast.AnnAssign(ast.Name(id=name), annotation, ast.expr() as value):
                    default = ast.literal_eval(value)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    default = ast.literal_eval(statement.value)
                    annotation = None if default is None else ast.Name(type(default).__name__)
                case _:
                    raise ValueError
            parameters[name] = (annotation, default)
            wrong = "" if fits(default, annotation) else "the value is not of its declared type"
        except ValueError:  # papermill would override the others, and leave this one as it was
            wrong = "not a name and a literal, so it would go stale; move it to the next cell"
        except TypeError as error:
            wrong = str(error)
        if wrong:
            problems.append(f"{where}: `{ast.unparse(statement)}`: {wrong}")
    return parameters, problems


class _Yaml(yaml.SafeLoader):
    """YAML 1.1 with `1e-3` as a number, which PyYAML reads as text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read_yaml(path):
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as a parameter file ({line})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a parameter file; write one `name: value` a line")
    return content


class Job:
    """One notebook of a batch: what it declares, what it is given, and how it went."""

    def __init__(self, path, profile):
        self.path, self.stem, self.profile = path, path.stem, profile
        self.notebook = read_notebook(path)
        self.declared, self.failures = declared_parameters(self.notebook)
        self.parameters, self.state, self.summary = {}, {}, None

    def set(self, name, value, source, is_typed):
        """Give a declared parameter its value; what was typed as text is read as YAML first."""
        annotation, candidates = self.declared[name][0], [value]
        if is_typed and value and name.endswith(("_dir", "_path")):
            candidates = [os.path.abspath(os.path.expanduser(value))]  # from the caller's folder
        elif is_typed:
            with contextlib.suppress(yaml.YAMLError):
                candidates.insert(0, yaml.load(value, _Yaml))
        fitting = [value for value in candidates if fits(value, annotation)]
        if not fitting:
            kind = ast.unparse(annotation)
            raise InputError(f"{source}: {candidates[0]!r} is no {kind}, as {self.stem} declares")
        is_float = isinstance(annotation, ast.Name) and annotation.id == "float"
        self.parameters[name] = float(fitting[0]) if is_float else fitting[0]

    def fingerprint(self):
        """Hashes of all that decides a run: notebook, parameters, package; and the profile."""
        code = [cell["source"] for cell in self.notebook["cells"] if cell["cell_type"] == "code"]
        return {
            "profile": self.profile,
            "notebook_sha256": sha256(self.path.read_bytes()),
            "code_sha256": sha256(*code),
            "parameters_sha256": sha256(json.dumps(self.parameters, sort_keys=True, default=str)),
            "package_sha256": package_hash(),
        }


def _assign(jobs, name, value, source, is_typed=False):
    """Give a parameter to the jobs that declare it, of which there must be one."""
    if name == "output_dir":
        raise InputError(f"{source}: the runner chooses output_dir; use --output DIR")
    takers = [job for job in jobs if name in job.declared]
    if not takers:
        known = sorted({known for job in jobs for known in job.declared})
        near = difflib.get_close_matches(str(name), known, 1)
        mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        where = ", ".join(job.stem for job in jobs)
        raise InputError(f"{source}: no parameter {name} in {where}; {mend}")
    for job in takers:
        job.set(name, value, source, is_typed)


def profile_file(path, profile):
    """The parameter file of a notebook under a profile, or None.

    `configs/<profile>/<notebook>.yaml` beside the notebook; for the profile `full` also
    `configs/expN_config.yaml` where the notebook's name contains `_expN_`.
    """
    candidates = [path.parent / "configs" / profile / f"{path.stem}.yaml"]
    experiment = re.search(r"_(exp\d+)_", path.stem)
    if profile == "full" and experiment:
        candidates.append(path.parent / "configs" / f"{experiment[1]}_config.yaml")
    return next((file for file in candidates if file.is_file()), None)


def plan(args):
    """Turn the command's arguments into jobs; every parameter is checked before anything runs."""
    jobs = [Job(path, args.profile) for path in find_notebooks(args.notebooks)]
    sound = [job for job in jobs if not job.failures]
    for job in sound:
        if file := profile_file(job.path, args.profile):
            for name, value in _read_yaml(file).items():
                _assign([job], name, value, file)
    given = [(n, v, file, False) for file in args.file for n, v in _read_yaml(file).items()]
    if args.scheduler:
        given.append(("scheduler", args.scheduler, f"--scheduler {args.scheduler}", True))
    given += [(name, value, f"-p {name} {value}", True) for name, value in args.parameter]
    for job in sound if given else ():
        job.profile += ", changed"
    for each in given if sound else ():
        _assign(sound, *each)
    return jobs


# What is wrong with an executed notebook


def check_executed(notebook):
    """Find what papermill lets pass in a notebook that it executed.

    Returns
    -------
    list of str
        One line a failure: the cell, what is wrong, the mend. Empty for a good run.
    """
    errors, unexecuted, labels = [], [], {}
    for number, cell in enumerate((c for c in notebook["cells"] if not PAPERMILL & {*tags(c)}), 1):
        if cell["cell_type"] == "code":
            where = labels[str(cell["execution_count"])] = label(number, cell)
            errors += [f"{where}: {line}" for line, _ in _errors(cell["outputs"], tags(cell))]
            if cell["execution_count"] is None and cell["source"].strip():
                unexecuted.append(f"{where}: was not executed; remove what skips it, or the cell")
    for line, traceback in _errors(notebook["metadata"].get("widgets", {})):
        frame = re.search(r"In\[(\d+)\]", traceback)
        where = labels.get(frame[1] if frame else "", "some cell")
        errors.append(f"{where}: hidden in a widget: {line}")
    return errors or unexecuted


def _errors(node, cell_tags=()):
    """Errors anywhere below a piece of JSON, as (line, traceback)."""
    if isinstance(node, list):
        for item in node:
            yield from _errors(item, cell_tags)
    elif not isinstance(node, dict):
        return
    elif node.get("output_type") == "error":
        mend = "run the notebook in JupyterLab to look into it"
        if node["ename"] == "SystemExit":
            mend = "the cells below were left out; remove the exit"
        elif "raises-exception" in cell_tags:
            mend = "the tag `raises-exception` excuses nothing here; make the cell return"
        traceback = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(node["traceback"]))
        yield f"{node['ename']}: {node['evalue'].strip().partition(chr(10))[0]}; {mend}", traceback
    elif node.get("output_type") == "stream":
        text = "".join(node["text"]).rstrip()
        if node["name"] == "stderr" and "Traceback (most recent call last)" in text:
            last = text.splitlines()[-1]
            yield f"traceback on standard error ({last}); mend the thread or callback", text
    else:
        yield from _errors(list(node.values()), cell_tags)


# The worker: one notebook in one process


def work():
    """Execute the job on standard input; report on standard output."""
    job, begin = json.loads(sys.stdin.readline()), time.monotonic()
    channel, lock = os.dup(1), threading.Lock()  # not inherited by the kernel, unlike 1 itself
    os.dup2(2, 1)

    def report(**news):
        with lock:
            os.write(channel, (json.dumps(news) + "\n").encode())

    if sys.platform == "linux":  # PR_SET_CHILD_SUBREAPER: adopt the orphans of the kernel
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

    def measure(**_):
        """Report the memory of the kernel and all that it started, or the largest peak of one."""
        now, peak = 0, 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                now += process.memory_info().rss / 1e6
                peak = max(peak, peak_rss_mb(process.pid))
        report(peak_rss_mb=max(now, peak))

    def guard():
        """Watch the memory; end all when the runner is gone, or the time is up."""
        while not select.select([0], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):  # the runner may go just now
                measure()
                if (seconds := time.monotonic() - begin) > job["timeout"]:
                    report(late=True, seconds=seconds)
                    break
        _end_descendants()
        os._exit(1)

    threading.Thread(target=guard, daemon=True).start()

    # jsonschema would spend 1.5 s on a grammar of web addresses, if it found this module.
    sys.modules["rfc3987_syntax"] = None
    import nbformat
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbconvert import HTMLExporter

    class OwnKernel(AsyncKernelManager):
        """The kernel of this very interpreter, whatever kernels the user has installed."""

        def _kernel_spec_manager_default(self):
            return KernelSpecManager(kernel_dirs=[])

    notebook, where = nbformat.read(job["path"], as_version=4), "before the first cell"
    injected = next(i for i, cell in enumerate(notebook.cells) if "parameters" in tags(cell))

    def on_cell_start(cell, cell_index):
        nonlocal where
        where = label(cell_index + (cell_index <= injected or not job["parameters"]), cell)
        report(where=where, progress=f"{cell_index}/{len(notebook.cells)} cells")

    report(progress="starts")
    executed, failures, start = Path(job["work"], job["stem"] + ".ipynb"), [], time.monotonic()
    try:
        papermill.execute_notebook(
            notebook,
            str(executed).replace("{", "{{").replace("}", "}}"),
            job["parameters"],
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=Path(job["path"]).parent,
            kernel_manager_class=OwnKernel,
            on_cell_start=on_cell_start,
            on_cell_executed=measure,
        )
    except papermill.PapermillExecutionError:
        pass  # the executed notebook says more
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        failures = [f"{where}: {type(error).__name__}: {line}; run the cell in JupyterLab"]
    report(seconds=time.monotonic() - start)
    _end_descendants()
    try:
        page = nbformat.read(executed, as_version=4)
        failures = failures or check_executed(page)
        results = Path(job["work"], "results.json")
        if results.is_file():
            report(results=json.loads(results.read_text())["results"])
        elif "output_dir" in job["parameters"] and any("Lesson(" in c.source for c in page.cells):
            failures = failures or ["no results.json; end with a cell `lesson.finish()`"]
        if not failures:  # a page has no kernel: in place of widgets it shows their pictures
            for output in (o for cell in page.cells for o in cell.get("outputs", ())):
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            page.metadata.pop("widgets", None)
            body, _ = HTMLExporter().from_notebook_node(page, {"metadata": {"name": job["stem"]}})
            body = re.sub(r'href="((\d\d_\w+)\.ipynb)"', r'href="../\2/\2.html"', body)
            atomic_write(executed.with_suffix(".html"), body)
    except Exception as error:
        failures = failures or [f"{type(error).__name__}: {error}"]
    report(failures=failures)


def _end_descendants():
    """Kill all descendants of this process, and those that they start meanwhile."""
    for _ in range(10):
        with contextlib.suppress(psutil.Error):
            descendants = psutil.Process().children(recursive=True)
            alive = [d for d in descendants if d.status() != psutil.STATUS_ZOMBIE]
            for each in alive:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            if not alive:
                return
            psutil.wait_procs(alive, timeout=0.1)


# The batch


def cores():
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def versions():
    """Version of Python and of the libraries that decide the results; None where one is absent."""
    found = {"python": platform.python_version()} | dict.fromkeys(VERSIONED)
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def read_summary(folder):
    """The `summary.json` that a run left in a folder, or None."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
        return summary if summary["made_by"] == MADE_BY else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Batch:
    """Jobs on their way to one output folder."""

    def __init__(self, jobs, output, timeout, n_jobs):
        self.jobs, self.output, self.timeout = jobs, output, timeout
        self.n_jobs, self.workers, self.stopped, self.lock = n_jobs, {}, False, threading.Lock()

    @contextlib.contextmanager
    def claimed(self):
        """Make the output folder ready, and keep other runners out of it."""
        with translate_os_errors(self.output, "use --output DIR"):
            self.output.mkdir(parents=True, exist_ok=True)
            with open(self.output / ".lock", "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    line = f"{self.output}: another run writes there; use --output DIR"
                    raise InputError(line) from None
                for leftover in self.output.glob(".*.running"):  # of runners that were killed
                    shutil.rmtree(leftover)
                for job in self.jobs:
                    for folder in (self.output / job.stem, self.output / f"{job.stem}.failed"):
                        if folder.exists() and read_summary(folder) is None:
                            raise InputError(f"{folder}: not from a run; move it, or use --output")
                yield

    def kept(self, job):
        """Summary of an earlier run that passed with the same fingerprint and left its files."""
        folder = self.output / job.stem
        summary, expected = read_summary(folder), job.fingerprint() | {"status": "passed"}
        if job.failures or not summary or summary | expected != summary:
            return None
        files = {name: folder / name for name in summary["files"]}
        sizes = {name: file.stat().st_size for name, file in files.items() if file.is_file()}
        return summary if sizes == summary["files"] else None

    def run(self, job):
        """Run a job in a hidden folder, which takes its final name when all is written."""
        if self.stopped:
            return
        mark = job.fingerprint()
        work = self.output / f".{job.stem}.{os.getpid()}.running"
        work.mkdir()
        start = time.monotonic()
        tqdm.write(f"{job.stem}: started", sys.stderr)
        if not job.failures:
            job.failures = self.execute(job, work)
        if self.stopped:
            shutil.rmtree(work, ignore_errors=True)
            return
        status = "failed" if job.failures else "passed"
        target = self.output / (f"{job.stem}.failed" if job.failures else job.stem)
        shutil.rmtree(work / ".ipython", ignore_errors=True)
        for page in (work / f"{job.stem}.ipynb", work / f"{job.stem}.html"):
            if page.is_file():
                page.write_bytes(page.read_bytes().replace(bytes(work), bytes(target)))
        files = {str(f.relative_to(work)): f.stat().st_size for f in work.rglob("*") if f.is_file()}
        summary = {
            "made_by": MADE_BY,
            "notebook": job.stem,
            "status": status,
            "failures": job.failures,
            "seconds": round(job.state.get("seconds", time.monotonic() - start), 1),
            "peak_rss_mb": round(job.state.get("peak_rss_mb", 0)),
            "cores": self.threads,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": {n: default for n, (_, default) in job.declared.items()} | job.parameters,
            "results": job.state.get("results", {}),
            "versions": versions(),
            **mark,
            "files": files,
        }
        atomic_write(work / "summary.json", json.dumps(summary, indent=1) + "\n")
        with contextlib.suppress(FileNotFoundError):
            target.rename(work.with_suffix(".old.running"))
        work.rename(target)
        stale = [work.with_suffix(".old.running")]
        stale += [] if job.failures else [self.output / f"{job.stem}.failed"]
        for folder in stale:
            shutil.rmtree(folder, ignore_errors=True)
        lines = [f"{job.stem}: {status} in {summary['seconds']:.1f} s"]
        with self.lock:
            tqdm.write("\n".join(lines + [f"{job.stem}: {f}" for f in job.failures]), sys.stderr)
            job.summary = summary
            self.write()

    def execute(self, job, work):
        """Run a job's notebook in a worker process; returns the failures."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONSTARTUP"}
        environment["IPYTHONDIR"] = str(work / ".ipython")  # no start-up files of the user
        paths = [str(Path(__file__).resolve().parents[1]), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if self.n_jobs > 1:
            environment |= {f"{library}_NUM_THREADS": str(self.threads) for library in THREADS}
        own = {"output_dir": str(work)} if "output_dir" in job.declared else {}
        order = {"path": str(job.path), "stem": job.stem, "work": str(work)}
        order |= {"parameters": job.parameters | own, "timeout": self.timeout}
        log = work / "log.txt"
        with open(log, "wb") as stderr:
            worker = self.workers[job] = subprocess.Popen(
                [sys.executable, "-c", "from patchcore_helpers import runner; runner.work()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        with worker, contextlib.suppress(BrokenPipeError):
            worker.stdin.write((json.dumps(order) + "\n").encode())
            worker.stdin.flush()
            for line in worker.stdout:
                with contextlib.suppress(ValueError):  # a last line cut short by a kill
                    news, peak = json.loads(line), job.state.get("peak_rss_mb", 0)
                    job.state |= news | {"peak_rss_mb": max(news.get("peak_rss_mb", 0), peak)}
        where = job.state.get("where", "before the first cell")
        if "late" in job.state:
            mend = "make it shorter or raise --timeout SECONDS"
            return [f"{where}: time-out after {self.timeout:g} s; {mend}"]
        if "failures" not in job.state:
            words = log.read_text(errors="replace").split("\n")[-2:-1]
            mend = "free some memory and run it again"
            return [f"{where}: its process died ({worker.returncode}) {' '.join(words)}; {mend}"]
        if not job.state["failures"]:
            log.unlink()
        return job.state["failures"]

    def write(self):
        """Write the batch's own `summary.json`."""
        keys = ("status", "failures", "profile", "seconds", "peak_rss_mb", "results")
        done = {job.stem: job.summary for job in self.jobs if job.summary}
        done = {stem: {key: summary[key] for key in keys} for stem, summary in done.items()}
        text = json.dumps({"made_by": MADE_BY, "notebooks": done}, indent=1) + "\n"
        atomic_write(self.output / "summary.json", text)

    def follow(self, todo):
        """Run jobs in parallel, with a live line on a terminal."""
        self.n_jobs = max(1, min(self.n_jobs, len(todo)))
        self.threads = max(1, cores() // self.n_jobs)
        line = "{n_fmt}/{total_fmt} notebooks, {elapsed}{postfix}"
        with (
            tqdm(total=len(todo), bar_format=line, leave=False, disable=None) as bar,
            ThreadPoolExecutor(self.n_jobs) as pool,
        ):
            try:
                waiting = {pool.submit(self.run, job) for job in todo}
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2)
                    for future in done:
                        future.result()
                    live = [job for job in [*self.workers] if not job.summary]
                    progress = (f"{job.stem} {job.state.get('progress', '')}" for job in live)
                    bar.n = len(todo) - len(waiting)
                    bar.set_postfix_str(", ".join(progress))
            finally:  # after an error or Ctrl-C, else there is nothing left to end
                self.stopped = True
                for worker in self.workers.values():
                    worker.stdin.close()  # it ends its kernel and itself


def add_arguments(parser):
    """Add the arguments of `patchcore-course run`."""

    def positive(text):
        if not 0 < float(text) < float("inf"):
            raise ValueError
        return float(text) if "." in text else int(text)

    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="path, name or number; none: all")
    add("--profile", choices=PROFILES, default="default", help="set of parameter files")
    add("--output", type=Path, default=Path("output"), metavar="DIR", help="where results go")
    add("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    add("-f", dest="file", action="append", default=[], metavar="FILE", help="YAML parameters")
    add("-j", dest="jobs", type=positive, default=1, metavar="JOBS", help="how many at a time")
    add("--timeout", type=positive, default=1800, metavar="SECONDS", help="for each notebook")
    add("--scheduler", metavar="ADDRESS", help="Dask scheduler, for notebooks that can use one")
    add("--fresh", action="store_true", help="run again what an earlier batch has finished")


def command(args):
    """Run notebooks; returns 0 if all passed, 1 if one failed, 130 after Ctrl-C.

    Raises
    ------
    InputError
        For bad input, before anything runs.
    """
    jobs, output = plan(args), args.output.resolve()
    if args.scheduler:
        from patchcore_helpers.parallel import connect  # joblib takes a while

        connect(args.scheduler).close()
        if idle := [job.stem for job in jobs if "scheduler" not in job.declared]:
            print(f"--scheduler: not for {', '.join(idle)}, which run here", file=sys.stderr)
    batch = Batch(jobs, output, args.timeout, int(args.jobs))
    with batch.claimed():
        if not args.fresh:
            for job in jobs:
                job.summary = batch.kept(job)
        kept = [job for job in jobs if job.summary]
        for job in kept:
            print(f"{job.stem}: kept from the earlier run (--fresh runs it again)", file=sys.stderr)
        try:
            batch.follow([job for job in jobs if job not in kept])
        except KeyboardInterrupt:
            print("interrupted; the next run goes on from here", file=sys.stderr)
            return 130
        batch.write()
    width = max(len(job.stem) for job in jobs)
    print(f"{'notebook':<{width}}  seconds  peak MB  outcome")
    for job in jobs:
        verdict = "kept" if job in kept else job.summary["status"].replace("failed", "FAILED")
        numbers = f"{job.summary['seconds']:7.1f}  {job.summary['peak_rss_mb']:7d}"
        print(f"{job.stem:<{width}}  {numbers}  {verdict}")
    failed = [job for job in jobs if job.failures]
    print(f"Executed notebooks, pages, figures, tables: {output}/<notebook>/")
    for job in failed:
        print(f"As far as it came: {output / job.stem}.failed/")
    print(f"Summary: {output / 'summary.json'}", flush=True)
    return 1 if failed else 0
