"""What a user waits for before the first result: the import, and the first solve with and without compiled loops in the cache.

Every measurement is a fresh process. The first solve completes a 1000 x 600 matrix of rank 2; with an empty cache
numba compiles what it needs. ``python benchmarks/start.py``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from harness import write

REPEATS = 7

IMPORT = "import balancedfact"
SOLVE = """
import time
import balancedfact as bf
import numpy as np

rng = np.random.default_rng(0)
A = bf.measurements.bernoulli_mask((1000, 600), 0.1, rng)
X = rng.standard_normal((1000, 2)) @ rng.standard_normal((2, 600))
start = time.perf_counter()
bf.flat_minimum(A, A(X), progress=False)
print(time.perf_counter() - start)
"""
DESCENT = """
import time
import balancedfact as bf
import numpy as np

A = bf.measurements.regression(np.random.default_rng(0).standard_normal((50, 5)))
start = time.perf_counter()
layers = bf.dynamics.gaussian_layers([5, 5, 5, 1], 0.35, 0)
bf.dynamics.gradient_descent(layers, A, np.ones(50), step=0.02, iterations=1, record=[0])
print(time.perf_counter() - start)
"""


def wall(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def printed(code: str, cache: str) -> float:
    """The seconds that the code prints, with numba's cache in a folder."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    return float(subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True).stdout)


def first_use(code: str) -> list[tuple[str, list[float]]]:
    empty, filled = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            empty.append(printed(code, cache))
            filled.append(printed(code, cache))
    return [("empty cache", empty), ("filled cache", filled)]


def rows() -> list[dict[str, Any]]:
    wall(IMPORT)  # from here on the files are in the memory of the operating system
    idle = statistics.median(wall("pass") for _ in range(REPEATS))
    measured = [
        ("import balancedfact", [wall(IMPORT) - idle for _ in range(REPEATS)]),
        ("import numpy, scipy.sparse.linalg", [wall("import scipy.sparse.linalg") - idle for _ in range(REPEATS)]),
    ]
    for name, code in [("first flat_minimum of a completion", SOLVE), ("first gradient_descent", DESCENT)]:
        measured += [(f"{name}, {cache}", seconds) for cache, seconds in first_use(code)]
    return [{"name": name, "seconds": statistics.median(each), "slowest": max(each)} for name, each in measured]


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| | seconds, median | slowest |", "|---|---:|---:|"]
    lines += [f"| {row['name']} | {row['seconds']:.2f} | {row['slowest']:.2f} |" for row in found]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    found = rows()
    write("start", {"rows": found}, table(found))
