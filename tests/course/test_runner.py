"""The runner refuses what plain papermill lets pass, and loses nothing that was finished."""

import argparse
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from bs4 import BeautifulSoup
from nbclient.exceptions import CellTimeoutError

from patchcore_helpers.course import runner
from patchcore_helpers.errors import InputError

PARAMETERS = ("parameters", "n: int = 1  # a number")
OUTPUT = ("parameters", 'output_dir: str = ""  # where to write\nn: int = 1  # a number')
LESSON = "from patchcore_helpers.lesson import Lesson\nlesson = Lesson('it', output_dir)"
WIDGETS = "import ipywidgets\nfrom IPython.display import display\nout = ipywidgets.Output()"
THREAD = "import threading\nt = threading.Thread(target={}.pop, args=[5])\nt.start()\nt.join()"
# Leaves a process behind that belongs to no session, group or parent of the kernel.
ENDLESS = """
import subprocess, time
command = ["setsid", "sh", "-c", "sleep 600 > orphan.log & echo $! > orphan.pid"]
subprocess.run(command)
time.sleep(600)
"""

# name: cells, what the runner has to say, whether plain papermill lets the same notebook pass
BROKEN = {
    "no_parameters": (["n = 1", "n"], r"no cell is tagged `parameters`; tag", True),
    "two_parameters": ([PARAMETERS, PARAMETERS], r"more than one cell is tagged", True),
    "left_over": (
        [PARAMETERS, ("papermill-error-cell-tag", "assert n == 0")],
        r"cell 2 \(id \w+, `assert n == 0`\): left over from an earlier run; remove the cell",
        True,
    ),
    "stale": (
        [("parameters", "n: int = 1  # a number\ndouble = 2 * n  # of it"), "double"],
        r"cell 1 \(id \w+, `n: int .*\): `double = 2 \* n`: .* move it to the next cell",
        True,
    ),
    "mistyped": (
        [("parameters", 'n: int = "one"  # a number'), "n"],
        r"cell 1 .*`n: int = 'one'`: the value is not of its declared type",
        True,
    ),
    "uncheckable": (
        [("parameters", "n: Number = 1  # a number"), "n"],
        r"cell 1 .*`n: Number = 1`: Number cannot be checked; use float, bool, int,",
        False,
    ),
    "skipped": (
        [PARAMETERS, ("skip-execution", "n"), "n"],
        r"cell 2 \(id \w+, `n`\): was not executed; remove what skips it",
        True,
    ),
    "system_exit": (
        [PARAMETERS, "import sys\nsys.exit(0)", "n"],
        r"cell 2 \(id \w+, `import sys`\): SystemExit: 0; .* remove the exit",
        True,
    ),
    "exit_at_the_end": ([PARAMETERS, "raise SystemExit"], r"cell 2 .*SystemExit.* remove", True),
    "hidden_with": (
        [PARAMETERS, WIDGETS, "with out:\n    1 / 0"],
        r"cell 3 \(id \w+, `with out:`\): hidden in a widget: ZeroDivisionError.*; run the",
        True,
    ),
    "hidden_interact": (
        [PARAMETERS, "import ipywidgets\ndef draw(x):\n    {}[x]\nipywidgets.interact(draw, x=3)"],
        r"cell 2 \(id \w+, `import ipywidgets`\): hidden in a widget: KeyError: 3",
        True,
    ),
    "thread": (
        [PARAMETERS, THREAD],
        r"cell 2 .*traceback on standard error \(KeyError: 5\); mend the thread",
        True,
    ),
    "observe": (
        [
            PARAMETERS,
            "import ipywidgets\ns = ipywidgets.IntSlider()",
            "s.observe(lambda change: {}[6], names='value')\ns.value = 7",
        ],
        r"cell 3 .*KeyError: 6; run the notebook in JupyterLab to look into it",
        False,
    ),
    "excused": (
        [PARAMETERS, ("raises-exception", "{}[7]")],
        r"cell 2 .*KeyError: 7; the tag `raises-exception` excuses nothing",
        False,
    ),
    "dead_kernel": (
        [PARAMETERS, "import os\nos._exit(0)"],
        r"cell 2 .*DeadKernelError",
        False,
    ),
    "dead_worker": (
        [PARAMETERS, "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(60)"],
        r"cell 2 \(id \w+, `import os.*: its process died \(-9\).*; free some memory and run",
        False,
    ),
    "unfinished": ([OUTPUT, LESSON], r"no results.json; end with a cell `lesson.finish\(\)`", True),
}  # fmt: skip
LET_PASS = [name for name, (_, _, passes) in BROKEN.items() if passes]


