"""Fewer data than dimensions, sharpness and generalisation: Figure 6 of Marion and Chizat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import dynamics
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below, magnified
from balancedfact.experiments.figures._regression import draw_means, draw_references, problem, reference_rows, units

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run one unit of work."""
    data = problem(settings)
    if unit["kind"] == "reference":
        return reference_rows(data, settings["depth"])
    scales = np.repeat(settings["scales"], len(unit["repetitions"]))
    repetitions = unit["repetitions"] * len(settings["scales"])
    d, depth = settings["inputs"], settings["depth"]
    runs = dynamics.regression_descent(
        dynamics.gaussian_layers([d] * depth + [1], scales, rng),
        data.covariance,
        data.w,
        step=unit["step"],
        iterations=unit["iterations"],
        record=[unit["iterations"]],
        observe=("sharpness",),
    )
    # Test inputs are standard normal: the expected test error is the squared distance to the truth plus the noise.
    with np.errstate(over="ignore", invalid="ignore"):  # some runs diverged
        test = np.sum((runs.matrix[:, 0] - data.truth) ** 2, axis=-1) + data.noise
    repetitions = unit["repetitions"] * len(settings["scales"])
    return [
        {
            "kind": "run",
            "step": unit["step"],
            "scale": scale,
            "repetition": repetition,
            "diverged": diverged,
            "risk": risk[-1],
            "gap": error - risk[-1] if diverged < 0 else np.nan,
            "sharpness_before": sharpness[0],
            "sharpness_after": sharpness[-1],
        }
        for scale, repetition, diverged, risk, error, sharpness in zip(
            scales, repetitions, runs.diverged, runs.loss, test, runs["sharpness"], strict=True
        )
    ]


def draw(settings: Settings, table: Table) -> Figure:
    """Sharpness after training, and the generalisation gap against it."""
    from matplotlib.figure import Figure
    from scipy.stats import linregress

    figure = Figure(figsize=(10.5, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    runs = table.where(kind="run")
    draw_means(left, runs, "sharpness_after")
    for index, step in enumerate(runs.values("step")):
        left.axhline(2 / step, color=f"C{index}", linestyle=(0, (1, 1)), linewidth=1)
    left.plot([], [], color="0.3", linestyle=(0, (1, 1)), linewidth=1, label="2 / step, in the colour of the step")
    draw_references(left, table)
    left.set(xlabel="scale of the start", ylabel="sharpness after training", yscale="log")
    scales = runs.values("scale")

    def corner(ax: Axes) -> None:
        draw_means(ax, runs, "sharpness_after")

    magnified(left, (0.07, 0.56, 0.36, 0.4), (scales[0] - 0.01, scales[len(scales) // 4] + 0.01), (12, 30), corner)

    ours = runs.where(step=settings["steps"][0][0])
    kept = (ours["diverged"] < 0) & (ours["risk"] < 1e-3)
    x, y = ours["sharpness_after"][kept], ours["gap"][kept]
    fit = linregress(x, y)
    points = right.scatter(x, y, c=ours["scale"][kept], s=6, cmap="viridis")
    figure.colorbar(points, ax=right, label="scale of the start")
    ends = np.array([x.min(), x.max()])
    text = f"slope {fit.slope:.2g}, $r^2$ = {fit.rvalue**2:.2f}, p = {fit.pvalue:.1g}"
    right.plot(ends, fit.intercept + fit.slope * ends, color="black", label=text)
    right.set(xlabel="sharpness after training", ylabel="generalisation gap")
    right.set_title(f"step {settings['steps'][0][0]}, {x.size} runs that fit")
    legend_below(figure, 4)
    return figure


_SETTINGS = {
    "seed": 2024,
    "samples": 15,
    "inputs": 20,
    "depth": 5,
    "scales": [round(0.1 + 0.26 * index / 8, 4) for index in range(9)],
    "chunk": 7,
}
FIGURE_6 = Experiment(
    "mc-6",
    "Marion and Chizat 2024, Figure 6",
    "Underdetermined regression: sharpness after training against the scale of the start, and generalisation against it.",
    {
        "paper": _SETTINGS | {"steps": [[0.001, 40000, 100], [0.004, 10000, 20], [0.01, 4000, 20]]},
        "quick": _SETTINGS | {"steps": [[0.001, 20000, 7], [0.004, 6000, 7], [0.01, 3000, 7]]},
    },
    units,
    run,
    draw,
)
