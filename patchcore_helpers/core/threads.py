"""Several batches at a time, each in a thread with its share of the cores."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

MAX_THREADS = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def n_parallel() -> int:
    """How many batches are worked on at a time: one per core that torch may use, at most four."""
    return min(torch.get_num_threads(), MAX_THREADS)


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply a function to items, several at a time, each in a thread with its share of the cores.

    A network keeps two cores busier with two batches at a time than with one after the other. No
    more than one item beyond those being worked on is taken ahead.

    Parameters
    ----------
    function : callable
        Takes one item. It should spend its time in code that releases Python's lock, as torch,
        OpenVINO, NumPy and Pillow do.
    items : iterable

    Yields
    ------
    The results, in the order of the items.

    Examples
    --------
    >>> list(map_in_threads(len, ["a", "bc", ""]))
    [1, 2, 0]
    """
    remaining = iter(items)
    first_two = list(itertools.islice(remaining, 2))
    ordered = itertools.chain(first_two, remaining)
    threads = n_parallel()
    if threads == 1 or len(first_two) < 2:
        yield from map(function, ordered)
        return
    cores_each = torch.get_num_threads() // threads
    with ThreadPoolExecutor(
        threads, "batch", initializer=torch.set_num_threads, initargs=(cores_each,)
    ) as pool:
        pending: deque[Future[Result]] = deque()
        for item in ordered:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
