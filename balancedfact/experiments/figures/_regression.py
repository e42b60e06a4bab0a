"""The regression problem of Marion and Chizat, and what their figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from balancedfact import closed_forms
from balancedfact.experiments._experiment import Settings
from balancedfact.experiments._table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class FigureData(NamedTuple):
    """Samples and labels of a figure, with what they determine, in units in which ``|w| = 1``."""

    inputs: np.ndarray
    targets: np.ndarray
    covariance: np.ndarray
    w: np.ndarray  # the least-norm regression vector, of norm one
    truth: np.ndarray
    noise: float  # variance
    readout: np.ndarray  # the vector p of residual networks, of norm one


def problem(settings: Settings) -> FigureData:
    """Standard normal inputs, a standard normal truth and unit noise (or none), divided so that ``|w| = 1``."""
    rng = np.random.default_rng([settings["seed"], settings["samples"], settings["inputs"]])
    n, d, noise = settings["samples"], settings["inputs"], settings.get("noise", 1.0)
    X, truth = rng.standard_normal((n, d)), rng.standard_normal(d)
    y = X @ truth + noise * rng.standard_normal(n)
    w = np.linalg.lstsq(X, y, rcond=None)[0]
    size, p = np.linalg.norm(w), rng.standard_normal(d)
    return FigureData(X, y / size, X.T @ X / n, w / size, truth / size, float((noise / size) ** 2), p / np.linalg.norm(p))


def chunks(repetitions: int, largest: int) -> list[list[int]]:
    """Numbers of repetitions in pieces of nearly equal size."""
    count = -(-repetitions // largest)
    return [[int(number) for number in piece] for piece in np.array_split(np.arange(repetitions), count)]


def units(settings: Settings) -> list[Row]:
    """Repetitions in chunks for each step, histories of single runs where there are any, and the reference values."""
    found: list[Row] = [
        {"kind": "run", "step": step, "iterations": iterations, "repetitions": chunk}
        for step, iterations, repetitions in settings["steps"]
        for chunk in chunks(repetitions, settings["chunk"])
    ]
    found += [{"kind": "history", "step": step} for step in settings.get("history_steps", [])]
    return [*found, {"kind": "reference"}]


def reference_rows(data: FigureData, depth: int, **more: object) -> list[Row]:
    """The exact minimal sharpness, the exact rank-one limit and the published bounds."""
    lower, upper = closed_forms.sharpness_bounds(data.covariance, data.w, depth)
    values = {
        "minimal sharpness": closed_forms.minimal_sharpness(data.covariance, data.w, depth),
        "rank-one limit": closed_forms.rank_one_limit_sharpness(data.covariance, data.w, depth),
        "published lower bound": lower,
        "published upper bound": upper,
    }
    return [{"kind": "reference", "name": name, "value": value, **more} for name, value in values.items()]


def draw_references(ax: Axes, table: Table) -> None:
    """The reference values as horizontal lines."""
    looks = {
        "minimal sharpness": ("black", "-"),
        "rank-one limit": ("black", "--"),
        "published lower bound": ("0.55", ":"),
        "published upper bound": ("0.55", ":"),
    }
    for row in table.where(kind="reference").rows:
        colour, line = looks[row["name"]]
        label = {"published lower bound": "published bounds", "published upper bound": None}.get(row["name"], row["name"])
        ax.axhline(row["value"], color=colour, linestyle=line, linewidth=1.1, label=label)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of its 95 % confidence interval."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else 0.0
    return float(values.mean()), float(half)


def draw_means(ax: Axes, table: Table, quantity: str, series: str = "step") -> None:
    """Means of a quantity over the runs that did not diverge, with confidence bands, against the scale of the start."""
    for index, value in enumerate(table.values(series)):
        ours = table.where(**{series: value})
        kept = {scale: ours.where(scale=scale) for scale in ours.values("scale")}
        finite = {scale: runs[quantity][runs["diverged"] < 0] for scale, runs in kept.items()}
        shown = {scale: interval(values) for scale, values in finite.items() if values.size}
        if not shown:
            continue
        middle, half = np.array(list(shown.values())).T
        ax.plot(list(shown), middle, "o-", color=f"C{index}", label=f"{series} {value}")
        ax.fill_between(list(shown), np.maximum(middle - half, middle / 10), middle + half, color=f"C{index}", alpha=0.2, lw=0)


def draw_sharpness(ax: Axes, table: Table) -> None:
    """Sharpness before and after training against the scale of the start, with stability limits and reference values."""
    runs = table.where(kind="run")
    draw_means(ax, runs, "sharpness_after")
    for index, step in enumerate(runs.values("step")):
        ax.axhline(2 / step, color=f"C{index}", linestyle=(0, (1, 1)), linewidth=1, label="2 / step" if index == 0 else None)
    before = [np.nanmean(runs.where(scale=scale)["sharpness_before"]) for scale in runs.values("scale")]
    ax.plot(runs.values("scale"), before, "s-", color="0.35", markersize=3, label="at the start")
    draw_references(ax, table)
    ax.set(xlabel="scale of the start", ylabel="sharpness", yscale="log")


def draw_divergence(ax: Axes, table: Table) -> None:
    """The share of diverged runs against the initial scale."""
    for index, step in enumerate(table.values("step")):
        ours = table.where(step=step)
        scales = ours.values("scale")
        shares = [np.mean(ours.where(scale=scale)["diverged"] >= 0) for scale in scales]
        ax.plot(scales, shares, "o-", color=f"C{index}", label=f"step {step}")
    ax.set(xlabel="scale of the start", ylabel="probability of divergence", ylim=(-0.03, 1.03))
    ax.legend()
