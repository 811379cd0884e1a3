"""How patch vectors become patch scores: ideas since 2022, as small parts that can be combined.

PatchCore's own way is one memory bank and the distance to its nearest row: `BankScorer`, as it is
by default. The other scorers change one thing each, and take scorers as parts:

- `BankScorer(soft_rows=5)`: the distance to a mixture of the nearest rows, the *soft projection*;
- `MedianOfBanks`: several banks that differ in their seeds, and the median of their scores;
- `BankPerLayer`: a bank for each layer of the network, and the mean of their scores;
- `WithPlace`: a patch is compared by its place in the image, too.

`ComposedPatchCore` makes a detector of a scorer. Taught in notebook 9.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.core.detector import (
    AnomalyResult,
    Detector,
    as_image_list,
    image_scores,
)
from patchcore_helpers.core.distances import as_tensor
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.patchcore import PatchCore, as_rows
from patchcore_helpers.core.region_of_interest import refuse_region
from patchcore_helpers.core.turned import with_turned_copies
from patchcore_helpers.core.validation import check_integer, check_real
from patchcore_helpers.errors import InputError

SMALLEST = 1e-12  # what would be divided by 0 is divided by this


class PatchScorer(BaseEstimator, ABC):
    """Learns from the patch vectors of normal images; scores those of others.

    Patch vectors are float32 arrays or tensors of shape (images, rows, columns, channels), patch
    scores float32 arrays of shape (images, rows, columns).
    """

    @abstractmethod
    def fit(self, patches: np.ndarray | torch.Tensor) -> Self:
        """Learn from patch vectors of normal images; what an earlier fit learned is forgotten."""

    @abstractmethod
    def score(self, patches: np.ndarray | torch.Tensor) -> np.ndarray:
        """Patch scores; higher is more anomalous."""

    @abstractmethod
    def banks(self) -> list[MemoryBank]:
        """All fitted memory banks, for what they hold and cost."""


class BankScorer(PatchScorer):
    """The distance to one memory bank: to its nearest row, or to a mixture of several.

    Parameters
    ----------
    bank : MemoryBank, optional
        Its settings; by default those of `MemoryBank`.
    soft_rows : int
        1: the distance to the nearest rows, as the bank itself computes it. 2 or more: a patch is
        projected onto the weighted mean of so many nearest rows (`soft_distances`), and its score
        is the distance to this projection.

    Attributes
    ----------
    bank_ : MemoryBank

    Examples
    --------
    >>> patches = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
    >>> BankScorer(MemoryBank(coreset_ratio=0.5)).fit(patches).score(patches[:1]).shape
    (1, 4, 4)
    """

    def __init__(self, bank: MemoryBank | None = None, *, soft_rows: int = 1):
        self.bank = bank
        self.soft_rows = soft_rows

    def fit(self, patches: np.ndarray | torch.Tensor) -> Self:
        """Fill the memory bank."""
        bank = MemoryBank() if self.bank is None else clone(self.bank)
        if check_integer(self.soft_rows, "soft_rows", 1) > 1 and bank.metric != "l2":
            raise InputError(f"soft_rows={self.soft_rows}: needs the metric l2, not {bank.metric}")
        self.bank_ = bank.fit(as_rows(as_tensor(patches)))
        return self

    def score(self, patches: np.ndarray | torch.Tensor) -> np.ndarray:
        """Distances to the bank."""
        check_is_fitted(self, "bank_")
        if self.soft_rows == 1:
            scores = self.bank_.distances(as_rows(as_tensor(patches)))
        else:
            scores = soft_distances(self.bank_, patches, self.soft_rows)
        return scores.reshape(patches.shape[:3])

    def banks(self) -> list[MemoryBank]:
        """The one bank."""
        return [self.bank_]


def soft_distances(
    bank: MemoryBank, patches: np.ndarray | torch.Tensor, soft_rows: int = 5
) -> np.ndarray:
    """The distance of every patch to a weighted mean of its nearest rows in the bank.

    The weight of a row falls with its squared distance d to the patch, as exp(-d / t). The
    temperature t is the median of these d over all patches of the image: where rows are far apart,
    more of them have a say. A patch between two rows is near the projection, though far from both.

    Parameters
    ----------
    bank : MemoryBank
        With the metric "l2" and an index that stores vectors.
    patches : array or tensor of shape (images, rows, columns, channels)
    soft_rows : int
        How many of the nearest rows; cut to the size of the bank.

    Returns
    -------
    float32 array of shape (images * rows * columns,)

    Notes
    -----
    The "soft projection" of ProCon (github.com/jw-chae/Procon, docs/METHOD.md, section 2.2), here
    with the temperature from all patches of the image instead of a sample of them.

    Examples
    --------
    >>> bank = MemoryBank(coreset_ratio=1.0).fit(np.array([[0.0, 0.0], [2.0, 0.0]]))
    >>> between = np.array([1.0, 0.5]).reshape(1, 1, 1, 2)
    >>> bank.distances(between.reshape(1, 2)).round(2), soft_distances(bank, between, 2).round(2)
    (array([1.12], dtype=float32), array([0.5], dtype=float32))
    """
    vectors = as_rows(as_tensor(patches)).float().cpu().numpy()
    distances, nearest = bank.nearest(vectors, soft_rows)
    squared = np.square(distances).reshape(len(patches), -1)  # all those of an image in one row
    temperature = np.median(squared, axis=1, keepdims=True).clip(SMALLEST)
    weights = softmax((-squared / temperature).reshape(distances.shape), axis=1)

    projection = F.embedding_bag(  # a weighted sum of rows, without a copy of all of them
        torch.from_numpy(nearest),
        torch.from_numpy(bank.vectors_),
        per_sample_weights=torch.from_numpy(weights.astype(np.float32)),
        mode="sum",
    )
    return (torch.from_numpy(vectors) - projection).norm(dim=1).numpy()


class MedianOfBanks(PatchScorer):
    """The median of several scorers, such as banks that differ in nothing but their seeds.

    Which patches greedy k-center keeps depends on the first one, which is random. A normal patch
    that one bank happens to lack, most others have: the median passes over such accidents.

    Parameters
    ----------
    scorers : sequence of PatchScorer

    Attributes
    ----------
    scorers_ : list of PatchScorer
        Fitted.

    Examples
    --------
    >>> patches = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
    >>> model = MedianOfBanks(seeded_banks(MemoryBank(coreset_ratio=0.2), 3)).fit(patches)
    >>> [len(bank) for bank in model.banks()]
    [10, 10, 10]
    """

    def __init__(self, scorers: Sequence[PatchScorer]):
        self.scorers = scorers

    def fit(self, patches: np.ndarray | torch.Tensor) -> Self:
        """Fit every scorer on the same patches."""
        if not self.scorers:
            raise InputError("scorers: give at least one")
        self.scorers_ = [clone(scorer).fit(patches) for scorer in self.scorers]
        return self

    def score(self, patches: np.ndarray | torch.Tensor) -> np.ndarray:
        """The median of their scores, patch by patch."""
        check_is_fitted(self, "scorers_")
        return np.median([scorer.score(patches) for scorer in self.scorers_], axis=0)

    def banks(self) -> list[MemoryBank]:
        """Those of all scorers."""
        return [bank for scorer in self.scorers_ for bank in scorer.banks()]


def seeded_banks(bank: MemoryBank, n_banks: int, *, soft_rows: int = 1) -> list[BankScorer]:
    """Scorers with the same settings whose coresets begin with different seeds.

    Parameters
    ----------
    bank : MemoryBank
        Its settings; the first scorer has its seed, the next ones the seeds that follow.
    n_banks : int
    soft_rows : int
        See `BankScorer`.
    """
    check_integer(n_banks, "n_banks", 1)
    seeds = [bank.random_state + number for number in range(n_banks)]
    return [
        BankScorer(clone(bank).set_params(random_state=seed), soft_rows=soft_rows) for seed in seeds
    ]


class BankPerLayer(PatchScorer):
    """A scorer for each layer of the network, and the mean of their scores.

    In one bank for all layers, the layer with the longest vectors decides which patches are kept
    and how far a patch is. Here each layer's vectors are divided by their root mean square length
    over the normal patches, so that distances of all layers are in the same unit.

    Parameters
    ----------
    widths : sequence of int
        How many channels each layer has, in their order; see `layer_widths`.
    scorer : PatchScorer, optional
        What every layer is scored by; by default a `BankScorer`.

    Attributes
    ----------
    scales_ : list of float
        The root mean square lengths.
    scorers_ : list of PatchScorer
        One for each layer, fitted.

    Notes
    -----
    ProCon (github.com/jw-chae/Procon, docs/METHOD.md, section 2.3) keeps a bank for each of four
    blocks of a ViT, and makes every vector one unit long instead.
    """

    def __init__(self, widths: Sequence[int], scorer: PatchScorer | None = None):
        self.widths = widths
        self.scorer = scorer

    def fit(self, patches: np.ndarray | torch.Tensor) -> Self:
        """Fit a scorer on the channels of each layer."""
        if sum(self.widths) != patches.shape[-1]:
            raise InputError(
                f"widths={tuple(self.widths)}: the patches have {patches.shape[-1]} channels; "
                "ask layer_widths"
            )
        scorer = BankScorer() if self.scorer is None else self.scorer
        self.scales_, self.scorers_ = [], []
        for layer in self._by_layer(patches):
            squared_lengths = as_tensor(layer).square().sum(-1)
            scale = float(squared_lengths.mean().sqrt().clamp(min=SMALLEST))
            self.scales_.append(scale)
            self.scorers_.append(clone(scorer).fit(layer / scale))
        return self

    def score(self, patches: np.ndarray | torch.Tensor) -> np.ndarray:
        """The mean of the layers' scores, patch by patch."""
        check_is_fitted(self, "scorers_")
        layers = zip(self._by_layer(patches), self.scales_, self.scorers_, strict=True)
        return np.mean([scorer.score(layer / scale) for layer, scale, scorer in layers], axis=0)

    def banks(self) -> list[MemoryBank]:
        """Those of all layers."""
        return [bank for scorer in self.scorers_ for bank in scorer.banks()]

    def _by_layer(self, patches: np.ndarray | torch.Tensor) -> Iterator[np.ndarray | torch.Tensor]:
        ends = np.cumsum(self.widths).tolist()
        for width, end in zip(self.widths, ends, strict=True):
            yield patches[..., end - width : end]


