"""Tasks on several processes: of this machine (joblib), or of a Dask cluster.

The results are collected by one process, whoever computed them, so that one process writes files.
"""

import os
import re
import socket
from functools import lru_cache

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from patchcore_helpers.errors import InputError
from patchcore_helpers.fingerprint import package_hash

CONNECT = 5  # seconds that a scheduler, and its first worker, may take to answer
AGAIN = "mend it and run it again: an experiment goes on from there"
PATIENCE = 60  # seconds without a result after which there must be a worker left
code_hash = lru_cache(maxsize=1)(package_hash)  # of the moment when this process began


def connect(scheduler):
    """A client of a Dask cluster; close it, or use it in a `with` statement.

    Parameters
    ----------
    scheduler : str
        Address such as ``tcp://127.0.0.1:8786``.

    Returns
    -------
    distributed.Client

    Raises
    ------
    InputError
        If Dask is not installed, if the address is none, or if nobody answers within 5 s.
    """
    address = re.fullmatch(r"tcp://(?:([\w.-]+)|\[([\da-fA-F:.]+)\]):(\d{1,5})", str(scheduler))
    if not address:
        raise InputError(f"scheduler={scheduler!r}: give an address like tcp://127.0.0.1:8786")
    try:
        from distributed import Client
    except ImportError:
        mend = "pip install 'patchcore-helpers[scale]'"
        raise InputError(f"scheduler={scheduler!r}: Dask is not installed; {mend}") from None
    host, ipv6, port = address.groups()
    try:  # Dask would wait for ever for a greeting, which begins with a number of eight bytes
        with socket.create_connection((host or ipv6, int(port)), CONNECT) as probe:
            if not 0 < int.from_bytes(probe.recv(8), "little") < 2**20:
                raise ValueError
        return Client(scheduler, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, OverflowError) as error:
        why = f"no answer ({type(error).__name__})"
        raise InputError(f"scheduler={scheduler!r}: {why}; start it with: dask scheduler") from None


def in_parallel(function, calls, n_jobs=1, scheduler=""):
    """Make many calls of one function; no call is lost with the worker process that makes it.

    Parameters
    ----------
    function : callable
        At module level, so that other processes can import it.
    calls : list of tuple
        The arguments of each call; plain values, paths or small arrays.
    n_jobs : int
        Worker processes of this machine (joblib); 1 makes the calls in this process. If one is
        killed, what was under way is done once more by new ones. joblib shares the processor's
        cores out among the workers' libraries.
    scheduler : str
        Address of a Dask cluster that makes the calls instead. Its workers need the same code and
        packages, and this machine's folders under the same paths: each works from the current
        folder of this process. If one is lost, Dask gives its calls to others. A call takes one
        thread, or as many as OMP_NUM_THREADS says where the worker was started.

    Yields
    ------
    number : int
        Which of the calls.
    result
        What the function returned.

    Raises
    ------
    InputError
        If the cluster cannot be reached (see `connect`), is lost or runs other code; if a call
        ends four workers, or processes of this machine are killed a second time.

    Examples
    --------
    >>> list(in_parallel(max, [(1, 2), (4, 3)]))
    [(0, 2), (1, 4)]
    """
    if scheduler:
        yield from _on_cluster(function, calls, scheduler)
    elif n_jobs == 1:
        yield from ((number, function(*call)) for number, call in enumerate(calls))
    else:
        yield from _on_this_machine(function, calls, n_jobs)


def _on_this_machine(function, calls, n_jobs):
    left = dict(enumerate(calls))
    for _ in range(2):
        tasks = [joblib.delayed(_numbered)(n, function, call) for n, call in left.items()]
        try:
            for number, result in joblib.Parallel(n_jobs, return_as="generator_unordered")(tasks):
                del left[number]
                yield number, result
            return
        except TerminatedWorkerError:
            continue
    raise InputError(f"n_jobs={n_jobs}: processes were killed twice (out of memory?); {AGAIN}")


def _numbered(number, function, call):
    return number, function(*call)


def _on_cluster(function, calls, scheduler):
    with connect(scheduler) as client:
        from distributed import wait

        order = function, code_hash(), os.getcwd()
        try:
            client.wait_for_workers(1, CONNECT)
            futures = [client.submit(_on_worker, call, *order, pure=False) for call in calls]
            pending = {future: number for number, future in enumerate(futures)}
            del futures  # so that the cluster forgets what was collected
            while pending:
                try:
                    with client.as_current():
                        done = wait(list(pending), PATIENCE, "FIRST_COMPLETED").done
                except TimeoutError:
                    client.wait_for_workers(1, CONNECT)
                    continue
                yield from ((pending.pop(future), future.result()) for future in done)
        except InputError:
            raise
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            if isinstance(error, TimeoutError):
                why = f"has no workers; start some with: dask worker {scheduler}"
            raise InputError(f"scheduler={scheduler!r}: {why}; {AGAIN}") from None


def _on_worker(call, function, code, folder):
    here = f"worker {socket.gethostname()}, process {os.getpid()}"
    if code_hash() != code:
        raise InputError(f"{here}: has other code; install the same patchcore_helpers, restart it")
    try:
        os.chdir(folder)
    except OSError:
        raise InputError(f"{here}: no folder {folder}; share this machine's disk") from None
    with threadpool_limits(int(os.environ.get("OMP_NUM_THREADS") or 1)):
        return function(*call)
