"""Completion by gradient flow from small starts: whether rank or nuclear norm is small at the end, and connectivity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import dynamics
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import MARKERS, legend_below
from balancedfact.measurements import Entries

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Entries that are seen and their values. In the first two the graph of rows and columns falls into parts.
PATTERNS: dict[str, tuple[list[int], list[int], list[float], int]] = {
    "diagonal 1, 1": ([0, 1], [0, 1], [1.0, 1.0], 2),
    "two blocks": ([0, 0, 1, 2, 2], [0, 1, 0, 2, 3], [1.0, 2.0, 2.0, 1.0, 2.0], 4),
    "connected, three of four": ([0, 0, 1], [0, 1, 0], [1.0, 2.0, 1.0], 2),
    "connected, chain": ([0, 0, 1, 1, 2, 2, 3], [0, 1, 1, 2, 2, 3, 3], [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0], 4),
}

_LEAST_RATIO = 1e-9  # where less is drawn


def units(settings: Settings) -> list[Row]:
    """One unit for each pattern, depth and size of the start."""
    return [
        {"pattern": pattern, "depth": depth, "scale": scale}
        for pattern in PATTERNS
        for depth in settings["depths"]
        for scale in settings["scales"]
    ]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """The limits of gradient flow from Gaussian layers whose product has about the size `scale`."""
    rows, cols, values, d = PATTERNS[unit["pattern"]]
    A, layer = Entries(rows, cols, (d, d)), (unit["scale"] ** (1 / unit["depth"])) / np.sqrt(d)
    found: list[Row] = []
    for repetition in range(settings["repetitions"]):
        start = dynamics.gaussian_layers([d] * (unit["depth"] + 1), layer, rng)
        flow = dynamics.gradient_flow(start, A, values, rtol=1e-5, stationarity=1e-8, observe=(), max_steps=settings["steps"])
        s = np.linalg.svd(flow.matrix, compute_uv=False)
        ends = {"nuclear": float(s.sum()), "second": float(s[1] / s[0]), "determinant": float(np.prod(s) / s[0] ** d)}
        outside = {"corner": float(flow.matrix[0, -1]), "other": float(flow.matrix[-1, 0])}
        found.append(unit | {"repetition": repetition} | ends | outside | {"loss": float(flow.loss[-1])})
    return found


def draw(settings: Settings, table: Table) -> Figure:
    """The second singular value relative to the first, against the size of the start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    axes = figure.subplots(2, len(PATTERNS) // 2, sharex=True, sharey=True)
    for ax, pattern in zip(axes.ravel(), PATTERNS, strict=True):
        for index, depth in enumerate(settings["depths"]):
            some = table.where(pattern=pattern, depth=depth)
            apart = 1.35 ** (index - 1)
            ax.plot(some["scale"] * apart, np.maximum(some["second"], _LEAST_RATIO), ".", color=f"C{index}", alpha=0.4)
            middle = [np.median(some.where(scale=scale)["second"]) for scale in settings["scales"]]
            scales, label = np.array(settings["scales"]) * apart, f"depth {depth}: single starts and their median"
            ax.plot(scales, np.maximum(middle, _LEAST_RATIO), MARKERS[index] + "-", color=f"C{index}", label=label)
        ax.set(title=pattern, xscale="log", yscale="log")
    for ax in axes[-1]:
        ax.set_xlabel("size of the start")
    for ax in axes[:, 0]:
        ax.set_ylabel("second / first singular value")
    legend_below(figure, columns=3)
    return figure


_SETTINGS = {"seed": 13, "steps": 5000}
CONNECTIVITY = Experiment(
    "beyond-8",
    "beyond Bai et al. 2024 (arXiv 2405.13721)",
    "Completion from small starts: the rank at the end, for entries whose graph is connected and for others.",
    {
        "paper": _SETTINGS | {"depths": [2, 3, 4], "scales": [1e-1, 1e-2, 1e-3, 1e-4, 1e-6], "repetitions": 10},
        "quick": _SETTINGS | {"depths": [2, 3], "scales": [1e-1, 1e-3], "repetitions": 3},
    },
    units,
    run,
    draw,
)