def write(path, cells):
    """Write a notebook from sources, or (tag, source)."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "P"}
    for cell in cells:
        tag, source = cell if isinstance(cell, tuple) else (None, cell)
        notebook.cells.append(nbformat.v4.new_code_cell(source.strip()))
        notebook.cells[-1].metadata["tags"] = [tag] if tag else []
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def parse(*words):
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def run(*words):
    return runner.command(parse(*words))


def text_of(notebook):
    """What the cells of an executed notebook printed."""
    outputs = [o for cell in nbformat.read(notebook, 4).cells for o in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


def passes_papermill(path):
    """Whether papermill itself passes a notebook that is given a parameter."""
    words = {"progress_bar": False, "cwd": path.parent, "execution_timeout": 30}
    for _ in range(4):
        try:
            papermill.execute_notebook(path, None, {"n": 2}, **words)
            return True
        except CellTimeoutError:  # an Output hangs in a few runs of a hundred
            continue
        except Exception:
            return False
    return False


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The broken notebooks, run in one batch: folder, exit status, standard error."""
    folder = tmp_path_factory.mktemp("broken")
    paths = [write(folder / f"{name}.ipynb", cells) for name, (cells, _, _) in BROKEN.items()]
    hiding = [path for path in paths if "hidden" in path.stem]
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr(runner.tqdm, "write", lambda text, file: said.append(text))
        rest = [path for path in paths if path not in hiding]
        statuses = [run(*rest, "--output", folder / "out", "-j", 2)]
        for _ in range(4):  # an Output hangs in a few runs of a hundred
            tried = len(said)
            statuses.append(run(*hiding, "--output", folder / "out", "-j", 2, "--timeout", 30))
            if "time-out" not in "".join(said[tried:]):
                break
            del said[tried:]
    return folder, statuses, "\n".join(said)


@pytest.fixture(scope="module")
def plain(broken):
    """Whether plain papermill passes the same notebooks, those where it is said to."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        verdicts = pool.map(passes_papermill, [broken[0] / f"{name}.ipynb" for name in LET_PASS])
        return dict(zip(LET_PASS, verdicts, strict=True))


@pytest.mark.notebooks
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_notebook_fails_with_one_line(broken, name):
    folder, statuses, said = broken
    assert set(statuses) == {1}
    lines = [line for line in said.splitlines() if line.startswith(f"{name}: ")]
    failures = [line for line in lines if "started" not in line and "failed in" not in line]
    assert len(failures) == 1
    assert re.search(BROKEN[name][1], failures[0]), failures[0]
    assert not (folder / "out" / name).exists()
    summary = json.loads((folder / "out" / f"{name}.failed" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert f"{name}: {summary['failures'][0]}" == failures[0]


@pytest.mark.notebooks
@pytest.mark.parametrize("name", LET_PASS)
def test_plain_papermill_passes_it(plain, name):
    assert plain[name]


@pytest.mark.notebooks
def test_a_time_out_ends_the_whole_tree(tmp_path, capsys):
    path = write(tmp_path / "endless.ipynb", [PARAMETERS, ENDLESS])
    assert run(path, "--output", tmp_path / "out", "--timeout", 8) == 1
    assert re.search(
        r"endless: cell 2 \(id \w+, `import subprocess, time`\): time-out after 8 s; .*--timeout",
        capsys.readouterr().err,
    )
    orphan = int((tmp_path / "orphan.pid").read_text())
    wait_for(lambda: not psutil.pid_exists(orphan), 10)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 8 <= summary["notebooks"]["endless"]["seconds"] < 60


GOOD = [
    OUTPUT,
    "import os, sys\nfrom pathlib import Path\n" + LESSON,
    "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\n"
    "lesson.figure(figure, 'line', alt='a \"rising\" line')",
    "big = b'x' * 300_000_000\ndel big",
    "from ipywidgets import HTML, Output\nHTML('a widget without an error')",
    "from IPython.display import Markdown\nMarkdown('[next](02_other.ipynb)')",
    "print(sys.executable, os.environ['OMP_NUM_THREADS'], n, 'poison' in globals())",
    "lesson.record(n=n, where=output_dir)\nlesson.finish()",
]
# Two that pass only at the same time: each waits for the other.
MEET = """
import pathlib, time
pathlib.Path({mine!r}).touch()
while not pathlib.Path({other!r}).exists():
    time.sleep(0.05)
