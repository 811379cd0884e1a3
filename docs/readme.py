"""Write the measured parts of README.md from the committed runs in docs/runs.

    python docs/readme.py --take output   # first take runs and pictures over from an output folder
    python docs/readme.py                 # only write the tables again

`make readme` does the first. A test compares README.md with what this script would write.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
from verify import committed_runs, save_summaries

from patchcore_helpers.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))
RUNS, PICTURES = ROOT / "docs" / "runs", ROOT / "docs" / "pictures"
# Which figure of a notebook stands for it in the README.
SHOWN = {
    "01_introduction": ("hits", "anomaly maps on defective solar cells"),
    "02_feature_unfolding": ("receptive_field", "what one patch vector sees of the image"),
    "03_coreset": ("auroc_against_ratio", "AUROC and coverage against the coreset ratio"),
    "04_exp1_backbone_comparison": ("exp1_backbone_comparison", "four panels on two backbones"),
    "05_exp2_adaptive_coreset": ("01_main_comparison", "AUROC of four ways to choose a coreset"),
    "06_exp3_faiss_compression": ("pareto", "bytes, time and AUROC of compressed memory banks"),
    "07_aitex_tiling": ("strip_maps", "stitched anomaly maps on rendered strips of cloth"),
}
# Tables of a run that the README's own are made from; kept as docs/runs/<notebook>.<table>.csv.
TABLES = {
    "04_exp1_backbone_comparison": ("aurocs", "claimed_against_measured"),
    "05_exp2_adaptive_coreset": ("results_all_methods",),
    "06_exp3_faiss_compression": ("claimed_against_measured",),
}
RATIO = 0.01  # of experiment 2, in the README


def kept_table(name, table):
    """A committed table of a notebook's run."""
    return pd.read_csv(RUNS / f"{name}.{table}.csv")


def amount(run):
    """Minutes and memory of a run, for a table."""
    return f"{run['seconds'] / 60:.1f} min | {run['peak_rss_mb'] / 1000:.1f} GB"


def question(name):
    """The question that a notebook answers, and its title, from the notebook itself."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    text = "".join(cells[0]["source"])
    title = re.search(r"^# (.+)$", text, re.M)[1]
    return title, re.search(r"^\*\*The question\.\*\* (.+)$", text, re.M)[1]


def needs(runs):
    """What the course needs, as measured."""
    setup = json.loads((RUNS / "setup.json").read_text())
    total = sum(run["seconds"] for run in runs.values()) / 60
    memory = max(run["peak_rss_mb"] for run in runs.values()) / 1000
    cores = max(run["cores"] for run in runs.values())
    return (
        f"Measured on {cores} cores: {total:.1f} minutes for the notebooks of `make course` (after "
        f"the set-up, whose time is your network's), {memory:.1f} GB of memory at most, and "
        f"{setup['venv_gb']:.1f} GB of disk for `.venv`, most of it torch."
    )


def notebooks(runs):
    """One line per notebook: title, question, minutes, memory, picture."""
    lines = ["| notebook | its question | time | memory | |", "|---|---|---|---|---|"]
    for name, run in runs.items():
        title, asked = question(name)
        figure, alt = SHOWN.get(name, (None, ""))
        picture = (
            f'<img src="docs/pictures/{figure}.png" alt="{alt}" width="220">' if figure else ""
        )
        lines.append(f"| [{title}](notebooks/{name}.ipynb) | {asked} | {amount(run)} | {picture} |")
    return "\n".join(lines)


def verdicts(runs):
    """What the experiments' committed runs say, in the words that they computed."""
    lines = []
    for name, run in runs.items():
        found, (title, _) = run["results"], question(name)
        if "gap" in found:
            text = (
                f"PatchCore reaches {found['image_auroc']:.3f} image AUROC on the solar cells, an "
                f"autoencoder trained on the same images {found['ae_auroc']:.3f} with the best of "
                f"three scores; verdict on PatchCore: {found['verdict']} ({found['gap']:+.3f}, "
                f"interval {found['gap_low']:+.3f} to {found['gap_high']:+.3f})."
            )
        elif "verdict" in found:
            text = found["verdict"]
        elif "best_index" in found:
            text = (
                f"{found['best_index']} is {found['best_smaller']:.0f} times smaller and "
                f"{found['best_speed']:.0f} times faster than exact search (FAISS "
                f"flat); its image AUROC differs from exact search's by "
                f"{found['best_difference']:+.4f} (first category; chosen on the images that it is "
                "judged by)."
            )
        elif "seam_context" in found:
            text = (
                f"On {found['n_strips']} rendered strips, image AUROC {found['image_auroc']:.3f} "
                f"by strip and {found['tile_auroc']:.3f} by tile; context around each piece takes "
                f"the change at a moved cut from {found['seam_naive']:.1%} to "
                f"{found['seam_context']:.2%} of the map's level."
            )
        else:
            continue
        lines.append(f"- [{title}](notebooks/{name}.ipynb) {text}")
    return "\n".join(lines)


