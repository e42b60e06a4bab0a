"""The memory that an array may take."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory() -> float:
    """The bytes that can be allocated without swapping, all physical memory where only that is known, else infinity."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except OSError:  # not Linux
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not POSIX
        return float("inf")
