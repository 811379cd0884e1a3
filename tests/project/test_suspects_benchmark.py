"""The benchmark of suspects: what it counts, and that its page is that of its results."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import suspects

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert suspects.describe(suspects.read_results()) in page, (
        "stale: run `python -m benchmarks.suspects`"
    )


def test_found_are_the_planted_images_among_the_first():
    ranking = pd.DataFrame({"image": [3, 0, 2, 1]})
    is_planted = np.array([False, True, False, True])
    assert [suspects.n_found(ranking, is_planted, n) for n in (1, 3, 4)] == [1, 1, 2]


def test_a_folder_holds_the_planted_images_at_random_places():
    images, is_planted = suspects.draw_folder("elpv/mono", 0)
    assert len(images) == suspects.N_IMAGES and is_planted.sum() == suspects.N_PLANTED
    assert [bool(image.label) for image in images] == is_planted.tolist()
    assert len({image.source for image in images}) == len(images)
    assert not is_planted[-suspects.N_PLANTED :].all()
