"""Run every benchmark in order and write all tables and pictures: ``python benchmarks/all.py``.

Needs ``pip install '.[benchmarks]'``, 6 GB of memory and, on two idle cores, about 20 minutes without those that are slow
and seldom change; ``slow`` adds those. Names of scripts run only these: ``python benchmarks/all.py limits start peers plots``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = [
    *(
        "start",
        "limits",
        "scaling",
        "completion",
        "recovery_edge",
        "rank_one",
        "certification",
        "soft_impute",
        "hold_out",
        "ratings",
        "cluster",
        "comparison",
    ),
    *("manifolds manifolds_closed", "sensing", "curvature", "dynamics"),
]
# Which take hours together.
SLOW = [
    "manifolds",
    "induced",
    "isometry",
    "deep_starts",
    "riemannian",
    "geometries",
    "preconditioners",
]
LAST = ["peers", "plots"]

if __name__ == "__main__":
    named = sys.argv[1:]
    chosen = [*SCRIPTS, *(SLOW if "slow" in named else []), *LAST]
    if set(named) - {"slow"}:
        chosen = [script for script in [*SCRIPTS, *SLOW, *LAST] if script.split()[0] in named]
    for script in chosen:
        start, (name, *arguments) = time.perf_counter(), script.split()
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}
        command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
        state = "" if done.returncode == 0 else f", FAILED with status {done.returncode}"
        print(f"##### {script}: {time.perf_counter() - start:.0f} s{state}", flush=True)
