"""The largest step with which gradient descent learns, found by bisection, against the exact sharpnesses and the bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from balancedfact import closed_forms, dynamics
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXACT, _BOUND, _LIMIT = "2 / exact minimal sharpness", "2 / published bound", "2 / sharpness of the rank-one limit"
_NAMES = {
    "flattest": "start beside the flattest minimiser",
    "residual": "residual start",
    "small": "small Gaussian start",
}

_LOOKS: tuple[dict[str, Any], ...] = (
    {"fmt": "C0o", "markersize": 8, "fillstyle": "none"},
    {"fmt": "C2s", "markersize": 4},
    {"fmt": "C4^", "markersize": 4.5},
)


def units(settings: Settings) -> list[Row]:
    """One start at one depth for one covariance, and the reference values."""
    found: list[Row] = [
        {"kind": "run", "case": case, "depth": depth, "start": start}
        for case in settings["cases"]
        for start in _NAMES
        for depth in settings["depths"]
        if start != "small" or depth <= settings["deepest_small"]
    ]
    return [*found, {"kind": "reference"}]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """The critical step of some runs that differ in their randomness; or the predictions."""
    if unit["kind"] == "reference":
        return [
            {"kind": "reference", "case": case, "depth": depth, "name": name, "value": value}
            for case in settings["cases"]
            for depth in settings["depths"]
            for name, value in predictions(settings, case, depth).items()
        ]
    sigma, w = problem(settings, unit["case"])
    expected = predictions(settings, unit["case"], unit["depth"])
    layers, readout = start(settings, unit, rng)
    critical = bisect(settings, unit["case"], layers, readout, expected[_LIMIT] / 10, 1.3 * expected[_EXACT])
    return [
        unit | {"repetition": repetition, "critical": step} | {f"over {name}": step / at for name, at in expected.items()}
        for repetition, step in enumerate(critical)
    ]


def problem(settings: Settings, case: str) -> tuple[np.ndarray, np.ndarray]:
    """A diagonal covariance with eigenvalues from 1 down to 1 / condition, and a unit regression vector.

    The vector has equal parts on all eigenvectors, or is the eigenvector of the smallest eigenvalue.
    """
    d = settings["inputs"]
    condition, even, _ = settings["cases"][case]
    w = np.full(d, d**-0.5) if even else np.eye(d)[-1]
    return np.diag(np.geomspace(1.0, 1 / condition, d)), w


def predictions(settings: Settings, case: str, depth: int) -> dict[str, float]:
    """The steps at which a minimiser of the given sharpness stops to be stable."""
    sigma, w = problem(settings, case)
    return {
        _EXACT: 2 / closed_forms.minimal_sharpness(sigma, w, depth),
        _BOUND: 2 / closed_forms.sharpness_bounds(sigma, w, depth)[0],
        _LIMIT: 2 / closed_forms.rank_one_limit_sharpness(sigma, w, depth),
    }


def start(settings: Settings, unit: Row, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Layers with an axis for the repetitions, and the readout vector of the residual networks."""
    d, depth, count = settings["inputs"], unit["depth"], settings["repetitions"]
    widths = [d] * depth + [1]
    if unit["start"] == "residual":
        readout = rng.standard_normal(d)
        return dynamics.residual_layers(d, depth, np.full(count, settings["residual"]), rng), readout / np.linalg.norm(readout)
    if unit["start"] == "small":
        return dynamics.gaussian_layers(widths, np.full(count, settings["small"]), rng), None
    flattest = closed_forms.flattest_regression_layers(*problem(settings, unit["case"]), widths)
    noise = dynamics.gaussian_layers(widths, np.full(count, settings["perturbation"]), rng)
    return [layer + change for layer, change in zip(flattest, noise, strict=True)], None


def learns(
    settings: Settings, case: str, layers: list[np.ndarray], readout: np.ndarray | None, steps: np.ndarray
) -> np.ndarray:
    """Tell whether the excess risk falls to a fraction of that of the start, for every step (row) and repetition (column)."""
    iterations = settings["cases"][case][2]
    runs = dynamics.regression_descent(
        [np.repeat(layer[None], len(steps), axis=0) for layer in layers],
        *problem(settings, case),
        step=steps,
        iterations=iterations,
        readout=readout,
        record=[iterations],
        observe=(),
    )
    with np.errstate(invalid="ignore"):
        return runs.loss[..., -1] <= settings["fall"] * runs.loss[..., 0]


