"""The learning curve, against models fitted one by one."""

import numpy as np
import pytest
from helpers.command import tiny_model

from patchcore_helpers import InputError
from patchcore_helpers.core.learning_curve import learning_curve, numbers_of_images


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).integers(0, 256, (14, 64, 64, 3), np.uint8))


def test_every_bank_is_that_of_a_model_fitted_on_as_many_images(images):
    train, normal = images[:9], images[9:]
    defective = [255 - image // 2 for image in normal]
    table = learning_curve(tiny_model(), train, normal, defective, draws=2, seed=3)
    assert table["images"].tolist() == 2 * numbers_of_images(9) == 2 * [5, 9]
    for row in table.itertuples():
        order = np.random.default_rng([3, row.draw]).permutation(9)
        model = tiny_model().fit([train[i] for i in order[: row.images]])
        assert row.normal_score == pytest.approx(np.median(model.anomaly_scores(normal)), rel=1e-4)
        labels = np.repeat([0, 1], [len(normal), len(defective)])
        assert row.image_auroc == pytest.approx(model.score([*normal, *defective], labels))


def test_without_defective_images_there_is_no_auroc(images):
    table = learning_curve(tiny_model(), images[:6], images[9:], draws=1)
    assert table["image_auroc"].isna().all() and table["normal_score"].gt(0).all()
    with pytest.raises(InputError, match="no images"):
        learning_curve(tiny_model(), [], images)
