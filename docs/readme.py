"""Write the measured parts of README.md and docs/results.md from the committed runs in docs/runs.

    python docs/readme.py --take output   # first copy runs and pictures from an output folder
    python docs/readme.py                 # only write the tables again

`make readme` does the first. A test compares the pages with what this script would write.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
from verify import committed_runs, save_summaries

from patchcore_helpers.course.notebook import read_notebook
from patchcore_helpers.course.parameters import declared_parameters
from patchcore_helpers.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "runs"
PICTURES = ROOT / "docs" / "pictures"
# The figure of each notebook that is shown, and its alternative text.
SHOWN = {
    "01_introduction": ("hits", "anomaly maps on defective solar cells"),
    "02_feature_unfolding": ("receptive_field", "what one patch vector sees of the image"),
    "03_coreset": ("auroc_against_ratio", "AUROC and coverage against the coreset ratio"),
    "04_exp1_backbone_comparison": ("exp1_backbone_comparison", "four panels on three backbones"),
    "05_exp2_adaptive_coreset": ("01_main_comparison", "AUROC of five ways to choose a coreset"),
    "06_exp3_faiss_compression": ("pareto", "AUROC against bytes and milliseconds of searches"),
    "07_aitex_tiling": ("strip_maps", "stitched anomaly maps on rendered strips of cloth"),
    "08_when_it_fails": (
        "resolution",
        "which planted and real defects are found at which image size",
    ),
    "09_since_2022": ("forest", "what ideas since 2022 gain over PatchCore, and what they cost"),
}
# Tables of a run from which those of docs/results.md are made; docs/runs/<notebook>.<table>.csv.
TABLES = {
    "04_exp1_backbone_comparison": ("aurocs", "claimed_against_measured"),
    "05_exp2_adaptive_coreset": ("results_all_methods",),
    "06_exp3_faiss_compression": ("claimed_against_measured",),
}
RATIO = 0.01  # of experiment 2


def markdown_table(header, rows):
    """A Markdown table.

    >>> print(markdown_table(["a", "b"], [(1, 2)]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def committed_table(name, table):
    """A committed table of a notebook's run."""
    return pd.read_csv(RUNS / f"{name}.{table}.csv")


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
        f"{setup['venv_gb']:.1f} GB of disk for `.venv` with the tools for tests, most of it torch."
    )


def notebooks(runs):
    """One line per notebook: title, question, minutes, memory."""
    rows = []
    for name, run in runs.items():
        title, asked = question(name)
        minutes = f"{run['seconds'] / 60:.1f} min"
        memory = f"{run['peak_rss_mb'] / 1000:.1f} GB"
        rows.append([f"[{title}](notebooks/{name}.ipynb)", asked, minutes, memory])
    return markdown_table(["notebook", "its question", "time", "memory"], rows)


def gallery(runs):
    """A figure of every notebook."""
    rows = []
    for name in runs:
        figure, alt = SHOWN[name]
        picture = f'<img src="pictures/{figure}.png" alt="{alt}" width="420">'
        rows.append([f"[{question(name)[0]}](../notebooks/{name}.ipynb)", picture])
    return markdown_table(["notebook", "a figure"], rows)


def promised_rate():
    """The false-alarm rate that notebook 1 asks for."""
    declared, _ = declared_parameters(read_notebook(ROOT / "notebooks" / "01_introduction.ipynb"))
    return declared["false_alarm_rate"].default


def introduction_finding(numbers):
    return (
        f"On solar cells from stretches of files that its bank has not seen, PatchCore reaches "
        f"{numbers['stretch_auroc']:.3f} image AUROC (95 % interval {numbers['stretch_low']:.3f} "
        f"to {numbers['stretch_high']:.3f}): of a defective cell and a good one, the defective one "
        f"scores higher in {100 * numbers['stretch_auroc']:.0f} of 100 pairs. A threshold that "
        f"promised at most {promised_rate():.0%} false alarms finds {numbers['stretch_found']:.0%} "
        f"of the defective cells there, and {numbers['stretch_false_alarms']:.0%} of the good ones "
        f"alarm. On a random split it finds "
        f"{numbers['found']:.0%}, and {numbers['false_alarms']:.0%} alarm, and the image AUROC "
        f"is {numbers['image_auroc']:.3f}; there, the difference from an autoencoder trained on "
        f"the same images is {numbers['gap']:+.3f} ({numbers['gap_low']:+.3f} to "
        f"{numbers['gap_high']:+.3f}): {numbers['verdict']}."
    )


def coreset_finding(numbers):
    return (
        f"Greedy k-center minus random sampling: {numbers['gap_mean']:+.3f} image AUROC "
        f"({numbers['gap_low']:+.3f} to {numbers['gap_high']:+.3f}) over small banks, on solar "
        f"cells from stretches of files that no bank has seen: {numbers['gap_verdict']}."
    )


def computed_finding(numbers):
    return numbers["finding"]


# What a notebook's committed run found, from the numbers that it recorded.
FINDINGS = {
    "01_introduction": introduction_finding,
    "03_coreset": coreset_finding,
    "04_exp1_backbone_comparison": computed_finding,
    "05_exp2_adaptive_coreset": computed_finding,
    "06_exp3_faiss_compression": computed_finding,
    "07_aitex_tiling": computed_finding,
    "08_when_it_fails": computed_finding,
    "09_since_2022": computed_finding,
}
ON_THE_FRONT_PAGE = ("01_introduction", "03_coreset", "06_exp3_faiss_compression")


def findings(runs):
    """Three findings for the front page."""
    return "\n".join(f"- {FINDINGS[name](runs[name]['results'])}" for name in ON_THE_FRONT_PAGE)


def verdicts(runs):
    """What the committed runs of the experiments say."""
    lines = []
    for name, finding in FINDINGS.items():
        if name not in runs:  # a notebook that has not been run yet
            continue
        title, _ = question(name)
        lines.append(f"- [{title}](../notebooks/{name}.ipynb) {finding(runs[name]['results'])}")
    return "\n".join(lines)


def backbones(runs):
    """Image AUROC of experiment 1: a row for each backbone, a column for each category."""
    return aurocs_by(committed_table("04_exp1_backbone_comparison", "aurocs"), "backbone")


def coresets(runs):
    """Image AUROC of experiment 2: a row for each coreset, a column for each category."""
    rows = committed_table("05_exp2_adaptive_coreset", "results_all_methods")
    return aurocs_by(rows[rows["compression_ratio"] == RATIO], "method")


def aurocs_by(rows, compared):
    """A table of image AUROC with its interval, of what is compared by category."""
    rows = rows.assign(
        cell=[f"{row.auroc:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in rows.itertuples()]
    )
    cells = rows.pivot(index=compared, columns="category", values="cell")
    cells = cells.reindex(index=rows[compared].unique(), columns=rows["category"].unique())
    cells = cells.fillna("not run").reset_index()
    return markdown_table(list(cells.columns), cells.to_numpy().tolist())


def claims(runs):
    """What the sources of the experiments claimed, beside what the committed runs measured."""
    rows = []
    table = committed_table("04_exp1_backbone_comparison", "claimed_against_measured")
    columns = table[["backbone", "data set", "claimed", "measured"]]
    for backbone, data_set, claimed, measured in columns.itertuples(index=False):
        is_gap = data_set == "gap"
        name = backbone if is_gap else f"{backbone} on {data_set}"
        metric = "image AUROC, MVTec AD less VisA" if is_gap else "image AUROC"
        if pd.isna(measured):
            measured = "not run: it needs that data set"
        rows.append([f"1: {name}", f"{claimed:g} {metric}", measured])
    verdict = runs["05_exp2_adaptive_coreset"]["results"]["verdict"]
    against_random = next(
        sentence
        for sentence in verdict.split(". ")
        if "variance-weighted" in sentence or "v2_variance" in sentence
    ).removesuffix(".")
    rows.append(["2", "k-center weighted by variance beats a random coreset", against_random])
    table = committed_table("06_exp3_faiss_compression", "claimed_against_measured")
    for metric, claimed, measured in table.itertuples(index=False):
        rows.append([f"3: IVF-PQ, {metric}", claimed, f"{measured} over its settings"])
    return markdown_table(["experiment", "claimed", "measured here"], rows)


BLOCKS = (needs, notebooks, findings, gallery, verdicts, backbones, coresets, claims)
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")


def fill(text):
    """A page with its measured blocks written from the committed runs."""
    committed = committed_runs(RUNS)
    runs = {name: run for name, run in committed.items() if re.match(r"\d\d_", name)}
    for make in BLOCKS:
        mark = rf"<!--{make.__name__}-->.*?<!--/{make.__name__}-->"
        if re.search(mark, text, flags=re.S):
            block = f"<!--{make.__name__}-->\n{make(runs)}\n<!--/{make.__name__}-->"
            text = re.sub(mark, lambda _, block=block: block, text, flags=re.S)
    return text


def take(output):
    """Copy runs and pictures from an output folder."""
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
    for page in PAGES:
        atomic_write(page, fill(page.read_text("utf-8")))


if __name__ == "__main__":
    main()
