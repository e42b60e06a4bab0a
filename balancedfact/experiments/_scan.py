"""A slice of a head, recovered from noisy bilinear measurements with a penalty chosen by hold-out.

The data ship with matplotlib: a magnetic resonance image of 256 x 256 pixels, here averaged to 64 x 64. Each measurement is
``u.T @ X @ v`` with Gaussian `u`, `v`, and noise of 10 % of the typical measurement is added.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

from balancedfact import measurements, plots, solvers
from balancedfact._files import write_picture
from balancedfact.experiments._example import Example, print_errors, solution_report, write_report
from balancedfact.solution import Solution

_SCAN_SEED = 20
_MEASUREMENTS = 2000
_SCAN_NOISE = 0.1


def scan_problem() -> tuple[np.ndarray, measurements.RankOne, np.ndarray]:
    """The image, scaled to at most 1, the map, and the noisy data."""
    with gzip.open(get_sample_data("s1045.ima.gz", asfileobj=False)) as file:
        pixels = np.frombuffer(file.read(), dtype="<u2").reshape(64, 4, 64, 4).mean(axis=(1, 3))
    truth = pixels / pixels.max()
    rng = np.random.default_rng(_SCAN_SEED)
    A = measurements.bilinear(_MEASUREMENTS, truth.shape, rng)
    b = A(truth)
    return truth, A, b + _SCAN_NOISE * b.std() * rng.standard_normal(b.size)


def run(out: Path) -> int:
    """Recover the image with and without a penalty, and write report, solution and picture."""
    out.mkdir(parents=True, exist_ok=True)
    truth, A, b = scan_problem()
    print(f"{A.m} bilinear measurements of {truth.size} pixels, noise {_SCAN_NOISE:.0%}")
    path = solvers.select_penalty(A, b, rng=_SCAN_SEED)
    penalised = solvers.flat_minimum(A, b, penalty=path.penalty, rng=_SCAN_SEED)
    exact = solvers.flat_minimum(A, b, rng=_SCAN_SEED)
    norm = solvers.norm_minimum(A, b, rng=_SCAN_SEED)
    solutions = {
        "flat, penalty by hold-out": penalised,
        "flat, exact fit": exact,
        "least nuclear norm, exact fit": norm,
    }
    errors = {
        name: [float(np.linalg.norm(solution.matrix - truth) / np.linalg.norm(truth)), float(solution.layers[0].shape[0])]
        for name, solution in solutions.items()
    }
    print_errors("distance to the true image, relative", ["error", "rank"], errors)
    print(f"penalty {path.penalty:.4g}; {penalised.message} ({penalised.method})")
    penalised.save(out / "solution.npz")
    write_report(
        out,
        {
            "measurements": A.m,
            "shape": list(truth.shape),
            "relative_error": {name: values[0] for name, values in errors.items()},
            "penalty": path.penalty,
            "solutions": {name: solution_report(solution) for name, solution in solutions.items()},
        },
    )
    with plots.style():
        write_picture(out / "scan.png", _picture(truth, penalised, exact, path))
    print(f"written to {out}: report.json, scan.png, solution.npz")
    return 0 if all(solution.status.ok for solution in solutions.values()) else 1


def _picture(truth: np.ndarray, penalised: Solution, exact: Solution, path: solvers.PenaltyPath) -> Figure:
    figure = Figure(figsize=(12, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    limits = (0.0, 1.0)
    plots.recovered_matrix(axes[0, 0], truth, title="truth", value_range=limits)
    plots.recovered_matrix(axes[0, 1], penalised.matrix, title="flat, penalty by hold-out", value_range=limits)
    plots.recovered_matrix(axes[0, 2], exact.matrix, title="flat, exact fit to noisy data", value_range=limits)
    axes[1, 0].loglog(path.penalties, path.errors, "o-")
    axes[1, 0].axvline(path.penalty, linestyle="--", linewidth=1, color=plots.PALETTE["grey"], label="chosen")
    axes[1, 0].set(xlabel="penalty", ylabel="error on held-out data", title="choice of the penalty")
    axes[1, 0].legend()
    plots.singular_values(axes[1, 1], penalised)
    plots.gap_history(axes[1, 2], penalised)
    return figure


SCAN = Example("a real image from noisy bilinear measurements, with the penalty chosen by hold-out", run)
