"""Files that ``balancedfact solve`` leaves: the solution, a report, pictures and a summary."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from balancedfact import plots
from balancedfact._files import write_json, write_picture, write_text, writing
from balancedfact._formats import PICTURES
from balancedfact._spectrum import RANK_CUT, numerical_rank, product_singular_values
from balancedfact._version import __version__
from balancedfact.commands._printable import printable
from balancedfact.data._predictions import Pairs, as_csv, labelled, predictions, top
from balancedfact.io import Problem
from balancedfact.measurements import Entries
from balancedfact.solution import Solution
from balancedfact.solvers import PenaltyPath

_LARGEST_IMAGE = 4_000_000  # entries of a matrix that is still drawn
_PANEL = 3.6  # inches


def report(
    file: Path, problem: Problem, solution: Solution, settings: dict[str, Any], path: PenaltyPath | None, seconds: float
) -> dict[str, Any]:
    """The content of ``report.json``: all of a solve but its factors."""
    error = None
    if problem.truth is not None:
        size = float(np.linalg.norm(problem.truth))
        error = float(np.linalg.norm(_completed(solution) - problem.truth)) / (size or 1.0)
    chosen = {"value": settings["penalty"]}
    if path is not None:
        chosen = {
            "value": path.penalty,
            "penalties": path.penalties.tolist(),
            "held_out_errors": path.errors.tolist(),
            "standard_errors": path.standard_errors.tolist(),
            "ranks": path.ranks.tolist(),
            "message": path.message,
        }
    return {
        "status": solution.status.value,
        "ok": solution.status.ok,
        "message": solution.message,
        "value": solution.value,
        "certificate": solution.certificate.to_dict(),
        "rank": numerical_rank(product_singular_values(solution.layers)),
        "rank_cut": RANK_CUT,
        "truth_error": error,
        "penalty": chosen,
        "method": solution.method,
        "iterations": len(solution.history.get("iteration", ())),
        "seconds": seconds,
        "problem": {
            "file": str(file),
            "kind": problem.kind,
            "read_as": problem.reading,
            "rows": problem.A.matrix_shape[0],
            "columns": problem.A.matrix_shape[1],
            "measurements": problem.A.m,
            "widths": [solution.layers[0].shape[1], *(layer.shape[0] for layer in solution.layers)],
        },
        "settings": settings,
        "versions": {
            "balancedfact": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "numba", "matplotlib")},
        },
        "row_labels": problem.row_labels,
        "column_labels": problem.col_labels,
    }


def write_all(out: Path, problem: Problem, solution: Solution, content: dict[str, Any], kind: str = "png") -> list[str]:
    """Write every file, each whole or not at all, the solution first; their names."""
    out.mkdir(parents=True, exist_ok=True)
    solution.save(out / "solution.npz")
    write_json(out / "report.json", content)
    pictures: dict[str, Callable[[], Figure]] = {
        f"singular_values.{kind}": lambda: _singular_values(solution),
        f"gap.{kind}": lambda: _gap(solution),
    }
    A = problem.A
    if isinstance(A, Entries) and A.shape[1] <= _LARGEST_IMAGE:
        pictures[f"matrix.{kind}"] = lambda: _matrix(A, problem.b, solution)
    for stem in ("singular_values", "gap", "matrix"):  # an earlier run's picture must not pass for this one's
        for other in PICTURES:
            if f"{stem}.{other}" not in pictures:
                (out / f"{stem}.{other}").unlink(missing_ok=True)
    for name, draw in pictures.items():
        with plots.style():
            write_picture(out / name, draw())
    return ["solution.npz", "report.json", *pictures]


def write_answers(
    out: Path, problem: Problem, solution: Solution, pairs: Pairs | None, count: int | None, complete: str | None
) -> list[str]:
    """Write the predictions, the best unseen entries and the completed matrix that were asked for; their names."""
    names = []
    if pairs is not None:
        write_text(out / "predictions.csv", predictions(solution, pairs))
        names.append("predictions.csv")
    A = problem.A
    if count is not None and isinstance(A, Entries):
        write_text(out / "top.csv", top(solution, A.rows, A.cols, count))
        names.append("top.csv")
    if complete == "npy":
        with writing(out / "completed.npy") as stream:
            np.save(stream, _completed(solution))
        names.append("completed.npy")
    elif complete == "csv":
        named = labelled(solution)
        assert named.row_labels is not None
        assert named.col_labels is not None
        rows = ([label, *map(repr, row.tolist())] for label, row in zip(named.row_labels, _completed(solution), strict=True))
        write_text(out / "completed.csv", as_csv(("", *named.col_labels), rows))
        names.append("completed.csv")
    return names


def summary(problem: Problem, content: dict[str, Any], out: Path, files: list[str]) -> str:
    """The summary for a reader at a terminal."""
    certificate = content["certificate"]
    lines = {"problem": f"{content['problem']['file']}: {_describe(problem)}"}
    if problem.reading:
        lines["read as"] = problem.reading
    for name, labels in (("rows", problem.row_labels), ("columns", problem.col_labels)):
        if labels is not None:
            lines[name] = f"{labels[0]} ... {labels[-1]}" if len(labels) > 1 else labels[0]
    lines |= {"status": content["status"], "message": content["message"]}
    if content["penalty"]["value"]:
        lines["penalty"] = f"{content['penalty']['value']:.6g}"
    if "held_out_errors" in content["penalty"]:
        errors = content["penalty"]["held_out_errors"]
        alone = "without a matrix" if content["settings"]["offsets"] is None else "by offsets alone"
        lines["penalty"] += f", of {len(errors)} tried; root mean squared error {min(errors):.4g} on the data held out"
        lines["penalty"] += f", {errors[0]:.4g} {alone}"
    lines["value"] = f"{content['value']:.10g}"
    lines["lower bound"] = f"{certificate['lower_bound']:.10g}" if not np.isnan(certificate["lower_bound"]) else "none exists"
    if not np.isnan(certificate["gap"]):
        lines["gap"] = f"{certificate['gap']:.1e}"
    lines["residual"] = f"{certificate['feasibility']:.1e}"
    lines["rank"] = f"{content['rank']}"
    if content["truth_error"] is not None:
        lines["truth error"] = f"{content['truth_error']:.2e}"
    lines["seconds"] = f"{content['seconds']:.2f}"
    lines["files"] = f"{out}: {', '.join(files)}"
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {printable(text)}" for name, text in lines.items())


def _describe(problem: Problem) -> str:
    A = problem.A
    d1, d2 = A.matrix_shape
    if not isinstance(A, Entries):
        return f"{A.m} {problem.kind} measurements of a {d1} x {d2} matrix"
    seen = np.unique(np.ravel_multi_index((A.rows, A.cols), A.matrix_shape)).size
    repeated = f", {A.m} observations in all" if A.m > seen else ""
    return f"{seen} entries of a {d1} x {d2} matrix, {seen / (d1 * d2):.3g} of them{repeated}"


def _completed(solution: Solution) -> np.ndarray:
    """The end-to-end matrix with its offsets, where there are any."""
    if solution.offsets is None:
        return solution.matrix
    mean, rows, cols = solution.offsets
    return solution.matrix + (mean + rows[:, None] + cols)


def _singular_values(solution: Solution) -> Figure:
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    plots.singular_values(figure.subplots(), solution)
    return figure


def _gap(solution: Solution) -> Figure:
    figure = Figure(figsize=(6.0, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1)
    plots.value_history(above, solution)
    plots.gap_history(below, solution)
    return figure


def _matrix(A: Entries, b: np.ndarray, solution: Solution) -> Figure:
    """Observed beside recovered, to one colour scale; rows and columns that were never observed stay white in both."""
    d1, d2 = A.matrix_shape
    width = _PANEL * min(max(d2 / d1, 0.5), 2.0) + 1.6
    figure = Figure(figsize=(2 * width, _PANEL + 0.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.observed(left, A, b)
    live = A.weights != 0
    rows, cols = (np.bincount(at[live], minlength=d) > 0 for at, d in ((A.rows, d1), (A.cols, d2)))
    limits = left.images[0].get_clim()
    plots.recovered_matrix(right, _completed(solution), np.outer(rows, cols), value_range=limits)
    return figure
