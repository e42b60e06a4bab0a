"""Gradient descent over scales and steps: Figures 1 and 3 (Gaussian start), 4 and 5 (residual), of Marion and Chizat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from balancedfact import curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below
from balancedfact.experiments.figures._regression import (
    FigureData,
    draw_divergence,
    draw_means,
    draw_references,
    draw_sharpness,
    problem,
    reference_rows,
    units,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from balancedfact.measurements import MeasurementMap

SOURCE = "Marion and Chizat 2024, Figure "


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run one unit of work."""
    data = problem(settings)
    if unit["kind"] == "reference":
        return reference_rows(data, settings["depth"])
    if unit["kind"] == "history":
        return _history(settings, unit["step"], data, rng)
    scales = np.repeat(settings["scales"], len(unit["repetitions"]))
    runs = _descend(settings, data, scales, unit["step"], unit["iterations"], [0, unit["iterations"]], rng)
    table = zip(
        scales, unit["repetitions"] * len(settings["scales"]), runs.diverged, runs["distance"], runs["sharpness"], strict=True
    )
    return [
        {
            "kind": "run",
            "step": unit["step"],
            "scale": scale,
            "repetition": repetition,
            "diverged": diverged,
            "distance": distance[-1],
            "sharpness_before": sharpness[0],
            "sharpness_after": sharpness[-1],
        }
        for scale, repetition, diverged, distance, sharpness in table
    ]


def _start(settings: Settings, scales: Any, rng: np.random.Generator) -> list[np.ndarray]:
    d, depth = settings["inputs"], settings["depth"]
    if settings["start"] == "residual":
        return dynamics.residual_layers(d, depth, scales, rng)
    return dynamics.gaussian_layers([d] * depth + [1], scales, rng)


def _descend(
    settings: Settings,
    data: FigureData,
    scales: Any,
    step: float,
    iterations: int,
    record: Any,
    rng: np.random.Generator,
    observe: Any = ("distance", "sharpness"),
) -> dynamics.Trajectory:
    return dynamics.regression_descent(
        _start(settings, scales, rng),
        data.covariance,
        data.w,
        step=step,
        iterations=iterations,
        readout=data.readout if settings["start"] == "residual" else None,
        record=record,
        observe=observe,
    )


def _history(settings: Settings, step: float, data: FigureData, rng: np.random.Generator) -> list[Row]:
    """One run, looked at often, with the eigenvalue that a power iteration on norms returns: the largest in magnitude."""
    A = _measurements(data, residual=settings["start"] == "residual")
    b = A(np.outer(data.readout, data.w) if settings["start"] == "residual" else data.w[None])
    watch = {
        "sharpness": lambda layers: curvature.sharpness(layers, A, b),
        "magnitude": lambda layers: _largest_magnitude(layers, A, b),
    }
    moments = range(0, settings["history_iterations"] + 1, settings["history_every"])
    runs = _descend(settings, data, [settings["history_scale"]], step, settings["history_iterations"], moments, rng, watch)
    series = zip(runs.iterations, runs.loss[0], runs["sharpness"][0], runs["magnitude"][0], strict=True)
    return [
        {"kind": "history", "step": step, "iteration": iteration, "loss": loss, "sharpness": sharpness, "magnitude": magnitude}
        for iteration, loss, sharpness, magnitude in series
    ]


def _measurements(data: FigureData, *, residual: bool) -> MeasurementMap:
    """The excess risk as a loss: as many inputs as dimensions, with the same covariance."""
    values, vectors = np.linalg.eigh(data.covariance)
    root = np.sqrt(values.size * np.maximum(values, 0.0))[:, None] * vectors.T
    return measurements.regression(root, data.readout if residual else None)


def _largest_magnitude(layers: list[np.ndarray], A: MeasurementMap, b: np.ndarray) -> float:
    sizes = np.cumsum([layer.size for layer in layers])

    def product(numbers: np.ndarray) -> np.ndarray:
        parts = [part.reshape(layer.shape) for part, layer in zip(np.split(numbers, sizes[:-1]), layers, strict=True)]
        return np.concatenate([part.ravel() for part in curvature.hessian_vector_product(layers, parts, A, b)])

    operator = LinearOperator((sizes[-1], sizes[-1]), matvec=product, dtype=float)
    return float(np.abs(eigsh(operator, 1, which="LM", v0=np.ones(sizes[-1]), return_eigenvectors=False)[0]))


