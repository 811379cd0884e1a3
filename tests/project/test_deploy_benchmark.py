"""The benchmark of exported models: its page is that of its results, and what these claim."""

from pathlib import Path

import pandas as pd

from benchmarks import deploy, report

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert report.of_frame(deploy.read_results()) in page, (
        "stale: run `python -m benchmarks.deploy`"
    )


def test_three_backbones_square_and_rectangular_agree():
    table = deploy.read_results()
    assert list(table["backbone"]) == [name for name in deploy.MODELS for _ in range(2)]
    assert (table["score difference"].astype(float) < 1e-3).all()
    assert (table["other verdicts"].astype(int) == 0).all()


def test_one_backbone_replaces_its_own_lines_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(deploy, "RESULTS", tmp_path / "deploy.csv")
    before = pd.DataFrame({"backbone": ["efficientnet_lite0", "resnet18"], "graph, ms": [1, 2]})
    before.to_csv(deploy.RESULTS, index=False)
    rows = [{"backbone": "efficientnet_lite0", "graph, ms": number} for number in (3, 4)]
    table = deploy.beside_the_others(rows)
    assert table["backbone"].tolist() == ["efficientnet_lite0"] * 2 + ["resnet18"]
    assert table["graph, ms"].astype(int).tolist() == [3, 4, 2]


def test_the_summary_counts_verdicts_and_relative_differences():
    rows = pd.DataFrame(
        {
            "model score": [1.0, 2.0, 4.0],
            "graph score": [1.0, 2.2, 3.0],
            "map": [0.0, 0.1, 0.0],
            "model ms": [2.0, 4.0, 6.0],
            "graph ms": [1.0, 1.0, 1.0],
        }
    )
    line = deploy.summary(rows, threshold=2.1)
    assert line["score difference"] == "2.5e-01" and line["other verdicts"] == 1
    assert line["alarms"] == 1 and line["times"] == 4.0
