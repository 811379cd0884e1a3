"""Ideas since 2022 on artificial patch vectors, and on a few images."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patchcore_helpers import MemoryBank, PatchCore, load_category
from patchcore_helpers.core.batch_scores import mutual_patch_scores
from patchcore_helpers.core.ensemble import Ensemble
from patchcore_helpers.core.scorers import BankScorer, MedianOfBanks, seeded_banks
from patchcore_helpers.course import figures
from patchcore_helpers.experiments import since

SETTINGS = since.Settings(
    backbone="test_resnet",
    second_backbone="resnet18",
    image_size=64,
    coreset_ratio=0.1,
    n_banks=3,
    use_cache=False,
)


def artificial(seed=0, n_train=8, n_test=10):
    """Vectors of two networks; defective images have one patch that is far from all others."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n_test // 2)
    networks = []
    for grid, channels in (((4, 4), 6), ((2, 3), 5)):
        train, test = (
            random.normal(size=(n, *grid, channels)).astype(np.float32) for n in (n_train, n_test)
        )
        test[labels == 1, 0, 1] += 3
        networks.append(since.NetworkVectors(train, test, milliseconds=5.0))
    turned = np.rot90(networks[0].train, axes=(1, 2))
    return since.Vectors(labels, *networks, turned, widths=[2, 4])


@pytest.fixture(scope="module")
def measured():
    categories = [("one", artificial(0)), ("two", artificial(1))]
    return since.measure(SETTINGS, iter(categories), [0, 1])


def test_the_baseline_is_patchcore_and_the_control_another_seed(measured):
    vectors = artificial(0)
    train, test = (part.reshape(-1, 6) for part in (vectors.first.train, vectors.first.test))
    for place, seed in enumerate([0, 1]):
        for idea, shift in ((since.BASELINE, 0), (since.CONTROL, since.OTHER_SEED)):
            bank = MemoryBank(coreset_ratio=0.1, random_state=seed + shift).fit(train)
            expected = bank.distances(test).reshape(10, -1).max(1)
            np.testing.assert_array_equal(measured.scores[idea, "one"][place], expected)


def test_every_idea_scores_every_image(measured):
    assert len(measured.ideas) == 11 and since.BASELINE not in measured.ideas
    for idea in (since.BASELINE, *measured.ideas):
        for category in ("one", "two"):
            scores = measured.scores[idea, category]
            assert scores.shape == (2, 10) and np.isfinite(scores).all()
    mutual = mutual_patch_scores(artificial(0).second.test).max((1, 2))
    np.testing.assert_array_equal(measured.scores["mutual scores", "one"], [mutual, mutual])
    networks = measured.milliseconds.set_index(["idea", "category"])["network"]
    assert networks["two networks", "one"] == 10 and networks["place", "one"] == 5


def test_aurocs_are_those_of_scikit_learn(measured):
    table = since.auroc_table(measured)
    labels = measured.labels["two"]
    expected = np.mean([roc_auc_score(labels, s) for s in measured.scores["place", "two"]])
    assert table.loc["place", "two"] == pytest.approx(expected)
    assert table.loc["place", "mean"] == pytest.approx(table.loc["place", ["one", "two"]].mean())
    assert table.index[0] == since.BASELINE


def test_what_changes_nothing_shows_nothing_and_what_finds_all_is_better():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    scores = {}
    for category in ("one", "two"):
        baseline = random.normal(labels, 1, size=(2, 120))
        scores[since.BASELINE, category] = baseline
        scores["nothing", category] = baseline.copy()
        scores["oracle", category] = labels + random.uniform(size=(2, 120)) / 2
        scores["blind", category] = random.uniform(size=(2, 120))
    measured = since.Measured({"one": labels, "two": labels}, scores, None)
    page = since.compare_ideas(measured, "oracle").set_index(["comparison", "kind"])
    verdicts = {idea: page.loc[(idea, "all"), "verdict"] for idea in measured.ideas}
    assert verdicts == {"nothing": "no difference shown", "oracle": "better", "blind": "worse"}
    assert page.loc[("oracle", "all"), "confidence"] == 0.95
    assert page.loc[("blind", "all"), "confidence"] > 0.95


