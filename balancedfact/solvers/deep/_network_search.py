"""Descents on networks that fit the data: starts, Newton steps at one rank, moves across ranks, escapes from saddles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from balancedfact.curvature._zero_loss import DeepProblem, ZeroLossPoint
from balancedfact.solvers.deep._rank_test import RankTest, rank_test
from balancedfact.solvers.deep._zero_loss_newton import newton
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._certified import certified_minimum
from balancedfact.solvers.nuclear._descent import descend
from balancedfact.solvers.nuclear._problem import NuclearProblem, balanced_from_matrix

_REWEIGHTINGS = 3  # convex problems solved to bring a start close to a minimum
_RANDOM_DRAWS = 20  # of random layers, until one is near a fit
_RANDOM_STARTS = 2  # beside the nuclear norm and the flat pair
_SPREAD = 0.5  # standard deviation of the logarithms of the eigenvalues of random weights
_THIN = 1e-3  # a smallest singular value below this fraction of the largest is tried without
_VANISHED = 1e-7  # below this fraction it is dropped
_EQUAL = 1e-13  # relative difference of values that is put down to rounding
_IDENTICAL = 1e-10  # relative distance of end-to-end matrices that is put down to rounding
_SAME = 1e-4  # relative distance of end-to-end matrices below which two minima are the same
RANK_EXCESS = 1e-5  # by which the rank test may exceed 1: the value could fall by about its square
NEGATIVE = 1e-7  # relative curvature below which a point is a saddle
_ESCAPES = 5
_FALLS = 2  # of the rank in one descent, after which it rises no more: nearly dependent measurements let it go on for ever


class Start(NamedTuple):
    """A point that fits, and a vector near whose ray to look for multipliers where they are not unique."""

    point: ZeroLossPoint
    near: np.ndarray | None
    nuclear: float = 0.0
    """A lower bound on the nuclear norm of the weighted problem that the point comes from."""


class Minimum(NamedTuple):
    """The end of one descent, and by how much its rank test failed."""

    point: ZeroLossPoint
    y: np.ndarray
    excess: float
    curvature: float = np.nan
    determined: bool = False


class NetworkSearch:
    """Runs the descents, keeps the best minimum, and records every step."""

    def __init__(
        self,
        problem: DeepProblem,
        limit: int | None,
        tol: float,
        rng: np.random.Generator,
        log: Log,
        units: float,
    ) -> None:
        self.problem, self.limit, self.tol, self.rng, self.log, self.units = problem, limit, tol, rng, log, units
        self.minima: list[Minimum] = []
        self.latest: ZeroLossPoint | None = None
        self.nuclear = 0.0  # lower bound on |D1 E D2|_*, from the dual vector of two layers
        self.two_layers: np.ndarray | None = None  # that dual vector
        self.index = 0

    @property
    def best(self) -> Minimum | None:
        """The minimum of least value; of those with the same value, the one whose rank test went best."""
        lowest = min((each.point.value for each in self.minima), default=np.inf)
        equal = [each for each in self.minima if each.point.value <= lowest * (1 + 1e-10)]
        return min(equal, key=lambda each: np.nan_to_num(each.excess), default=None)

    def run(self, given: np.ndarray | None, alone: bool = False) -> None:
        """Descend from every start; from the only matrix that fits, where the data determine it.

        `alone` leaves one start, the product of layers that was given or that of random ones.
        """
        only = self._only_fit()
        if only is not None and (self.limit is None or _rank(only) <= self.limit):
            point = self._flattest(only, _rank(only))
            self._watched(point)
            self.minima.append(Minimum(point, point.multipliers(), 0.0, determined=True))
            return
        for start in self._random(given) if alone else self._starts(given):
            self.minima.append(self._descend(start.point, start.near))
            self.index += 1
        for _ in range(_ESCAPES):
            best = self.best
            if best is None or not best.point.tractable:
                return
            curvature, direction = best.point.curvature(self.rng)
            self.minima[self.minima.index(best)] = best._replace(curvature=curvature)
            lower = self._escaped(best.point, direction) if curvature < -NEGATIVE else None
            if lower is None:
                return
            self.minima.append(self._descend(lower, best.y))

    def _escaped(self, point: ZeroLossPoint, direction: np.ndarray) -> ZeroLossPoint | None:
        """A point with a smaller value along a direction of negative curvature."""
        size = float(np.linalg.norm(point.x))
        for exponent in range(1, 8):
            for sign in (1.0, -1.0):
                moved = point.moved(sign * size * 0.2**exponent * direction)
                if moved is not None and moved.value < point.value * (1 - _EQUAL):
                    return moved
        return None

    def distinct(self) -> int:
        """The number of different minima that the descents found."""
        found: list[ZeroLossPoint] = []
        for point, *_ in self.minima:
            size = np.linalg.norm(point.matrix)
            if all(np.linalg.norm(point.matrix - other.matrix) > _SAME * size for other in found):
                found.append(point)
        return len(found)

    def _only_fit(self) -> np.ndarray | None:
        """The matrix that the data determine; ``None`` if they do not."""
        A, b = self.problem.map, self.problem.b
        if A.m != A.shape[1]:
            return None
        solve = A.gram_solver(0.0)
        X = A.adjoint_matrix(solve(b))
        return X + A.adjoint_matrix(solve(b - A.forward(X)))

    # Starts.

    def _starts(self, given: np.ndarray | None) -> Iterator[Start]:
        unit = self.problem.unit
        white = unit.whitened()
        # For X = left @ Z @ right.T the nuclear norm of Z is |D1 X D2|_*, and the bound is on twice that.
        yield from self._reweighted(np.asarray(_dense(white.left)), np.asarray(_dense(white.right)))
        weights = [[np.eye(d) for d in unit.matrix_shape]]
        weights += [[_random_weight(d, self.rng) for d in unit.matrix_shape] for _ in range(_RANDOM_STARTS)]
        for left, right in weights:
            start = self._weighted(left, right)
            if start is not None:
                yield start
        if given is not None:
            point = self._fitted(given, min(max(_rank(given), 1), self.limit or min(given.shape)))
            if point is not None:
                yield Start(point, None)

    def _random(self, given: np.ndarray | None) -> Iterator[Start]:
        """The first product of random layers, of the largest width there is, near which some matrix of that rank fits."""
        (d1, d2), depth = self.problem.map.matrix_shape, self.problem.depth
        width = min(d1, d2, self.limit or np.inf)
        for _ in range(_RANDOM_DRAWS):
            product = given
            if product is None:
                sizes = [d2, *[int(width)] * (depth - 1), d1]
                draw = [self.rng.standard_normal(shape) for shape in zip(sizes[1:], sizes[:-1], strict=True)]
                product = np.linalg.multi_dot(draw[::-1])
                product = product * (self.problem.size / np.linalg.norm(self.problem.map.forward(product)))
            point = self._fitted(product, int(min(max(_rank(product), 1), width)))
            if point is not None:
                yield Start(point, None)
            if point is not None or given is not None:
                return

    def _weighted(self, left: np.ndarray, right: np.ndarray) -> Start | None:
        """The flattest layers of the matrix of least ``|Z|_*``, ``X = left @ Z @ right.T``, that fits."""
        found = certified_minimum(
            self.problem.map.congruence(left, right),
            self.problem.b,
            flat=False,
            penalty=0.0,
            max_rank=self.limit,
            tol=1e-8,
            rng=self.rng,
            initial=None,
            callback=None,
            progress=False,
        )
        X, k = left @ found.matrix @ right.T, found.layers[0].shape[0]
        point = self._fitted(X, k)
        return None if point is None else Start(point, found.certificate.dual, found.certificate.lower_bound / 2)

    def _reweighted(self, left: np.ndarray, right: np.ndarray) -> Iterator[Start]:
        """The best of a few weighted problems, each with the weights that the layers of the last one define."""
        best: Start | None = None
        for _ in range(_REWEIGHTINGS + 1):
            start = self._weighted(left, right)
            if start is None:
                break
            point = start.point
            self._watched(point)
            if best is None:
                self.nuclear, self.two_layers = start.nuclear, start.near
            gain = np.inf if best is None else 1 - point.value / best.point.value
            if gain > -1e-10:
                best = start
            if gain < 1e-5:
                break
            d1, d2 = self.problem.map.matrix_shape
            left, right = _inverse_weight(point.state.X, d1), _inverse_weight(point.state.Y, d2)
        if best is not None:
            yield best

    # Descent.

    def _flattest(self, X: np.ndarray, rank: int) -> ZeroLossPoint:
        """The flattest layers of the part of rank `rank` of a matrix."""
        U, s, Vt = np.linalg.svd(X, full_matrices=False)
        X = (U[:, :rank] * s[:rank]) @ Vt[:rank]
        return ZeroLossPoint(self.problem, induced_regularizer(X, self.problem.unit, self.problem.depth).layers)

    def _fitted(self, X: np.ndarray, rank: int) -> ZeroLossPoint | None:
        """The flattest layers of a matrix of rank `rank` near `X` that fits; ``None`` where none is found."""
        point = self._flattest(X, rank)
        if point.misfit < 1e-14:
            return point
        moved = point.moved(np.zeros_like(point.x)) if point.tractable else None
        if moved is not None:
            return self._flattest(moved.matrix, rank)
        A, b = self.problem.map, self.problem.b
        if point.tractable and rank == min(A.matrix_shape):  # no rank to keep: the nearest matrix that fits
            return self._flattest(X + A.adjoint_matrix(A.gram_solver(0.0)(b - A.forward(X))), rank)
        # Far from the data, or large: by descent on the residual, from layers as long as the data are.
        seen = float(np.linalg.norm(A.forward(point.matrix)))
        if not seen > 0:  # or from nowhere, where the measurements do not see it
            return None
        L, R, _ = balanced_from_matrix(point.matrix * (self.problem.size / seen))
        accuracy = 1e-15 * self.problem.size
        end = descend(A, b, 0.0, L[:, :rank], R[:, :rank], density=self.density, residual_tol=accuracy, max_products=1000)
        fitted = self._flattest(end.L @ end.R.T, rank)
        return fitted if fitted.misfit <= 1e-12 else None

    @property
    def density(self) -> float:
        """The mean squared weight with which a matrix entry is measured."""
        return NuclearProblem(self.problem.map, self.problem.b, 0.0).density

    def _descend(self, point: ZeroLossPoint, near: np.ndarray | None) -> Minimum:
        """Newton's method at the rank of the point, then at other ranks while that helps."""
        highest = int(min(*self.problem.map.matrix_shape, self.limit or np.inf))
        point = self._at_rank(point)
        if not point.tractable:
            return Minimum(point, np.zeros(self.problem.map.m) if near is None else near, np.nan)
        for known in self.minima:  # a rank test that was passed need not be repeated
            distance = np.linalg.norm(point.matrix - known.point.matrix)
            if known.excess == 0 and distance <= _IDENTICAL * np.linalg.norm(point.matrix):
                return known._replace(point=point)
        for rises_left in range(highest + _FALLS, -1, -1):
            y = point.multipliers(near)
            test = rank_test(point, y)
            if test.excess > 1 + RANK_EXCESS and point.freedom <= 0:  # multipliers are not unique: others may pass
                y, test = min((y, test), self._other_multipliers(point), key=lambda each: each[1].excess)
            found = Minimum(point, y, max(test.excess - 1, 0.0))
            if test.excess <= 1 + RANK_EXCESS or point.width >= highest or rises_left == 0:
                break
            wider = self._widened(point, test.left, test.right)
            if wider is None:
                break
            point = self._at_rank(wider, slack=0.0)
            if point.value >= found.point.value * (1 - _EQUAL):  # back where it came from
                break
        return found

    def _other_multipliers(self, point: ZeroLossPoint) -> tuple[np.ndarray, RankTest]:
        """Multipliers near the dual vector of the convex problem whose weights are those of the layers, with their test."""
        d1, d2 = self.problem.map.matrix_shape
        start = self._weighted(_inverse_weight(point.state.X, d1), _inverse_weight(point.state.Y, d2))
        y = point.multipliers(None if start is None else start.near)
        return y, rank_test(point, y)

    def _at_rank(self, point: ZeroLossPoint, slack: float = 1e-9) -> ZeroLossPoint:
        """The minimum near a point at its rank, or at the lower rank it tends to.

        A smallest singular value is dropped as soon as that raises the trace by no more than the fraction `slack`.
        """
        threshold = _THIN

        def thin(current: ZeroLossPoint) -> bool:
            self._watched(current)
            return _thickness(current) <= threshold

        while point.tractable and point.freedom > 0:
            point = newton(point, 1e-3 * self.tol, thin)
            thickness = _thickness(point)
            if thickness > threshold:
                return point
            lower = self._fitted(point.matrix, point.width - 1)
            allowed = slack if thickness > _VANISHED else 1e-9
            if lower is not None and lower.value <= point.value * (1 + allowed):
                point, threshold = lower, _THIN
            else:
                threshold = 0.2 * thickness
        if point.tractable and _thickness(point) <= _VANISHED:  # isolated: what has vanished goes at once
            s = np.linalg.svd(point.matrix, compute_uv=False)
            lower = self._fitted(point.matrix, int(np.count_nonzero(s > _VANISHED * s[0])))
            if lower is not None and lower.value <= point.value * (1 + 1e-9):
                point = lower
        self._watched(point)
        return point

    def _widened(self, point: ZeroLossPoint, left: np.ndarray, right: np.ndarray) -> ZeroLossPoint | None:
        """A point of the next rank with a smaller value, towards ``left @ right.T``; ``None`` where none is found."""
        s = np.linalg.svd(point.matrix, compute_uv=False)
        direction = left @ right.T
        size = float(np.linalg.norm(direction))
        if size == 0:  # the whitening hides it
            return None
        direction *= s[0] / size
        for exponent in range(1, 9):
            wider = self._fitted(point.matrix + 0.2**exponent * direction, point.width + 1)
            if wider is not None and wider.value < point.value * (1 - _EQUAL):
                return wider
        return None

    def _watched(self, point: ZeroLossPoint) -> None:
        self.latest = point
        record = {
            "start": float(self.index),
            "value": self.units * point.value,
            "stationarity": point.stationarity if point.tractable else np.nan,
            "feasibility": point.misfit,
            "rank": float(point.width),
        }
        shown = f"trace {record['value']:.6g}  stationarity {record['stationarity']:.1e}  rank {point.width}"
        self.log.write(f"start {self.index + 1}  {shown}", record)


def _thickness(point: ZeroLossPoint) -> float:
    """The smallest singular value over the largest; 1 at rank one, which cannot fall."""
    s = np.linalg.svd(point.matrix, compute_uv=False)
    return float(s[point.width - 1] / s[0])


def _dense(X):  # type: ignore[no-untyped-def]
    return X if isinstance(X, np.ndarray) else X.toarray()


def _rank(X: np.ndarray) -> int:
    s = np.linalg.svd(X, compute_uv=False)
    return int(np.count_nonzero(s > 1e-10 * s[0]))


def _random_weight(d: int, rng: np.random.Generator) -> np.ndarray:
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return Q * np.exp(_SPREAD * rng.standard_normal(d))


def _inverse_weight(moments, d: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """A `P` with ``P.T @ D^2 @ P = I`` for the mean `D^2` of the moments, each divided by its trace."""
    total = np.zeros((d, d))
    for moment in moments:
        dense = moment.array @ np.eye(d)
        total += dense / np.trace(dense)
    values, vectors = np.linalg.eigh((total + total.T) / 2)
    keep = values > values.size * np.finfo(float).eps * values[-1]
    return vectors[:, keep] / np.sqrt(values[keep])
