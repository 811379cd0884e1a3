"""The runner refuses what plain papermill lets pass, and loses nothing that was finished."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stdout

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from helpers.lifeline import Lifeline
from helpers.notebooks import ENDLESS, PARAMETERS, parse, run, write_notebook
from jupyter_client.kernelspec import KernelSpecManager

from patchcore_helpers.course import batch as batch_module
from patchcore_helpers.course import engine, jobs
from patchcore_helpers.errors import InputError

OUTPUT = ("parameters", 'output_dir: str = ""  # where to write\nn: int = 1  # a number')
LESSON = "from patchcore_helpers.course.lesson import Lesson\nlesson = Lesson('it', output_dir)"
THREAD = "import threading\nt = threading.Thread(target={}.pop, args=[5])\nt.start()\nt.join()"

# Notebooks that must fail, and the line that says why. Errors hidden in widgets are tested in
# test_executed.py, without a kernel: some runs with an `Output` widget hang.
BROKEN = {
    "undeclared": (["n = 1"], r"no cell is tagged `parameters`; tag"),
    "skipped": (
        [PARAMETERS, ("skip-execution", "n"), "n"],
        r"cell 2 \(id \w+, `n`\): was not executed; remove what skips it",
    ),
    "system_exit": (
        [PARAMETERS, "import sys\nsys.exit(0)", "n"],
        r"cell 2 \(id \w+, `import sys`\): SystemExit: 0; .* remove the exit",
    ),
    "thread": (
        [PARAMETERS, THREAD],
        r"cell 2 .*traceback on standard error \(KeyError: 5\); fix the thread",
    ),
    "observe": (
        [
            PARAMETERS,
            "import ipywidgets\ns = ipywidgets.IntSlider()",
            "s.observe(lambda change: {}[6], names='value')\ns.value = 7",
        ],
        r"cell 3 .*KeyError: 6; run the notebook in JupyterLab to look into it",
    ),
    "dead_kernel": (
        [PARAMETERS, "n", "import os\nos.kill(os.getpid(), 9)"],
        r"cell 3 \(id \w+, `import os`\): .*its kernel died; free some memory and run it again",
    ),
    "unfinished": ([OUTPUT, LESSON], r"no results.json; end with a cell `lesson.finish\(\)`"),
}

GOOD = [
    OUTPUT,
    ("setup", "import os, sys\nfrom pathlib import Path\n" + LESSON),
    "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\n"
    "lesson.figure(figure, 'line', alt='a \"rising\" line')",
    "big = b'x' * 300_000_000\ndel big",
    "from ipywidgets import HTML\nHTML('a widget without an error')",
    "from IPython.display import Markdown\nMarkdown('[next](02_other.ipynb)')",
    "print(sys.executable, os.environ['OMP_NUM_THREADS'], n, 'poison' in globals())",
    "print(output_dir)",
    "lesson.record(n=n)\nlesson.finish()",
]
# Two that pass only at the same time: each waits until the other opens the same named pipe.
MEET = "open('here', {!r}).close()\nopen('there', {!r}).close()"


def printed(notebook):
    """What the cells of an executed notebook printed."""
    outputs = [o for cell in nbformat.read(notebook, 4).cells for o in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


def outcomes(table):
    """The last column of the table that the runner prints."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return [row[-1] for row in rows if row[-1] in ("passed", "kept", "FAILED")]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The broken notebooks, run in one batch: output folder, exit status, lines by notebook."""
    folder = tmp_path_factory.mktemp("broken")
    paths = [write_notebook(folder / f"{n}.ipynb", cells) for n, (cells, _) in BROKEN.items()]
    messages = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module.tqdm, "write", lambda text, file: messages.append(text))
        status = run(*paths, "--output", folder / "out", "-j", 2)
    return folder / "out", status, "\n".join(messages).splitlines()


