"""Distances between many vectors: in blocks that fit the caches, on all processor cores.

A squared distance is ||x - v||^2 = ||x||^2 - 2 x.v + ||v||^2. The middle term of all pairs is one
matrix product, by far the fastest way to compute it (`products_form`); but where x and v are long
and close together, the subtraction leaves only rounding errors. Computing ||x - v||^2 term by term
(`squared_differences`) is slow, and right for any vectors.

The coreset and the nested banks are computed with these; a query of the memory bank is answered by
an index, in `patchcore_helpers.core.index`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from patchcore_helpers.core.validation import as_float_rows, check_integer
from patchcore_helpers.errors import InputError

BLOCK_ROWS = 4096  # rows in a block: a block and its distances stay in the processor's cache
BLOCK_NUMBERS = 2**20  # numbers in a block of wide vectors, for the same reason
BLOCK_CENTERS = 256  # centers that a block of rows is compared with at a time

ForEach = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


@contextmanager
def single_threaded_workers() -> Iterator[ForEach]:
    """Threads for independent pieces of work: ``for_each(work, parts)`` calls work(part) for each.

    Every worker computes its part on one core. (Left to itself, torch spreads each single
    operation over all cores, and all of them wait for the slowest after every operation; on a busy
    machine that is most of the time.)

    Examples
    --------
    >>> with single_threaded_workers() as for_each:
    ...     for_each(lambda number: number**2, [1, 2, 3])
    [1, 4, 9]
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as workers:
            yield lambda work, parts: list(workers.map(work, parts))
    finally:
        torch.set_num_threads(n_threads)


def row_blocks(n_rows: int, width: int = 1) -> list[slice]:
    """Slices of `BLOCK_ROWS` rows, or less where these are wide, that together cover all rows.

    >>> row_blocks(5000)
    [slice(0, 4096, None), slice(4096, 5000, None)]
    >>> row_blocks(1000, width=1536)
    [slice(0, 682, None), slice(682, 1000, None)]
    """
    rows = max(1, min(BLOCK_ROWS, BLOCK_NUMBERS // width))
    return [slice(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows)]


def as_tensor(block: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A torch view of a NumPy array; a copy where it is read-only or its rows are not adjacent.

    A tensor is returned as it is, on its device.
    """
    if isinstance(block, torch.Tensor):
        return block
    return torch.from_numpy(np.require(block, requirements=["C", "W"]))


def products_form(
    vectors: torch.Tensor, minus_twice_centers: torch.Tensor, squared_norms: torch.Tensor
) -> torch.Tensor:
    """||v||^2 - 2 x.v for all vectors x and centers v: their squared distance less ||x||^2.

    Leaving out ||x||^2 does not change which center is the nearest to x; whoever needs the distance
    itself adds it to the minimum alone.

    Parameters
    ----------
    vectors : tensor of float32, shape (n, c)
    minus_twice_centers : tensor of float32, shape (k, c)
        The centers times -2.
    squared_norms : tensor of float32, shape (k,)
        Of the centers.

    Returns
    -------
    tensor of float32, shape (n, k)
    """
    on_processor = vectors.device.type == "cpu"
    if on_processor and torch.backends.mkldnn.is_available():  # twice as fast as torch.addmm
        return torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 (it has no public name)
            vectors, minus_twice_centers, squared_norms, "none", [], ""
        )
    return torch.addmm(squared_norms, vectors, minus_twice_centers.T)


def squared_differences(vectors: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """||x - v||^2 term by term, shape (n, k) float32: slow, and right whatever the offset."""
    distances = torch.cdist(vectors, centers, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.square_().float()


def nested_min_distances(
    queries: ArrayLike | torch.Tensor, bank: ArrayLike | torch.Tensor, sizes: Sequence[int]
) -> np.ndarray:
    """Distance from every query to its nearest of the first s bank rows, for each s in `sizes`.

    With the bank in greedy order this is what the banks of all ratios would answer, in one pass.

    Parameters
    ----------
    queries : array-like of float, shape (n_queries, c)
        A tensor on a GPU is searched there.
    bank : array-like of float, shape (n_bank, c)
        In the order of the choice.
    sizes : sequence of int
        Rising, each from 1 to n_bank.

    Returns
    -------
    ndarray of float32, shape (len(sizes), n_queries)
        Euclidean distances. The nearest row is found by a matrix product; the distance to it is
        then computed from direct differences.

    Raises
    ------
    InputError
        For input that is empty, not a matrix or not finite, and for sizes out of range.

    Examples
    --------
    >>> import numpy as np
    >>> nested_min_distances(np.array([[1.0], [7.0]]), np.array([[0.0], [10.0], [6.0]]), [1, 3])
    array([[1., 7.],
           [1., 1.]], dtype=float32)
    """
    query_rows = as_float_rows(queries, "queries")
    bank_rows = as_float_rows(bank, "bank")
    if query_rows.shape[1] != bank_rows.shape[1]:
        raise InputError(
            f"queries: {query_rows.shape[1]} columns, but bank has {bank_rows.shape[1]}"
        )
    checked_sizes = [check_integer(size, "sizes", 1, len(bank_rows)) for size in sizes]
    if not checked_sizes or any(a >= b for a, b in pairwise(checked_sizes)):
        raise InputError("sizes: give at least one, each larger than the one before")

    device = as_tensor(query_rows[:1]).device
    centers = as_tensor(bank_rows[: checked_sizes[-1]]).float().to(device)
    offset = centers.mean(0)  # adds nothing to a distance, but costs digits in the product
    centered = centers - offset
    minus_twice = -2 * centered
    squared_norms = centered.square().sum(1)
    result = np.empty((len(checked_sizes), len(query_rows)), np.float32)

    def search(block: slice) -> None:
        vectors = as_tensor(query_rows[block]).float()
        centered_vectors = vectors - offset
        # The lowest squared distance so far, less ||x||^2, and the bank row at that distance:
        lowest = torch.full((len(vectors),), torch.inf, device=device)
        winner = torch.zeros(len(vectors), dtype=torch.int64, device=device)
        for step, (begin, end) in enumerate(pairwise([0, *checked_sizes])):
            for start in range(begin, end, BLOCK_CENTERS):
                stop = min(start + BLOCK_CENTERS, end)
                distances = products_form(
                    centered_vectors, minus_twice[start:stop], squared_norms[start:stop]
                )
                block_lowest = distances.amin(1)
                # Fewer and fewer queries find a nearer row: look for its number only for those.
                closer = (block_lowest < lowest).nonzero()[:, 0]
                lowest[closer] = block_lowest[closer]
                winner[closer] = distances[closer].argmin(1) + start
            result[step, block] = (vectors - centers[winner]).norm(dim=1).cpu().numpy()

    with single_threaded_workers() as for_each:
        for_each(search, row_blocks(*query_rows.shape))
    if not (torch.isfinite(offset).all() and np.isfinite(result).all()):
        raise InputError("queries, bank: contain NaN or infinity; remove those rows first")
    return result
