"""The exercises: question, hint, solution, wrong answers and check in one record each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent, indent

import numpy as np

EXERCISES = {}


@dataclass(frozen=True)
class Exercise:
    """One exercise: the learner writes the body of a function.

    `solution` is a body that is right, `wrong` are bodies that a learner might well write. `check`
    takes the learner's function, and what the notebook passes on, and returns True if it is right,
    else a sentence on what is wrong.
    """

    name: str
    notebook: str
    signature: str
    question: str
    hint: str
    solution: str
    wrong: tuple
    check: Callable

    def source(self, body="return ..."):
        """Return the source of the function with this body; without one, the stub."""
        return f"{self.signature}\n{indent(dedent(body).strip(), '    ')}"


def exercise(notebook, **record):
    """Keep the decorated check, and the rest of its record, in `EXERCISES`."""

    def keep(check):
        name = check.__name__.replace("_", "-")
        EXERCISES[name] = Exercise(name, notebook, check=check, **record)
        return check

    return keep


@exercise(
    "01_introduction",
    signature="def nearest_distance(patch, bank):",
    question="Return the Euclidean distance from one patch, an array of shape (c,), to its nearest "
    "row of the memory bank, an array of shape (rows, c). This is the patch score.",
    hint="`bank - patch` subtracts the patch from every row. Take the length of every row of the "
    "difference with np.linalg.norm and axis=1, then the smallest.",
    solution="return np.linalg.norm(bank - patch, axis=1).min()",
    wrong=(
        "return np.linalg.norm(bank - patch)",
        "return ((bank - patch) ** 2).sum(axis=1).min()",
        "return np.abs(bank - patch).sum(axis=1).min()",
        "return np.linalg.norm(bank - patch, axis=1).mean()",
        "return np.linalg.norm(bank - patch, axis=1).argmin()",
    ),
)
def nearest_distance(answer):
    random = np.random.default_rng(0)
    for rows, width in [(1, 3), (5, 2), (40, 16)]:
        patch, bank = random.normal(size=width), random.normal(size=(rows, width))
        right = min(math.dist(patch, row) for row in bank)
        given = answer(patch.copy(), bank.copy())
        if not np.isclose(given, right):
            return f"for a bank of {rows} rows it gave {given:.4g}, not {right:.4g}"
    return True


@exercise(
    "01_introduction",
    signature="def conformal_threshold(calibration_scores, alpha):",
    question="You have the image scores of normal images that the model has not seen. Return a "
    "threshold that the score of one more normal image exceeds with probability at most `alpha`, "
    "and the lowest one that keeps this promise. With too few scores only infinity keeps it.",
    hint="Among n + 1 normal images, every rank is equally likely for the new one. Sort the n "
    "scores and take the k-th smallest with k = ceil((n + 1) * (1 - alpha)); if k > n, np.inf.",
    solution="""
        n = len(calibration_scores)
        k = int(np.ceil((n + 1) * (1 - alpha)))
        return np.sort(calibration_scores)[k - 1] if k <= n else np.inf
        """,
    wrong=(
        "return np.quantile(calibration_scores, 1 - alpha)",
        "return np.quantile(calibration_scores, alpha)",
        "return np.max(calibration_scores)",
        "n = len(calibration_scores)\n"
        "return np.sort(calibration_scores)[min(n, int(np.ceil((n + 1) * (1 - alpha)))) - 1]",
    ),
)
def conformal_threshold(answer):
    random = np.random.default_rng(0)
    for n, alpha in [(9, 0.5), (19, 0.05), (50, 0.13), (99, 0.1), (9, 0.05)]:
        scores = random.normal(size=n)
        # n + 1 - rank of the n + 1 equally likely places of a new score lie above this candidate.
        candidates = enumerate([*np.sort(scores), np.inf], start=1)
        right = min(score for rank, score in candidates if n + 1 - rank <= alpha * (n + 1) + 1e-9)
        given = answer(scores.copy(), alpha)
        if not np.isclose(given, right):
            return f"for {n} scores and alpha = {alpha} it gave {given:.4g}, not {right:.4g}"
    return True


@exercise(
    "02_feature_unfolding",
    signature="def mean_3x3(feature_map):",
    question="`feature_map` is an array of shape (height, width). Return the mean of every 3x3 "
    "neighbourhood, in an array of the same shape. Beyond the border stand zeros, and they count: "
    "always divide by 9.",
    hint="Pad with np.pad(feature_map, 1). The nine shifted views padded[i : i + height, "
    "j : j + width], for i and j from 0 to 2, hold the nine neighbours of every place.",
    solution="""
        height, width = feature_map.shape
        padded = np.pad(feature_map, 1)
        views = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return np.mean(views, axis=0)
        """,
    wrong=(
        "return np.full(feature_map.shape, feature_map.mean())",
        "height, width = feature_map.shape\n"
        "padded = np.pad(feature_map, 1, mode='edge')\n"
        "return np.mean([padded[i : i + height, j : j + width] for i in range(3) "
        "for j in range(3)], axis=0)",
        "height, width = feature_map.shape\n"
        "padded = np.pad(feature_map, 1)\n"
        "return np.sum([padded[i : i + height, j : j + width] for i in range(3) "
        "for j in range(3)], axis=0)",
    ),
)
def mean_3x3(answer):
    random = np.random.default_rng(0)
    for shape in [(4, 4), (1, 1), (3, 7)]:
        values = random.normal(size=shape)
        right = np.zeros(shape)
        for row, column in np.ndindex(shape):
            near = values[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            right[row, column] = near.sum() / 9
        given = np.asarray(answer(values.copy()))
        if given.shape != shape:
            return f"for a map of shape {shape} it gave shape {given.shape}"
        if not np.allclose(given, right):
            return f"for a map of shape {shape} some means are wrong"
    return True


@exercise(
    "02_feature_unfolding",
    signature="def patches_per_image(height, width, patch_size):",
    question="A ViT cuts its input into squares of `patch_size` pixels; here the image is first "
    "resized to the nearest smaller multiple of that size in each direction. How many patches "
    "come out of an image of `height` x `width` pixels?",
    hint="Whole squares per column times whole squares per row; `//` drops the remainder.",
    solution="return (height // patch_size) * (width // patch_size)",
    wrong=(
        "return height * width // patch_size**2",
        "return round(height / patch_size) * round(width / patch_size)",
        "return (height // patch_size) ** 2",
    ),
)
def patches_per_image(answer):
    for height, width, size in [(252, 252, 14), (256, 256, 14), (224, 518, 14), (100, 60, 16)]:
        right = len(range(size, height + 1, size)) * len(range(size, width + 1, size))
        given = answer(height, width, size)
        if given != right:
            return (
                f"for {height} x {width} pixels and patches of {size} it gave {given}, not {right}"
            )
    return True


@exercise(
    "03_coreset",
    signature="def next_pick(points, chosen):",
    question="`points` is an array of shape (n, c), `chosen` a list of the rows picked so far. "
    "Return the row that greedy k-center picks next.",
    hint="First the distance of every point to its nearest chosen point (a minimum over the "
    "chosen ones), then the row where that distance is largest (argmax).",
    solution="""
        distances = np.linalg.norm(points[:, None] - points[chosen], axis=2)
        return distances.min(axis=1).argmax()
        """,
    wrong=(
        "return np.linalg.norm(points[:, None] - points[chosen], axis=2).max(axis=1).argmax()",
        "return np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1).argmin()",
        "return np.linalg.norm(points - points[chosen[-1]], axis=1).argmax()",
        "return np.linalg.norm(points - points[chosen].mean(axis=0), axis=1).argmax()",
    ),
)
def next_pick(answer):
    random = np.random.default_rng(0)
    for _ in range(5):
        points, chosen = random.normal(size=(30, 3)), [int(i) for i in random.permutation(30)[:4]]
        nearest = [min(math.dist(point, points[i]) for i in chosen) for point in points]
        right, given = nearest.index(max(nearest)), answer(points.copy(), list(chosen))
        if given != right:
            return f"with rows {chosen} chosen it picked {given}, not {right}"
    return True


@exercise(
    "03_coreset",
    signature="def picks_needed(radii, wanted):",
    question="`radii[j]` is the coverage radius after j + 1 picks of a greedy run; it never grows. "
    "Return the smallest number of picks whose radius is at most `wanted`, or None if the run "
    "did not get there.",
    hint="np.flatnonzero(radii <= wanted) lists the places where the radius is small enough; the "
    "first place j means j + 1 picks.",
    solution="""
        enough = np.flatnonzero(radii <= wanted)
        return int(enough[0]) + 1 if len(enough) else None
        """,
    wrong=(
        "return int(np.argmax(radii <= wanted)) + 1",
        "return int(np.flatnonzero(radii <= wanted)[0]) if radii[-1] <= wanted else None",
        "return int((radii <= wanted).sum()) or None",
    ),
)
def picks_needed(answer):
    radii = np.array([9.0, 6.5, 6.5, 4.0, 2.5, 2.0])
    for wanted, right in [(9.5, 1), (6.5, 2), (4.2, 4), (2.0, 6), (1.0, None)]:
        given = answer(radii.copy(), wanted)
        if given != right:
            return f"for a radius of {wanted} it gave {given}, not {right}"
    return True


@exercise(
    "04_exp1_backbone_comparison",
    signature="def auroc_by_pairs(normal, defective):",
    question="Return the image AUROC from its meaning: over all pairs of a normal and a defective "
    "image, the share in which the defective one has the higher score; a tie counts one half. Both "
    "arguments are arrays of scores.",
    hint="`defective[:, None] > normal` compares every pair at once; its mean is a share. Add half "
    "the share of `==`.",
    solution="""
        pairs = defective[:, None]
        return (pairs > normal).mean() + (pairs == normal).mean() / 2
        """,
    wrong=(
        "return (defective[:, None] > normal).mean()",
        "return (defective[:, None] >= normal).mean()",
        "return (defective > normal.mean()).mean()",
        "return (defective[:, None] < normal).mean() + (defective[:, None] == normal).mean() / 2",
    ),
)
def auroc_by_pairs(answer):
    random = np.random.default_rng(0)
    for n, m in [(3, 4), (20, 7), (50, 50)]:
        normal, defective = random.integers(0, 6, n) / 2, random.integers(1, 8, m) / 2
        wins = [(d > g) + (d == g) / 2 for d in defective for g in normal]
        right, given = sum(wins) / len(wins), answer(normal.copy(), defective.copy())
        if not np.isclose(given, right):
            return f"for {n} normal and {m} defective scores it gave {given:.4g}, not {right:.4g}"
    return True


@exercise(
    "04_exp1_backbone_comparison",
    signature="def paired_error(a, b):",
    question="`a[i]` and `b[i]` are the AUROCs of two methods with the same seed i. Return the "
    "standard error of their mean difference, as a paired comparison has it.",
    hint="Take the differences first. Their standard deviation (ddof=1: the mean was estimated "
    "from them) divided by the root of their number is the standard error.",
    solution="""
        difference = a - b
        return difference.std(ddof=1) / np.sqrt(len(difference))
        """,
    wrong=(
        "return np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))",
        "return (a - b).std() / np.sqrt(len(a))",
        "return (a - b).std(ddof=1)",
        "return (a - b).mean() / np.sqrt(len(a))",
    ),
)
def paired_error(answer):
    random = np.random.default_rng(0)
    for count in (3, 5, 12):
        luck = random.normal(0.9, 0.03, count)  # of the seed, shared by both
        a, b = luck + random.normal(0, 0.01, count), luck + random.normal(0, 0.01, count)
        gaps = [x - y for x, y in zip(a, b, strict=True)]
        middle = sum(gaps) / count
        right = (sum((g - middle) ** 2 for g in gaps) / (count - 1) / count) ** 0.5
        given = answer(a.copy(), b.copy())
        if not np.isclose(given, right):
            return f"for {count} seeds it gave {given:.5f}, not {right:.5f}"
    return True


@exercise(
    "05_exp2_adaptive_coreset",
    signature="def weighted_pick(points, weights, chosen):",
    question="`points` is an array of shape (n, c), `weights` of shape (n,), `chosen` a list of "
    "the rows picked so far. Return the row that weighted greedy k-center picks next.",
    hint="The distance of every point to its nearest chosen point comes first; multiply it by the "
    "point's own weight, then take the largest.",
    solution="""
        distances = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
        return (weights * distances).argmax()
        """,
    wrong=(
        "return np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1).argmax()",
        "return weights.argmax()",
        "d = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)\n"
        "return (d / weights).argmax()",
        "d = np.linalg.norm(points[:, None] - points[chosen], axis=2) * weights[chosen]\n"
        "return d.min(axis=1).argmax()",
    ),
)
def weighted_pick(answer):
    random = np.random.default_rng(0)
    for _ in range(5):
        points, weights = random.normal(size=(30, 3)), random.uniform(0.05, 1, 30)
        chosen = [int(i) for i in random.permutation(30)[:4]]
        values = [
            w * min(math.dist(point, points[i]) for i in chosen)
            for point, w in zip(points, weights, strict=True)
        ]
        right = values.index(max(values))
        given = answer(points.copy(), weights.copy(), list(chosen))
        if given != right:
            return f"with rows {chosen} chosen it picked {given}, not {right}"
    return True


@exercise(
    "05_exp2_adaptive_coreset",
    signature="def position_variance(patches):",
    question="`patches` is an array of shape (images, rows, columns, channels). Return the "
    "variance across the images at every place, summed over the channels: shape (rows, columns).",
    hint="`patches.var(axis=...)` along the axis of the images leaves (rows, columns, channels); "
    "sum over the last axis.",
    solution="return patches.var(axis=0).sum(axis=-1)",
    wrong=(
        "return patches.var(axis=-1).mean(axis=0)",
        "return patches.sum(axis=-1).var(axis=0)",
        "return patches.std(axis=0).sum(axis=-1)",
        "return patches.var(axis=(1, 2)).sum(axis=-1)",
    ),
)
def position_variance(answer):
    random = np.random.default_rng(0)
    for shape in [(5, 2, 3, 4), (9, 4, 4, 2)]:
        patches = random.normal(size=shape)
        right = np.zeros(shape[1:3])
        for row, column, channel in np.ndindex(*shape[1:]):
            values = [float(image[row, column, channel]) for image in patches]
            middle = sum(values) / len(values)
            right[row, column] += sum((v - middle) ** 2 for v in values) / len(values)
        given = answer(patches.copy())
        if np.shape(given) != right.shape:
            return f"for shape {shape} it gave shape {np.shape(given)}, not {right.shape}"
        if not np.allclose(given, right):
            return f"for shape {shape} the first place got {np.ravel(given)[0]:.4g}, not " + (
                f"{right[0, 0]:.4g}"
            )
    return True


@exercise(
    "06_exp3_faiss_compression",
    signature="def index_bytes(rows, width, n_clusters, m, bits):",
    question="Return how many bytes an IVF-PQ index of `rows` vectors of `width` float32 numbers "
    "takes: per row m codes of `bits` bits and an 8-byte row number; once the centres of the "
    "clusters, and m codebooks of 2**bits codewords of width / m numbers each.",
    hint="Codes take m * bits / 8 bytes a row. All codebooks together hold 2**bits * width "
    "numbers, the centres n_clusters * width, of 4 bytes each.",
    solution="return rows * (m * bits / 8 + 8) + 4 * width * (n_clusters + 2**bits)",
    wrong=(
        "return rows * width * 4 * bits / 32",
        "return rows * (m * bits / 8) + 4 * width * (n_clusters + 2**bits)",
        "return rows * (m * bits + 8) + 4 * width * (n_clusters + 2**bits)",
        "return rows * (m * bits / 8 + 8) + 4 * width * (n_clusters + m * 2**bits)",
    ),
)
def index_bytes(answer):
    for rows, width, clusters, m, bits in [(209, 152, 100, 8, 4), (20480, 152, 100, 8, 8)]:
        right = sum((rows * m * bits // 8, 8 * rows, 4 * width * clusters, 4 * width << bits))
        given = answer(rows, width, clusters, m, bits)
        if not np.isclose(given, right):
            return f"for {rows} rows, m={m} and {bits} bits it gave {given:,.0f}, not {right:,}"
    return True


@exercise(
    "06_exp3_faiss_compression",
    signature="def recall_at_one(exact, found):",
    question="`exact` has shape (n,): the true nearest row of every patch. `found` has shape "
    "(n, k): the rows that an index returned, nearest first. Return recall@1, the share of "
    "patches whose first row is the true one.",
    hint="Only the first column of `found` counts: compare found[:, 0] with exact, take the mean.",
    solution="return (found[:, 0] == exact).mean()",
    wrong=(
        "return (found == exact[:, None]).any(axis=1).mean()",
        "return (found == exact[:, None]).mean()",
        "return (found[:, 0] == exact).sum()",
    ),
)
def recall_at_one(answer):
    random = np.random.default_rng(0)
    for n, k in [(10, 1), (50, 3), (200, 5)]:
        found = random.permuted(np.tile(np.arange(9), (n, 1)), axis=1)[:, :k]
        exact = np.where(random.random(n) < 0.6, found[:, 0], random.integers(0, 9, n))
        right = sum(int(row[0]) == int(true) for row, true in zip(found, exact, strict=True)) / n
        given = answer(exact.copy(), found.copy())
        if not np.isclose(given, right):
            return f"for {n} patches and k={k} it gave {given:.3f}, not {right:.3f}"
    return True


@exercise(
    "07_aitex_tiling",
    signature="def tile_starts(length, size, stride):",
    question="Return the list of columns at which tiles of `size` pixels start along a strip of "
    "`length` pixels, one every `stride`; the last tile is shifted back so that it ends with the "
    "strip. The strip is at least one tile long.",
    hint="range(0, length - size, stride) gives all tiles that start before the last one; the last "
    "one starts at length - size, once.",
    solution="return [*range(0, length - size, stride), length - size]",
    wrong=(
        "return list(range(0, length, stride))",
        "return list(range(0, length - size + 1, stride))",
        "return [*range(0, length - size + 1, stride), length - size]",
        "return [*range(0, length - stride, stride), length - stride]",
    ),
)
def tile_starts(answer):
    for length, size, stride in [(1000, 256, 256), (512, 256, 128), (256, 256, 64), (300, 100, 70)]:
        right, start = [], 0
        while start + size < length:
            right.append(start)
            start += stride
        right.append(length - size)
        given = answer(length, size, stride)
        if list(given) != right:
            return f"for length {length}, size {size}, stride {stride}: {given}, not {right}"
    return True


@exercise(
    "07_aitex_tiling",
    signature="def tile_label(mask, x, y, size):",
    question="`mask` is a bool array of shape (height, width): the defect pixels of a strip. "
    "Return 1 if the tile that starts at column x and row y shows any of them, else 0.",
    hint="Rows come first: mask[y : y + size, x : x + size]. `any()` asks for a single pixel.",
    solution="return int(mask[y : y + size, x : x + size].any())",
    wrong=(
        "return int(mask[x : x + size, y : y + size].any())",
        "return int(mask[y : y + size, x : x + size].mean() > 0.5)",
        "return int(mask[y, x])",
        "return int(mask[y : y + size, x : x + size].all())",
    ),
)
def tile_label(answer):
    mask = np.zeros((64, 200), bool)
    mask[10:12, 100:103] = True
    for x, y, size, right in [(64, 0, 64, 1), (0, 0, 64, 0), (103, 0, 64, 0), (40, 0, 61, 1)]:
        given = answer(mask.copy(), x, y, size)
        if given != right:
            return f"for the tile at x={x}, y={y} of size {size} it gave {given}, not {right}"
    return True
