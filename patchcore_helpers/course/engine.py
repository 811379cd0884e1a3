"""Executes one notebook in one kernel: papermill, with an engine over nbclient.

The engine adds what papermill does not offer: an environment for the kernel, a limit on the time of
the whole notebook, the peak memory of all its processes, and the promise that none of them is left.

Processes of a notebook are recognized by an environment variable, which everything that a kernel
starts inherits. This also finds processes that have left their session, process group and parent,
works on Linux and macOS, and works after the runner itself was killed.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets import default

from patchcore_helpers.course.executed import check_executed
from patchcore_helpers.course.notebook import label, tags
from patchcore_helpers.course.page import relocated, write_page
from patchcore_helpers.course.page_states import FOR_PAGES
from patchcore_helpers.errors import error_line
from patchcore_helpers.process import peak_rss_mb

MARK = "PATCHCORE_COURSE_RUN"  # environment variable: the work folder of a notebook's run
LOG = "log.txt"  # what the kernel wrote outside of cells
INTERVAL = 0.3  # seconds between two looks at a notebook's processes
SAVE_EVERY = 10  # seconds between two versions of a notebook that is running


def marked_processes(folder: Path) -> Iterator[psutil.Process]:
    """Living processes of the run whose work folder this is."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder):
                yield process


def end_processes(folder: Path) -> None:
    """Kill all processes of the run in a work folder, and those that they start meanwhile."""
    for _ in range(250):
        processes = list(marked_processes(folder))
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        sleep(0.02)  # until the killed ones are gone


class Watch:
    """Watches a notebook's processes: their memory and time, and that none outlives the block.

    Attributes
    ----------
    peak_rss_mb : float
        Largest memory so far: of all processes together at one moment, or the peak of one.
    is_late : bool
        Whether the time was up, so that the processes were killed.
    """

    def __init__(self, folder: Path, timeout: float, stop: threading.Event):
        self.folder = folder
        self.deadline = monotonic() + timeout
        self.stop = stop
        self.peak_rss_mb = 0.0
        self.is_late = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        end_processes(self.folder)

    def measure(self) -> None:
        """Take the memory into account that is in use now."""
        together = 0.0
        for process in marked_processes(self.folder):
            with contextlib.suppress(psutil.Error):
                together += process.memory_info().rss / 1e6
                self.peak_rss_mb = max(self.peak_rss_mb, peak_rss_mb(process.pid))
        self.peak_rss_mb = max(self.peak_rss_mb, together)

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self.measure()
            self.is_late = self.is_late or monotonic() > self.deadline
            if self.is_late or self.stop.is_set():
                end_processes(self.folder)  # papermill notices that the kernel is dead


@contextlib.contextmanager
def saved_now_and_then(nb_man: Any) -> Iterator[None]:
    """Save a notebook every few seconds while it runs, and not before and after every cell.

    Papermill writes the whole notebook each time, with all pictures so far, and the kernel waits:
    seconds for a notebook of a hundred cells. When the block is left, papermill saves it once more,
    whether it failed or not.
    """
    save = nb_man.save
    last = monotonic()

    def save_if_due(**changes: Any) -> None:
        nonlocal last
        if monotonic() - last >= SAVE_EVERY:
            save(**changes)
            last = monotonic()

    nb_man.save = save_if_due
    try:
        yield
    finally:
        nb_man.save = save


