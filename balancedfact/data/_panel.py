r"""The effect of a treatment on a panel, by matrix completion with free effects of units and periods.

Athey, Bayati, Doudchenko, Imbens and Khosravi 2021, "Matrix completion methods for causal panel data models".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import frobenius, magnitude
from balancedfact._validate import as_array, as_count, as_gappy, as_number, as_rng
from balancedfact.data._frames import library
from balancedfact.measurements import Entries, TwoWayEntries
from balancedfact.solution import Offsets, Solution
from balancedfact.solvers import Splitting, norm_minimum

# The penalties tried: so many, down to this fraction of the largest useful one.
_COUNT, _LAST_PENALTY = 13, 1e-3
# Smaller penalties are not tried once so many in a row are worse than the best by this factor.
_PANEL_PATIENCE, _PANEL_CLEARLY = 4, 1.02
_LEAST_SHARE = 1e-20  # of the largest useful penalty: the fit is then exact up to rounding
_FOLD_TOL = 1e-4  # the gap of fits that are only compared on entries held out


@dataclass(frozen=True, eq=False)
class PanelEffect:
    r"""The effect of a treatment and the fit that it is measured against.

    Attributes
    ----------
    effect : float
        Mean of `effects` over the treated entries.
    effects : numpy.ndarray, shape (d1, d2)
        What was observed minus what is expected without treatment, ``nan`` where an entry is not treated or not observed.
    by_period : numpy.ndarray, shape (d2,)
        The mean of `effects` in each period, ``nan`` in periods without treatment.
    counterfactual : numpy.ndarray, shape (d1, d2)
        What is expected without treatment: :math:`X + \alpha 1^\top + 1\beta^\top`.
    penalty : float
        The weight of the nuclear norm that was used.
    solution : Solution
        The fit with its certificate; its offsets are a mean, :math:`\alpha` and :math:`\beta`.
    penalties, errors : numpy.ndarray
        With ``penalty="auto"`` what was tried and the root mean squared errors on entries held out; else empty.

    See Also
    --------
    panel_effect : Computes it.
    panel_path : The same along a path of penalties.

    References
    ----------
    Guide :doc:`/guide/panels`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> panel = np.add.outer([1.0, 2.0, 4.0], [0.0, 1.0, 3.0, 2.0])  # units and periods alone
    >>> treated = np.zeros(panel.shape, bool)
    >>> treated[2, 2:] = True
    >>> found = bf.panel_effect(panel + 5.0 * treated, treated, penalty=1.0)
    >>> round(found.effect, 6), np.round(found.counterfactual[2], 6).tolist()
    (5.0, [4.0, 5.0, 7.0, 6.0])
    """

    effect: float
    effects: np.ndarray = field(repr=False)
    by_period: np.ndarray = field(repr=False)
    counterfactual: np.ndarray = field(repr=False)
    penalty: float
    solution: Solution = field(repr=False)
    penalties: np.ndarray = field(repr=False, default_factory=lambda: np.empty(0))
    errors: np.ndarray = field(repr=False, default_factory=lambda: np.empty(0))

    def to_pandas(self) -> Any:
        """Each treated entry on a line as a data frame: unit, period, what was observed, what was expected; needs pandas."""
        import pandas

        rows, cols = np.nonzero(~np.isnan(self.effects))
        units, periods = self.solution.row_labels, self.solution.col_labels
        columns = {
            "unit": rows if units is None else [units[i] for i in rows],
            "period": cols if periods is None else [periods[t] for t in cols],
            "observed": self.counterfactual[rows, cols] + self.effects[rows, cols],
            "expected": self.counterfactual[rows, cols],
            "effect": self.effects[rows, cols],
        }
        return pandas.DataFrame(columns)


def panel_effect(
    Y: Any,
    treated: ArrayLike,
    penalty: float | str = "auto",
    *,
    folds: int = 5,
    tol: float = 1e-8,
    rng: int | np.random.Generator | None = None,
) -> PanelEffect:
    r"""Estimate the effect of a treatment on a panel of units and periods, with a certificate of the fit.

    The outcomes without treatment are estimated by completion from the entries `O` that are observed and not treated,

    .. math:: \min_{X,\alpha,\beta}\ \tfrac12\sum_{(i,t)\in O}(Y_{it} - X_{it} - \alpha_i - \beta_t)^2
              + \text{penalty}\,\|X\|_*,

    with effects of units and of periods that are not penalised. The effect is the mean, over the treated entries, of what was
    observed minus what the model expects. From a certain penalty on, :math:`X = 0`, and the estimate is that of two-way fixed
    effects.

    Parameters
    ----------
    Y : array_like or data frame, shape (d1, d2)
        Outcomes, a unit to a row and a period to a column; ``nan`` where nothing was observed.
    treated : array_like of bool, shape (d1, d2)
        Where there was treatment.
    penalty : float or "auto"
        Weight of the nuclear norm, positive. The reference averages the squares over the `n` entries of `O`: a weight `w` there
        is a penalty of ``n * w / 2`` here. ``"auto"`` takes the one of least error over `folds`.
    folds : int
        Number of parts of the untreated entries, each held out in turn.
    tol : float
        Relative gap between value and lower bound at which to stop.
    rng : int or numpy.random.Generator, optional
        Randomness of the parts and of the solver.

    Returns
    -------
    PanelEffect
        The effect, what is expected without treatment, and the fit with its certificate.

    Raises
    ------
    ValueError
        If an argument is malformed, nothing is treated and observed, or no chain of untreated entries connects the unit and the
        period of a treated one, so that nothing is known of their effects together.

    See Also
    --------
    panel_path : The effect along a path of penalties.
    PanelEffect : What is returned.
    complete : Completion without a treatment.

    Notes
    -----
    The free effects are eliminated: with `P` the projection onto what they cannot reach, the problem in `X` alone has the fit
    :math:`\tfrac12\|P(\mathcal A(X) - b)\|^2`, and :math:`b^\top y - \tfrac12\|y\|^2` is a lower bound for every `y` whose
    matrix has vanishing row and column sums and a norm of at most `penalty`.

    References
    ----------
    Athey, Bayati, Doudchenko, Imbens, Khosravi, "Matrix completion methods for causal panel data models", 2021.

    Guide :doc:`/guide/panels`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> t = np.arange(8.0)
    >>> Y = np.array([[1.0], [2.0], [4.0], [3.0]]) + t + np.outer([1.0, 2.0, 1.5, 3.0], np.sin(t))
    >>> treated = np.zeros(Y.shape, bool)
    >>> treated[3, 6:] = True
    >>> Y[treated] -= 5.0
    >>> found = bf.panel_effect(Y, treated, penalty=1e-3)
    >>> found.solution.status.name, round(found.effect, 2)
    ('OPTIMAL', -5.0)
    """
    panel = _Panel(Y, treated)
    tol, generator = as_number(tol, "tol", above=0.0), as_rng(rng)
    penalties = errors = np.empty(0)
    if isinstance(penalty, str):
        if penalty != "auto":
            raise ValueError(f"penalty is {penalty!r}; expected a number or 'auto'")
        if as_count(folds, "folds", least=2) > len(panel.all):
            raise ValueError(f"folds is {folds}; expected at most {len(panel.all)}, the number of untreated entries")
        penalties, errors = panel.cross_validated(folds, generator)
        weight = float(penalties[np.argmin(errors)])
    else:
        weight = panel.as_penalty(penalty, "penalty")
    return panel.effect(panel.fit(panel.all, weight, tol, generator), weight, penalties, errors)


def panel_path(
    Y: Any,
    treated: ArrayLike,
    penalties: Sequence[float] | None = None,
    *,
    tol: float = 1e-8,
    rng: int | np.random.Generator | None = None,
) -> list[PanelEffect]:
    """Estimate the effect at many penalties, to see how much it depends on them.

    Parameters
    ----------
    Y, treated
        As for `panel_effect`.
    penalties : sequence of float, optional
        By default 13 over three decades, from the least one at which :math:`X = 0` down.
    tol : float
        Relative gap of each fit.
    rng : int or numpy.random.Generator, optional
        Randomness of the solver.

    Returns
    -------
    list of PanelEffect
        In the order of `penalties`, each with its certificate.

    Raises
    ------
    ValueError
        As `panel_effect` does.

    See Also
    --------
    panel_effect : The effect at one penalty.
    PanelEffect : What is returned for each.

    References
    ----------
    Guide :doc:`/guide/panels`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> Y = np.add.outer([1.0, 2.0, 4.0], np.arange(5.0))
    >>> treated = np.zeros(Y.shape, bool)
    >>> treated[2, 4] = True
    >>> [round(each.effect, 6) for each in bf.panel_path(Y, treated, [1.0, 0.1])]
    [0.0, 0.0]
    """
    panel, generator = _Panel(Y, treated), as_rng(rng)
    tol = as_number(tol, "tol", above=0.0)
    tried = panel.grid() if penalties is None else as_array(penalties, "penalties", ndim=1).tolist()
    for each in tried:
        panel.as_penalty(each, "penalties")
    found, start = [], None
    for weight in tried:
        solution = panel.fit(panel.all, weight, tol, generator, start)
        start = solution.pair if solution.pair[0].any() else None
        found.append(panel.effect(solution, weight, np.empty(0), np.empty(0)))
    return found


class _Panel:
    """A checked panel: outcomes, what is treated, and the entries to learn from."""

    def __init__(self, Y: Any, treated: ArrayLike) -> None:
        kind = library(Y)
        self.Y = as_gappy(Y if kind is None else Y.to_numpy(), "Y")
        self.labels = None if kind != "pandas" else ([str(name) for name in Y.index], [str(name) for name in Y.columns])
        marks = as_array(treated, "treated", shape=self.Y.shape)
        if not np.all((marks == 0) | (marks == 1)):
            raise ValueError("treated holds other things than true and false; expected one of the two in each entry")
        self.treated = marks.astype(bool)
        seen = ~np.isnan(self.Y)
        if not (self.treated & seen).any():
            raise ValueError("treated holds no entry that was observed in Y; expected at least one")
        control = seen & ~self.treated
        self.all = np.argwhere(control)
        if not len(self.all):
            raise ValueError("treated holds every entry that was observed; expected some without treatment")
        units, periods = self._map(self.all).parts
        lost = self.treated & seen & (units[:, None] != periods)
        if lost.any():
            i, t = np.argwhere(lost)[0]
            raise ValueError(
                f"treated has entry ({i}, {t}), whose row and column no chain of untreated entries connects; expected one, or "
                "nothing is known of their effects together"
            )

    def as_penalty(self, value: float, name: str) -> float:
        """Return the penalty `value` if it is more than what rounding makes of the data."""
        penalty, least = as_number(value, name, above=0.0), _LEAST_SHARE * self.largest
        if penalty < least:
            raise ValueError(f"{name} is {penalty}; expected at least {least:.1e}, below which rounding decides")
        return penalty

    @cached_property
    def useful(self) -> bool:
        """False where effects alone fit the data: any penalty then gives the zero matrix."""
        return self._norm > 1e-12 * frobenius(self.Y[tuple(self.all.T)])

    @cached_property
    def largest(self) -> float:
        """The largest useful penalty, or where there is none the size of the data."""
        return self._norm if self.useful else magnitude(self.Y[tuple(self.all.T)])

    @cached_property
    def _norm(self) -> float:
        A, b = self._problem(self.all)
        return float(np.linalg.norm(A.adjoint(b), 2))

    def grid(self) -> np.ndarray:
        """Penalties from the largest useful one down."""
        return self.largest * (np.geomspace(1.0, _LAST_PENALTY, _COUNT) if self.useful else np.ones(1))

    def _map(self, places: np.ndarray) -> TwoWayEntries:
        d1, d2 = self.Y.shape
        return TwoWayEntries(Entries(places[:, 0], places[:, 1], (d1, d2)))

    def _problem(self, places: np.ndarray) -> tuple[TwoWayEntries, np.ndarray]:
        A = self._map(places)
        return A, A.project(self.Y[tuple(places.T)])

    def fit(self, places: np.ndarray, penalty: float, tol: float, rng: np.random.Generator, start: Any = None) -> Solution:
        """The certified fit to some of the entries, with the free effects as offsets."""
        A, b = self._problem(places)
        method = Splitting(most_measurements=A.m)
        solution = norm_minimum(A, b, penalty=penalty, tol=tol, rng=rng, method=method, initial=start, progress=False)
        left = self.Y[tuple(places.T)] - A.entries.forward_factored(*solution.pair)
        mean = float(left.mean())  # what is expected of a row or column that lost all its entries
        return replace(solution, offsets=Offsets(mean, *A.effects(left - mean)))

    def cross_validated(self, folds: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Penalties for all entries, and the root mean squared errors on those held out."""
        penalties = self.grid()
        parts = np.array_split(rng.permutation(len(self.all)), folds)
        kept = [np.delete(self.all, part, axis=0) for part in parts]
        starts: list[Any] = [None] * folds
        errors: list[float] = []
        for penalty in penalties:
            left = []
            for k, part in enumerate(parts):
                share = penalty * len(kept[k]) / len(self.all)  # the sum of squares has so many terms
                solution = self.fit(kept[k], share, _FOLD_TOL, rng, starts[k])
                starts[k] = solution.pair if solution.pair[0].any() else None
                rows, cols = self.all[part].T
                left.append(np.asarray(solution.predict(rows, cols)) - self.Y[rows, cols])
            errors.append(frobenius(np.concatenate(left)) / np.sqrt(len(self.all)))
            if len(errors) > _PANEL_PATIENCE and min(errors[-_PANEL_PATIENCE:]) > _PANEL_CLEARLY * min(errors):
                break
        return penalties[: len(errors)], np.array(errors)

    def effect(self, solution: Solution, penalty: float, penalties: np.ndarray, errors: np.ndarray) -> PanelEffect:
        """Judge the treated entries by a fit."""
        assert solution.offsets is not None
        mean, alpha, beta = solution.offsets
        expected = solution.matrix + (mean + alpha[:, None] + beta)
        effects = np.where(self.treated, self.Y - expected, np.nan)
        counts = np.sum(~np.isnan(effects), axis=0)
        by_period = np.where(counts > 0, np.nansum(effects, axis=0) / np.maximum(counts, 1), np.nan)
        if self.labels is not None:
            solution = solution.with_labels(*self.labels)
        return PanelEffect(float(np.nanmean(effects)), effects, by_period, expected, penalty, solution, penalties, errors)
