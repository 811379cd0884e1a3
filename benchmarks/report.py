"""What the benchmarks share: tables, and the parts of benchmarks/README.md that they write."""

import platform
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def table(header, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def of_frame(frame):
    return table(list(frame.columns), frame.to_numpy().tolist())


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


WORTH_NAMING = "avx2 fma avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 amx_int8 amx_bf16"


def instruction_sets():
    """What the processor can compute with, of what matters here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    names = [name for name in WORTH_NAMING.split() if name in flags]
    return ", ".join(names) or torch.backends.cpu.get_cpu_capability()


def write_part(name, text, folder=HERE, file="README.md", script=""):
    """Put a benchmark's part into README.md or another page, in place of its last one.

    `script` is the file that wrote it, if it is not called like the part.
    """
    readme = folder / file
    begin, end = f"<!-- {name}: written by {script or name}.py -->\n", f"<!-- {name}: end -->\n"
    old = readme.read_text() if readme.exists() else "# Benchmarks\n\n"
    head, _, rest = old.partition(begin)
    readme.write_text(head + begin + text + end + rest.partition(end)[2])
