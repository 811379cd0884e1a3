"""What the answers to the exercises of notebook 6 are checked with."""

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


def index_bytes() -> Cases:
    """Codes, row numbers, centers and codebooks, each counted in bytes."""
    for rows, width, clusters, m, bits in [(209, 152, 100, 8, 4), (20480, 152, 100, 8, 8)]:
        codes = rows * m * bits // 8
        row_numbers = 8 * rows
        centers = 4 * width * clusters
        codebooks = 4 * width * 2**bits
        expected = codes + row_numbers + centers + codebooks
        yield f"{rows} rows, m={m} and {bits} bits", (rows, width, clusters, m, bits), expected


def recall_at_one() -> Cases:
    """Hits counted patch by patch; about six in ten of the first rows are the true ones."""
    random = np.random.default_rng(0)
    for n, k in [(10, 1), (50, 3), (200, 5)]:
        found = random.permuted(np.tile(np.arange(9), (n, 1)), axis=1)[:, :k]
        exact = np.where(random.random(n) < 0.6, found[:, 0], random.integers(0, 9, n))
        hits = [int(row[0]) == int(true) for row, true in zip(found, exact, strict=True)]
        yield f"{n} patches and k={k}", (exact, found), sum(hits) / n
