"""The memory that an array may take."""

from __future__ import annotations

import os
from pathlib import Path

ENTRIES_AT_ONCE = 2**23  # matrix entries of the measurements that are handled at a time, 64 MiB
NUMBERS_AT_ONCE = 2**18  # numbers of a long sum or product that are handled at a time, which a cache holds


def available_memory() -> float:
    """The bytes that can be allocated without swapping, all physical memory where only that is known, else infinity.

    A limit of the process on its address space, as ``ulimit -v`` sets it, counts.
    """
    return min(_free(), _allowed())


def _allowed() -> float:
    """The bytes that the limit of the process leaves, infinity where it has none."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return float("inf")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # not POSIX, or not Linux
        return float("inf")
    return float(max(limit - used, 0))


def _free() -> float:
    """The bytes that the machine has left."""
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
