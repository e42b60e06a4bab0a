"""Pictures of a solution's quality: its singular values and the course of its certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from balancedfact._spectrum import RANK_CUT, numerical_rank, product_singular_values
from balancedfact.plots._given import as_axes, as_solution
from balancedfact.plots._style import FLOOR, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from balancedfact.solution import Solution


def singular_values(ax: Axes, solution: Solution) -> Axes:
    """Draw the singular values of the end-to-end matrix, computed from the factors.

    Values below 1e-16 of the largest are drawn there. The rank in the title counts the values above 1e-6 of the largest, where
    a dashed line is drawn if there are values below it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    solution : Solution
        The solution.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`.

    Raises
    ------
    ValueError
        If `ax` is no axes, or `solution` no `Solution`.

    See Also
    --------
    recovered_matrix : The picture of the matrix itself.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> solution = bf.flat_minimum(bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2)), [4.0, 2.0, 2.0])
    >>> bf.plots.singular_values(Figure().subplots(), solution).get_title()
    'rank 1'
    """
    as_axes(ax)
    values = product_singular_values(as_solution(solution).layers)
    largest = float(values.max())
    ax.set(xlabel="index", ylabel="singular value (units of the data)", title=f"rank {numerical_rank(values)}")
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if largest == 0:
        return _say(ax, "all singular values are zero")
    index = np.arange(1, values.size + 1)
    ax.semilogy(index, np.maximum(values, FLOOR * largest), "o", color=PALETTE["blue"])
    if values.min() < RANK_CUT * largest:
        label = rf"$10^{{{np.log10(RANK_CUT):.0f}}}$ of the largest"
        ax.axhline(RANK_CUT * largest, color=PALETTE["grey"], linestyle="--", linewidth=1, label=label)
        ax.legend()
    return ax


def gap_history(ax: Axes, solution: Solution) -> Axes:
    """Draw the relative gap, gradient and residual of a solve at every iteration, on a logarithmic axis.

    Values below 1e-16 are drawn there. What the solver did not record is left out.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    solution : Solution
        The solution; its history is drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`.

    Raises
    ------
    ValueError
        If `ax` is no axes, or `solution` no `Solution`.

    See Also
    --------
    value_history : The values and bounds of which this is the gap.
    balancedfact.Certificate : The gap at the end.

    References
    ----------
    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> solution = bf.flat_minimum(bf.measurements.gaussian(12, (4, 4), rng=0), range(12))
    >>> ax = bf.plots.gap_history(Figure().subplots(), solution)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('iteration', 'relative size')
    """
    as_axes(ax), as_solution(solution)
    series = {
        "gap": ("relative gap", "blue", "-"),
        "stationarity": ("relative gradient", "green", "-."),
        "feasibility": ("relative residual", "vermilion", "--"),
    }
    drawn = _series(ax, solution, series)
    gap = solution.certificate.gap
    title = f"final gap {gap:.1e}" if np.isfinite(gap) else f"no final gap: {solution.status.value}"
    ax.set(xlabel="iteration", ylabel="relative size", title=title)
    return _finish(ax) if drawn else _say(ax, "no iterations were needed")


def value_history(ax: Axes, solution: Solution) -> Axes:
    """Draw the objective of a solve and its lower bound at every iteration, on a logarithmic axis.

    Lower bounds that are not positive say nothing yet and are left out.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    solution : Solution
        The solution; its history is drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`.

    Raises
    ------
    ValueError
        If `ax` is no axes, or `solution` no `Solution`.

    See Also
    --------
    gap_history : The relative distance between value and bound.

    References
    ----------
    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> from matplotlib.figure import Figure
    >>> solution = bf.flat_minimum(bf.measurements.gaussian(12, (4, 4), rng=0), range(12))
    >>> ax = bf.plots.value_history(Figure().subplots(), solution)
    >>> [line.get_label() for line in ax.lines]
    ['value', 'lower bound']
    """
    as_axes(ax), as_solution(solution)
    drawn = _series(ax, solution, {"value": ("value", "blue", "-"), "lower_bound": ("lower bound", "green", "--")}, floor=0.0)
    ax.set(xlabel="iteration", ylabel="objective", title=f"final value {solution.value:.6g}")
    return _finish(ax) if drawn else _say(ax, "no iterations were needed")


def _series(ax: Axes, solution: Solution, names: dict[str, tuple[str, str, str]], floor: float = FLOOR) -> bool:
    """Draw those series of the history that have a finite value, raised to `floor`; whether there was any."""
    iterations = solution.history.get("iteration", np.empty(0))
    marker = "o" if iterations.size <= 20 else ""
    any_drawn = False
    for name, (label, colour, line) in names.items():
        values = np.asarray(solution.history.get(name, np.full(iterations.shape, np.nan)), dtype=float)
        if not np.isfinite(values).any():
            continue
        raised = np.maximum(np.where(np.isfinite(values), values, np.nan), floor)
        raised[raised <= 0] = np.nan
        ax.semilogy(iterations, raised, line, marker=marker, color=PALETTE[colour], label=label)
        any_drawn = True
    return any_drawn


def _finish(ax: Axes) -> Axes:
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    ax.legend(frameon=True, framealpha=0.8, edgecolor="none")  # its place may have to be on a line
    return ax


def _say(ax: Axes, sentence: str) -> Axes:
    ax.text(0.5, 0.5, sentence, transform=ax.transAxes, ha="center", va="center", color=PALETTE["grey"])
    ax.set(xticks=[], yticks=[])
    return ax
