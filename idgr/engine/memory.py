"""How much memory this process has held."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mib() -> float:
    """The most memory, in MiB, that this process has held."""
    # Linux hands the peak that getrusage gives down from the parent; VmHWM is the process's own.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
