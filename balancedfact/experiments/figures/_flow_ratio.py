"""Ratio of the sharpness where gradient flow ends to the least one, exactly, over many covariances and at worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from balancedfact import closed_forms, curvature, dynamics, measurements
from balancedfact.experiments._experiment import Experiment, Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def units(settings: Settings) -> list[Row]:
    """Random problems and adversarial searches for each depth, and single flows."""
    kinds: list[Row] = [{"kind": kind, "depth": depth} for depth in settings["depths"] for kind in ("random", "search")]
    return kinds + [{"kind": "flow", "depth": depth, "condition": condition} for depth, condition in settings["flows"]]


def run(settings: Settings, unit: Row, rng: np.random.Generator) -> list[Row]:
    """Run one unit of work: rows with the condition number and the ratio."""
    if unit["kind"] == "flow":
        return _flows(settings, unit)
    find = _random if unit["kind"] == "random" else _search
    return [unit | row for row in find(settings, unit["depth"], rng)]


def ratio(values: np.ndarray, w: np.ndarray, depth: int) -> float:
    """Sharpness of the rank-one limit over the minimal one, for a covariance with these eigenvalues; `w` in its eigenbasis."""
    sigma = np.diag(values)
    return closed_forms.rank_one_limit_sharpness(sigma, w, depth) / closed_forms.minimal_sharpness(sigma, w, depth)


def weakest_direction(condition: float, depth: int) -> float:
    r"""The ratio if `w` is the weakest eigenvector: :math:`((\kappa-1)/(L-1))^{1-1/L}`, or 1 if that is less."""
    return float(max(1.0, (condition - 1) / (depth - 1)) ** (1 - 1 / depth))


def upper_bound(condition: float, depth: int) -> float:
    r"""A bound on the ratio: :math:`(1+x)\,x^{-(1-1/L)}` with :math:`x = (L-1)/\kappa`.

    With :math:`a = \hat w^\top\hat\Sigma\hat w = \alpha\Lambda`, the largest eigenvalue of a sum is at most the sum of the
    largest ones, and at least each of them. So the rank-one limit has at most :math:`\Lambda(1+(L-1)\alpha)`, and the minimum
    at least :math:`\min_s\max(s\Lambda, (L-1)s^{-1/(L-1)}a) = \Lambda((L-1)\alpha)^{1-1/L}`, both times
    :math:`2\|w\|^{2-2/L}`. The quotient falls with :math:`\alpha\le1`, and :math:`\alpha\ge1/\kappa`.
    """
    x = (depth - 1) / condition
    return float((1 + x) * x ** -(1 - 1 / depth))


def _random(settings: Settings, depth: int, rng: np.random.Generator) -> list[Row]:
    """Log-uniform spectra of log-uniform condition; Gaussian `w`, scaled by a random power of the eigenvalues."""
    rows: list[Row] = []
    for _ in range(settings["samples"]):
        condition = float(settings["largest"] ** rng.random())
        inner = condition ** -rng.random(rng.integers(0, 7))
        values = np.concatenate([[1.0, 1 / condition], inner])
        w = rng.standard_normal(values.size) * values ** -rng.random()
        rows.append({"condition": condition, "ratio": ratio(values, w, depth)})
    return rows


def _search(settings: Settings, depth: int, rng: np.random.Generator) -> list[Row]:
    """The worst problem that a random ascent finds, with four eigenvalues of which the largest and the least are given."""
    rows: list[Row] = []
    for condition in settings["conditions"]:
        span = np.log(condition)

        def value(point: np.ndarray, condition: float = condition, span: float = span) -> float:
            values = np.concatenate([[1.0, 1 / condition], np.exp(-np.clip(point[:2], 0.0, span))])
            return ratio(values, np.exp(point[2:] - point[2:].max()), depth)

        best = 0.0
        for _ in range(settings["ascents"]):
            point = np.concatenate([span * rng.random(2), rng.standard_normal(4)])
            current, size = value(point), 2.0
            for _ in range(settings["trials"]):
                trial = point + size * rng.standard_normal(6) * (rng.random(6) < 0.4)
                found = value(trial)
                if found > current:
                    point, current, size = trial, found, 1.5 * size
                else:
                    size *= 0.97
            best = max(best, current)
        rows.append({"condition": condition, "ratio": best})
    return rows


def _flows(settings: Settings, unit: Row) -> list[Row]:
    """Gradient flow from a small start where `w` is the weakest direction, down to the minimiser."""
    condition, depth = unit["condition"], unit["depth"]
    values, w = np.array([1.0, 1 / condition]), np.array([0.0, 1.0])
    sigma = np.diag(values)
    A = measurements.regression(np.sqrt(2 * sigma))
    start = dynamics.gaussian_layers([2] * depth + [1], settings["scale"], settings["seed"])
    flow = dynamics.gradient_flow(start, A, A(w[None]), observe=())
    found = curvature.sharpness(flow.layers, A, A(w[None]))
    return [
        unit
        | {
            "ratio": found / closed_forms.minimal_sharpness(sigma, w, depth),
            "predicted": ratio(values, w, depth),
            "distance": float(np.linalg.norm(flow.matrix - w)),
        }
    ]


def draw(settings: Settings, table: Table) -> Figure:
    """One panel per depth: ratio against condition number."""
    from matplotlib.figure import Figure

    depths = settings["depths"]
    figure = Figure(figsize=(10.5, 0.9 + 3.1 * -(-len(depths) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(depths) // 2), 2, sharex=True, sharey=True, squeeze=False)
    grid = np.geomspace(1.0, settings["largest"], 200)
    for ax, depth in zip(axes.ravel(), depths, strict=False):
        ours = table.where(depth=depth)
        sample, worst, flows = (ours.where(kind=kind) for kind in ("random", "search", "flow"))
        ax.plot(grid, 4 * grid, ":", color="C1", label="published bound: 4 times the condition number")
        label = r"proved bound, $(1+x)\,x^{1/L-1}$ with $x=(L-1)/\kappa$"
        ax.plot(grid, [upper_bound(at, depth) for at in grid], "--", color="C4", label=label)
        ax.plot(grid, [weakest_direction(at, depth) for at in grid], "-", color="black", label="w in the weakest direction")
        label = "random covariances"
        ax.plot(sample["condition"], sample["ratio"], ".", color="0.6", markersize=2.5, label=label, rasterized=True)
        label = "worst found by search"
        ax.plot(worst["condition"], worst["ratio"], "o", color="C0", fillstyle="none", markersize=6, label=label)
        if len(flows):
            label = "gradient flow, small start"
            ax.plot(flows["condition"], flows["ratio"], "*", color="C2", markersize=11, label=label, zorder=5)
        ax.set(xscale="log", yscale="log", title=f"depth {depth}", ylim=(0.8, 5 * settings["largest"]))
    for ax in axes[-1]:
        ax.set_xlabel("condition number of the covariance")
    for ax in axes[:, 0]:
        ax.set_ylabel("sharpness over the minimum")
    legend_below(figure, columns=3)
    return figure


_SETTINGS = {
    "seed": 2026,
    "largest": 1e4,
    "depths": [2, 3, 5, 10],
    "flows": [[2, 100.0], [2, 1000.0], [3, 100.0], [3, 4000.0]],
    "scale": 1e-3,
}
_PAPER = {
    "samples": 2500,
    "conditions": [1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 100.0, 316.0, 1000.0, 3162.0, 10000.0],
    "ascents": 4,
    "trials": 400,
}
_QUICK = {"samples": 400, "conditions": [1.5, 4.0, 16.0, 100.0, 1000.0], "ascents": 2, "trials": 200}
FLOW_RATIO = Experiment(
    "beyond-2",
    "beyond Marion and Chizat 2024, Corollary 2",
    "Sharpness at the end of gradient flow from a vanishing start over the least one: thousands of covariances, the worst ones "
    "and the published bound.",
    {"paper": _SETTINGS | _PAPER, "quick": _SETTINGS | _QUICK},
    units,
    run,
    draw,
)
