"""How long a slider takes to answer: the notebooks' own drawing functions, on their default data.

    python -m benchmarks.sliders [--draws 200]

Runs the cells of a notebook up to its last interactive figure, then moves every control of every
`explore(...)` back and forth, and prints the 95th percentiles of computing and of drawing.
"""

import argparse
import time
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell

from benchmarks import report
from patchcore_helpers.course.controls import Explorer

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [
    "01_introduction",
    "02_feature_unfolding",
    "03_coreset",
    "04_exp1_backbone_comparison",
    "05_exp2_adaptive_coreset",
    "06_exp3_faiss_compression",
]


def explorers(path):
    """Run a notebook in this process; its explorers by the name of their variable."""
    shell = InteractiveShell()
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source, silent=True).raise_error()
    return {k: v for k, v in shell.user_ns.items() if isinstance(v, Explorer) and k[0] != "_"}


def positions(control):
    """What moves a control from one end to the other and back: (attribute, values)."""
    if hasattr(control, "options"):
        attribute = "index"
        values = list(range(len(control.options)))
    else:
        attribute = "value"
        count = min(40, round((control.max - control.min) / control.step) + 1)
        values = np.linspace(control.min, control.max, count).tolist()
        values = [round(v) if isinstance(control.value, int) else v for v in values]
    return attribute, values + values[-2:0:-1]


def measure(explorer, draws):
    compute = []
    picture = []
    moves = []
    for control in explorer.controls.values():
        attribute, values = positions(control)
        moves += [(control, attribute, value) for value in values]
    while len(picture) < draws:
        for control, attribute, value in moves:
            before = explorer.timings
            start = time.perf_counter()
            setattr(control, attribute, value)
            if explorer.timings is not before:
                picture.append(time.perf_counter() - start)
                compute.append(explorer.timings.compute)
    return 1000 * np.quantile(compute, 0.95), 1000 * np.quantile(picture, 0.95), len(picture)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", default=NOTEBOOKS)
    parser.add_argument("--draws", type=int, default=200)
    args = parser.parse_args()
    matplotlib.use("agg")
    rows = []
    for name in args.notebooks:
        for variable, explorer in explorers(ROOT / "notebooks" / f"{name}.ipynb").items():
            rows.append((name, variable, *measure(explorer, args.draws)))
    columns = ["notebook", "figure", "compute p95 (ms)", "picture p95 (ms)", "draws"]
    table = pd.DataFrame(rows, columns=columns).round(1)
    kept = report.RESULTS / "sliders.csv"
    if kept.exists():  # notebooks that are not measured now keep their last rows
        last = pd.read_csv(kept)
        last = last[~last["notebook"].isin(args.notebooks)]
        table = pd.concat([last, table]).sort_values("notebook", kind="stable")
    print(table.to_string(index=False))
    report.RESULTS.mkdir(exist_ok=True)
    table.to_csv(kept, index=False)
    report.write_part(
        "sliders",
        f"""## Interactive figures

`python -m benchmarks.sliders`, {time.strftime("%Y-%m-%d")}; {report.processor()}. Every
control of every interactive figure is moved back and forth, on the default data. *compute*
is the drawing function (numbers and matplotlib's artists), *picture* all until the PNG is there.

{report.of_frame(table)}

""",
    )


if __name__ == "__main__":
    main()
