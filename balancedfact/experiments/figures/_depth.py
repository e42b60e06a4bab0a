"""The critical step size against depth: Figure 2 of Marion and Chizat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import closed_forms, dynamics
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import MARKERS, legend_below, plain_ticks, share
from balancedfact.experiments.figures._regression import chunks, problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SOLVED = 1e-6  # excess risk below which a run has learned


def units(settings: Settings) -> list[Row]:
    """Repetitions in chunks for each depth, and the reference values."""
    found: list[Row] = [
        {"kind": "run", "depth": depth, "repetitions": chunk}
        for depth in settings["depths"]
        for chunk in chunks(settings["repetitions"], settings["chunk"])
    ]
    return [*found, {"kind": "reference"}]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run all steps for some repetitions at one depth, from the same starts; or the predictions."""
    data = problem(settings)
    if unit["kind"] == "reference":
        return [row for depth in settings["depths"] for row in _predictions(data.covariance, data.w, depth)]
    steps, repetitions = np.array(settings["steps"]), unit["repetitions"]
    start = dynamics.residual_layers(settings["inputs"], unit["depth"], np.full(len(repetitions), settings["scale"]), rng)
    runs = dynamics.regression_descent(
        [np.repeat(layer[None], steps.size, axis=0) for layer in start],
        data.covariance,
        data.w,
        step=np.repeat(steps[:, None], len(repetitions), axis=1),
        iterations=settings["iterations"],
        readout=data.readout,
        record=[settings["iterations"]],
        observe=("distance",),
    )
    return [
        {
            "kind": "run",
            "depth": unit["depth"],
            "step": step,
            "repetition": repetition,
            "diverged": runs.diverged[i, j],
            "risk": runs.loss[i, j, -1],
            "distance": runs["distance"][i, j, -1],
        }
        for i, step in enumerate(settings["steps"])
        for j, repetition in enumerate(repetitions)
    ]


def _predictions(covariance: np.ndarray, w: np.ndarray, depth: int) -> list[Row]:
    """Step sizes beyond which no minimiser is stable, from the exact minimal sharpness and from its published lower bound."""
    exact = closed_forms.minimal_sharpness(covariance, w, depth)
    bound, _ = closed_forms.sharpness_bounds(covariance, w, depth)
    return [
        {"kind": "reference", "depth": depth, "name": "2 / minimal sharpness", "value": 2 / exact},
        {"kind": "reference", "depth": depth, "name": "2 / published bound", "value": 2 / bound},
    ]


def critical_step(settings: Settings, table: Table, depth: int) -> float:
    """The largest step with which at least half of the runs learn."""
    ours = table.where(kind="run", depth=depth)
    learned = [step for step in settings["steps"] if np.median(ours.where(step=step)["risk"]) < _SOLVED]
    return max(learned, default=np.nan)


def draw(settings: Settings, table: Table) -> Figure:
    """Distance against step for every depth, and the critical step against depth with its predictions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    exact = {row["depth"]: row["value"] for row in table.where(kind="reference", name="2 / minimal sharpness").rows}
    bound = {row["depth"]: row["value"] for row in table.where(kind="reference", name="2 / published bound").rows}
    for index, depth in enumerate(settings["depths"]):
        ours = table.where(kind="run", depth=depth)
        shares = np.array([share(~(ours.where(step=step)["risk"] < _SOLVED)) for step in settings["steps"]]).T
        left.errorbar(
            settings["steps"],
            shares[0],
            shares[1:],
            fmt=MARKERS[index] + "-",
            color=f"C{index}",
            elinewidth=0.8,
            label=f"depth {depth}",
        )
        left.axvline(exact[depth], color=f"C{index}", linewidth=1.2, linestyle="--")
    left.plot(
        [], [], color="0.3", linewidth=1.2, linestyle="--", label="2 / exact minimal sharpness, in the colour of the depth"
    )
    left.set(xscale="log", xlabel="step size", ylabel="share of runs that do not learn", ylim=(-0.03, 1.03))
    plain_ticks(left, "x", [0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
    depths = settings["depths"]
    exacts, steps = np.array([exact[depth] for depth in depths]), np.array(settings["steps"])
    learned = np.array([critical_step(settings, table, depth) for depth in depths])
    following = np.array(
        [min(steps[steps > step], default=np.nan) for step in learned]
    )  # the next one on the grid does not learn
    right.axhline(1.0, color="black", linestyle="--", linewidth=1.2, label="2 / exact minimal sharpness")
    right.plot(
        depths, [bound[depth] for depth in depths] / exacts, ":s", color="0.4", label="2 / published bound of the sharpness"
    )
    reach = [np.zeros(len(depths)), (following - learned) / exacts]
    right.errorbar(
        depths, learned / exacts, reach, fmt="o", capsize=3, label="largest step that learns, to the next of the grid"
    )
    right.set(xscale="log", xlabel="depth", ylabel="step size / (2 / exact minimal sharpness)", ylim=(0.8, 1.25))
    plain_ticks(right, "x", depths)
    legend_below(figure, 4)
    return figure


_SETTINGS = {
    "seed": 2024,
    "samples": 50,
    "inputs": 5,
    "scale": 0.25,
    "depths": [5, 10, 20, 40],
    "steps": [round(float(step), 6) for step in np.logspace(-2, -0.3, 25)],
    "iterations": 1000,
    "chunk": 25,
}
FIGURE_2 = Experiment(
    "mc-2",
    "Marion and Chizat 2024, Figure 2",
    "Residual start: the largest step that learns, against depth, with the exact minimal sharpness in place of its bound.",
    {"paper": _SETTINGS | {"repetitions": 50}, "quick": _SETTINGS | {"repetitions": 8}},
    units,
    run,
    draw,
)
