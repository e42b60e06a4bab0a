"""The end of label noise with unequal variances, against the flattest weights: the flow that models it, and runs of it.

Sensing, where every measurement has a variance of its own, and regression, where the outputs have a covariance. There the pair
at which the gradient fluctuates least has a closed form, so that three answers can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import closed_forms, curvature, dynamics, measurements
from balancedfact._linalg import square_root
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.solvers import flat_minimum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def units(settings: Settings) -> list[Row]:
    """The model and the runs, for each ratio of the variances and each problem; in regression with two steps."""
    kinds = {"sensing": ("flow", "runs"), "regression": ("flow", "runs", "half")}
    return [
        {"task": task, "problem": problem, "ratio": ratio, "kind": kind}
        for task in kinds
        for problem in range(settings[f"{task}_problems"])
        for ratio in settings[f"{task}_ratios"]
        for kind in kinds[task]
    ]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """The excess of the trace over the least; standard errors are over runs."""
    own = np.random.default_rng([settings["seed"], unit["problem"]])
    return (_regression if unit["task"] == "regression" else _sensing)(settings, unit, own, rng)


def least_trace(A: measurements.MeasurementMap, b: np.ndarray) -> float:
    """The least trace of the Hessian at depth two: the certified pair, its two parts made equal by a scaling."""
    layers = flat_minimum(A, b, rng=0, progress=False).layers
    parts = [curvature.trace([scale * layers[0], layers[1] / scale], A) for scale in (1.0, 2.0)]
    # trace(c) = c^2 p + q / c^2, with p from the upper layer's side.
    p = (parts[1] - parts[0] / 4) / (4 - 1 / 4)
    return 2 * float(np.sqrt(p * (parts[0] - p)))


def _sensing(settings: Settings, unit: Row, own: np.random.Generator, rng: np.random.Generator) -> list[Row]:
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


def _regression(settings: Settings, unit: Row, own: np.random.Generator, rng: np.random.Generator) -> list[Row]:
    n, inputs, outputs = settings["samples"], settings["inputs"], settings["outputs"]
    X, M = own.standard_normal((n, inputs)), own.standard_normal((outputs, inputs))
    turn = np.linalg.qr(own.standard_normal((outputs, outputs)))[0]
    variances = np.geomspace(1, 1 / unit["ratio"], outputs)
    S = (turn * variances / variances.mean()) @ turn.T
    A, widths = measurements.regression(X, outputs=outputs), [inputs, outputs, outputs]
    data = square_root(X.T @ X / n)
    flattest, least_noise = (closed_forms.kronecker_layers(M, side, data, widths) for side in (np.eye(outputs), square_root(S)))
    least = curvature.trace(flattest, A)
    step = settings["regression_step"] / least / (2 if unit["kind"] == "half" else 1)
    end = settings["regression_time"] * A.m / step * unit["ratio"]
    options = {"step": step, "label_noise": np.kron(np.eye(n), S), "batch": "all"}
    if unit["kind"] == "flow":
        flow = dynamics.label_noise_flow(flattest, A, A(M), t_final=end, rtol=1e-5, **options)
        still = curvature.trace(least_noise, A) / least - 1
        return [unit | {"excess": float(flow["trace"][-1]) / least - 1, "least_noise": still}]
    many, steps = [np.repeat(w[None], settings["regression_runs"], axis=0) for w in flattest], int(end / step)
    moments = [int(steps * share) for share in np.linspace(0.5, 1, settings["moments"])]
    found = dynamics.sgd(many, A, A(M), iterations=steps, rng=rng, record=moments, observe=("trace",), **options)
    means = found["trace"][:, -len(moments) :].mean(axis=1) / least - 1
    error = float(means.std(ddof=1) / np.sqrt(len(means)))
    lost = int(np.sum(found.diverged >= 0))
    return [unit | {"excess": float(means.mean()), "error": error, "steps": steps, "diverged": lost}]


def small_steps(table: Table, problem: int, ratio: float) -> tuple[float, float]:
    """The excess of the runs of regression and its error, extrapolated from two steps to a step of zero."""
    whole, half = (table.where(task="regression", problem=problem, ratio=ratio, kind=kind) for kind in ("runs", "half"))
    return float(2 * half["excess"][0] - whole["excess"][0]), float(np.hypot(2 * half["error"][0], whole["error"][0]))


def draw(settings: Settings, table: Table) -> Figure:
    """Excess of the trace against the ratio of the variances: sensing to the left, regression to the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for problem in range(settings["sensing_problems"]):
        color = f"C{problem}"
        flow, runs = (table.where(task="sensing", problem=problem, kind=kind) for kind in ("flow", "runs"))
        left.plot(flow["ratio"], flow["excess"], color=color, label="label-noise flow")
        left.errorbar(runs["ratio"], runs["excess"], 2 * runs["error"], fmt="o", color=color, label="runs, two standard errors")
    for problem in range(settings["regression_problems"]):
        color, name = f"C{problem}", f"problem {problem + 1}"
        flow = table.where(task="regression", problem=problem, kind="flow")
        # Where the two lines coincide, both are seen.
        right.plot(flow["ratio"], flow["excess"], color=color, alpha=0.35, linewidth=5, label=f"{name}: label-noise flow")
        right.plot(flow["ratio"], flow["least_noise"], "--", color=color, label=f"{name}: least fluctuation of the gradient")
        points = np.array([small_steps(table, problem, ratio) for ratio in settings["regression_ratios"]])
        bars, label = 2 * points[:, 1], f"{name}: runs, two standard errors"
        right.errorbar(settings["regression_ratios"], points[:, 0], bars, fmt="o", color=color, label=label)
    left.set(title="sensing, a variance for each measurement", ylabel="trace / least trace - 1")
    right.set(title="regression, a covariance of the outputs", ylabel="trace / least trace - 1")
    for ax in (left, right):
        ax.set(xscale="log", xlabel="largest / least variance of the noise")
        ax.legend(loc="upper left", fontsize="small")
    return figure


_OF_SENSING = {"size": 3, "measurements": 5, "noise": 0.5, "scale": 0.7, "step": 0.1, "time": 1.5, "sensing_problems": 1}
_OF_REGRESSION = {"samples": 12, "inputs": 3, "outputs": 2, "regression_step": 0.2, "regression_time": 2.0, "moments": 20}
_SETTINGS = {"seed": 11} | _OF_SENSING | _OF_REGRESSION
_PAPER = {"runs": 32, "sensing_ratios": [1, 3, 10, 30, 100], "regression_runs": 8, "regression_ratios": [1, 3, 10, 30]}
_QUICK = {"runs": 16, "sensing_ratios": [1, 10, 100], "regression_runs": 2, "regression_ratios": [1, 10]}
NOISE_CHOOSES = Experiment(
    "beyond-5",
    "beyond Li, Wang, Arora 2021",
    "Label noise with unequal variances does not end at the flattest weights: its distance against the ratio of the variances.",
    {
        "paper": _SETTINGS | _PAPER | {"regression_problems": 2},
        "quick": _SETTINGS | _QUICK | {"regression_problems": 1},
    },
    units,
    run,
    draw,
)
