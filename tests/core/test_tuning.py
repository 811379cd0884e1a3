"""Settings are chosen by planted defects: the choice, its limits, and the scores it compares."""

import numpy as np
import pandas as pd
import pytest
from helpers.command import tiny_model
from helpers.miniatures import picture
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError
from patchcore_helpers.core.anomaly_result import AnomalyResult
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.strips import StripPatchCore
from patchcore_helpers.core.tuning import Candidate, choose, plant, rescore, tune

GRAY = np.full((96, 96), 128, np.uint8)
IMAGES = [GRAY + np.uint8(i) for i in range(9)]
SCORES = ({}, {"image_score": "mean"})


class Stub(PatchCore):
    """Patch scores are the differences from the middle gray level, if it sees anything at all."""

    def fit(self, images, y=None):
        self.level_ = np.mean([np.asarray(read_item(image)).mean() for image in images])
        return self

    def detect_batches(self, images):
        for image in images:
            grid = np.abs(np.asarray(read_item(image)).mean(2) - self.level_)[None]
            if self.image_size == 64:
                grid = np.zeros_like(grid)
            yield AnomalyResult(grid.max((1, 2)), grid)


def make(parameters):
    return Stub(**{"image_size": 64, **parameters})


def test_the_candidate_that_sees_the_defects_is_chosen():
    candidates = [Candidate({}, 1.0, ({},)), Candidate({"image_size": 96}, 1.0, SCORES)]
    tuning = tune(IMAGES, make, candidates)
    assert tuning.parameters == {"image_size": 96} and tuning.not_tried == []
    assert tuning.table["parameters"].tolist() == [
        *({}, {"image_size": 96}, {"image_size": 96, "image_score": "mean"})
    ]
    assert tuning.table["auroc"][0] == 0.5
    for row in tuning.table.itertuples():
        labels = np.arange(len(row.scores)) >= 3
        assert len(row.scores) == 3 + 60
        assert row.auroc == pytest.approx(roc_auc_score(labels, row.scores))
        assert row.ahead == pytest.approx(row.auroc - tuning.table["auroc"][0])


def test_the_default_stays_where_nothing_is_better():
    candidates = [Candidate({}, 1.0, ({},)), Candidate({"n_neighbors": 2}, 1.0, SCORES)]
    assert tune(IMAGES, make, candidates).parameters == {}


def test_the_default_stays_where_a_lead_may_be_chance():
    table = pd.DataFrame({"auroc": [0.7, 0.95, 0.9, 0.9, 0.8], "low": [0.0, -0.01, 0.1, 0.2, 0.1]})
    assert choose(table) == 2  # 1 leads by more, but perhaps by chance; 3 is as good, and later
    assert choose(table.assign(low=[0.0, -0.01, -0.1, 0.0, -0.2])) == 0
    assert choose(table.assign(low=float("nan"))) == 0


def test_what_is_left_when_the_minutes_are_spent_is_said():
    others = [{"image_size": 96}, {"image_size": 128}]
    candidates = [Candidate({}, 1.0, SCORES), *(Candidate(other, 2.0, ({},)) for other in others)]
    tuning = tune(IMAGES, make, candidates, minutes=0)
    assert tuning.parameters == {} and tuning.not_tried == others
    assert len(tuning.table) == 2  # both scores of the default share its pass


def test_images_that_learn_are_not_planted_on():
    learned = []

    class Watched(Stub):
        def fit(self, images, y=None):
            learned.extend(int(image[0, 0]) for image in images)
            return super().fit(images)

        def detect_batches(self, images):
            clean = {int(image[0, 0]) for image in images if isinstance(image, np.ndarray)}
            assert clean and clean.isdisjoint(learned) and len(clean) + len(learned) == 9
            return super().detect_batches(images)

    tune(IMAGES, lambda parameters: Watched(**parameters), [Candidate({}, 1.0, ({},))])
    assert learned


@pytest.mark.parametrize(
    ("images", "minutes", "message"),
    [
        (IMAGES[:5], 1, "5 normal images: .* at least 6"),
        (IMAGES, -1, "tune_minutes"),
        (IMAGES, float("nan"), "tune_minutes"),
        ([GRAY[:40]] * 9, 1, "at least 64"),
    ],
)
def test_bad_input(images, minutes, message):
    with pytest.raises(InputError, match=message):
        tune(images, make, [Candidate({}, 1.0, ({},))], minutes=minutes)


@pytest.mark.parametrize("kind", ["max", "mean", "top1_percent"])
def test_rescoring_is_scoring(kind):
    images = [picture("part", i, 64)[0] for i in range(6)]
    model = tiny_model().fit(images[:4])
    result = model.detect(images[4:])
    other = tiny_model(image_score=kind).fit(images[:4]).anomaly_scores(images[4:])
    np.testing.assert_allclose(rescore(model, result, {"image_score": kind}), other, rtol=1e-6)
    np.testing.assert_array_equal(rescore(model, result, {}), result.scores)


def test_rescoring_strips_is_scoring():
    strips = [np.random.default_rng(i).integers(60, 90, (64, 256), np.uint8) for i in range(3)]

    def fitted(sigma):
        model = StripPatchCore(tiny_model(sigma=sigma), piece=128, context=32)
        return model.fit(strips[:2])

    model = fitted(8.0)
    result = model.detect(strips)
    rescored = rescore(model, result, {"sigma": 0.0})
    np.testing.assert_allclose(rescored, fitted(0.0).anomaly_scores(strips), rtol=1e-6)
    assert model.settings_.sigma == 8.0


def test_kinds_take_turns_and_every_image_has_a_defect():
    planted = plant(IMAGES[:3], seed=0)
    assert len(planted) == 60
    for number, image in enumerate(planted):
        changed = (np.asarray(image)[..., 0] != IMAGES[number % 3]).mean()
        assert 0 < changed < 0.5
    again = plant(IMAGES[:3], seed=0)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(planted, again, strict=True))
