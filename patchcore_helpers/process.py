"""The memory of a process."""

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import Literal

import psutil


def peak_rss_mb(pid: int | Literal["self"] = "self") -> float:
    """Largest resident memory of a process so far, in megabytes of 10^6 bytes.

    On Linux this is the peak of the program itself (`VmHWM`): `getrusage` would also count the
    memory of the larger program that started it. On other systems it is the peak for this process,
    but the present memory for any other.

    Parameters
    ----------
    pid : int or "self"

    Returns
    -------
    float
        0.0 for a process that has ended.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            peak_kib = re.search(r"VmHWM:\s+(\d+) kB", status)  # kB here means 1024 bytes
            return int(peak_kib[1]) * 1024 / 1e6 if peak_kib else 0.0
        return 0.0
    if pid == "self":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss / 1e6
    return 0.0
