"""The catalog: what a name means, and how a data set is added."""

import pytest
from helpers.samples import file_names

from patchcore_helpers import Category, InputError, Sample, load_category
from patchcore_helpers.data.catalog import CATALOG, category_names


def test_a_name_is_looked_up_below_the_data_folder_first(tmp_path, make_category, monkeypatch):
    make_category(tmp_path / "data/mvtec_ad/bolt", train=2)
    make_category(tmp_path / "mvtec_ad/bolt", train=3)
    monkeypatch.chdir(tmp_path)
    assert len(load_category("mvtec_ad/bolt").train) == 2
    assert load_category("mvtec_ad/bolt").name == "mvtec_ad/bolt"
    assert len(load_category("mvtec_ad/bolt", data_dir="nowhere").train) == 3
    assert len(load_category("./mvtec_ad/bolt").train) == 3
    assert len(load_category(tmp_path / "mvtec_ad/bolt").train) == 3
    assert load_category(tmp_path / "mvtec_ad/bolt").name == "bolt"
    monkeypatch.chdir(tmp_path / "mvtec_ad/bolt")
    assert load_category(".").name == "bolt"


def test_a_file_is_not_a_category(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="no such category or folder"):
        load_category(tmp_path / "a.png")


def test_an_unknown_name_lists_the_built_in_ones(tmp_path):
    with pytest.raises(InputError) as caught:
        load_category("elpv/momo", data_dir=tmp_path)
    line = str(caught.value)
    assert line.startswith("elpv/momo: no such category or folder; known categories: elpv/mono, ")
    assert all(name in line for name in category_names()) and str(tmp_path) in line


def test_a_built_in_category_is_added_by_a_line(tmp_path, monkeypatch):
    def load(name, seed):
        return Category(name, [Sample(tmp_path / f"{seed}.png")], [])

    monkeypatch.setitem(CATALOG, "mine/dots", load)
    assert "mine/dots" in category_names()
    assert file_names(load_category("mine/dots", seed=5).train) == ["5.png"]


@pytest.mark.parametrize("dataset", ["visa", "aitex"])
def test_a_folder_of_your_own_may_have_the_name_of_a_data_set(dataset, tmp_path, make_category):
    make_category(tmp_path / dataset / "bolt", train=4)
    assert len(load_category(f"{dataset}/bolt", data_dir=tmp_path).train) == 4


def test_a_folder_below_the_data_folder_may_name_its_normal_images(tmp_path, make_category):
    folder = make_category(tmp_path / "mvtec_ad/bolt", train=4)
    (folder / "train").rename(folder / "fine")
    for name, options in (("mvtec_ad/bolt::fine", {}), ("mvtec_ad/bolt", {"good": "fine"})):
        category = load_category(name, data_dir=tmp_path, **options)
        assert category.name == "mvtec_ad/bolt" and "CC BY-NC-SA" in category.license
        assert len(category.train + category.calibration) == 3
