"""Radius of sharpness-aware minimisation against trace and sharpness where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import curvature, dynamics
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._edge import least_sharpness, several_outputs
from balancedfact.experiments.figures._legend import MARKERS, legend_below, plain_ticks
from balancedfact.experiments.figures._noise_chooses import least_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_ABOVE = 1e-6  # where less is drawn


def units(settings: Settings) -> list[Row]:
    """One unit for each direction, radius and repetition; radius zero is plain descent."""
    plain: list[Row] = [{"direction": "none", "radius": 0.0, "repetition": r} for r in range(settings["repetitions"])]
    return plain + [
        {"direction": direction, "radius": radius, "repetition": repetition}
        for direction in ("ascent", "worst", "average")
        for radius in settings["radii"]
        for repetition in range(settings["repetitions"])
    ]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Train with the rule, then descend plainly to a fit; curvatures relative to the least of all networks that fit."""
    own = np.random.default_rng([settings["seed"], unit["repetition"]])
    X = own.standard_normal((settings["samples"], settings["inputs"])) * np.geomspace(1, 0.4, settings["inputs"])
    M = own.standard_normal((settings["outputs"], settings["inputs"]))
    M /= np.linalg.norm(M, 2)
    A = several_outputs(X, settings["outputs"])
    b = A(M)
    start = dynamics.gaussian_layers([settings["inputs"]] * 2 + [settings["outputs"]], settings["scale"], own)
    step = 0.2 * 2 / curvature.sharpness(start, A, b)
    options = {"step": step, "iterations": settings["iterations"], "record": [0], "observe": ()}
    if unit["direction"] == "none":
        found = dynamics.gradient_descent(start, A, b, **options)
    else:
        rule = {"radius": unit["radius"], "direction": unit["direction"], "inner": settings["inner"]}
        found = dynamics.sharpness_aware(start, A, b, rng=rng, **rule, **options)
    row = unit | {"diverged": int(found.diverged)}
    if found.diverged >= 0:
        return [row]
    end = dynamics.gradient_flow(found.layers, A, b, rtol=1e-6, stationarity=1e-9, observe=())
    sharpness = curvature.sharpness(end.layers, A, b) / least_sharpness(X, M, 2)
    ends = {"trace": curvature.trace(end.layers, A) / least_trace(A, b), "sharpness": sharpness}
    return [row | ends | {"hovering": float(found.loss[-1]), "loss": float(end.loss[-1])}]


def draw(settings: Settings, table: Table) -> Figure:
    """Trace and sharpness above the least there is against the radius, medians and ranges over the repetitions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for ax, name in zip(panels, ("trace", "sharpness"), strict=True):
        for index, direction in enumerate(("ascent", "worst", "average")):
            found = [table.where(direction=direction, radius=radius)[name] for radius in settings["radii"]]
            above = np.maximum(np.array(found) - 1, _LEAST_ABOVE)
            middle, low, high = np.median(above, axis=1), above.min(axis=1), above.max(axis=1)
            radii = np.array(settings["radii"]) * 1.06 ** (index - 1)
            label = f"{direction}: median and range"
            spread = np.array([middle - low, high - middle])
            ax.errorbar(radii, middle, spread, fmt=MARKERS[index] + "-", capsize=3, elinewidth=1, label=label)
        plain = np.median(table.where(direction="none")[name]) - 1
        ax.axhline(plain, color="grey", linestyle=":", label="plain descent: median")
        ax.set(xscale="log", yscale="log", xlabel="radius", ylabel=f"{name} / least $-$ 1")
        plain_ticks(ax, "x", settings["radii"])
    legend_below(figure, columns=4)
    return figure


_SETTINGS = {"seed": 3, "samples": 12, "inputs": 4, "outputs": 3, "scale": 0.8, "inner": 5}
RADIUS = Experiment(
    "beyond-7",
    "beyond Wen, Ma, Li 2022",
    "Sharpness-aware minimisation: trace and sharpness of the end against the radius, for its three forms.",
    {
        "paper": _SETTINGS | {"radii": [0.003, 0.01, 0.03, 0.1, 0.3], "repetitions": 10, "iterations": 200_000},
        "quick": _SETTINGS | {"radii": [0.01, 0.1], "repetitions": 2, "iterations": 20_000},
    },
    units,
    run,
    draw,
)