def draw(settings: Settings, table: Table) -> Figure:
    """Distance, sharpness before and after, and two runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 7.8), layout="constrained")
    axes = figure.subplots(2, 2)
    runs = table.where(kind="run")
    colours = {step: f"C{index}" for index, step in enumerate(runs.values("step"))}
    draw_means(axes[0, 0], runs, "distance")
    axes[0, 0].set(xlabel="scale of the start", ylabel="squared distance to the optimum", yscale="log")
    axes[0, 0].set_title("(a) after training")

    draw_sharpness(axes[0, 1], table, (0.56, 0.05, 0.42, 0.3) if settings["start"] == "gaussian" else (0.14, 0.66, 0.42, 0.31))
    axes[0, 1].set_title("(b) before and after training")

    for ax, step, letter in zip(axes[1], settings["history_steps"], "cd", strict=True):
        history = table.where(kind="history", step=step)
        ax.plot(history["iteration"], history["magnitude"], color="C5", linewidth=4, alpha=0.5, label="largest |eigenvalue|")
        ax.plot(history["iteration"], history["sharpness"], color="C0", label="sharpness")
        ax.axhline(2 / step, color=colours.get(step, "0.3"), linestyle=(0, (1, 1)), linewidth=1)
        draw_references(ax, table)
        ax.set(xlabel="step of gradient descent", ylabel="sharpness", ylim=(0, None))
        ax.set_title(f"({letter}) one run, step {step}, scale {settings['history_scale']}")
        risk = ax.twinx()
        risk.semilogy(history["iteration"], history["loss"], color="C1", linewidth=1, label="excess risk (right axis)")
        risk.set_ylabel("excess risk", color="C1")
        risk.grid(visible=False)
    legend_below(figure, 4)
    return figure


def draw_probability(settings: Settings, table: Table) -> Figure:
    """The probability of divergence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    draw_divergence(figure.subplots(), table.where(kind="run"))
    return figure


_PROBLEM = {"seed": 2024, "samples": 50, "inputs": 5, "depth": 10}
_PAPER_STEPS = [[0.005, 40000, 20], [0.02, 10000, 20], [0.07, 4000, 20], [0.1, 4000, 20], [0.2, 2000, 80]]
_QUICK_STEPS = [[0.005, 8000, 6], [0.02, 3000, 6], [0.07, 1500, 6], [0.1, 1500, 6], [0.2, 1000, 12]]
_HISTORIES = {"history_steps": [0.02, 0.1], "history_iterations": 450, "history_every": 3}

_GAUSSIAN = {
    **_PROBLEM,
    **_HISTORIES,
    "start": "gaussian",
    "scales": [round(0.25 + 0.35 * index / 9, 4) for index in range(10)],
    "history_scale": 0.35,
    "chunk": 10,
}
_RESIDUAL = {
    **_PROBLEM,
    **_HISTORIES,
    "start": "residual",
    "scales": [round(1.7 * index / 9, 4) for index in range(10)],
    "history_scale": 0.5,
    "chunk": 10,
}
_GAUSSIAN_SCALES = {"paper": _GAUSSIAN | {"steps": _PAPER_STEPS}, "quick": _GAUSSIAN | {"steps": _QUICK_STEPS}}
_RESIDUAL_SCALES = {
    "paper": _RESIDUAL | {"steps": [[step, 4000, 20] for step, _, _ in _PAPER_STEPS]},
    "quick": _RESIDUAL | {"steps": [[step, 1500, 6] for step, _, _ in _PAPER_STEPS]},
}
_NO_HISTORY: dict[str, Any] = {"history_steps": []}

FIGURE_1 = Experiment(
    "mc-1",
    SOURCE + "1",
    "Gaussian start: distance to the optimum, sharpness before and after training, and two runs, against the exact minimal "
    "sharpness and the exact sharpness of the rank-one limit.",
    _GAUSSIAN_SCALES,
    units,
    run,
    draw,
    "mc-gaussian",
)
FIGURE_3 = Experiment(
    "mc-3",
    SOURCE + "3",
    "Gaussian start: how often gradient descent diverges.",
    {name: settings | _NO_HISTORY for name, settings in _GAUSSIAN_SCALES.items()},
    units,
    run,
    draw_probability,
    "mc-gaussian",
)
FIGURE_4 = Experiment(
    "mc-4",
    SOURCE + "4",
    "Residual start: distance to the optimum, sharpness before and after training, and two runs.",
    _RESIDUAL_SCALES,
    units,
    run,
    draw,
    "mc-residual",
)
FIGURE_5 = Experiment(
    "mc-5",
    SOURCE + "5",
    "Residual start: how often gradient descent diverges.",
    {name: settings | _NO_HISTORY for name, settings in _RESIDUAL_SCALES.items()},
    units,
    run,
    draw_probability,
    "mc-residual",
)