class WithPlace(PatchScorer):
    """Patches that also know where in the image they are.

    Two numbers are appended to each vector, its row and column. For objects that lie the same way
    in every image, a patch is then compared with patches of its own place first.

    Parameters
    ----------
    scorer : PatchScorer, optional
        What the longer vectors are scored by; by default a `BankScorer`.
    weight : float
        From one side of the image to the other, the place counts as much as so many standard
        deviations of the normal patch vectors (the root of the sum of their channels' variances).

    Attributes
    ----------
    spread_ : float
        That standard deviation.
    scorer_ : PatchScorer
        Fitted.
    """

    def __init__(self, scorer: PatchScorer | None = None, *, weight: float = 1.0):
        self.scorer = scorer
        self.weight = weight

    def fit(self, patches: np.ndarray | torch.Tensor) -> Self:
        """Measure the spread, and fit the scorer on the longer vectors."""
        check_real(self.weight, "weight", 0)
        self.spread_ = float(as_rows(as_tensor(patches)).var(0, correction=0).sum().sqrt())
        scorer = BankScorer() if self.scorer is None else self.scorer
        self.scorer_ = clone(scorer).fit(self._with_place(patches))
        return self

    def score(self, patches: np.ndarray | torch.Tensor) -> np.ndarray:
        """Scores of the longer vectors."""
        check_is_fitted(self, "scorer_")
        return self.scorer_.score(self._with_place(patches))

    def banks(self) -> list[MemoryBank]:
        """Those of the scorer."""
        return self.scorer_.banks()

    def _with_place(self, patches: np.ndarray | torch.Tensor) -> torch.Tensor:
        vectors = as_tensor(patches)
        n_images, n_rows, n_columns, _ = vectors.shape
        rows, columns = torch.linspace(0, 1, n_rows), torch.linspace(0, 1, n_columns)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        places = (places * self.weight * self.spread_).to(vectors.device)
        return torch.cat([vectors, places.expand(n_images, -1, -1, -1)], dim=-1)