def bisect(
    settings: Settings, case: str, layers: list[np.ndarray], readout: np.ndarray | None, low: float, high: float
) -> np.ndarray:
    """The largest step that learns, for every repetition; NaN if none of the first grid does.

    All points of a grid are run at once; the next grid fills the gap behind the last point that learned.
    """
    count, columns = settings["grid"], np.arange(settings["repetitions"])
    lowest, highest = np.full(columns.size, low), np.full(columns.size, high)
    found = np.ones(columns.size, dtype=bool)
    for _ in range(settings["rounds"]):
        steps = np.geomspace(lowest, highest, count)
        good = learns(settings, case, layers, readout, steps)
        found &= good.any(axis=0)
        last = np.where(found, count - 1 - np.argmax(good[::-1], axis=0), 0)
        lowest, highest = steps[last, columns], steps[np.minimum(last + 1, count - 1), columns]
    return np.where(found, lowest, np.nan)


def draw(settings: Settings, table: Table) -> Figure:
    """One panel per covariance: steps over ``2 / minimal sharpness`` against depth."""
    from matplotlib.figure import Figure

    cases, depths = list(settings["cases"]), settings["depths"]
    figure = Figure(figsize=(11.5, 0.9 + 3.0 * -(-len(cases) // 3)), layout="constrained")
    axes = figure.subplots(-(-len(cases) // 3), 3, squeeze=False).ravel()
    for ax, case in zip(axes, cases, strict=False):
        ours = table.where(case=case)
        values = {
            name: np.array([ours.where(kind="reference", depth=depth, name=name)["value"][0] for depth in depths])
            for name in (_EXACT, _BOUND, _LIMIT)
        }
        for name, colour, line in ((_EXACT, "black", "-"), (_BOUND, "C1", ":"), (_LIMIT, "0.45", "--")):
            ax.plot(depths, values[name] / values[_EXACT], color=colour, linestyle=line, label=name)
        for (kind, name), look in zip(_NAMES.items(), _LOOKS, strict=True):
            runs = ours.where(kind="run", start=kind)
            found = {depth: runs.where(depth=depth)[f"over {_EXACT}"] for depth in runs.values("depth")}
            finite = {depth: steps[np.isfinite(steps)] for depth, steps in found.items() if np.isfinite(steps).any()}
            spread = {depth: np.percentile(steps, [50, 0, 100]) for depth, steps in finite.items()}
            if spread:
                middle, least, most = np.array(list(spread.values())).T
                ax.errorbar(list(spread), middle, np.array([middle - least, most - middle]), lw=1, label=name, **look)
        ax.set(xscale="log", yscale="log", xticks=depths, xticklabels=depths, title=case)
        ax.minorticks_off()
        bottom, top = min(0.85, ax.get_ylim()[0]), max(1.2, ax.get_ylim()[1])
        fine = (0.6, 0.7, 0.8, 0.9, 1.1, 1.2) if top < 4 * bottom else (0.3, 0.7, 3)
        marks = [mark for mark in (0.02, 0.05, 0.1, 0.2, 0.5, *fine, 1, 1.5, 2, 5) if bottom < mark < top]
        ax.set_ylim(bottom, top)
        ax.set_yticks(marks, [f"{mark:g}" for mark in marks])
        ax.set_xlabel("depth")
    for ax in axes[::3]:
        ax.set_ylabel("step over 2 / minimal sharpness")
    for ax in axes[len(cases) :]:
        ax.set_axis_off()
    legend_below(figure, columns=3)
    return figure


_SETTINGS = {
    "seed": 2025,
    "inputs": 5,
    "residual": 0.25,
    "small": 0.1,
    "perturbation": 1e-3,
    "fall": 1e-3,
}
_EVEN = {
    "condition 1": [1.0, True, 8000],
    "condition 10": [10.0, True, 8000],
    "condition 100": [100.0, True, 8000],
    "condition 10 000": [1e4, True, 20000],
}
_WEAK = {
    "condition 10, w weakest direction": [10.0, False, 20000],
    "condition 100, w weakest direction": [100.0, False, 20000],
}
_PAPER = {
    "cases": _EVEN | _WEAK,
    "depths": [2, 3, 4, 6, 10, 20, 40, 60],
    "deepest_small": 6,
    "repetitions": 4,
    "grid": 16,
    "rounds": 3,
}
_QUICK = {
    "cases": {"condition 1": _EVEN["condition 1"], "condition 100": _EVEN["condition 100"]}
    | {"condition 100, w weakest direction": _WEAK["condition 100, w weakest direction"]},
    "depths": [2, 4, 10, 20],
    "deepest_small": 4,
    "repetitions": 2,
    "grid": 32,
    "rounds": 2,
}
CRITICAL_STEP = Experiment(
    "beyond-1",
    "beyond Marion and Chizat 2024, Figure 2",
    "The largest step that learns, found by bisection, against depth: the exact minimal sharpness predicts it, the published "
    "bound where the covariance is close to the identity or the network deep.",
    {"paper": _SETTINGS | _PAPER, "quick": _SETTINGS | _QUICK},
    units,
    run,
    draw,
)
