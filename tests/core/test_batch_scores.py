"""Images that score each other, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core.batch_scores import MutualPatchCore, mutual_patch_scores


def brute_force(patches, n_asked):
    """Patch by patch, in double precision."""
    flat = patches.reshape(len(patches), -1, patches.shape[-1]).astype(float)
    scores = []
    for i, image in enumerate(flat):
        to_others = [cdist(image, other).min(1) for j, other in enumerate(flat) if j != i]
        scores.append(np.sort(to_others, axis=0)[:n_asked].mean(0))
    return np.reshape(scores, patches.shape[:3])


@given(st.integers(0, 99), st.integers(2, 7), st.sampled_from([0.01, 0.3, 0.5, 1.0]))
def test_mutual_scores_are_those_of_brute_force(seed, n_images, share):
    patches = np.random.default_rng(seed).normal(100, 1, (n_images, 2, 3, 4)).astype(np.float32)
    n_asked = max(1, round(share * (n_images - 1)))
    expected = brute_force(patches, n_asked)
    np.testing.assert_allclose(mutual_patch_scores(patches, share), expected, rtol=1e-3)


def test_a_defect_that_few_share_stands_out_and_one_that_many_share_does_not():
    patches = np.random.default_rng(0).normal(size=(20, 4, 4, 3)).astype(np.float32)
    patches[:2, 1, 1] += 50  # in 2 of 20 images; six others have a say
    assert mutual_patch_scores(patches, 0.3)[0].argmax() == 5
    patches[:10, 1, 1] += 50  # in 10 of 20
    common = mutual_patch_scores(patches, 0.3)
    assert common[5, 1, 1] < 10


def test_the_detector_scores_the_images_of_a_call_by_each_other(photos, photo):
    options = dict(weights="random", image_size=64)
    batch = [*photos[:5], photo(50, defect=True)]
    model = MutualPatchCore(PatchCore("test_resnet", **options)).fit([])
    patches = PatchCore("test_resnet", **options).new_extractor().extract(batch)
    result = model.detect(batch)
    np.testing.assert_allclose(result.patch_scores, brute_force(patches, 2), rtol=1e-3)
    np.testing.assert_array_equal(result.scores, result.patch_scores.max((1, 2)))
    assert result.scores.argmax() == 5
    assert model.anomaly_maps(batch).shape == (6, 64, 64)


def test_what_cannot_be_is_refused(photos):
    with pytest.raises(InputError, match="1 images: they score each other"):
        mutual_patch_scores(np.zeros((1, 2, 2, 3)))
    with pytest.raises(InputError, match="share"):
        mutual_patch_scores(np.zeros((2, 2, 2, 3)), 0)
    with pytest.raises(InputError, match="reweighted"):
        MutualPatchCore(PatchCore(image_score="reweighted")).fit(photos)