def layer_widths(extractor: Extractor) -> list[int]:
    """How many channels each layer of a network has; the network sees one gray image."""
    gray = np.full((*extractor.input_size, 3), 128, np.uint8)
    return [layer.shape[1] for layer in next(iter(extractor.compute_maps([gray])))]


class ComposedPatchCore(Detector):
    """PatchCore with another way from patch vectors to patch scores.

    Parameters
    ----------
    model : PatchCore
        Says how images become patch vectors, how patch scores become image scores and maps, and
        how a bank is filled where the scorer does not say.
    scorer : PatchScorer, optional
        By default a `BankScorer` with the model's bank, which is PatchCore itself.
    turned_copies : bool
        Fill the bank from copies of the images, too, turned by quarters; see `with_turned_copies`.

    Attributes
    ----------
    scorer_ : PatchScorer
        Fitted.
    extractor_ : Extractor
    threshold_ : float
        Set by `calibrate`.

    Examples
    --------
    >>> from patchcore_helpers import load_category
    >>> category = load_category("elpv/mono")
    >>> model = PatchCore("resnet18", weights="random", image_size=64, coreset_ratio=0.1)
    >>> five_banks = MedianOfBanks(seeded_banks(model.new_bank(), 5, soft_rows=5))
    >>> detector = ComposedPatchCore(model, five_banks).fit(category.train[:4])
    >>> detector.anomaly_scores(category.test[:2]).shape, detector.summary()["bank_size"]
    ((2,), 130)
    """

    def __init__(
        self, model: PatchCore, scorer: PatchScorer | None = None, *, turned_copies: bool = False
    ):
        self.model = model
        self.scorer = scorer
        self.turned_copies = turned_copies

    def fit(self, images: Sequence[Any], y: Any = None) -> Self:
        """Fit the scorer on the patch vectors of normal images."""
        refuse_region(self.model.roi, "a recipe")
        if self.model.image_score == "reweighted":
            raise InputError("image_score='reweighted': only PatchCore itself has it; choose max")
        scorer = BankScorer(self.model.new_bank()) if self.scorer is None else self.scorer
        images = as_image_list(images)
        if self.turned_copies:
            images = with_turned_copies(images)
        extractor = self.model.new_extractor()
        patches = extractor.extract(images, self._label("memory bank"))
        self.scorer_ = clone(scorer).fit(patches)
        self.extractor_ = extractor
        self._forget_threshold()
        return self

    def detect_batches(self, images: Sequence[Any]) -> Iterator[AnomalyResult]:
        """Score images batch by batch, as the scorer does."""
        check_is_fitted(self, "scorer_")
        images = as_image_list(images)
        yield from self.extractor_.patches(images, self._label("score"), self._score_batch)

    def _score_batch(self, patches: torch.Tensor) -> AnomalyResult:
        patch_scores = self.scorer_.score(patches).astype(np.float32)
        return AnomalyResult(image_scores(patch_scores, self.model.image_score), patch_scores)

    def to_maps(self, result: AnomalyResult) -> np.ndarray:
        """Anomaly maps at image size, float32 array of shape (n, height, width)."""
        return self.model.to_maps(result)

    @property
    def metric_size(self) -> tuple[int, int]:
        return self.model.metric_size

    def summary(self) -> dict[str, Any]:
        check_is_fitted(self, "scorer_")
        banks = self.scorer_.banks()
        return {
            "backbone": self.model.backbone,
            "image_size": self.model.image_size,
            "coreset_ratio": self.model.coreset_ratio,
            "n_patches": banks[0].n_vectors_,
            "bank_size": sum(len(bank) for bank in banks),
        }

    def _label(self, text: str) -> str | None:
        return text if self.model.progress else None
