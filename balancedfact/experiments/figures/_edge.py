"""The end of gradient descent with a given step, several outputs: sharpness against ``2 / step`` and the least sharpness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize

from balancedfact import curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def least_sharpness(X: np.ndarray, M: np.ndarray, depth: int) -> float:
    """Least sharpness of ``|Y - X M'|^2 / n`` over the networks with product `M`, by a search that is convex in ``log s``."""
    sigma = X.T @ X / len(X)
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    rest = root @ M.T @ M @ root

    def top(log_s: float) -> float:
        s = np.exp(log_s)
        return float(np.linalg.eigvalsh(s * sigma + (depth - 1) * s ** (-1 / (depth - 1)) * rest)[-1])

    return 2 * float(scipy.optimize.minimize_scalar(top, bounds=(-20, 20), method="bounded", options={"xatol": 1e-10}).fun)


def several_outputs(X: np.ndarray, outputs: int) -> measurements.RankOne:
    """The map of ``|Y - X E'|^2 / n``: the mean over ``n q`` residuals, each weighted by the root of `q`."""
    left = np.sqrt(outputs) * np.tile(np.eye(outputs), (len(X), 1))
    return measurements.RankOne(left, np.repeat(X, outputs, axis=0))


def units(settings: Settings) -> list[Row]:
    """One unit for each depth, factor and repetition."""
    return [
        {"depth": depth, "factor": factor, "repetition": repetition}
        for depth in settings["depths"]
        for repetition in range(settings["repetitions"])
        for factor in settings["factors"]
    ]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Descend with ``factor * 2 / S_min``; problem and start depend on depth and repetition only."""
    del rng  # every step of one repetition sees the same problem and start
    depth, inputs, outputs = unit["depth"], settings["inputs"], settings["outputs"]
    own = np.random.default_rng([settings["seed"], depth, unit["repetition"]])
    X = own.standard_normal((settings["samples"], inputs)) * np.geomspace(1, settings["spread"], inputs)
    M = own.standard_normal((outputs, inputs))
    M /= np.linalg.norm(M, 2)
    least, A = least_sharpness(X, M, depth), several_outputs(X, outputs)
    b = A(M)
    start = dynamics.gaussian_layers([inputs] * depth + [outputs], settings["scale"], own)
    step = unit["factor"] * 2 / least
    found = dynamics.gradient_descent(start, A, b, step=step, iterations=settings["iterations"], record=[0], observe=())
    row = unit | {"least": least, "diverged": int(found.diverged)}
    if found.diverged >= 0:
        return [row]
    calm = dynamics.gradient_flow(start, A, b, rtol=1e-6, stationarity=1e-8, observe=())
    ends = {"loss": float(found.loss[-1]), "sharpness": curvature.sharpness(found.layers, A, b) / least}
    return [row | ends | {"flow": curvature.sharpness(calm.layers, A, b) / least}]


def draw(settings: Settings, table: Table) -> Figure:
    """The sharpness of the end against the step, one panel for each depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 3.4 * len(settings["depths"]), 3.8), layout="constrained")
    axes = figure.subplots(1, len(settings["depths"]), sharey=True, squeeze=False)[0]
    line = np.linspace(min(settings["factors"]), max(settings["factors"]), 200)
    for ax, depth in zip(axes, settings["depths"], strict=True):
        rows = [row for row in table.where(depth=depth).rows if row["diverged"] < 0]
        for fitted, face, label in ((True, "C0", "ends that fit"), (False, "none", "ends that do not")):
            some = [row for row in rows if (row["loss"] < settings["fit"]) == fitted]
            x, y = [row["factor"] for row in some], [row["sharpness"] for row in some]
            ax.plot(x, y, "o", color="C0", markerfacecolor=face, label=label)
        ax.plot(
            [row["factor"] for row in rows],
            [row["flow"] for row in rows],
            "_",
            color="C2",
            markersize=7,
            label="gradient flow from the same start",
        )
        ax.plot(line, 1 / line, color="black", linewidth=1, label="2 / step")
        ax.axhline(1.0, color="C3", linewidth=1, linestyle="--", label="least sharpness there is")
        ax.set(title=f"depth {depth}", xlabel="step / (2 / least sharpness)", yscale="log")
        plain_ticks(ax, "y", [0.7, 1, 1.5, 2, 3, 5, 10])
    axes[0].set_ylabel("sharpness / least sharpness")
    legend_below(figure, columns=5)
    return figure


_SETTINGS = {"seed": 7, "samples": 20, "inputs": 4, "outputs": 3, "spread": 0.4, "scale": 0.45, "fit": 1e-10}
_PAPER = {
    "depths": [2, 3, 5],
    "factors": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.01, 1.1],
    "repetitions": 10,
    "iterations": 100_000,
}
_QUICK = {"depths": [2, 3], "factors": [0.2, 0.5, 0.8, 0.95, 1.05], "repetitions": 3, "iterations": 20_000}
EDGE = Experiment(
    "beyond-4",
    "beyond Marion and Chizat 2024, Figure 1",
    "Edge of stability with several outputs: sharpness where descent ends, against its step.",
    {"paper": _SETTINGS | _PAPER, "quick": _SETTINGS | _QUICK},
    units,
    run,
    draw,
)
