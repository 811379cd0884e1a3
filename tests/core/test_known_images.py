"""Images that are remembered by name and digest."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from patchcore_helpers.core.known_images import LONGEST_NAME, KnownImages, image_names


def test_an_image_is_known_under_any_name(tmp_path, photos):
    for name in ("a.png", "b.png"):
        Image.fromarray(photos[0]).save(tmp_path / name)
    Image.fromarray(photos[1]).save(tmp_path / "c.png")
    known = KnownImages.of([tmp_path / name for name in ("a.png", "b.png", "c.png")])
    assert known.digests[0] == known.digests[1] != known.digests[2]
    assert known.names == tuple(f"{tmp_path.name}/{name}.png" for name in "abc")


def test_pixels_have_digests_and_no_names(photos):
    known = KnownImages.of([*photos, photos[3].copy(), Image.fromarray(photos[2])])
    assert len(np.unique(known.digests)) == 8
    assert known.digests[3] == known.digests[8] and known.digests[2] == known.digests[9]
    assert set(known.names) == {""}


@pytest.mark.parametrize(
    ("items", "names"),
    [
        (["/x/good/1.png"], ("good/1.png",)),
        (["/x/good/1.png", "/x/good/b/1.png"], ("good/1.png", "good/b/1.png")),
        (["/x/a/1.png", "/y/a/1.png"], ("x/a/1.png", "y/a/1.png")),
        ([SimpleNamespace(source="/x/a/1.png"), np.zeros(3)], ("a/1.png", "")),
        (["/x/a/\x1b[2J.png"], ("a/\\x1b[2J.png",)),
        (["/1.png"], ("1.png",)),
    ],
)
def test_names_begin_where_all_images_lie(items, names):
    assert image_names(items) == names


def test_a_name_is_not_longer_than_a_file_may_hold():
    (name,) = image_names(["/x/a/" + "b" * 250 + ".png"])
    assert len(name) == LONGEST_NAME and name.endswith(".png")
