"""The flattest network of three or more layers that fits the data: starts, descent across ranks, certificate, verdict."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.status import Status as Spinner

from balancedfact._linalg import frobenius
from balancedfact._validate import as_array, as_count, as_layers, as_number, as_rng
from balancedfact.curvature import trace
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.deep._bounds import isometry_bound, multiplier_bound
from balancedfact.solvers.deep._rank_test import rank_test
from balancedfact.solvers.deep._zero_loss_newton import DeepProblem, ZeroLossPoint, newton
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer
from balancedfact.solvers.nuclear._certificate import FEASIBLE
from balancedfact.solvers.nuclear._certified import _contradictory, certified_minimum
from balancedfact.solvers.nuclear._descent import descend
from balancedfact.solvers.nuclear._frame import Contradiction, Frame, unseen_part
from balancedfact.solvers.nuclear._problem import NuclearProblem, balanced_from_matrix

_REWEIGHTINGS = 3  # convex problems solved to bring a start close to a minimum
_RANDOM_STARTS = 2  # beside the nuclear norm and the flat pair
_SPREAD = 0.5  # standard deviation of the logarithms of the eigenvalues of random weights
_THIN = 1e-3  # a smallest singular value below this fraction of the largest is tried without
_VANISHED = 1e-7  # below this fraction it is dropped
_EQUAL = 1e-13  # relative difference of values that is put down to rounding
_IDENTICAL = 1e-10  # relative distance of end-to-end matrices that is put down to rounding
_SAME = 1e-4  # relative distance of end-to-end matrices below which two minima are the same
_RANK_EXCESS = 1e-5  # by which the rank test may exceed 1: the value could fall by about its square
_NEGATIVE = 1e-7  # relative curvature below which a point is a saddle
_ESCAPES = 5
_METHOD = "Newton on the zero-loss manifold across ranks"


class Start(NamedTuple):
    """A point that fits, and a vector near whose ray to look for multipliers where they are not unique."""

    point: ZeroLossPoint
    near: np.ndarray | None
    nuclear: float = 0.0
    """A lower bound on the nuclear norm of the weighted problem that the point comes from."""


class Minimum(NamedTuple):
    """Where one descent ended, and how far its rank test failed."""

    point: ZeroLossPoint
    y: np.ndarray
    excess: float
    curvature: float = np.nan
    determined: bool = False


def deep_flat_minimum(
    A: MeasurementMap,
    b: ArrayLike,
    depth: int,
    *,
    max_rank: int | None,
    tol: float,
    rng: int | np.random.Generator | None,
    initial: Sequence[ArrayLike] | None,
    callback: Callable[[dict[str, float]], None] | None,
    progress: bool | None,
) -> Solution:
    """Check the arguments of `flat_minimum` for depth at least 3, solve, and judge."""
    if not isinstance(A, MeasurementMap):
        raise ValueError(f"A is {type(A).__name__}; expected a measurement map such as bf.measurements.Dense")
    data = as_array(b, "b", shape=(A.m,))
    limit = None if max_rank is None else as_count(max_rank, "max_rank")
    tol = as_number(tol, "tol", above=0.0)
    generator = as_rng(rng)
    start = None
    if initial is not None:
        start = as_layers(initial, A.matrix_shape)
        if len(start) != depth:
            raise ValueError(f"initial has {len(start)} layers; expected {depth}")
    try:
        frame = Frame(A, data, 0.0, flat=False)
    except Contradiction as found:
        return _padded(_contradictory(A, found), depth)
    if not np.any(data):
        certificate = Certificate(0.0, 0.0, 0.0, np.zeros(A.m), 0.0, fibre_gap=0.0, proof="no trace is negative")
        d1, d2 = A.matrix_shape
        layers, message = [np.zeros((1, d2)), np.zeros((d1, 1))], "The zero matrix is optimal."
        return _padded(Solution(layers, 0.0, Status.OPTIMAL, message, certificate, {}, "closed form"), depth)
    unit, fit = A._divided_by_scale(), frame.problem.map
    left, right = (vectors[:, values > 0] for values, vectors in (unit._left_root, unit._right_root))
    if left.shape[1] + right.shape[1] < sum(A.matrix_shape):  # directions that no measurement sees are left out
        unit, fit = unit.congruence(left, right), fit.congruence(left, right)
    else:
        left, right = (np.eye(d) for d in A.matrix_shape)
    problem = DeepProblem(unit, fit, frame.problem.b, depth)
    search = Search(problem, limit, tol, generator, callback, progress)
    with search:
        try:
            search.run(None if start is None else left.T @ (_product(start) / frame.size) @ right)
        except KeyboardInterrupt:
            search.interrupted = True
    return _judged(A, data, frame, search, left, right)


class Search:
    """Runs the descents, keeps the best minimum, and records every step."""

    def __init__(
        self,
        problem: DeepProblem,
        limit: int | None,
        tol: float,
        rng: np.random.Generator,
        callback: Callable[[dict[str, float]], None] | None,
        progress: bool | None,
    ) -> None:
        self.problem, self.limit, self.tol, self.rng, self.callback = problem, limit, tol, rng, callback
        self.minima: list[Minimum] = []
        self.latest: ZeroLossPoint | None = None
        self.nuclear = 0.0  # lower bound on |D1 E D2|_*, from the dual vector of two layers
        self.interrupted = False
        self.records: list[dict[str, float]] = []
        self.started, self.index = time.perf_counter(), 0
        shown = sys.stderr.isatty() if progress is None else progress
        self.spinner = Spinner("solving", console=Console(stderr=True)) if shown else None

    def __enter__(self) -> Search:
        if self.spinner is not None:
            self.spinner.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.spinner is not None:
            self.spinner.stop()

    @property
    def best(self) -> Minimum | None:
        """The minimum of least value; of those with the same value, the one whose rank test went best."""
        lowest = min((each.point.value for each in self.minima), default=np.inf)
        equal = [each for each in self.minima if each.point.value <= lowest * (1 + 1e-10)]
        return min(equal, key=lambda each: np.nan_to_num(each.excess), default=None)

    def run(self, given: np.ndarray | None) -> None:
        """Descend from every start; from the only matrix that fits, where the data determine it."""
        only = self._only_fit()
        if only is not None and (self.limit is None or _rank(only) <= self.limit):
            point = self._flattest(only, _rank(only))
            self._watched(point)
            self.minima.append(Minimum(point, point.multipliers(), 0.0, determined=True))
            return
        for start in self._starts(given):
            self.minima.append(self._descend(start.point, start.near))
            self.index += 1
        for _ in range(_ESCAPES):
            best = self.best
            if best is None or not best.point.tractable:
                return
            curvature, direction = best.point.curvature(self.rng)
            self.minima[self.minima.index(best)] = best._replace(curvature=curvature)
            lower = self._escaped(best.point, direction) if curvature < -_NEGATIVE else None
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
        """How many different minima the descents found."""
        found: list[ZeroLossPoint] = []
        for point, *_ in self.minima:
            size = np.linalg.norm(point.matrix)
            if all(np.linalg.norm(point.matrix - other.matrix) > _SAME * size for other in found):
                found.append(point)
        return len(found)

    @property
    def history(self) -> dict[str, np.ndarray]:
        """The records as one array per column."""
        return {name: np.array([record[name] for record in self.records]) for name in self.records[0]} if self.records else {}

    def _only_fit(self) -> np.ndarray | None:
        """The matrix that the data determine; ``None`` if they do not."""
        A, b = self.problem.map, self.problem.b
        if A.m != A.shape[1]:
            return None
        solve = A.gram_solver(0.0)
        X = A._adjoint(solve(b))
        return X + A._adjoint(solve(b - A._forward(X)))

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

    def _weighted(self, left: np.ndarray, right: np.ndarray) -> Start | None:
        """The flattest layers of the matrix of least ``|Z|_*``, ``X = left @ Z @ right.T``, that fits."""
        found = certified_minimum(
            self.problem.map.congruence(left, right), self.problem.b,
            flat=False, penalty=0.0, max_rank=self.limit, tol=1e-8, rng=self.rng, initial=None, callback=None, progress=False,
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
                self.nuclear = start.nuclear
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
        # Far from the data, or large: by descent on the residual, from layers as long as the data are.
        A, b = self.problem.map, self.problem.b
        L, R, _ = balanced_from_matrix(point.matrix * (self.problem.size / np.linalg.norm(A._forward(point.matrix))))
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
        highest = min(*self.problem.map.matrix_shape, self.limit or np.inf)
        point = self._at_rank(point)
        if not point.tractable:
            return Minimum(point, np.zeros(self.problem.map.m) if near is None else near, np.nan)
        for known in self.minima:  # a rank test that was passed need not be repeated
            distance = np.linalg.norm(point.matrix - known.point.matrix)
            if known.excess == 0 and distance <= _IDENTICAL * np.linalg.norm(point.matrix):
                return known._replace(point=point)
        while True:
            y = point.multipliers(near)
            test = rank_test(point, y)
            found = Minimum(point, y, max(test.excess - 1, 0.0))
            if test.excess <= 1 + _RANK_EXCESS or point.width >= highest:
                return found
            wider = self._widened(point, test.left, test.right)
            if wider is None:
                return found
            point = self._at_rank(wider, slack=0.0)
            if point.value >= found.point.value * (1 - _EQUAL):  # back where it came from
                return found

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
        self._watched(point)
        return point

    def _widened(self, point: ZeroLossPoint, left: np.ndarray, right: np.ndarray) -> ZeroLossPoint | None:
        """A point of the next rank with a smaller value, towards ``left @ right.T``; ``None`` where none is found."""
        s = np.linalg.svd(point.matrix, compute_uv=False)
        direction = left @ right.T
        direction *= s[0] / np.linalg.norm(direction)
        for exponent in range(1, 9):
            wider = self._fitted(point.matrix + 0.2**exponent * direction, point.width + 1)
            if wider is not None and wider.value < point.value * (1 - _EQUAL):
                return wider
        return None

    def _watched(self, point: ZeroLossPoint) -> None:
        self.latest = point
        record = {
            "iteration": float(len(self.records)),
            "seconds": time.perf_counter() - self.started,
            "start": float(self.index),
            "value": point.value,
            "stationarity": point.stationarity if point.tractable else np.nan,
            "feasibility": point.misfit,
            "rank": float(point.width),
        }
        self.records.append(record)
        if self.spinner is not None:
            self.spinner.update(
                f"start {self.index + 1}  iteration {len(self.records)}  trace {point.value:.6g}  "
                f"stationarity {record['stationarity']:.1e}  rank {point.width}"
            )
        if self.callback is not None:
            self.callback(dict(record))


def _thickness(point: ZeroLossPoint) -> float:
    """The smallest singular value over the largest; 1 at rank one, which cannot fall."""
    s = np.linalg.svd(point.matrix, compute_uv=False)
    return float(s[point.width - 1] / s[0])


def _judged(
    A: MeasurementMap, b: np.ndarray, frame: Frame, search: Search, left: np.ndarray, right: np.ndarray
) -> Solution:
    """The best minimum in the user's units, with its certificate, computed from what is returned, and the verdict."""
    depth, problem, best = search.problem.depth, search.problem, search.best
    for record in search.records:
        record["value"] *= _units(A, frame, depth)
    if best is None:
        if search.latest is None:
            message = "No matrix was found to fit the data."
            status = Status.INTERRUPTED if search.interrupted else Status.RANK_EXCLUDED
            certificate = Certificate(1.0, proof="nothing was found")
            layers = [np.zeros((1, A.matrix_shape[1])), np.zeros((A.matrix_shape[0], 1))]
            return _padded(Solution(layers, np.inf, status, message, certificate, search.history, _METHOD), depth)
        y = search.latest.multipliers() if search.latest.tractable else np.zeros(problem.map.m)
        best = Minimum(search.latest, y, np.nan)
    share = frame.size ** (1 / depth)
    layers = [share * layer for layer in best.point.layers]
    layers[0], layers[-1] = layers[0] @ right.T, left @ layers[-1]
    value = trace(layers, A)
    product = _product(layers)
    fibre = induced_regularizer(product, A, depth)
    multipliers = np.zeros(A.m)
    multipliers[frame.kept] = frame.weights * best.y
    if best.determined:
        lower, proof = fibre.certificate.lower_bound, "the data determine the matrix, and the bound is that of its least trace"
    else:
        by_dual = multiplier_bound(problem.unit, b / frame.level, multipliers, depth)
        by_isometry = isometry_bound(problem.unit, search.nuclear, depth, search.rng)
        lower = max(by_dual, by_isometry) * _units(A, frame, depth)
        isometry = "an isometry of rank one, proved by semidefinite relaxation, and the dual bound of two layers"
        source = "the dual vector alone" if by_dual >= by_isometry else isometry
        proof = f"the bound follows from {source}; the rest is evidence of a minimum near this point only"
    gap = 1 - lower / value if value > 0 else 0.0
    feasibility = frobenius(A(product) - b) / frobenius(b)
    certificate = Certificate(
        feasibility,
        lower,
        gap if feasibility <= 10 * FEASIBLE else np.nan,
        multipliers * (_units(A, frame, depth) / frame.level),
        float(np.maximum(best.point.stationarity, best.excess)) if best.point.tractable else np.nan,
        curvature=best.curvature,
        fibre_gap=max(value / fibre.value - 1, 0.0) if fibre.value > 0 else 0.0,
        direction=fibre.certificate.direction,
        proof=proof,
    )
    status, message = _outcome(search, best, certificate, fibre.status)
    message += unseen_part(A, problem.map.matrix_shape)
    return Solution(layers, value, status, message, certificate, search.history, _METHOD)


