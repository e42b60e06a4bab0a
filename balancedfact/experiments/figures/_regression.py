"""The regression problem of Marion and Chizat, and what their figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from balancedfact import closed_forms
from balancedfact.experiments._experiment import Settings
from balancedfact.experiments._table import Row, Table
from balancedfact.experiments.figures._legend import MARKERS, magnified, share

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
    values = {row["name"]: row["value"] for row in table.where(kind="reference").rows}
    bounds = [values["published lower bound"], values["published upper bound"]]
    for name, line in (("minimal sharpness", "-"), ("rank-one limit", "--")):
        ax.axhline(values[name], color="black", linestyle=line, linewidth=1.1, label=f"{name}, {values[name]:.4g}")
    for value, label in zip(bounds, ("published bounds, {:.4g} and {:.4g}".format(*bounds), None), strict=True):
        ax.axhline(value, color="0.55", linestyle=":", linewidth=1.1, label=label)


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
        ax.plot(list(shown), middle, MARKERS[index] + "-", color=f"C{index}", label=f"{series} {value}, mean and 95 % interval")
        ax.fill_between(list(shown), np.maximum(middle - half, middle / 10), middle + half, color=f"C{index}", alpha=0.2, lw=0)


def draw_sharpness(ax: Axes, table: Table, place: tuple[float, float, float, float]) -> None:
    """Sharpness before and after training against the scale of the start, with stability limits and reference values.

    Where the smallest starts end, what merges is drawn once more in an inset at `place`.
    """
    runs = table.where(kind="run")
    scales = runs.values("scale")

    def draw(axes: Axes) -> None:
        draw_means(axes, runs, "sharpness_after")
        for index, step in enumerate(runs.values("step")):
            axes.axhline(2 / step, color=f"C{index}", linestyle=(0, (1, 1)), linewidth=1)
        before = [np.nanmean(runs.where(scale=scale)["sharpness_before"]) for scale in scales]
        axes.plot(scales, before, "s-", color="0.35", markersize=3, label="at the start")
        draw_references(axes, table)

    draw(ax)
    ax.plot([], [], color="0.3", linestyle=(0, (1, 1)), linewidth=1, label="2 / step, in the colour of the step")
    ax.set(xlabel="scale of the start", ylabel="sharpness", yscale="log")
    bottom, top = ax.get_ylim()  # room for the inset
    ax.set_ylim((bottom / 30, top) if place[1] < 0.5 else (bottom, 100 * top))
    references = table.where(kind="reference")["value"]
    left = scales[0] - 0.05 * (scales[-1] - scales[0])
    magnified(ax, place, (left, scales[len(scales) // 3]), (0.97 * references.min(), 1.6 * references.max()), draw)


def draw_divergence(ax: Axes, table: Table) -> None:
    """The share of diverged runs against the initial scale, with intervals of 95 %; the steps are drawn side by side."""
    steps = table.values("step")
    for index, step in enumerate(steps):
        ours = table.where(step=step)
        scales = np.array(ours.values("scale"))
        apart = (index - (len(steps) - 1) / 2) * 0.06 * (scales[1] - scales[0])
        middle, down, up = np.array([share(ours.where(scale=scale)["diverged"] >= 0) for scale in scales]).T
        ax.errorbar(scales + apart, middle, [down, up], fmt="o-", color=f"C{index}", elinewidth=1, label=f"step {step}")
    ax.set(xlabel="scale of the start", ylabel="probability of divergence", ylim=(-0.03, 1.03))
    ax.legend()
