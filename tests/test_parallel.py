"""Work goes on when a worker process is killed, here or on a cluster; if not, one line says so."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dask
import nbformat
import numpy as np
import pytest
import torch
from helpers.lifeline import Lifeline
from joblib.externals.loky import get_reusable_executor

from patchcore_helpers import InputError, parallel
from patchcore_helpers.app.cli import main
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.sharded import composable_k_center, coverage_radius, write_shards
from patchcore_helpers.course import runner
from patchcore_helpers.experiments.grid import Grid
from patchcore_helpers.parallel import connect, in_parallel

# Of a module of its own, which the workers import: says who does what, and stays to be killed.
FRAIL = """
import os, random, signal, threading
from pathlib import Path

def stay_once(pipe):
    pipe = Path(pipe)
    try:
        pipe.with_suffix(".victim").touch(exist_ok=False)
    except FileExistsError:
        return
    os.write(os.open(pipe, os.O_WRONLY), str(os.getpid()).encode())
    threading.Event().wait()

def run_task(seed, log, stays=""):
    Path(log, f"{seed}-{os.getpid()}").touch()
    if stays:
        stay_once(stays)
    generator = random.Random(seed)
    return [{"draw": draw, "value": generator.random()} for draw in range(3)], {}

def number(value, stays=""):
    if stays:
        stay_once(stays)
    return value