@pytest.mark.long
def test_two_networks_are_the_ensemble_of_the_package():
    category = load_category("elpv/mono").limit(10, 4)
    options = dict(weights="random", image_size=64, coreset_ratio=0.1, random_state=2)
    parts = [PatchCore(name, **options) for name in ("test_resnet", "resnet18")]
    ensemble = Ensemble(parts, random_state=2).fit(category.train)
    networks = []
    for part in parts:
        extractor = part.new_extractor()
        train, test = (extractor.extract(images) for images in (category.train, category.test))
        networks.append(since.NetworkVectors(train, test, 0.0))
    vectors = since.Vectors(category.labels, *networks, networks[0].train, [])
    scored = since.score_networks(SETTINGS, vectors, seed=2)["two networks"]
    np.testing.assert_allclose(scored.scores, ensemble.anomaly_scores(category.test), rtol=1e-3)


def test_banks_that_are_read_in_four_ways_are_those_of_the_scorers():
    vectors = artificial(4)
    train, test = vectors.first.train, vectors.first.test
    bank = SETTINGS.bank(9)
    scorers = {
        since.BASELINE: BankScorer(bank),
        "several banks": MedianOfBanks(seeded_banks(bank, 3)),
        "soft projection": BankScorer(bank, soft_rows=5),
        since.SOFT_BANKS: MedianOfBanks(seeded_banks(bank, 3, soft_rows=5)),
    }
    found = since.score_by_banks(SETTINGS, train, test, 9)
    assert found.keys() == scorers.keys()
    for idea, scorer in scorers.items():
        expected = since.score_by(scorer, train, test).scores
        np.testing.assert_array_equal(found[idea].scores, expected)


def test_the_forest_draws_the_page(measured):
    page = since.compare_ideas(measured, "several soft banks")
    times = measured.milliseconds.groupby("idea", sort=False)["scoring"].mean() + 5
    figure = figures.since.forest(page, times, "several soft banks", since.CONTROL)
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[0] == "another seed (control)" and "several soft banks (primary)" in names
    means = page[page["kind"] == "all"]
    bars = [line for line in left.lines if len(line.get_xdata()) == 2]
    lines = {bar.get_ydata()[0]: bar for bar in bars if len(set(bar.get_ydata())) == 1}
    for y, (low, high) in enumerate(zip(means["low"], means["high"], strict=True)):
        np.testing.assert_allclose(lines[y].get_xdata(), [low, high])
    (dots,) = (line for line in right.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_xdata(), times[measured.ideas])
    plt.close(figure)


def test_the_other_figures_are_drawn():
    rows = np.array([[0.0, 0.0], [1.0, 0.0]])
    figure = figures.since.soft_projection(
        rows, np.array([0.5, 0.5]), np.array([0.5, 0.3]), np.array([0.5, 0.0])
    )
    assert figure.axes[0].get_title() == "nearest row 0.58, soft projection 0.30"
    labels = np.array([0, 1, 0, 1])
    ranks = np.array([[0.25, 1, 0.5, 0.75], [0.5, 1, 0.25, 0.75]])
    scatter = figures.since.rank_scatter(ranks, labels, ("one", "two")).axes[0]
    offsets = np.concatenate([points.get_offsets() for points in scatter.collections])
    np.testing.assert_array_equal(offsets, ranks[:, [0, 2, 1, 3]].T)
    curve = figures.since.banks_curve({"one": np.array([[0.8, 0.9], [0.7, 0.9]])}, 1).axes[0]
    np.testing.assert_allclose(curve.lines[0].get_ydata(), [0.75, 0.9])
    plt.close("all")
