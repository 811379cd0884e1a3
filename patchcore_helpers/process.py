"""What a process costs: its memory."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import psutil


def peak_rss_mb(pid="self"):
    """Largest resident memory of a process so far, in megabytes of 10^6 bytes.

    Linux counts it for each program (`VmHWM`); its `getrusage` would also count the memory of the
    larger program that started this one. Elsewhere another process's present memory is taken.

    Parameters
    ----------
    pid : int or "self"

    Returns
    -------
    float
        0.0 for a process that has ended.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)  # kB here means 1024 bytes
        return int(peak[1]) * 1024 / 1e6 if peak else 0.0
    except OSError:
        if sys.platform == "linux":
            return 0.0
    if pid == "self":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss / 1e6
    return 0.0
