"""The elevation of a mountain range, recovered from a quarter of it by the flattest factorization that fits.

The data ship with matplotlib: a 344 x 403 digital elevation model of the Jacksboro fault, Tennessee. The mask is not uniform:
four stretches of 30 rows are seen seven times more rarely than the others. There the flat solution, which is the one of least
*weighted* nuclear norm, and the plain nuclear norm differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

from balancedfact import measurements, plots, solvers
from balancedfact._files import write_picture
from balancedfact._version import __version__
from balancedfact.experiments._example import Example, print_errors, solution_report, write_report
from balancedfact.solution import Solution

_ELEVATION_SEED = 20
_COMMON, _RARE = 0.35, 0.05  # the probability that an entry is observed
_STRETCHES = (40, 120, 215, 290)  # first rows of the stretches that are rarely seen
_LENGTH = 30
_TOL = 1e-6


def elevation_problem() -> tuple[np.ndarray, measurements.Entries, np.ndarray]:
    """The elevations in metres, the map of the observed entries, and which rows are rarely seen."""
    with np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as file:
        truth = file["elevation"].astype(float)
    rare = np.zeros(truth.shape[0], dtype=bool)
    for first in _STRETCHES:
        rare[first : first + _LENGTH] = True
    seen = np.random.default_rng(_ELEVATION_SEED).random(truth.shape) < np.where(rare, _RARE, _COMMON)[:, None]
    rows, cols = np.nonzero(seen)
    return truth, measurements.Entries(rows, cols, truth.shape), rare


def mean_filling(A: measurements.Entries, b: np.ndarray) -> np.ndarray:
    """Row mean plus column mean minus overall mean of what was observed."""
    d1, d2 = A.matrix_shape
    overall = b.mean()

    def offsets(index: np.ndarray, size: int) -> np.ndarray:
        return np.bincount(index, b - overall, size) / np.maximum(np.bincount(index, minlength=size), 1)

    return overall + offsets(A.rows, d1)[:, None] + offsets(A.cols, d2)


def run(out: Path) -> int:
    """Recover the elevation in three ways, compare them on what was hidden, and write report, solution and picture."""
    out.mkdir(parents=True, exist_ok=True)
    truth, A, rare = elevation_problem()
    b = A(truth)
    hidden = np.ones(truth.shape, dtype=bool)
    hidden[A.rows, A.cols] = False
    level = b.mean()
    d1, d2 = truth.shape
    print(f"{A.m} of {d1 * d2} elevations observed ({A.m / (d1 * d2):.1%}); every matrix below fits them or averages them.")
    flat = solvers.flat_minimum(A, b - level, tol=_TOL, rng=_ELEVATION_SEED)
    norm = solvers.norm_minimum(A, b - level, tol=_TOL, rng=_ELEVATION_SEED)
    recovered = {
        "flat (least scaled trace)": flat.matrix + level,
        "least nuclear norm": norm.matrix + level,
        "row and column means": mean_filling(A, b),
    }
    where = {"all hidden": hidden, "common rows": hidden & ~rare[:, None], "rare rows": hidden & rare[:, None]}
    errors = {
        name: [float(np.sqrt(np.mean((matrix - truth)[part] ** 2))) for part in where.values()]
        for name, matrix in recovered.items()
    }
    print_errors("root mean squared error on the hidden elevations, in metres", list(where), errors)
    for name, solution in (("flat", flat), ("nuclear norm", norm)):
        print(f"{name}: {solution.message} ({solution.method}, rank {solution.layers[0].shape[0]})")
    flat.save(out / "solution.npz")
    write_report(
        out,
        {
            "observed": A.m,
            "shape": [d1, d2],
            "errors_m": {name: dict(zip(where, values, strict=True)) for name, values in errors.items()},
            "flat": solution_report(flat),
            "nuclear_norm": solution_report(norm),
        },
    )
    with plots.style():
        figure = _picture(truth, A, b, rare, recovered, flat)
        source = f"balancedfact {__version__}, example elevation; data: matplotlib, jacksboro_fault_dem.npz"
        write_picture(out / "elevation.png", figure, title=ELEVATION.summary, source=source)
    print(f"written to {out}: elevation.png, report.json, solution.npz")
    return 0 if flat.status.ok and norm.status.ok else 1


def _picture(
    truth: np.ndarray,
    A: measurements.Entries,
    b: np.ndarray,
    rare: np.ndarray,
    recovered: dict[str, np.ndarray],
    flat: Solution,
) -> Figure:
    figure = Figure(figsize=(13.5, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    limits = (float(truth.min()), float(truth.max()))
    plots.observed(axes[0, 0], A, b, f"observed: {A.m / truth.size:.0%} of the elevations (m)", value_range=limits)
    best = next(iter(recovered.values()))
    plots.recovered_matrix(axes[0, 1], best, title="flattest factorization (m)", value_range=limits)
    plots.recovered_matrix(axes[0, 2], truth, title="truth (m)", value_range=limits)
    by_row = {name: np.sqrt(np.mean((matrix - truth) ** 2, axis=1)) for name, matrix in recovered.items()}
    for (name, errors), colour in zip(by_row.items(), plots.PALETTE.values(), strict=False):
        axes[1, 0].plot(errors, label=name, linewidth=1, color=colour)
    axes[1, 0].set(xlabel="row", ylabel="root mean squared error (m)", title="error by row")
    # The first two differ by less than a line is wide in places: their difference has a panel of its own.
    flat_rows, norm_rows, _ = by_row.values()
    gained = norm_rows - flat_rows
    axes[1, 1].bar(np.arange(gained.size), np.maximum(gained, 0), 1.0, color=plots.PALETTE["blue"], label="flat is nearer")
    axes[1, 1].bar(
        np.arange(gained.size), np.minimum(gained, 0), 1.0, color=plots.PALETTE["vermilion"], label="nuclear norm is nearer"
    )
    means = f"{gained[rare].mean():.1f} m on rows rarely seen, {gained[~rare].mean():.1f} m on the others"
    title = f"error of the nuclear norm less that of flat:\n{means}"
    axes[1, 1].set(xlabel="row", ylabel="difference of the errors (m)", title=title)
    for ax in axes[1, :2]:
        for k, first in enumerate(_STRETCHES):
            label = "rarely seen" if k == 0 else None
            ax.axvspan(first, first + _LENGTH, color=plots.PALETTE["grey"], alpha=0.15, linewidth=0, label=label)
        ax.legend(loc="upper left", fontsize="small")
    plots.gap_history(axes[1, 2], flat)
    return figure


ELEVATION = Example("a real elevation model from a quarter of its entries, seen unevenly", run)