def kill_itself(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
"""


@pytest.fixture(scope="module")
def frail(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frail")
    (folder / "frail.py").write_text(FRAIL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        # for the processes that are started
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        import frail

        get_reusable_executor().shutdown(wait=True)  # workers of other tests do not know the module
        yield frail


def start_dask(*words, **options):
    command = [sys.executable, "-m", "dask", *map(str, words), "--no-dashboard"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)


class Cluster:
    """A scheduler and worker processes on loopback; killing one leaves nothing behind."""

    def __init__(self, folder):
        self.folder = folder
        self.workers = []
        # Should the tests be killed, it ends when it has been idle for ten minutes.
        words = ("--host", "127.0.0.1", "--port", 0, "--idle-timeout", "600 s")
        self.scheduler = start_dask("scheduler", *words, stderr=subprocess.PIPE, text=True)
        addresses = (re.search(r"Scheduler at: +(tcp:\S+)", s) for s in self.scheduler.stderr)
        self.address = next(filter(None, addresses))[1]
        # What it writes from here on is read, so that it never waits for a reader.
        threading.Thread(target=self.scheduler.stderr.read, daemon=True).start()

    def add(self, count):
        words = ("--no-nanny", "--nthreads", 1, "--local-directory", self.folder)
        for _ in range(count):
            worker = start_dask(
                "worker", self.address, *words, cwd=self.folder, stderr=subprocess.DEVNULL
            )
            self.workers.append(worker)
        return self

    def wait_for(self, count):
        with connect(self.address) as client:
            client.wait_for_workers(count, 60)

    def close(self):
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(frail, tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster")).add(3)
    yield cluster
    cluster.close()


COLUMNS = ["seed", "draw", "value"]


@pytest.mark.long
@pytest.mark.parametrize("where", ["cluster", "processes"])
def test_worker_killed_in_mid_run_gives_the_table_of_a_sequential_run(
    cluster, frail, tmp_path, where
):
    lifeline = Lifeline(tmp_path / "pipe")
    tasks = [{"seed": seed, "log": str(tmp_path)} for seed in range(6)]
    Grid(frail.run_task, COLUMNS, tmp_path / "sequential").run(tasks)
    for mark in tmp_path.glob("3-*"):
        mark.unlink()
    tasks[3]["stays"] = str(lifeline.path)
    victims = []

    def kill():
        victims.append(int(lifeline.wait_for_start()))
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    if where == "cluster":
        cluster.wait_for(3)
    options = {"scheduler": cluster.address} if where == "cluster" else {"n_jobs": 2}
    outcomes = Grid(frail.run_task, COLUMNS, tmp_path / "parallel").run(tasks, **options)
    killer.join()
    assert all(outcome.finished for outcome in outcomes)
    sequential = (tmp_path / "sequential" / "results.csv").read_text()
    assert (tmp_path / "parallel" / "results.csv").read_text() == sequential
    assert sequential.count("\n") == 1 + 6 * 3

    done_by = {int(path.name.split("-")[1]) for path in tmp_path.glob("3-*")}
    assert len(done_by) == 2 and done_by > {*victims}
    if where == "cluster":
        workers = {worker.pid: worker for worker in cluster.workers}
        assert workers.pop(victims[0]).wait() == -signal.SIGKILL
        assert done_by <= {*workers, *victims}
        assert {worker.poll() for worker in workers.values()} == {None}


@pytest.mark.long
def test_coreset_and_shards_are_the_same_anywhere(cluster, tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no worker was started
    cache = FeatureCache(tmp_path / "cache")
    extractor = Extractor(load_backbone("resnet18", weights="random"), 64, cache=cache)
    ways = {"here": {}, "processes": {"n_jobs": 2}, "cluster": {"scheduler": cluster.address}}
    found = {}
    for name, way in ways.items():
        paths = write_shards(extractor, photos, name, 150, **way)
        assert [path.parent.name for path in paths] == [name] * 4
        assert sorted(os.listdir(name)) == [path.name for path in paths]
        shards = [Path(name) / path.name for path in paths]  # relative
        chosen = composable_k_center(shards, 20, projection=16, **way)
        radius = coverage_radius(shards, chosen.centers, **way)
        found[name] = [path.name for path in paths], vars(chosen), radius
    for name in ("processes", "cluster"):
        assert found[name][0] == found["here"][0] and found[name][2] == found["here"][2]
        for key, value in found["here"][1].items():
            np.testing.assert_array_equal(found[name][1][key], value, err_msg=key)
    whole = Extractor(extractor.backbone, 64).extract(photos).reshape(-1, 384)
    for name in ways:
        files = [np.load(path, mmap_mode="r") for path in sorted(Path(name).iterdir())]
        np.testing.assert_allclose(np.concatenate(files), whole, rtol=1e-5, atol=1e-6)
    assert len(cache.files()) == 2 * 4 and not any(".part" in f.name for f in cache.files())
    with pytest.raises(InputError, match=r"shards\[1\]: .*columns, but shards\[0\]: 384"):
        composable_k_center([shards[0], np.eye(3)], 2, scheduler=cluster.address)


def test_calls_run_in_the_folder_of_the_client_and_on_one_thread(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = dict(in_parallel(os.getcwd, [()] * 3, scheduler=cluster.address))
    assert results == dict.fromkeys(range(3), str(tmp_path))
    threads = dict(in_parallel(torch.get_num_threads, [()], scheduler=cluster.address))
    assert threads == {0: 1}


def test_workers_that_are_not_fit(cluster, monkeypatch):
    def refused(match):
        with pytest.raises(InputError, match=match) as caught:
            list(in_parallel(abs, [(-1,)], scheduler=cluster.address))
        assert "\n" not in str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(parallel, "code_hash", lambda: "other")
        refused("worker .*, process .*: has other code; install the same patchcore_helpers")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getcwd", lambda: "/nowhere/to be found")
        refused("no folder /nowhere/to be found; share this machine's disk")
    with pytest.raises(InputError, match=r"scheduler='tcp.*: TypeError: bad operand .* again"):
        list(in_parallel(abs, [("text",)], scheduler=cluster.address))
    assert list(in_parallel(abs, [(-1,)], scheduler=cluster.address)) == [(0, 1)]


@pytest.mark.long
def test_scheduler_without_workers_and_a_lost_one(frail, tmp_path, monkeypatch):
    cluster = Cluster(tmp_path)
    try:
        monkeypatch.setattr(parallel, "CONNECT_TIMEOUT", 2)
        with pytest.raises(InputError, match=r"has no workers; start some with: dask worker tcp"):
            list(in_parallel(abs, [(-1,)], scheduler=cluster.address))
        cluster.add(1)
        monkeypatch.setattr(parallel, "CONNECT_TIMEOUT", 60)
        calls = [(0,), (1, str(Lifeline(tmp_path / "pipe").path))]
        results = in_parallel(frail.number, calls, scheduler=cluster.address)
        assert next(results)[0] == 0
        cluster.scheduler.kill()
        # The client would try for half a minute to reach the scheduler again.
        quick = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
        with quick, pytest.raises(InputError, match=r"scheduler='tcp.* run it again") as caught:
            next(results)
        assert "\n" not in str(caught.value)
    finally:
        cluster.close()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "8786",
        "localhost:8786",
        "tcp://",
        "tcp://a",
        "tcp://a:b",
        "tcp://a:1/x",
        "http://a:1",
        "tcp://a b:1",
        "tcp://a:1\n",
        8786,
    ],
)
def test_a_malformed_address(address):
    with pytest.raises(InputError, match=r"scheduler=.*: give an address like tcp://") as caught:
        connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_nobody_answers_there(monkeypatch):
    monkeypatch.setattr(parallel, "CONNECT_TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        taken = silent.getsockname()[1]
        for port in (1, taken, 99999):
            with pytest.raises(InputError, match=r"no answer \(.*start it with: dask scheduler$"):
                connect(f"tcp://127.0.0.1:{port}")


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'patchcore-helpers\[scale\]'$"):
        list(in_parallel(abs, [(-1,)], scheduler="tcp://127.0.0.1:1"))
    assert list(in_parallel(abs, [(-1,)])) == [(0, 1)]


@pytest.mark.long
def test_processes_killed_twice_are_given_up(frail):
    with pytest.raises(InputError, match=r"n_jobs=2: processes were killed twice .* continues"):
        list(in_parallel(frail.kill_itself, [(0,), (1,), (2,)], n_jobs=2))
    assert sorted(in_parallel(abs, [(-1,), (-2,)], n_jobs=2)) == [(0, 1), (1, 2)]


def test_runner_sends_what_can_be_sent_and_says_what_cannot(tmp_path, monkeypatch, capsys):
    for name, source in (("with", 'scheduler: str = ""\nn: int = 1'), ("without", "n: int = 1")):
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")

    def run(*names, address="tcp://127.0.0.1:1"):
        words = [str(tmp_path / f"{name}.ipynb") for name in names]
        return main(["run", *words, "--scheduler", address, "--output", str(tmp_path / "out")])

    assert run("with") == run("with", "without") == run("with", address="here") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "no answer" in lines[0] and "give an address like" in lines[2]
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(parallel, "connect", lambda address: socket.socket())
    monkeypatch.setattr(runner, "Batch", lambda jobs, *_: sys.exit(jobs[0].parameters["scheduler"]))
    with pytest.raises(SystemExit, match=r"^tcp://127\.0\.0\.1:1$"):
        run("with", "without")
    assert capsys.readouterr().err == "--scheduler: not for without, which run here\n"