@pytest.mark.notebooks
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_notebook_fails_with_one_line(broken, name):
    output, status, lines = broken
    assert status == 1
    assert f"{name}: started" in lines
    ours = [line for line in lines if line.startswith(f"{name}: ")]
    (failure,) = [line for line in ours if "started" not in line and "failed in" not in line]
    assert re.search(BROKEN[name][1], failure), failure
    assert not (output / name).exists()
    summary = json.loads((output / f"{name}.failed" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert f"{name}: {summary['failures'][0]}" == failure


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Three good notebooks, run at the same time: the folder, the command's words, its table.

    A kernel `python3` of the user, and start-up files, are in the way; both must stay out.
    """
    folder = tmp_path_factory.mktemp("good")
    user_kernel = folder / "jupyter" / "kernels" / "python3"
    user_kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "another", "language": "python"}
    (user_kernel / "kernel.json").write_text(json.dumps(spec))
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "0.py").write_text("poison = 1")
    for pipe in ("here", "there"):
        os.mkfifo(folder / pipe)
    paths = [
        write_notebook(folder / "left.ipynb", [PARAMETERS, MEET.format("w", "r")]),
        write_notebook(folder / "right.ipynb", [PARAMETERS, MEET.format("r", "w")]),
        write_notebook(folder / "good.ipynb", GOOD),
    ]
    words = [*paths, "-j", 2, "--output", folder / "out {n}", "-p", "n", 5]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as table:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        assert run(*words) == 0
    return folder / "out {n}", words, table.getvalue()


@pytest.mark.notebooks
def test_good_notebooks_pass_in_parallel(batch):
    output, _, table = batch
    assert outcomes(table) == ["passed"] * 3
    assert str(output / "summary.json") in table
    names = sorted(path.name for path in output.iterdir())
    assert names == [".lock", "good", "left", "right", "summary.json"]
    assert json.loads((output / "summary.json").read_text())["notebooks"].keys() == {
        "left",
        "right",
        "good",
    }


@pytest.mark.notebooks
def test_the_summary_of_a_run(batch):
    folder = batch[0] / "good"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters"] == {"output_dir": "", "n": 5}
    assert summary["results"] == {"n": 5}
    assert summary["profile"] == "default, changed"
    assert summary["versions"]["papermill"] == papermill.__version__
    assert set(summary["files"]) == {"good.html", "good.ipynb", "results.json", "figures/line.png"}
    seen_inside = json.loads((folder / "results.json").read_text())
    assert 350 < summary["peak_rss_mb"] == pytest.approx(seen_inside["peak_rss_mb"], rel=0.1)
    assert summary["seconds"] >= seen_inside["seconds"] > 0


@pytest.mark.notebooks
def test_the_kernel_is_this_interpreter_without_the_users_start_up_files(batch):
    folder = batch[0] / "good"
    threads = str(max(1, batch_module.cores() // 2))
    lines = printed(folder / "good.ipynb").splitlines()
    assert lines == [f"{sys.executable} {threads} 5 False", str(folder)]
    assert ".part" not in (folder / "good.ipynb").read_text()


@pytest.mark.notebooks
def test_the_page_of_a_run(batch):
    folder = batch[0] / "good"
    page = BeautifulSoup((folder / "good.html").read_text(), "html.parser")
    assert "../02_other/02_other.html" in [link.get("href") for link in page.find_all("a")]
    assert [image["alt"] for image in page.find_all("img")] == ['a "rising" line']
    assert [fold.summary.text for fold in page.select("details.bookkeeping")] == ["imports"]
    text = page.find("body").get_text()
    # The page names the folder, and not where on this machine it is.
    assert "/".join(folder.parts[-2:]) in text
    assert str(folder) not in text and ".part" not in text


@pytest.mark.notebooks
def test_a_run_is_kept_until_something_that_decides_it_changes(batch, capsys, monkeypatch):
    output, words, _ = batch
    assert run(*words) == 0
    assert outcomes(capsys.readouterr().out) == ["kept"] * 3

    path, folder = words[2], output / "good"

    def kept(*words):
        (job,) = jobs.plan(parse(path, *words))
        return batch_module.Batch([job], output, 10, 1).kept(job)

    summary = json.loads((folder / "summary.json").read_text())
    assert kept("-p", "n", "5") == summary
    assert kept("-p", "n", "6") is None
    assert kept("-p", "n", "5", "--profile", "full") is None
    page = (folder / "good.html").read_bytes()
    (folder / "good.html").write_bytes(page[:-1])
    assert kept("-p", "n", "5") is None
    (folder / "good.html").write_bytes(page)
    assert kept("-p", "n", "5") == summary
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "imported_code_hash", lambda source: "other code")
        assert kept("-p", "n", "5") is None
    source = path.read_bytes()
    write_notebook(path, [*GOOD[:-1], "1", GOOD[-1]])
    assert kept("-p", "n", "5") is None
    path.write_bytes(source)
    assert kept("-p", "n", "5") == summary


def test_a_kernel_of_the_user_would_be_in_the_way(tmp_path, monkeypatch):
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/bin/false"]
    own = engine.OwnKernelManager().kernel_spec_manager.get_kernel_spec("python3")
    assert own.argv[:3] == [sys.executable, "-m", "ipykernel_launcher"]


@pytest.mark.notebooks
@pytest.mark.parametrize("last", ["n", "n / 0"])
def test_a_running_notebook_is_saved_now_and_then_and_whole_at_its_end(
    last, tmp_path, monkeypatch, capsys
):
    saves = []
    write = papermill.engines.write_ipynb

    def counted(notebook, path):
        saves.append(path)
        write(notebook, path)

    monkeypatch.setattr(papermill.engines, "write_ipynb", counted)
    cells = [PARAMETERS, *(f"print({i})" for i in range(12)), last]
    path = write_notebook(tmp_path / "many.ipynb", cells)
    status = run(path, "--output", tmp_path / "out")
    assert status == (last != "n")
    folder = "many.failed" if status else "many"
    lines = printed(tmp_path / "out" / folder / "many.ipynb").split()
    assert lines == [str(i) for i in range(12)]
    assert len(saves) < 8  # papermill alone: more than two for each of the 14 cells


# Whatever ends a run, its processes end.


@pytest.fixture
def endless(tmp_path):
    """A notebook that does not end, with its two pipes: one the kernel holds, one an orphan."""
    path = write_notebook(tmp_path / "endless.ipynb", [PARAMETERS, ENDLESS])
    return path, Lifeline(tmp_path / "orphan"), Lifeline(tmp_path / "kernel")


def start(*words):
    """Start the command in a process of its own."""
    script = (
        "import signal, sys; from patchcore_helpers.app.cli import main;"
        # As on a terminal; what a shell starts in the background ignores Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "run", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@pytest.mark.notebooks
def test_a_time_out_ends_all_processes(endless, tmp_path, capsys, monkeypatch):
    path, orphan, kernel = endless
    late = threading.Event()
    monkeypatch.setattr(engine, "monotonic", lambda: 1000.0 * late.is_set())

    def let_time_pass():
        orphan.wait_for_start()
        kernel.wait_for_start()
        late.set()

    threading.Thread(target=let_time_pass, daemon=True).start()
    assert run(path, "--output", tmp_path / "out", "--timeout", 900) == 1
    assert re.search(
        r"endless: cell 2 \(id \w+, `import os, .*`\): time-out after 900 s; .*--timeout",
        capsys.readouterr().err,
    )
    orphan.wait_for_end()
    kernel.wait_for_end()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["notebooks"]["endless"]["seconds"] == 1000


@pytest.mark.notebooks
def test_ctrl_c_ends_all_processes(endless, tmp_path):
    path, orphan, kernel = endless
    process = start(path, "--output", tmp_path / "out")
    try:
        orphan.wait_for_start()
        kernel.wait_for_start()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    orphan.wait_for_end()
    kernel.wait_for_end()
    assert os.listdir(tmp_path / "out") == [".lock"]


@pytest.mark.notebooks
def test_after_sigkill_the_kernel_ends_and_the_next_run_goes_on(endless, tmp_path, capsys):
    path, orphan, kernel = endless
    first = write_notebook(tmp_path / "first.ipynb", [PARAMETERS, "n"])
    third = write_notebook(tmp_path / "third.ipynb", [PARAMETERS, "n"])
    output = tmp_path / "out"
    process = start(first, path, third, "--output", output)
    try:
        orphan.wait_for_start()
        kernel.wait_for_start()
    finally:
        process.kill()  # SIGKILL
        process.wait()
    kernel.wait_for_end()  # by itself: it misses its parent

    # What had finished is there, what had not is not; a leftover is not taken for a result.
    assert not (output / "endless").exists() and not (output / "third").exists()
    assert json.loads((output / "summary.json").read_text())["notebooks"].keys() == {"first"}
    (leftover,) = output.glob(".endless.*.part")
    assert (leftover / "endless.ipynb").is_file()
    before = (output / "first" / "summary.json").stat().st_mtime_ns

    (tmp_path / "go").touch()
    assert run(first, path, third, "--output", output) == 0
    assert outcomes(capsys.readouterr().out) == ["kept", "passed", "passed"]
    assert (output / "first" / "summary.json").stat().st_mtime_ns == before
    assert not leftover.exists()
    orphan.wait_for_end()  # the next run ends what the killed one could not


def test_output_folders_that_cannot_be_used(tmp_path):
    path = write_notebook(tmp_path / "lesson.ipynb", [PARAMETERS])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"out: cannot be written .*; use --output"):
        run(path, "--output", tmp_path / "file" / "out")
    mine = tmp_path / "out" / "lesson" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="not from a run; move it, or use --output"):
        run(path, "--output", tmp_path / "out")
    assert mine.read_text() == "mine"
    batch = batch_module.Batch([], tmp_path / "out", 1, 1)
    with batch.claimed(), pytest.raises(InputError, match="another run writes there"):
        run(path, "--output", tmp_path / "out")
