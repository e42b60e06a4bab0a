"""Gradient descent on perceptrons with GELU activations, over scales and steps: Figure 7 of Marion and Chizat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import dynamics
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below
from balancedfact.experiments.figures._regression import draw_means, draw_sharpness, problem, reference_rows, units

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run one unit; the reference values are those of linear networks on the same data."""
    data = problem(settings)
    if unit["kind"] == "reference":
        return reference_rows(data, settings["depth"])
    scales = np.repeat(settings["scales"], len(unit["repetitions"]))
    runs = dynamics.perceptron_descent(
        dynamics.gaussian_layers([settings["inputs"]] * settings["depth"] + [1], scales, rng),
        data.inputs,
        data.targets,
        step=unit["step"],
        iterations=unit["iterations"],
        record=[unit["iterations"]],
        observe=("sharpness",),
    )
    return [
        {
            "kind": "run",
            "step": unit["step"],
            "scale": scale,
            "repetition": repetition,
            "diverged": diverged,
            "risk": risk[-1],
            "sharpness_before": sharpness[0],
            "sharpness_after": sharpness[-1],
        }
        for scale, repetition, diverged, risk, sharpness in zip(
            scales, unit["repetitions"] * len(settings["scales"]), runs.diverged, runs.loss, runs["sharpness"], strict=True
        )
    ]


def draw(settings: Settings, table: Table) -> Figure:
    """Draw the risk after training, and the sharpness before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_means(left, table.where(kind="run"), "risk")
    left.set(xlabel="scale of the start", ylabel="risk after training", yscale="log")
    draw_sharpness(right, table, (0.5, 0.06, 0.47, 0.32))
    legend_below(figure, 4)
    return figure


_SETTINGS = {
    "seed": 2024,
    "samples": 50,
    "inputs": 5,
    "depth": 10,
    "noise": 0.0,
    "scales": [round(0.428 + 0.272 * index / 7, 4) for index in range(8)],
    "chunk": 2,
}
FIGURE_7 = Experiment(
    "mc-7",
    "Marion and Chizat 2024, Figure 7",
    "Perceptrons with GELU activations: risk, and sharpness before and after training, against the scale of the start, with "
    "the exact minimal sharpness of linear networks on the same data.",
    {
        "paper": _SETTINGS | {"steps": [[0.005, 160000, 20], [0.02, 40000, 20], [0.07, 16000, 20]]},
        "quick": _SETTINGS | {"steps": [[0.005, 16000, 4], [0.02, 6000, 4], [0.07, 3000, 4]]},
    },
    units,
    run,
    draw,
)
