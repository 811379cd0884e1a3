"""What breaks a memory bank on purpose: does each break do what its name says?"""

import numpy as np
import pytest
from scipy import ndimage

from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments import failures


@pytest.fixture
def patches():
    """Patch vectors of 20 good images, 4 defective ones, and 12 test images of both kinds."""
    random = np.random.default_rng(0)
    good, defective, test = (random.normal(size=(n, 4, 4, 3)) for n in (20, 4, 12))
    labels = np.repeat([0, 1], 6)
    defective[:, 1, 1] += 8
    defective[:, 2:] *= 6  # what is scattered far and wide, greedy k-center loves
    test[labels == 1, 2, 2] += 8
    return good, defective, test, labels


def folders(patches, **changes):
    settings = {"shares": [0.0, 0.2], "left_out": [0.0, 0.2], "seeds": [0], "coreset_ratio": 0.1}
    return failures.dirty_folders(*patches, **{**settings, **changes})


def test_bank_scores_are_the_largest_nearest_distances(patches):
    good, _, test, _ = patches
    bank = MemoryBank(coreset_ratio=1.0).fit(failures.rows_of(good))
    rows = good.reshape(-1, 3)
    expected = [
        max(np.linalg.norm(rows - patch, axis=1).min() for patch in image.reshape(-1, 3))
        for image in test
    ]
    np.testing.assert_allclose(failures.bank_scores(bank, test), expected, rtol=1e-5)


def test_dirty_images_take_more_than_their_share_and_hide_defects(patches):
    table, scores, _ = folders(patches)
    clean, dirty = table[table["left_out"] == 0].to_dict("records")
    assert (clean["n_dirty"], clean["dirty_rows"], clean["image_auroc"]) == (0, 0, 1.0)
    assert dirty["n_dirty"] == 4
    assert dirty["dirty_rows"] / dirty["rows"] > 0.2  # their fair share
    defects = np.arange(12) >= 6
    assert scores[0.2, 0.0, 0][defects].mean() < scores[0.0, 0.0, 0][defects].mean()


def test_the_oddest_images_are_the_dirty_ones_and_are_left_out(patches):
    table, _, rankings = folders(patches)
    ranking = rankings[0.2, 0]
    assert ranking.is_dirty[:4].all() and not ranking.is_dirty[4:].any()
    assert sorted(ranking.images[:4]) == [16, 17, 18, 19]  # the last of the folder
    assert (np.diff(ranking.oddness) <= 0).all()
    cleaned = table[(table["dirty"] == 0.2) & (table["left_out"] == 0.2)].iloc[0]
    assert (cleaned["remaining"], cleaned["dirty_rows"]) == (0, 0)


def test_too_few_defective_images_are_said(patches):
    with pytest.raises(InputError, match=r"10 defective images are needed.*there are 4"):
        folders(patches, shares=[0.5])


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3)])
@pytest.mark.parametrize("drift", failures.DRIFTS)
def test_a_drift_keeps_shape_and_type_and_changes_the_image(drift, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    image = ndimage.gaussian_filter(image, (3, 3, 0)[: len(shape)]) + np.uint8(40)
    before = image.copy()
    (after,) = failures.drifted([image], drift)
    assert (after.shape, after.dtype) == (shape, np.uint8) and after.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(image, before)
    assert (after == before).all() == (drift == "nothing")


def test_drifts_do_what_their_names_say():
    image = np.random.default_rng(1).integers(0, 256, (50, 100), np.uint8)

    def after(drift):
        return failures.drifted([image], drift)[0]

    np.testing.assert_array_equal(after("mirrored"), np.fliplr(image))
    np.testing.assert_array_equal(after("half as bright"), image // 2)
    np.testing.assert_array_equal(after("moved by 2 % of the width")[:, 2:], image[:, :-2])
    assert after("out of focus").std() < image.std() / 2
    noise = after("noisy camera").astype(float) - image
    assert 5 < noise[(image > 40) & (image < 215)].std() < 9
    shaded = after("light from one side")
    np.testing.assert_array_equal(shaded[:, 0], image[:, 0])
    assert shaded[:, -1].mean() == pytest.approx(0.4 * image[:, -1].mean(), abs=1)


def test_an_unknown_drift_is_named():
    with pytest.raises(InputError, match=r"drift.*upwards"):
        failures.drifted([np.zeros((4, 4), np.uint8)], "upwards")


def parts_at(board):
    """Which of the four places of a board hold something."""
    middle = np.median(board)
    places = failures.BOARD_PLACES
    return [bool(abs(float(board[row, column, 0]) - middle) > 30) for row, column in places]


@pytest.mark.parametrize("seed", range(5))
def test_boards_hold_their_parts(seed):
    good = failures.draw_board("good", seed)
    assert (good.shape, good.dtype) == ((256, 256, 3), np.uint8)
    assert parts_at(good)[:2] == [True, True]
    assert sum(parts_at(good)[2:]) == 1  # the triangle is left or right
    assert parts_at(failures.draw_board("missing", seed)) == [True, True, False, False]
    assert parts_at(failures.draw_board("one too many", seed)) == [True] * 4
    exchanged = failures.draw_board("exchanged", seed)
    assert good[70, 70, 0] > good[70, 186, 0]  # the disc is bright, the square is dark
    assert exchanged[70, 70, 0] < exchanged[70, 186, 0]
    scratched = failures.draw_board("scratched", seed)
    middle = np.s_[100:156, 100:156, 0]
    assert scratched[middle].max() > 125 > good[middle].max()
    np.testing.assert_array_equal(good, failures.draw_board("good", seed))
    assert (good != failures.draw_board("good", seed + 100)).any()


def test_the_triangle_is_on_either_side_of_good_boards():
    sides = {tuple(parts_at(failures.draw_board("good", seed))[2:]) for seed in range(20)}
    assert sides == {(True, False), (False, True)}
