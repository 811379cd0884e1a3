"""What the publishers say of their data sets, and which files belong to them."""

import pytest

from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.published import DATA_SETS, SOURCE_CATEGORIES


def test_published_counts():
    assert set(DATA_SETS) == set(PREPARED)
    mvtec, visa = DATA_SETS["mvtec_ad"].published, DATA_SETS["visa"].published
    assert (len(mvtec), len(visa)) == (15, 12)
    assert tuple(map(sum, zip(*mvtec.values(), strict=True))) == (3629, 467, 1258)
    assert tuple(map(sum, zip(*visa.values(), strict=True))) == (9621, 1200)
    assert mvtec["screw"] == (320, 41, 119) and visa["chewinggum"] == (503, 100)
    assert set(SOURCE_CATEGORIES) < set(mvtec)


@pytest.mark.parametrize(
    "dataset, path, location",
    [
        ("mvtec_ad", "bottle/train/good/000.png", ("bottle/train/good/000.png", "bottle")),
        ("mvtec_ad", "any/bottle/test/crack/0.JPG", ("bottle/test/crack/0.JPG", "bottle")),
        ("mvtec_ad", "any/license.txt", ("license.txt", "")),
        ("mvtec_ad", "bottle/readme.txt", ("bottle/readme.txt", "bottle")),
        ("mvtec_ad", "bottle/train/good/.000.png", None),
        ("mvtec_ad", "bottle/train/bad/000.png", None),
        ("mvtec_ad", "two/folders/bottle/train/good/000.png", None),
        ("visa", "split_csv/1cls.csv", ("split_csv/1cls.csv", "")),
        ("visa", "candle/Data/Masks/Anomaly/0.png", ("candle/Data/Masks/Anomaly/0.png", "candle")),
        ("aitex", "Mask_images/0.png", ("Mask_images/0.png", "Mask_images")),
        ("aitex", "NODefect_images/a/b/0.png", None),
    ],
)
def test_where_a_file_belongs(dataset, path, location):
    assert DATA_SETS[dataset].locate(path) == location