def results(runs):
    """Image AUROC by category: the backbones of experiment 1, the coresets of experiment 2."""
    from report import of_frame  # of benchmarks/

    one = kept_table("04_exp1_backbone_comparison", "aurocs").rename(columns={"backbone": "column"})
    two = kept_table("05_exp2_adaptive_coreset", "results_all_methods")
    two = two[two["compression_ratio"] == RATIO].rename(columns={"method": "column"})
    columns = [*one["column"].unique(), *two["column"].unique()]
    both = pd.concat([one, two])
    both["cell"] = [f"{r.auroc:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in both.itertuples()]
    cells = both.pivot(index="category", columns="column", values="cell")[columns]
    cells = cells.reindex(both["category"].unique()).fillna("not run").reset_index()
    return of_frame(cells)


def claims(runs):
    """What the sources of the experiments claimed, beside what the committed runs measured."""
    lines = ["| experiment | claimed | measured here |", "|---|---|---|"]
    table = kept_table("04_exp1_backbone_comparison", "claimed_against_measured")
    for row in table.itertuples(index=False):
        measured = row.measured if pd.notna(row.measured) else "not run: it needs that data set"
        what = "image AUROC" if row[1] != "gap" else "image AUROC, MVTec AD less VisA"
        where = "" if row[1] == "gap" else f" on {row[1]}"
        lines.append(f"| 1: {row[0]}{where} | {row.claimed:g} {what} | {measured} |")
    found = runs["05_exp2_adaptive_coreset"]["results"]["verdict"].split(". ")[1]
    lines.append(f"| 2 | patches of high variance first make greedy k-center better | {found} |")
    table = kept_table("06_exp3_faiss_compression", "claimed_against_measured")
    for what, claimed, measured in table.itertuples(index=False):
        lines.append(f"| 3: IVF-PQ, {what} | {claimed} | {measured} over its settings |")
    return "\n".join(lines)


def fill(text):
    """README.md with its measured blocks written from the committed runs."""
    everything, _ = committed_runs(RUNS)
    runs = {name: run for name, run in everything.items() if re.match(r"\d\d_", name)}
    for make in (needs, notebooks, results, verdicts, claims):
        block = f"<!--{make.__name__}-->\n{make(runs)}\n<!--/{make.__name__}-->"
        mark = rf"<!--{make.__name__}-->.*?<!--/{make.__name__}-->"
        text = re.sub(mark, lambda _, block=block: block, text, flags=re.S)
    return text


def take(output):
    """Take runs and pictures over from an output folder."""
    for name in save_summaries(output, RUNS):
        if name in SHOWN:
            picture = f"{SHOWN[name][0]}.png"
            shutil.copy(output / name / "figures" / picture, PICTURES / picture)
        for table in TABLES.get(name, ()):
            shutil.copy(output / name / f"{table}.csv", RUNS / f"{name}.{table}.csv")
    size = sum(p.stat().st_size for p in Path(sys.prefix).rglob("*") if not p.is_symlink())
    atomic_write(RUNS / "setup.json", json.dumps({"venv_gb": round(size / 1e9, 1), "results": {}}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--take", type=Path, metavar="OUTPUT", help="a folder that a run has filled"
    )
    args = parser.parse_args()
    if args.take:
        take(args.take)
    readme = ROOT / "README.md"
    atomic_write(readme, fill(readme.read_text("utf-8")))


if __name__ == "__main__":
    main()
