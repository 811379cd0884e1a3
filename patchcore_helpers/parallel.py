"""Many calls of one function in other processes: of this machine (joblib), or of a Dask cluster.

One process collects the results, whoever computed them, so that only one process writes files.

joblib can send calls to Dask, too (`parallel_config(backend="dask")`). The loop here is our own
because joblib waits forever once the last worker or the scheduler is gone, where a course has to
end with a line that says what to do.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from patchcore_helpers.errors import InputError, error_line
from patchcore_helpers.fingerprint import package_hash

if TYPE_CHECKING:
    from distributed import Client

CONNECT_TIMEOUT = 5  # seconds that a scheduler, and its first worker, may take to answer
RESULT_TIMEOUT = 60  # seconds without a result after which the cluster must have a worker left
RUN_AGAIN = "fix it and run it again: an experiment continues where it stopped"
SCHEDULER_ADDRESS = re.compile(r"tcp://(?:([\w.-]+)|\[([\da-fA-F:.]+)\]):(\d{1,5})")

Call = tuple[Any, ...]  # the arguments of one call
Result = tuple[int, Any]  # the number of a call, and what it returned


@lru_cache(maxsize=1)
def code_hash() -> str:
    """`package_hash` at the moment when this process first asked for it."""
    return package_hash()


def connect(scheduler: str) -> "Client":
    """Connect to a Dask cluster; close the client, or use it in a `with` statement.

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
        If Dask is not installed, if the address is invalid, or if the scheduler does not respond
        within 5 s.
    """
    address = SCHEDULER_ADDRESS.fullmatch(str(scheduler))
    if not address:
        raise InputError(f"scheduler={scheduler!r}: give an address like tcp://127.0.0.1:8786")
    try:
        from distributed import Client
    except ImportError:
        fix = "pip install 'patchcore-helpers[scale]'"
        raise InputError(f"scheduler={scheduler!r}: Dask is not installed; {fix}") from None
    host, ipv6, port = address.groups()
    try:
        _expect_greeting(host or ipv6, int(port))
        return Client(scheduler, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, OverflowError) as error:
        reason = f"no answer ({type(error).__name__})"
        fix = "start it with: dask scheduler"
        raise InputError(f"scheduler={scheduler!r}: {reason}; {fix}") from None


def _expect_greeting(host: str, port: int) -> None:
    """Check that a scheduler greets, for which Dask's client itself would wait forever.

    A greeting begins with its length, a number of eight bytes.
    """
    with socket.create_connection((host, port), CONNECT_TIMEOUT) as probe:
        length = int.from_bytes(probe.recv(8), "little")
    if not 0 < length < 2**20:
        raise ValueError("not a Dask scheduler")


def in_parallel(
    function: Callable[..., Any], calls: Sequence[Call], n_jobs: int = 1, scheduler: str = ""
) -> Iterator[Result]:
    """Make many calls of one function; a call is repeated if its worker process is killed.

    Parameters
    ----------
    function : callable
        At module level, so that other processes can import it.
    calls : sequence of tuple
        The arguments of each call; plain values, paths or small arrays.
    n_jobs : int
        Worker processes of this machine (joblib); 1 makes the calls in this process. If one is
        killed, unfinished calls are made once more by new ones. joblib shares the processor's
        cores out among the workers' libraries.
    scheduler : str
        Address of a Dask cluster that makes the calls instead. Its workers need the same code and
        packages, and this machine's folders under the same paths: each works from the current
        folder of this process. If one is lost, Dask gives its calls to others. A call takes one
        thread, or as many as OMP_NUM_THREADS says where the worker was started.

    Yields
    ------
    number : int
        Which of the calls, in the order in which they finish.
    result : object
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
        for number, arguments in enumerate(calls):
            yield number, function(*arguments)
    else:
        yield from _on_this_machine(function, calls, n_jobs)


def _on_this_machine(
    function: Callable[..., Any], calls: Sequence[Call], n_jobs: int
) -> Iterator[Result]:
    unfinished = dict(enumerate(calls))
    for _ in range(2):
        tasks = [
            joblib.delayed(_numbered)(number, function, arguments)
            for number, arguments in unfinished.items()
        ]
        try:
            for number, result in joblib.Parallel(n_jobs, return_as="generator_unordered")(tasks):
                del unfinished[number]
                yield number, result
            return
        except TerminatedWorkerError:
            continue
    raise InputError(f"n_jobs={n_jobs}: processes were killed twice (out of memory?); {RUN_AGAIN}")


def _numbered(number: int, function: Callable[..., Any], arguments: Call) -> Result:
    return number, function(*arguments)


def _on_cluster(
    function: Callable[..., Any], calls: Sequence[Call], scheduler: str
) -> Iterator[Result]:
    with connect(scheduler) as client:
        try:
            yield from _collect(client, function, calls)
        except InputError:
            raise
        except TimeoutError:
            fix = f"start some with: dask worker {scheduler}"
            raise InputError(
                f"scheduler={scheduler!r}: has no workers; {fix}; {RUN_AGAIN}"
            ) from None
        except Exception as error:
            reason = f"{type(error).__name__}: {error_line(error)}"[:200]
            raise InputError(f"scheduler={scheduler!r}: {reason}; {RUN_AGAIN}") from None


def _collect(
    client: "Client", function: Callable[..., Any], calls: Sequence[Call]
) -> Iterator[Result]:
    """Submit all calls and yield their results; a `TimeoutError` if there are no workers."""
    from distributed import wait

    client.wait_for_workers(1, CONNECT_TIMEOUT)
    code = code_hash()
    folder = os.getcwd()
    # The cluster keeps a result for as long as its future exists: nothing else may hold one.
    pending = {
        client.submit(_on_worker, function, arguments, code, folder, pure=False): number
        for number, arguments in enumerate(calls)
    }
    while pending:
        try:
            with client.as_current():
                done = wait(list(pending), RESULT_TIMEOUT, "FIRST_COMPLETED").done
        except TimeoutError:
            client.wait_for_workers(1, CONNECT_TIMEOUT)
            continue
        for future in done:
            yield pending.pop(future), future.result()


def _on_worker(function: Callable[..., Any], arguments: Call, code: str, folder: str) -> Any:
    """Make a call in a worker of a cluster."""
    worker = f"worker {socket.gethostname()}, process {os.getpid()}"
    if code_hash() != code:
        fix = "install the same patchcore_helpers, restart it"
        raise InputError(f"{worker}: has other code; {fix}")
    try:
        os.chdir(folder)
    except OSError:
        raise InputError(f"{worker}: no folder {folder}; share this machine's disk") from None
    with threadpool_limits(int(os.environ.get("OMP_NUM_THREADS") or 1)):
        return function(*arguments)
