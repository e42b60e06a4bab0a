"""Batch size against the threshold of stability: where SGD ends, and the largest step that is stable there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import MARKERS, legend_below, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIT = 1e-8  # relative residual up to which an end counts as a fit


def units(settings: Settings) -> list[Row]:
    """One unit for each batch and step; runs of a unit go side by side."""
    return [{"batch": batch, "step": step} for step in settings["steps"] for batch in settings["batches"]]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Train from the same starts; the step is relative to what is stable at the end of gradient flow under full batches."""
    own = np.random.default_rng(settings["seed"])
    d, m, depth = settings["size"], settings["measurements"], settings["depth"]
    A = measurements.gaussian(m, (d, d), own)
    b = A(np.outer(own.standard_normal(d), own.standard_normal(d)) / d)
    starts = dynamics.gaussian_layers([d] * (depth + 1), np.full(settings["runs"], settings["scale"]), own)
    flow = dynamics.gradient_flow([w[0] for w in starts], A, b, rtol=1e-6, stationarity=1e-10, observe=())
    step = unit["step"] * 2 / curvature.sharpness(flow.layers, A, b)
    found = dynamics.sgd(
        starts, A, b, step=step, iterations=settings["iterations"], batch=unit["batch"], rng=rng, record=[0], observe=()
    )
    rows: list[Row] = []
    for r in range(settings["runs"]):
        row = unit | {"run": r, "diverged": int(found.diverged[r])}
        layers = [w[r] for w in found.layers]
        if found.diverged[r] < 0:
            missed = float(np.sqrt(found.loss[r, -1] * m) / np.linalg.norm(b))
            row |= {"residual": missed, "sharpness": curvature.sharpness(layers, A, b) * step / 2}
            if missed < _FIT:
                row["room"] = dynamics.stability_threshold(layers, A, b, batch=unit["batch"]) / step
        rows.append(row)
    return rows


def draw(settings: Settings, table: Table) -> Figure:
    """The threshold at the ends, and their sharpness, against the batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, step in enumerate(settings["steps"]):
        rows = [row for row in table.where(step=step).rows if "room" in row and row["room"] == row["room"]]
        apart = 1.13 ** (index - (len(settings["steps"]) - 1) / 2)
        batches = np.array(settings["batches"]) * apart
        for ax, name in ((left, "room"), (right, "sharpness")):
            ax.plot(
                [row["batch"] * apart for row in rows], [row[name] for row in rows], ".", color=f"C{index}", alpha=0.25, lw=0
            )
            ends = [[row[name] for row in rows if row["batch"] == batch] for batch in settings["batches"]]
            low, middle, high = np.array([np.percentile(some, [10, 50, 90]) if some else [np.nan] * 3 for some in ends]).T
            label = f"step {step:g} of 2 / sharpness of the flow: median, 10 to 90 %"
            ax.errorbar(
                batches,
                middle,
                np.array([middle - low, high - middle]),
                fmt=MARKERS[index],
                color=f"C{index}",
                capsize=3,
                label=label,
            )
    for ax in (left, right):
        ax.axhline(1.0, color="black", linewidth=1, label="edge of stability")
        ax.set(xscale="log", yscale="log", xlabel="batch")
        plain_ticks(ax, "x", settings["batches"])
    plain_ticks(left, "y", [1, 2, 5, 10, 20])
    plain_ticks(right, "y", [0.05, 0.1, 0.2, 0.5, 1])
    left.set_ylabel("largest stable step / step")
    right.set_ylabel("sharpness / (2 / step)")
    legend_below(figure, columns=2)
    return figure


_SETTINGS = {"seed": 5, "size": 3, "measurements": 6, "depth": 2, "scale": 0.9}
BATCH_SIZE = Experiment(
    "beyond-6",
    "beyond Mulayoff and Michaeli 2023",
    "Batch size against the threshold of mean-square stability at the weights where SGD ends.",
    {
        "paper": _SETTINGS | {"batches": [1, 2, 4, 8, 16, 64], "steps": [0.2, 0.4, 0.8], "runs": 64, "iterations": 200_000},
        "quick": _SETTINGS | {"batches": [1, 4, 16], "steps": [0.3, 0.8], "runs": 16, "iterations": 20_000},
    },
    units,
    run,
    draw,
)