"""


@pytest.mark.notebooks
def test_good_notebooks_pass_in_parallel(tmp_path, monkeypatch, capfd):
    # A kernel `python3` of the user's own, and start-up files, which must both stay out.
    fake = tmp_path / "jupyter" / "kernels" / "python3"
    fake.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "another", "language": "python"}
    (fake / "kernel.json").write_text(json.dumps(spec))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "0.py").write_text("poison = 1")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    paths = [
        write(tmp_path / "left.ipynb", [PARAMETERS, MEET.format(mine="l", other="r")]),
        write(tmp_path / "right.ipynb", [PARAMETERS, MEET.format(mine="r", other="l")]),
        write(tmp_path / "good.ipynb", GOOD),
    ]
    assert not passes_papermill(paths[2])  # the user's kernel is in the way
    out = tmp_path / "out {n}"
    assert run(*paths, "-j", 2, "--output", out, "--timeout", 300, "-p", "n", "5") == 0
    table = capfd.readouterr().out
    assert [line.split()[-1] for line in table.splitlines()[1:4]] == ["passed"] * 3
    assert str(out / "summary.json") in table

    folder = out / "good"
    summary = json.loads((folder / "summary.json").read_text())
    threads = max(1, runner.cores() // 2)
    assert text_of(folder / "good.ipynb").split() == [sys.executable, str(threads), "5", "False"]
    assert summary["parameters"] == {"output_dir": "", "n": 5}
    assert summary["results"]["n"] == 5 and summary["profile"] == "default, changed"
    seen_inside = json.loads((folder / "results.json").read_text())["peak_rss_mb"]
    assert 350 < summary["peak_rss_mb"] == pytest.approx(seen_inside, rel=0.1)
    assert 0.5 < summary["seconds"] < 300
    assert summary["versions"]["papermill"] == papermill.__version__
    assert set(summary["files"]) == {
        "good.html", "good.ipynb", "results.json", "figures/line.png",
    }  # fmt: skip
    page = BeautifulSoup((folder / "good.html").read_text(), "html.parser")
    assert "../02_other/02_other.html" in [link.get("href") for link in page.find_all("a")]
    images = page.find_all("img")
    assert [image["alt"] for image in images] == ['a "rising" line']
    assert str(folder) in (folder / "good.ipynb").read_text()
    assert ".running" not in (folder / "good.ipynb").read_text()
    assert json.loads((out / "summary.json").read_text())["notebooks"]["good"]["seconds"] > 0
    assert sorted(p.name for p in out.iterdir()) == [
        ".lock",
        "good",
        "left",
        "right",
        "summary.json",
    ]

    # All is kept, until something that decides the run changes.
    assert run(*paths, "-j", 2, "--output", out, "-p", "n", "5") == 0
    assert [line.split()[-1] for line in capfd.readouterr().out.splitlines()[1:4]] == ["kept"] * 3
    job = runner.plan(parse(paths[2], "-p", "n", "5"))[0]
    batch = runner.Batch([job], out, 10, 1)
    assert batch.kept(job) == summary
    assert batch.kept(runner.plan(parse(paths[2], "-p", "n", "6"))[0]) is None
    assert batch.kept(runner.plan(parse(paths[2], "-p", "n", "5", "--profile", "full"))[0]) is None
    page = (folder / "good.html").read_bytes()
    (folder / "good.html").write_bytes(page[:-1])
    assert batch.kept(job) is None
    (folder / "good.html").write_bytes(page)
    assert batch.kept(job) == summary
    (folder / "summary.json").write_text(json.dumps(summary | {"package_sha256": "other"}))
    assert batch.kept(job) is None
    (folder / "summary.json").write_text(json.dumps(summary))
    assert batch.kept(job) == summary
    write(paths[2], [*GOOD[:-1], "1", GOOD[-1]])
    assert batch.kept(job) is None


@pytest.mark.notebooks
def test_sigkill_in_mid_batch_and_again(tmp_path, capfd):
    second = """
    import os, pathlib, time
    pathlib.Path("second.pid").write_text(str(os.getpid()))
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    """
    names = ["first", "second", "third"]
    cells = [[PARAMETERS, "n"], [PARAMETERS, "if True:" + second], [PARAMETERS, "n"]]
    paths = [write(tmp_path / f"{n}.ipynb", c) for n, c in zip(names, cells, strict=True)]
    out = tmp_path / "out"
    batch = start(*paths, "--output", out)
    pid = tmp_path / "second.pid"
    try:
        wait_for(lambda: pid.is_file() and pid.read_text())
        tree = psutil.Process(batch.pid).children(recursive=True)
    finally:
        batch.kill()  # SIGKILL
        batch.wait()
    assert int(pid.read_text()) in [process.pid for process in tree]  # the kernel
    wait_for(lambda: not any(process.is_running() for process in tree), 10)

    # What had finished is there, what had not is not; a leftover is not taken for a result.
    assert not (out / "second").exists() and not (out / "third").exists()
    assert json.loads((out / "summary.json").read_text())["notebooks"].keys() == {"first"}
    leftover = next(out.glob(".second.*.running"))
    assert (leftover / "second.ipynb").is_file()
    before = (out / "first" / "summary.json").stat().st_mtime_ns

    (tmp_path / "go").touch()
    assert run(*paths, "--output", out) == 0
    verdicts = [line.split()[-1] for line in capfd.readouterr().out.splitlines()[1:4]]
    assert verdicts == ["kept", "passed", "passed"]
    assert (out / "first" / "summary.json").stat().st_mtime_ns == before
    assert not leftover.exists()


@pytest.mark.notebooks
def test_ctrl_c_ends_the_whole_tree(tmp_path):
    path = write(tmp_path / "endless.ipynb", [PARAMETERS, ENDLESS])
    batch, pid = start(path, "--output", tmp_path / "out"), tmp_path / "orphan.pid"
    try:
        wait_for(lambda: pid.is_file() and pid.read_text())
        tree = psutil.Process(batch.pid).children(recursive=True)
        batch.send_signal(signal.SIGINT)
        assert batch.wait(60) == 130
    finally:
        batch.kill()
    pids = [int(pid.read_text()), *(process.pid for process in tree)]
    wait_for(lambda: not any(map(psutil.pid_exists, pids)), 10)
    assert os.listdir(tmp_path / "out") == [".lock"]


def start(*words):
    script = (
        "import argparse, signal, sys; from patchcore_helpers import runner;"
        # As on a terminal; what a shell starts in the background ignores Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "p = argparse.ArgumentParser(); runner.add_arguments(p);"
        "sys.exit(runner.command(p.parse_args()))"
    )
    words = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# Bad input ends with one line, before anything runs.

DECLARED = """
n: int = 1  # a number
ratio: float = 0.5  # of something
name: str = "x=y"  # of somebody
some: list[float] = [1.0]  # numbers
maybe: int | None = None  # or nothing
flag: bool = False  # yes or no
data_dir: str = "data"  # a folder
"""


@pytest.fixture
def lesson(tmp_path):
    return write(tmp_path / "04_exp1_lesson.ipynb", [("parameters", DECLARED), "n"])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "3", 3),
        ("ratio", "1", 1.0),
        ("ratio", "1e-3", 0.001),
        ("name", "04", "04"),
        ("name", "no", "no"),
        ("some", "[1, 2e-3]", [1, 0.002]),
        ("maybe", "null", None),
        ("maybe", "4", 4),
        ("flag", "true", True),
        ("data_dir", "here", str(Path("here").absolute())),
    ],
)
def test_values_are_read_as_their_declared_type(lesson, name, text, value):
    (job,) = runner.plan(parse(lesson, "-p", name, text))
    assert job.parameters == {name: value}
    assert type(job.parameters[name]) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "ratoi", "1"], "-p ratoi 1: no parameter ratoi in 04_exp1_lesson; did you mean ra"),
        (["-p", "zzz", "1"], "-p zzz 1: no parameter zzz in .*; there are: data_dir, flag,"),
        (["-p", "n", "1.5"], "-p n 1.5: 1.5 is no int, as 04_exp1_lesson declares"),
        (["-p", "n", "true"], "True is no int"),
        (["-p", "n", "[1"], r"'\[1' is no int"),
        (["-p", "ratio", "much"], "'much' is no float"),
        (["-p", "flag", "1"], "1 is no bool"),
        (["-p", "some", "[1, x]"], r"\[1, 'x'\] is no list\[float\]"),
        (["-p", "maybe", "x"], r"'x' is no int \| None"),
        (["-p", "output_dir", "x"], "the runner chooses output_dir; use --output DIR"),
        (["--scheduler", "tcp://a:1"], "--scheduler tcp://a:1: no parameter scheduler in"),
        (["-f", "missing.yaml"], "missing.yaml: cannot be read as a parameter file"),
        (["nowhere.ipynb"], "nowhere.ipynb: no such notebook; give an .ipynb file or one of:"),
        (["99"], "99: no such notebook"),
    ],
)  # fmt: skip
def test_bad_arguments(lesson, tmp_path, words, message):
    with pytest.raises(InputError, match=message) as caught:
        run(lesson, *words, "--output", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ratoi: 1", "no parameter ratoi in 04_exp1_lesson; did you mean ratio"),
        ("n: many", "'many' is no int"),
        ("name: 4", "4 is no str"),
        ("- n", "not a parameter file"),
        ("n: [", "cannot be read as a parameter file"),
    ],
)
def test_bad_parameter_files(lesson, content, message):
    file = lesson.parent / "configs" / "fast" / "04_exp1_lesson.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    for words in (["--profile", "fast"], ["-f", file]):
        with pytest.raises(InputError, match=message):
            runner.plan(parse(lesson, *words))
    assert runner.plan(parse(lesson))[0].parameters == {}  # another profile does not read it


def test_profiles(lesson):
    configs = lesson.parent / "configs"
    (configs / "full").mkdir(parents=True)
    (configs / "exp1_config.yaml").write_text("n: 7\nratio: 1e-2")
    assert runner.plan(parse(lesson, "--profile", "full"))[0].parameters == {"n": 7, "ratio": 0.01}
    assert runner.plan(parse(lesson, "--profile", "fast"))[0].parameters == {}
    (configs / "full" / "04_exp1_lesson.yaml").write_text("n: 8")
    (job,) = runner.plan(parse(lesson, "--profile", "full", "-p", "flag", "yes"))
    assert job.parameters == {"n": 8, "flag": True}


def test_several_notebooks_share_a_parameter(lesson):
    other = write(lesson.parent / "other.ipynb", [PARAMETERS])
    jobs = runner.plan(parse(lesson, other, "-p", "n", "3", "-p", "ratio", "0.1"))
    assert [job.parameters for job in jobs] == [{"n": 3, "ratio": 0.1}, {"n": 3}]


def test_two_notebooks_of_one_name(lesson):
    twin = write(lesson.parent / "twin" / lesson.name, [PARAMETERS])
    with pytest.raises(InputError, match="has the same name; run them apart"):
        runner.plan(parse(lesson, twin))
    assert len(runner.plan(parse(lesson, lesson))) == 1


def test_numbers_and_names(lesson, monkeypatch):
    monkeypatch.setattr(runner, "notebooks_folder", lambda: lesson.parent)
    write(lesson.parent / "notes.ipynb", [PARAMETERS])
    for name in ("4", "04", "04_exp1_lesson", "04_exp1_lesson.ipynb"):
        assert runner.find_notebooks([name]) == [lesson]
    assert runner.find_notebooks() == [lesson]


def test_files_that_are_no_notebooks(tmp_path):
    for name, content in {"a.ipynb": "{", "b.ipynb": '{"cells": 1}', "c.ipynb": ""}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=rf"{name}: not a notebook \(.*save it anew"):
            runner.plan(parse(tmp_path / name))


def test_output_folders_that_cannot_be_used(lesson, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"out: cannot be written .*; use --output"):
        run(lesson, "--output", tmp_path / "file" / "out")
    mine = tmp_path / "out" / lesson.stem / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="not from a run; move it, or use --output"):
        run(lesson, "--output", tmp_path / "out")
    assert mine.read_text() == "mine"
    batch = runner.Batch([], tmp_path / "out", 1, 1)
    with batch.claimed(), pytest.raises(InputError, match="another run writes there"):
        run(lesson, "--output", tmp_path / "out")


@pytest.mark.parametrize("word", ["--timeout=0", "--timeout=inf", "-j=0", "--profile=quick"])
def test_bad_options(word, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(word)
    assert caught.value.code == 2
