"""What CONTRIBUTING says about adding things, done once in miniature."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from patchcore_helpers import Category, PatchCore, Sample, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.core import neighbors
from patchcore_helpers.core.backbones import REGISTRY, BackboneSpec
from patchcore_helpers.core.evaluation import evaluate
from patchcore_helpers.core.index import ExactIndex, make_index
from patchcore_helpers.data.synthetic import RENDERED

SMALL = {"weights": "random", "image_size": 64, "coreset_ratio": 0.5}


@pytest.fixture
def dots(tmp_path, monkeypatch):
    """A data set of one category: gray noise, and a white dot where it is defective."""

    def read(name, seed):
        rng = np.random.default_rng(seed)
        samples = []
        for number in range(8):
            pixels = rng.integers(90, 110, (64, 64), np.uint8)
            pixels[20:32, 20:32] = 255 if number > 5 else 100
            path = tmp_path / f"{number}.png"
            Image.fromarray(pixels).save(path)
            samples.append(Sample(path, int(number > 5), "dot" if number > 5 else "good"))
        return Category(name, samples[:4], samples[4:], license="made here")

    monkeypatch.setitem(RENDERED, "mine/dots", read)
    return load_category("mine/dots")


def test_a_data_set(dots):
    assert dots.labels.tolist() == [0, 0, 1, 1]
    results, _ = evaluate(dots, PatchCore("resnet18", **SMALL))
    assert results["image_auroc"] == 1.0


def test_a_backbone(dots, monkeypatch, capsys):
    monkeypatch.setitem(REGISTRY, "resnet34", BackboneSpec("resnet34.tv_in1k", (1, 2)))
    model = PatchCore("resnet34", **SMALL).fit(dots.train)
    assert model.bank_.vectors_.shape[1] == 64 + 128 and model.grid_ == (16, 16)
    assert cli.main(["list"]) == 0 and "resnet34" in capsys.readouterr().out


def test_an_index(dots, monkeypatch):
    class TreeSearch(ExactIndex):
        def _build(self, centered):
            self.tree = cKDTree(centered.numpy())

        def _query(self, patches, k):
            distances, rows = self.tree.query((patches - self.mean).numpy(), range(1, k + 1))
            return torch.from_numpy(distances).float(), torch.from_numpy(rows)

    monkeypatch.setitem(neighbors.SETTINGS, "tree", {})
    monkeypatch.setitem(neighbors.KINDS, "tree", TreeSearch)
    rng = np.random.default_rng(0)
    bank, patches = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    for found, exact in zip(
        *(make_index(kind).fit(bank).query(patches, 3) for kind in ("tree", "exact")), strict=True
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    scores = [PatchCore("resnet18", index=s, **SMALL).fit(dots.train).anomaly_scores(dots.test)
              for s in ("tree", "exact")]  # fmt: skip
    np.testing.assert_allclose(*scores, rtol=1e-4)
