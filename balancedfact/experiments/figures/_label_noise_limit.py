"""The limit of label noise against the trace that the solver proves or finds: error, rate and work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from balancedfact import curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import MARKERS, legend_below
from balancedfact.manifolds import ZeroLoss
from balancedfact.solvers import flat_minimum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_DRAWN = 1e-5  # the lower end of the axis, where what is less is drawn


def units(settings: Settings) -> list[Row]:
    """The solver, and runs of label noise that differ in how fast the step decays and in their randomness."""
    problems = [{"depth": depth, "measurements": m} for m in settings["measurements"] for depth in settings["depths"]]
    runs: list[Row] = [
        {"kind": "run", **which, "decay": decay, "repetition": repetition}
        for which in problems
        for decay in settings["decays"]
        for repetition in range(settings["repetitions"])
    ]
    return [{"kind": "solver", **which} for which in problems] + runs


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run one unit of work. Seconds are measured; all other numbers are the same on every run."""
    A, b = problem(settings, unit["measurements"])
    if unit["kind"] == "solver":
        return _solve(settings, unit, A, b)
    widths = [settings["size"]] * (unit["depth"] + 1)
    start = dynamics.gaussian_layers(widths, settings["scale"] / np.sqrt(settings["size"]), rng)
    return _train(settings, unit, A, b, start, rng) + _flow(settings, unit | {"kind": "flow"}, A, b, start)


def problem(settings: Settings, m: int) -> tuple[measurements.Dense, np.ndarray]:
    """Standard normal measurements of ``M_1 M_2 / d`` with standard normal factors."""
    d, rank = settings["size"], settings["rank"]
    rng = np.random.default_rng([settings["seed"], m, d])
    A = measurements.gaussian(m, (d, d), rng=rng)
    return A, A(rng.standard_normal((d, rank)) @ rng.standard_normal((rank, d)) / d)


def _solve(settings: Settings, unit: Row, A: measurements.Dense, b: np.ndarray) -> list[Row]:
    """The flattest network at several accuracies; the time is the lesser of two."""
    rows: list[Row] = []
    for tol in settings["tols"]:
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            solution = flat_minimum(A, b, unit["depth"], tol=tol, rng=settings["seed"], progress=False)
            seconds.append(time.perf_counter() - began)
        found = {"trace": curvature.trace(solution.layers, A), "train": float(np.mean((A(solution.matrix) - b) ** 2))}
        verdict = {"status": solution.status.value, "gap": solution.certificate.gap, "seconds": min(seconds)}
        rows.append(unit | {"tol": tol} | found | verdict)
    return rows


def _train(
    settings: Settings,
    unit: Row,
    A: measurements.Dense,
    b: np.ndarray,
    layers: list[np.ndarray],
    rng: np.random.Generator,
) -> list[Row]:
    """Stages of doubling length, with the step ``step * length^-decay``; looked at after each."""
    moment, fitting = A.second_moment(), ZeroLoss(A, b, [settings["size"]] * (unit["depth"] + 1))
    rows: list[Row] = []
    taken, seconds = 0, 0.0
    dynamics.sgd(layers, A, b, step=settings["step"], iterations=1, batch=1, rng=0)  # compiles, which is no part of the work
    for stage in range(settings["stages"]):
        length, step = settings["first"] * 2**stage, settings["step"] * 2.0 ** (-unit["decay"] * stage)
        began = time.perf_counter()
        part = dynamics.sgd(
            layers,
            A,
            b,
            step=step,
            iterations=length,
            batch=settings["batch"],
            label_noise=settings["noise"],
            rng=rng,
            record=[length],
            observe=(),
        )
        layers, taken, seconds = part.layers, taken + length, seconds + time.perf_counter() - began
        if part.diverged >= 0:
            break
        seen = {"iteration": taken, "step": step, "train": part.loss[-1], "raw_trace": curvature.trace(layers, moment)}
        fitted = fit(settings, A, b, fitting, layers)
        rest = float(np.mean((A(np.linalg.multi_dot(fitted[::-1])) - b) ** 2))
        rows.append(unit | seen | {"trace": curvature.trace(fitted, moment), "rest": rest, "seconds": seconds})
    return rows


def _flow(
    settings: Settings,
    unit: Row,
    A: measurements.Dense,
    b: np.ndarray,
    layers: list[np.ndarray],
) -> list[Row]:
    """The model of the constant step, from where gradient flow ends, after as many steps as no run could take."""
    options = {"step": settings["step"], "label_noise": settings["noise"], "batch": settings["batch"], "rtol": 1e-4}
    rows: list[Row] = []
    began, taken = time.perf_counter(), 0.0
    layers = dynamics.gradient_flow(layers, A, b).layers if settings["flow"] else layers
    for steps in settings["flow"]:
        part = dynamics.label_noise_flow(layers, A, b, t_final=(steps - taken) * settings["step"], **options)
        layers, taken = part.layers, steps
        found = {"iteration": steps, "step": settings["step"], "trace": curvature.trace(layers, A)}
        rows.append(unit | found | {"seconds": time.perf_counter() - began})
    return rows


def fit(
    settings: Settings, A: measurements.Dense, b: np.ndarray, fitting: ZeroLoss, layers: list[np.ndarray]
) -> list[np.ndarray]:
    """Weights with zero loss: the noise is switched off for a while, and Gauss-Newton steps remove what is left."""
    rest = settings["quiet"]
    quiet = dynamics.gradient_descent(layers, A, b, step=settings["step"], iterations=rest, record=[rest], observe=()).layers
    return list(fitting.retraction(quiet, [np.zeros_like(layer) for layer in quiet]))