def _units(A: MeasurementMap, frame: Frame, depth: int) -> float:
    """The trace in the user's units per unit of the normalised problem."""
    return float((A.scale * frame.size ** (1 - 1 / depth)) ** 2)


def _outcome(search: Search, best: Minimum, certificate: Certificate, fibre: Status) -> tuple[Status, str]:
    """The verdict as a status and a sentence, from the numbers that are returned."""
    limit, tol = search.limit, search.tol
    if search.interrupted:
        return Status.INTERRUPTED, "Interrupted; this is the best point so far."
    if certificate.feasibility > 10 * FEASIBLE:
        return Status.GAP_OPEN, f"The data were not reached: relative residual {certificate.feasibility:.1e}."
    if fibre is Status.UNATTAINED:
        diverging = "they diverge along the direction of the certificate"
        return Status.UNATTAINED, f"No layers attain the least trace of this matrix: {diverging}."
    if certificate.gap <= tol:
        better = f"a relative {abs(certificate.gap):.1e}"
        return Status.OPTIMAL, f"Optimal: no factorization of any width is better by more than {better}."
    found = search.distinct()
    seen = (
        f"{len(search.minima)} starts led to {found} minim{'um' if found == 1 else 'a'}; the lower bound, which holds whatever "
        f"the starts, is {100 * (1 - certificate.gap):.0f} % of the value."
    )
    if best.excess > 0 and limit is not None and best.point.width >= limit:
        return Status.RANK_LIMITED, f"The best found of rank {limit}; a higher rank would be flatter. {seen}"
    if not best.point.tractable:
        return Status.GAP_OPEN, f"Too large for Newton steps: the best of the convex problems that were solved. {seen}"
    if best.point.stationarity <= tol and best.excess <= _RANK_EXCESS and not certificate.curvature < -_NEGATIVE:
        return Status.STATIONARY, f"A minimum to second order and across ranks to first order. {seen}"
    return Status.GAP_OPEN, f"Stopped at a relative stationarity of {certificate.stationarity:.1e}. {seen}"


def _padded(solution: Solution, depth: int) -> Solution:
    """A solution by two zero layers, with as many as asked for."""
    first, last = solution.layers
    return replace(solution, layers=[first, *(np.zeros((1, 1)) for _ in range(depth - 2)), last])


def _product(layers: list[np.ndarray]) -> np.ndarray:
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    return product


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
