"""The end of label noise with unequal variances, against the flattest weights: the flow that models it, and runs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below
from balancedfact.solvers import flat_minimum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def units(settings: Settings) -> list[Row]:
    """The model and the runs, for each ratio of the variances and each problem."""
    return [
        {"problem": problem, "ratio": ratio, "kind": kind}
        for problem in range(settings["problems"])
        for ratio in settings["ratios"]
        for kind in ("flow", "runs")
    ]


def least_trace(A: measurements.MeasurementMap, b: np.ndarray) -> float:
    """The least trace of the Hessian at depth two: the certified pair, its two parts made equal by a scaling."""
    layers = flat_minimum(A, b, rng=0, progress=False).layers
    parts = [curvature.trace([scale * layers[0], layers[1] / scale], A) for scale in (1.0, 2.0)]
    # trace(c) = c^2 p + q / c^2, with p from the upper layer's side.
    p = (parts[1] - parts[0] / 4) / (4 - 1 / 4)
    return 2 * float(np.sqrt(p * (parts[0] - p)))


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """The excess of the trace over the least; standard errors are over runs."""
    own = np.random.default_rng([settings["seed"], unit["problem"]])
    d, m = settings["size"], settings["measurements"]
    A = measurements.gaussian(m, (d, d), own)
    b = A(np.outer(own.standard_normal(d), own.standard_normal(d)) / d)
    variances = np.geomspace(1, unit["ratio"], m)
    deviations = settings["noise"] * np.sqrt(variances / variances.mean())
    start = dynamics.gaussian_layers([d, d, d], settings["scale"], own)
    least, step = least_trace(A, b), settings["step"] / curvature.trace(start, A)
    end = settings["time"] * m / (step * settings["noise"] ** 2)
    options = {"step": step, "label_noise": deviations, "batch": "all"}
    if unit["kind"] == "flow":
        flow = dynamics.label_noise_flow(start, A, b, t_final=end, rtol=1e-5, **options)
        return [unit | {"excess": float(flow["trace"][-1]) / least - 1, "start": float(flow["trace"][0]) / least - 1}]
    fitted = dynamics.label_noise_flow(start, A, b, t_final=0.0, **options).layers
    many = [np.repeat(w[None], settings["runs"], axis=0) for w in fitted]
    steps = int(end / step)
    found = dynamics.sgd(many, A, b, iterations=steps, rng=rng, record=[steps], observe=("trace",), **options)
    traces = found["trace"][:, -1] / least - 1
    error = float(traces.std(ddof=1) / np.sqrt(len(traces)))
    lost = int(np.sum(found.diverged >= 0))
    return [unit | {"excess": float(traces.mean()), "error": error, "steps": steps, "diverged": lost}]


def draw(settings: Settings, table: Table) -> Figure:
    """Excess of the trace against the ratio of the variances."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for problem in range(settings["problems"]):
        flow, runs = (table.where(problem=problem, kind=kind) for kind in ("flow", "runs"))
        ax.plot(flow["ratio"], flow["excess"], color=f"C{problem}", label="label-noise flow")
        label = "runs, two standard errors"
        ax.errorbar(runs["ratio"], runs["excess"], 2 * runs["error"], fmt="o", color=f"C{problem}", label=label)
    ax.set(xscale="log", xlabel="largest / least variance of the noise", ylabel="trace / least trace - 1")
    legend_below(figure, columns=2)
    return figure


_SETTINGS = {"seed": 11, "size": 3, "measurements": 5, "noise": 0.5, "scale": 0.7, "step": 0.1, "time": 1.5}
NOISE_CHOOSES = Experiment(
    "beyond-5",
    "beyond Li, Wang, Arora 2021",
    "Label noise with unequal variances does not end at the flattest weights: its distance against the ratio of the variances.",
    {
        "paper": _SETTINGS | {"problems": 3, "ratios": [1, 3, 10, 30, 100, 1000], "runs": 256},
        "quick": _SETTINGS | {"problems": 1, "ratios": [1, 10, 100], "runs": 32},
    },
    units,
    run,
    draw,
)
