"""Run contenders on one task, each in a process of its own, and write what was measured beside the environment.

A contender is a function without arguments that builds the problem and returns a solver, itself a function that solves once
and returns a dictionary of accuracies. The process solves once to warm up (unless told otherwise), then `repeats` times;
reported are the median time and the peak memory of the process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *("balancedfact", "numpy", "scipy", "numba", "cvxpy", "clarabel", "scs", "pymanopt"),
    *("torch", "pyhessian", "curvlinops-for-pytorch", "jax", "distributed"),
    *("fancyimpute", "cmfrec"),
)
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")

Solver = Callable[[], dict[str, float]]


def run(task: str, contenders: dict[str, tuple[Callable[[], Solver], int, bool]]) -> None:
    """Measure ``{name: (build, repeats, warm up)}`` and write ``results/TASK.json`` and ``results/TASK.md``.

    The arguments of the script choose: names of tasks, for all their contenders, or names of contenders.
    """
    named = sys.argv[1:]
    chosen = [name for name in contenders if not named or task in named or name in named]
    if not chosen:  # what is named belongs to another task of the script
        return
    rows = []
    for name in chosen:
        print(f"{task}: {name} ...", file=sys.stderr, flush=True)
        rows.append({"name": name} | measured(*contenders[name]))
    write(task, {"rows": rows}, _table(rows))


def write(task: str, content: dict[str, Any], table: str) -> None:
    """``results/TASK.json``, with the environment, and ``results/TASK.md``."""
    RESULTS.mkdir(exist_ok=True)
    whole = {"task": task, "environment": environment()} | content
    (RESULTS / f"{task}.json").write_text(json.dumps(whole, indent=2) + "\n")
    (RESULTS / f"{task}.md").write_text(table)
    print(table)


def measured(build: Callable[[], Solver], repeats: int, warm: bool, *, threads: int | None = None) -> dict[str, Any]:
    """One row: what `build` makes, measured in a process of its own, with so many threads or as many as it takes by itself."""
    with _threads(threads):
        return _measured(build, repeats, warm)


def _measured(build: Callable[[], Solver], repeats: int, warm: bool) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(build, repeats, warm, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return {"failed": "the process died"}
    finally:
        process.join()


def apart(function: Callable[..., Any], *arguments: Any, threads: int | None = None) -> Any:
    """The value of a function called in a process of its own, which leaves no trace in the memory of this one."""
    with _threads(threads), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Processes started inside have so many threads: the libraries look when they are loaded."""
    before = dict(os.environ)
    if count is not None:
        os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure(build: Callable[[], Solver], repeats: int, warm: bool, pipe: Any) -> None:
    solve = build()
    if warm:
        solve()
    before = peak()
    seconds, accuracy = [], {}
    for _ in range(repeats):
        start = time.perf_counter()
        accuracy = solve()
        seconds.append(time.perf_counter() - start)
    row = {"seconds": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds), "runs": repeats}
    row |= {"peak_MB": peak(), "peak_before_MB": before}
    pipe.send(row | {name: float(value) for name, value in accuracy.items()})
    pipe.close()


def peak() -> float:
    """The largest memory that this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def environment() -> dict[str, Any]:
    """Versions, processor and thread settings of this run."""
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": {name: os.environ.get(name, "default") for name in THREADS},
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, a table for each set of rows that have a column in common beside their time and memory."""
    groups: list[tuple[set[str], list[dict[str, Any]]]] = []
    for row in rows:
        columns = set(row) - _HIDDEN
        for known, members in groups:
            if known & columns or not columns:
                known |= columns
                members.append(row)
                break
        else:
            groups.append((columns, [row]))
    return "\n".join(_lines(["seconds", "peak_MB", *sorted(columns)], members) for columns, members in groups)


def _lines(shown: list[str], rows: list[dict[str, Any]]) -> str:
    lines = ["| | " + " | ".join(key.replace("_", " ") for key in shown) + " |", "|---|" + "---:|" * len(shown)]
    for row in rows:
        cells = [_number(row[key], _DIGITS.get(key, 3)) if key in row else "" for key in shown]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float, digits: int) -> str:
    """To so many digits, and without an exponent up to a million: 4800 where the format ``g`` writes 4.8e+03."""
    rounded = f"{value:.{digits}g}"
    return f"{float(rounded):.10g}" if 1000 <= abs(value) < 1e6 else rounded


_DIGITS = {"value": 8}
_HIDDEN = {"name", "seconds", "peak_MB", "fastest", "slowest", "runs", "peak_before_MB", "failed", "seconds_watching"}
