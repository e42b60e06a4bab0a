"""Isometry constants: between which factors a measurement map stretches the matrices of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balancedfact._linalg import EPS, magnitude
from balancedfact._validate import as_count, as_rng, check_room
from balancedfact.measurements._as_map import as_map
from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._entries import Entries
from balancedfact.measurements._isometry_bounds import Relaxation, rounding
from balancedfact.measurements._isometry_search import Alternating

# By default the relaxation takes as many steps as cost about this many operations, none where that would be fewer than ten.
_WORK, _FEWEST_STEPS, _MOST_RELAXED_STEPS = 4e10, 10, 300
_FORMED_ORDER = 4096  # largest order d1 * d2 for which the form is made a matrix


@dataclass(frozen=True, repr=False)
class IsometryEnclosure:
    r"""Intervals for the extreme values of :math:`\frac1m\|\mathcal A(X)\|^2/\|X\|_F^2` over matrices of low rank.

    Attributes
    ----------
    rank : int
        The rank `r`.
    largest : tuple of float
        ``(attained, bound)``: the largest value lies between them; `most_stretched` attains the first.
    smallest : tuple of float
        ``(bound, attained)``: the smallest value lies between them; `least_stretched` attains the second.
    most_stretched, least_stretched : numpy.ndarray, shape (d1, d2)
        Matrices of unit Frobenius norm and rank at most `rank`.

    See Also
    --------
    isometry_constant : Computes it.

    References
    ----------
    Chapter :doc:`/theory/isometry`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> found = bf.measurements.isometry_constant(bf.measurements.gaussian(40, (3, 3), rng=0), 1, rng=0)
    >>> attained, bound = found.largest
    >>> 1 < attained <= bound
    True
    """

    rank: int
    largest: tuple[float, float]
    smallest: tuple[float, float]
    most_stretched: np.ndarray
    least_stretched: np.ndarray

    @property
    def delta(self) -> tuple[float, float]:
        r"""An interval that holds the isometry constant :math:`\delta_r`.

        The lower end is attained, hence proven, and as the best of many searches it is also the estimate to use where evidence
        is enough. The map satisfies ``(rank, delta)``-RIP with `delta` the upper end.
        """
        return (
            max(self.largest[0] - 1, 1 - self.smallest[1], 0.0),
            max(self.largest[1] - 1, 1 - self.smallest[0], 0.0),
        )

    @property
    def condition(self) -> tuple[float, float]:
        """An interval that holds the ratio of the largest value to the smallest; infinite where the smallest may be zero."""
        return _ratio(self.largest[0], self.smallest[1]), _ratio(self.largest[1], self.smallest[0])

    @property
    def scaled_delta(self) -> tuple[float, float]:
        r"""An interval that holds the least :math:`\delta_r` over all multiples of the map, :math:`(\kappa-1)/(\kappa+1)`."""
        low, high = (1 - 2 / (1 + ratio) for ratio in self.condition)
        return low, high

    def __repr__(self) -> str:
        (low, high), (least, most) = self.delta, self.smallest
        return (
            f"<IsometryEnclosure: delta_{self.rank} in [{low:.4g}, {high:.4g}], "
            f"smallest in [{least:.4g}, {most:.4g}], largest in [{self.largest[0]:.4g}, {self.largest[1]:.4g}]>"
        )


def isometry_constant(
    A: MeasurementMap,
    rank: int = 1,
    *,
    starts: int = 20,
    iterations: int | None = None,
    rng: int | np.random.Generator | None = None,
) -> IsometryEnclosure:
    r"""Enclose the restricted isometry constant :math:`\delta_r` of a measurement map.

    The map satisfies :math:`(r,\delta)`-RIP if, for all `X` of rank at most `r`,

    .. math:: (1-\delta)\|X\|_F^2 \le \tfrac1m\textstyle\sum_i\langle A_i, X\rangle^2 \le (1+\delta)\|X\|_F^2 .

    Deciding this is hard in general, so the answer is an interval. Its lower end is attained by an explicit matrix, the best of
    many alternating searches. Its upper end is proven by a semidefinite relaxation, evaluated with a margin for rounding.

    Parameters
    ----------
    A : MeasurementMap
        The map.
    rank : int
        The rank `r`; values above ``min(d1, d2)`` mean all matrices.
    starts : int
        Random starts of the search for each extreme, beside those that the relaxation suggests.
    iterations : int, optional
        Steps of the relaxation for each extreme: each is an eigendecomposition of order ``d1 * d2`` for rank one, three for
        higher rank. By default as many as take well under a minute: 300 for small matrices, none beyond about 35 x 35 (rank
        one) or 30 x 30. With none only the cheapest bounds are computed; 30 are often nearly as good as 300.
    rng : int or numpy.random.Generator, optional
        Randomness of the starts; it never affects the bounds.

    Returns
    -------
    IsometryEnclosure
        Printable; `delta` is the interval, `largest` and `smallest` are those of the two extremes.

    Raises
    ------
    ValueError
        If `rank`, `starts` or `iterations` is not a count.

    See Also
    --------
    IsometryEnclosure : What is returned.
    gaussian, bernoulli : Ensembles with small constants.

    Notes
    -----
    The bounds are rigorous as far as LAPACK is backward stable: each is an eigenvalue in floating point, moved outwards
    by ``4 eps d1 d2`` times the Frobenius norms of the terms of its matrix, and by a bound on the rounding of the form itself.
    The relaxation is exact for rank one when ``min(d1, d2) <= 2``; for ``rank >= min(d1, d2)`` the bounds are the extreme
    eigenvalues, and the interval of an `Entries` map is a point. The matrices :math:`A_i` are formed, ``m * d1 * d2`` numbers,
    and up to ``d1 * d2 = 4096`` some twenty matrices of order ``d1 * d2``; beyond, only the eigenvalues bound the form.

    References
    ----------
    Gatmiry, Li, Chuang, Reddi, Ma, Jegelka, "The inductive bias of flatness regularization for deep matrix factorization",
    2023: Theorems 1 (rank one) and 2 (rank two). The theory page "Isometry constants" has the proofs.

    Chapter :doc:`/theory/isometry`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> A = bf.measurements.gaussian(200, (4, 4), rng=0)
    >>> enclosure = bf.measurements.isometry_constant(A, rank=1, rng=0)
    >>> low, high = enclosure.delta
    >>> high - low < 1e-3 and high < 0.6
    True
    """
    as_map(A)
    rank, starts = as_count(rank, "rank"), as_count(starts, "starts")
    check_room("starts", starts, *A.matrix_shape)
    if iterations is not None:
        iterations = as_count(iterations, "iterations", least=0)
    generator = as_rng(rng)
    if isinstance(A, Entries):
        return _entries_enclosure(A, rank)
    form = _Form(A)
    order, bounded = min(form.shape), min(rank, *form.shape)
    if iterations is None:
        steps = _WORK / (order * max(form.shape)) ** 3 / (1 if bounded == 1 else 3)
        iterations = min(int(steps), _MOST_RELAXED_STEPS) if steps >= _FEWEST_STEPS else 0
    low, high = form.spectrum
    search = form.alternating()
    ends, matrices = [], []
    for sign, spectral in ((1, high), (-1, -low)):
        X = _search(search, bounded, sign, starts, generator)
        bound = spectral
        if bounded < order and form.matrix is not None and (bounded == 1 or iterations):  # no steps prove nothing for rank two
            relaxation = Relaxation(sign * form.matrix, form.shape, bounded, form.error)
            proven, vectors = relaxation.bound(iterations, enough=sign * form.value(X) * (1 + sign * 1e-9))
            bound = min(bound, proven)
            if iterations:
                suggested = [v.reshape(form.shape) for v in vectors[:, :3].T]
                X = search.extreme([_leading(Y, bounded) for Y in (X, *suggested)], sign)
        ends.append((form.value(X) * form.unit, sign * bound * form.unit))
        matrices.append(X)
    return IsometryEnclosure(rank, ends[0], (ends[1][1], ends[1][0]), *matrices)


class _Form:
    r"""The form :math:`\frac1m\|\mathcal A(X)\|^2`, divided by `unit` so that nothing overflows or vanishes."""

    def __init__(self, A: MeasurementMap) -> None:
        d1, d2 = self.shape = A.matrix_shape
        stack = A.at_unit_scale().rotated(np.eye(d1), np.eye(d2)).reshape(A.m, d1 * d2)
        exponent = int(np.frexp(magnitude(stack))[1])
        self.rows = np.ldexp(stack, -exponent) / np.sqrt(A.m)
        self.unit = float(np.ldexp(A.scale, exponent)) ** 2
        energy = float(np.vdot(self.rows, self.rows))
        # Sums of m (or d1 d2) products, of numbers that were rounded up to four times.
        self.error = 2 * EPS * (max(A.m, d1 * d2) + 8) * energy
        self.matrix = self.rows.T @ self.rows if d1 * d2 <= _FORMED_ORDER else None
        self.spectrum = self._spectrum()

    def alternating(self) -> Alternating:
        """The search, on a root of the form with fewer rows where there is one."""
        if self.matrix is None or len(self.rows) <= len(self.matrix):
            return Alternating(self.rows, self.shape)
        values, vectors = np.linalg.eigh(self.matrix)
        return Alternating(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T, self.shape)

    def value(self, X: np.ndarray) -> float:
        """The form at a unit matrix."""
        return float(np.sum((self.rows @ X.ravel()) ** 2))

    def _spectrum(self) -> tuple[float, float]:
        """Bounds on the form over unit matrices of any rank."""
        m, N = self.rows.shape
        gram = self.rows @ self.rows.T if m < N else self.rows.T @ self.rows
        values, error = np.linalg.eigvalsh(gram), self.error + rounding(gram)
        return 0.0 if m < N else max(float(values[0]) - error, 0.0), float(values[-1]) + error


def _search(search: Alternating, rank: int, sign: int, starts: int, rng: np.random.Generator) -> np.ndarray:
    """The best matrix found, of every rank up to `rank` in turn, so that a higher rank is never worse."""
    X = None
    for r in range(1, rank + 1):
        draws = list(rng.standard_normal((starts, search.shape[1], r)))
        if X is not None:
            draws.append(_leading(X, r))
        X = search.extreme(draws[-1:] if r == min(search.shape) else draws, sign)  # at full rank one step gives the optimum
    assert X is not None
    return X


def _leading(X: np.ndarray, rank: int) -> np.ndarray:
    """The first right singular vectors, as columns."""
    return np.linalg.svd(X)[2][:rank].T


def _entries_enclosure(A: Entries, rank: int) -> IsometryEnclosure:
    """Single entries: the form is diagonal, and its largest and smallest numbers are attained at matrices of one entry."""
    d1, d2 = A.matrix_shape
    code = A.codes
    values = np.bincount(code, (A.weights / A.scale) ** 2, d1 * d2) * A.scale / A.m * A.scale
    slack = (4 + int(np.bincount(code).max())) * EPS
    units = []
    for k in (int(np.argmax(values)), int(np.argmin(values))):
        X = np.zeros((d1, d2))
        X.flat[k] = 1.0
        units.append(X)
    largest, smallest = float(values.max()), float(values.min())
    return IsometryEnclosure(rank, (largest, largest * (1 + slack)), (smallest * (1 - slack), smallest), *units)


def _ratio(largest: float, smallest: float) -> float:
    return largest / smallest if smallest > 0 else np.inf