def least(table: Table, depth: int, m: int) -> float:
    """The trace that the solver reached at its best accuracy."""
    return float(table.where(kind="solver", depth=depth, measurements=m)["trace"][-1])


def excess(settings: Settings, table: Table, depth: int, m: int, decay: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, seconds (means) and relative excess of the trace, a row for each repetition that went all the way."""
    runs = table.where(kind="run", depth=depth, measurements=m, decay=decay)
    series = [runs.where(repetition=repetition) for repetition in runs.values("repetition")]
    whole = [each for each in series if len(each) == settings["stages"]]
    steps, seconds = (np.mean([each[name] for each in whole], axis=0) for name in ("iteration", "seconds"))
    return steps, seconds, np.array([each["trace"] for each in whole]) / least(table, depth, m) - 1


def modelled(settings: Settings, table: Table, depth: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for the label-noise flow; the least excess that is drawn is that of rounding."""
    flows = table.where(kind="flow", depth=depth, measurements=m)
    series = [flows.where(repetition=repetition) for repetition in flows.values("repetition")]
    seconds, trace = (np.mean([each[name] for each in series], axis=0) for name in ("seconds", "trace"))
    return np.array(settings["flow"]), seconds, np.maximum(trace / least(table, depth, m) - 1, _LEAST_DRAWN)


def draw(settings: Settings, table: Table) -> Figure:
    """Excess of the trace against steps and against seconds, one column per depth and number of measurements."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    problems = [(depth, m) for m in settings["measurements"] for depth in settings["depths"]]
    figure = Figure(figsize=(1 + 3.0 * len(problems), 6.4), layout="constrained")
    axes = figure.subplots(2, len(problems), sharey="row", squeeze=False)
    for (above, below), (depth, m) in zip(axes.T, problems, strict=True):
        for index, decay in enumerate(settings["decays"]):
            label = f"label noise, step ~ steps$^{{-{decay:.2g}}}$" if decay else "label noise, constant step"
            steps, seconds, values = excess(settings, table, depth, m, decay)
            for ax, x in ((above, steps), (below, seconds)):
                ax.loglog(x, values.mean(axis=0), MARKERS[index] + "-", color=f"C{index}", label=f"{label}: mean and range")
                low, high = np.maximum(values.min(axis=0), _LEAST_DRAWN), values.max(axis=0)
                ax.fill_between(x, low, high, color=f"C{index}", alpha=0.2, lw=0)
        if settings.get("flow"):  # tables of the time before it are drawn too
            steps, seconds, values = modelled(settings, table, depth, m)
            label = "label-noise flow, the model of the constant step"
            for ax, x in ((above, steps), (below, seconds)):
                ax.loglog(x, values, "--", color="gray", label=label)
        solver = table.where(kind="solver", depth=depth, measurements=m)
        reached = solver["trace"] / least(table, depth, m) - 1
        inside = reached > _LEAST_DRAWN
        if inside.any():
            below.loglog(solver["seconds"][inside], reached[inside], "*", color="black", markersize=11, label="flat_minimum")
        rest = solver["seconds"][~inside]
        label = f"flat_minimum, excess below {_LEAST_DRAWN:g}"
        below.loglog(rest, np.full(rest.size, _LEAST_DRAWN), "v", color="black", markersize=8, clip_on=False, label=label)
        above.set(title=f"depth {depth}, {m} measurements", xlabel="steps of SGD")
        below.set_xlabel("seconds")
        for ax in (above, below):
            ax.xaxis.set_minor_formatter(NullFormatter())
    axes[1, 0].set_ylim(bottom=_LEAST_DRAWN)
    for ax in axes[:, 0]:
        ax.set_ylabel("relative excess of the trace")
    legend_below(figure, columns=2)
    return figure


_SETTINGS = {
    "seed": 2027,
    "rank": 2,
    "depths": [2, 3],
    "decays": [0.0, 1 / 3, 1 / 2],
    "step": 0.02,
    "noise": 1.0,
    "batch": 10,
    "scale": 0.7,
    "first": 2000,
    "quiet": 3000,
    "tols": [1e-2, 1e-10],
    "flow": [],
}
_PAPER = {"size": 12, "measurements": [90, 40], "stages": 7, "repetitions": 3}
_QUICK = {"size": 8, "measurements": [45], "stages": 5, "repetitions": 1}
LABEL_NOISE_LIMIT = Experiment(
    "beyond-3",
    "beyond Gatmiry et al. 2023, Figure 2",
    "Label noise with a decaying step against the solver: excess of the trace over that of the flattest network.",
    {"paper": _SETTINGS | _PAPER, "quick": _SETTINGS | _QUICK},
    units,
    run,
    draw,
)
_DEEP = _SETTINGS | {
    "rank": 1,
    "depths": [5, 10],
    "decays": [0.0],
    "step": 0.002,
    "noise": 0.5,
    "quiet": 20_000,
    "tols": [1e-10],
}
DEEP_LABEL_NOISE = Experiment(
    "beyond-9",
    "beyond Gatmiry et al. 2023, Figure 2",
    "Label noise at depth 5 and 10, run for long: where the trace settles.",
    {
        "paper": _DEEP
        | {"size": 5, "measurements": [12], "stages": 10, "repetitions": 4, "flow": [10 ** (k / 2) for k in range(7, 19)]},
        "quick": _DEEP | {"size": 3, "measurements": [5], "stages": 6, "repetitions": 1, "flow": [1e4, 1e6, 1e8]},
    },
    units,
    run,
    draw,
)