class NotebookRun:
    """The run of one notebook.

    Parameters
    ----------
    path : Path
        The notebook; its kernel works in the same folder.
    folder : Path
        An empty folder for all that the run writes.
    parameters : dict
    timeout : float
        Seconds that the notebook may take.
    environment : dict of str to str
        Variables of the kernel beside those of this process.
    stop : threading.Event
        Once it is set, the kernel is killed.

    Attributes
    ----------
    where : str
        The cell that is running, or has failed.
    progress : str
        For display, such as "3/20 cells".
    seconds, peak_rss_mb : float
    results : dict
        What the notebook recorded.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        parameters: Mapping[str, Any],
        timeout: float,
        environment: Mapping[str, str],
        stop: threading.Event,
    ):
        self.path = path
        self.folder = folder
        self.parameters = dict(parameters)
        self.timeout = timeout
        self.environment = dict(environment)
        self.where = "before the first cell"
        self.progress = "starts"
        self.seconds = 0.0
        self.results: dict[str, Any] = {}
        self._watch = Watch(folder, timeout, stop)
        self._n_cells = 0
        self._injected_at = sys.maxsize  # index of the cell that papermill inserts

    @property
    def peak_rss_mb(self) -> float:
        return self._watch.peak_rss_mb

    @property
    def executed(self) -> Path:
        """The executed notebook."""
        return self.folder / self.path.name

    def execute(self, final_folder: Path) -> list[str]:
        """Execute the notebook, check it, and write its page.

        Parameters
        ----------
        final_folder : Path
            Where the work folder will be if nothing failed; for the paths on the page.

        Returns
        -------
        list of str
            The failures, one line each.
        """
        start = monotonic()
        with self._watch:
            failures = self._run_papermill()
        self.seconds = monotonic() - start
        if self._watch.is_late:
            fix = "make it shorter or raise --timeout SECONDS"
            return [f"{self.where}: time-out after {self.timeout:g} s; {fix}"]
        try:
            notebook = nbformat.read(self.executed, as_version=4)
            failures = failures or check_executed(notebook) or self._check_results(notebook)
            if not failures:
                notebook = relocated(notebook, self.folder, final_folder)
                write_page(notebook, self.executed, final_folder)
        except Exception as error:
            failures = failures or [f"{type(error).__name__}: {error_line(error)}"]
        if not failures:
            (self.folder / LOG).unlink()
        return failures

    def relocate(self, final_folder: Path) -> None:
        """Name the final folder, in place of the work folder, in the executed notebook."""
        # On a full disk the executed notebook is cut short; it is kept as it is.
        with contextlib.suppress(FileNotFoundError, nbformat.reader.NotJSONError):
            notebook = nbformat.read(self.executed, as_version=4)
            nbformat.write(relocated(notebook, self.folder, final_folder), self.executed)
        shutil.rmtree(self.folder / ".ipython", ignore_errors=True)

    def _run_papermill(self) -> list[str]:
        notebook = nbformat.read(self.path, as_version=4)
        self._n_cells = len(notebook.cells)
        if self.parameters:
            tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
            self._injected_at = tagged[0] + 1
        try:
            papermill.execute_notebook(
                notebook,
                # papermill takes braces in this path for places to fill in
                str(self.executed).replace("{", "{{").replace("}", "}}"),
                self.parameters,
                engine_name=CourseEngine.NAME,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                run=self,
            )
        except papermill.PapermillExecutionError:
            pass  # the executed notebook says more
        except DeadKernelError as error:
            fix = "free some memory and run it again, or run the cell in JupyterLab"
            return [f"{self.where}: {type(error).__name__}: its kernel died; {fix}"]
        except Exception as error:
            line = str(error).strip().partition("\n")[0]
            return [f"{self.where}: {type(error).__name__}: {line}; run the cell in JupyterLab"]
        return []

    def execute_with(self, nb_man: Any, kernel_name: str) -> None:
        """Execute a notebook, prepared by papermill, in a new kernel."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONSTARTUP"}
        paths = [str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH")]
        environment |= self.environment | {
            MARK: str(self.folder),
            FOR_PAGES: "1",  # interactive figures leave behind what the page needs
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),  # this very package
            "IPYTHONDIR": str(self.folder / ".ipython"),  # no start-up files of the user
        }
        client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            kernel_manager_class=OwnKernelManager,
            on_cell_start=self._on_cell_start,
            on_cell_executed=lambda **_: self._watch.measure(),
        )
        with open(self.folder / LOG, "wb") as log, saved_now_and_then(nb_man):
            client.execute(env=environment, cwd=str(self.path.parent), stdout=log, stderr=log)

    def _on_cell_start(self, cell: Any, cell_index: int) -> None:
        number = cell_index if cell_index >= self._injected_at else cell_index + 1
        self.where = label(number, cell)
        self.progress = f"{cell_index}/{self._n_cells} cells"

    def _check_results(self, notebook: nbformat.NotebookNode) -> list[str]:
        """Read what the notebook recorded; a lesson that may write has to write it."""
        file = self.folder / "results.json"
        if file.is_file():
            self.results = json.loads(file.read_text("utf-8"))["results"]
        elif "output_dir" in self.parameters and any("Lesson(" in c.source for c in notebook.cells):
            return ["no results.json; end with a cell `lesson.finish()`"]
        return []


class CourseEngine(NBClientEngine):
    """Papermill's engine over nbclient, with the kernel that a `NotebookRun` asks for."""

    NAME = "patchcore-course"

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, run: NotebookRun, **_: object
    ) -> None:
        run.execute_with(nb_man, kernel_name)


class OwnKernelManager(AsyncKernelManager):
    """Starts the kernel of this very interpreter, whatever kernels the user has installed."""

    @default("kernel_spec_manager")
    def _only_native_kernel(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


papermill_engines.register(CourseEngine.NAME, CourseEngine)
# It warns of parameters whose declaration it cannot read (`n: int | None`); ours are checked.
logging.getLogger("papermill").setLevel(logging.ERROR)
