"""What CONTRIBUTING says about adding things, done once in miniature."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from patchcore_helpers import Category, PatchCore, Sample, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.core.backbones import REGISTRY, BackboneSpec
from patchcore_helpers.core.evaluation import evaluate
from patchcore_helpers.core.index import INDEXES, Index, make_index
from patchcore_helpers.data.catalog import CATALOG

SMALL = {"weights": "random", "image_size": 64, "coreset_ratio": 0.5}


@pytest.fixture
def dots(tmp_path, monkeypatch):
    """A data set of one category: gray noise, and a white dot where it is defective."""

    def load_dots(name, seed):
        rng = np.random.default_rng(seed)
        samples = []
        for number in range(8):
            is_defective = number > 5
            pixels = rng.integers(90, 110, (64, 64), np.uint8)
            pixels[20:32, 20:32] = 255 if is_defective else 100
            path = tmp_path / f"{number}.png"
            Image.fromarray(pixels).save(path)
            samples.append(Sample(path, int(is_defective), "dot" if is_defective else "good"))
        return Category(name, train=samples[:4], test=samples[4:], license="made here")

    monkeypatch.setitem(CATALOG, "mine/dots", load_dots)
    return load_category("mine/dots")


def test_a_data_set(dots, capsys):
    assert dots.labels.tolist() == [0, 0, 1, 1]
    results, _ = evaluate(dots, PatchCore("resnet18", **SMALL))
    assert results["image_auroc"] == 1.0
    assert cli.main(["list"]) == 0 and "mine/dots" in capsys.readouterr().out


def test_a_backbone(dots, monkeypatch, capsys):
    spec = BackboneSpec(timm_name="resnet34.tv_in1k", layers=(1, 2))
    monkeypatch.setitem(REGISTRY, "resnet34", spec)
    model = PatchCore("resnet34", **SMALL).fit(dots.train)
    assert model.bank_.vectors_.shape[1] == 64 + 128 and model.grid_ == (16, 16)
    assert cli.main(["list"]) == 0 and "resnet34" in capsys.readouterr().out


@dataclass(kw_only=True, eq=False)
class TreeIndex(Index):
    """A k-d tree, which searches low dimensions exactly without comparing all vectors."""

    kind: ClassVar[str] = "tree"
    ranges: ClassVar[dict[str, tuple[int, int]]] = {"leaf_size": (1, 1000)}

    leaf_size: int = 16

    def _build(self, centered):
        self.tree = cKDTree(centered.numpy(), self.leaf_size)

    def _search(self, patches, k):
        distances, rows = self.tree.query((patches - self.mean).numpy(), range(1, k + 1))
        return torch.from_numpy(distances).float(), torch.from_numpy(rows)


def test_an_index(dots, monkeypatch):
    monkeypatch.setitem(INDEXES, "tree", TreeIndex)
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(50, 6))
    queries = rng.normal(size=(9, 6))
    tree = make_index({"kind": "tree", "leaf_size": 4}).fit(bank).query(queries, 3)
    exact = make_index("exact").fit(bank).query(queries, 3)
    np.testing.assert_allclose(tree[0], exact[0], rtol=1e-5)
    np.testing.assert_array_equal(tree[1], exact[1])
    scores = {}
    for index in ("tree", "exact"):
        model = PatchCore("resnet18", index=index, **SMALL).fit(dots.train)
        scores[index] = model.anomaly_scores(dots.test)
    np.testing.assert_allclose(scores["tree"], scores["exact"], rtol=1e-4)
