"""The least sharpness over all networks that fit the data, with a lower bound that closes for two layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, frobenius, product
from balancedfact._objective import Objective
from balancedfact._validate import as_array, as_depth, as_number, as_rng
from balancedfact.certification._contradiction import excluded_norm
from balancedfact.certification.deep._sharpness import certify_sharpness, verdict_on_sharpness
from balancedfact.measurements import Dense, MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.measurements._ordinary_size import of_ordinary_size
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers._flat_minimum import flat_minimum
from balancedfact.solvers.deep._flat_network import flat_network
from balancedfact.solvers.deep._smooth_sharpness import SharpPoint, descend_smoothly
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer
from balancedfact.solvers.iteration._limits import Budget, Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.iteration._nothing import as_deep, nothing
from balancedfact.solvers.nuclear._certified import contradictory
from balancedfact.solvers.nuclear._frame import Contradiction

_DEEP_TOL = 1e-4  # relative accuracy of the flattest networks of the weights; their bounds do not need more
# Share of equal weights in those of a bound. Any weights give a valid bound, and these decide how close it is: the share costs
# about itself, and where the weights of the smooth maximum are nearly singular, the rounding counted grows as one over it.
_EQUAL_SHARE = 1e-8
_BEGINNING = 0.5  # of a limit on seconds, at most, for the flattest network from which the descents begin
_RANK_CHANGES = 4  # changes of rank at each smoothness
_FLATTER = 1e-7  # relative excess over the least weighted trace from which another matrix is tried
_KEPT_SINGULAR = 1e-6  # singular values kept, relative to the largest
_MIXTURES = (0.5, 0.1, 0.01)  # shares of the other network
_RANK_KNOWN = 1e4  # smoothness, relative to the largest eigenvalue, from which mixtures that fail are not tried again
_SMOOTH = 10.0  # smoothness, relative to the largest eigenvalue, at which the descents begin
_SHARPEST = 1e6  # smoothness, relative to the largest eigenvalue, from which an unfinished descent is the last
_LEAST_SLOPE = 1e-6  # relative gradient up to which a network counts as stationary
_NEWTON_ON_NETWORKS = "Newton on a smooth maximum over networks that fit"


def flattest_sharpness(
    A: MeasurementMap,
    b: ArrayLike,
    depth: int,
    *,
    tol: float = 1e-8,
    gap_tol: float = 1e-3,
    rng: int | np.random.Generator | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
) -> Solution:
    r"""Find the network of least sharpness that fits the data, and say what is proved of it.

    Among all layers of any hidden widths whose product fits, one with the smallest largest eigenvalue of the Hessian:

    .. math:: \min_{\mathcal A(W_L\cdots W_1) = b} \lambda_{\max}(\nabla^2\mathcal L(W)), \qquad
              \mathcal L(W) = \tfrac1m\|\mathcal A(W_L\cdots W_1) - b\|^2 .

    Two over that value is the largest step with which gradient descent can stay at any network that fits.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    depth : int
        The number of layers `L`, at least 2.
    tol : float
        Relative gap between value and lower bound at which to stop; the smoothing of the largest eigenvalue ends at about it.
    gap_tol : float
        Relative gap up to which the network is called optimal.
    rng : int or numpy.random.Generator, optional
        Random starts of the weighted traces, and the starting vectors of iterative linear algebra.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called once per iteration with the newest record of `Solution.history`; returning ``True`` or raising ``StopIteration``
        stops the search as a limit does.

    Returns
    -------
    Solution
        `value` is the sharpness of `layers`. ``OPTIMAL`` if and only if the proved gap is at most `gap_tol`; ``STATIONARY``
        for a network from which Newton's method finds no way down, at its width and from the flattest networks of the
        weights, where the bound is open. The columns of ``certificate.dual``, shape ``(m, q)``, are vectors `y_k` with squared
        norms that add up to one: the least trace of the Hessian over all networks that fit, for the measurements
        :math:`\mathcal A^*(y_k)`, times `m` over `q` there and one over `m` here, is what the lower bound bounds, by the dual
        vector ``certificate.weighted_dual`` of that problem. `Solution.verify` and `Solution.load` with data compute value, fit
        and bound anew from these numbers; that a network is a local minimum they do not.

    Raises
    ------
    ValueError
        If an argument is malformed. Data that contradict one another are ``Status.INFEASIBLE``, as in `flat_minimum`.

    See Also
    --------
    minimal_sharpness : The least over the factorizations of one matrix, always proved.
    flat_network : The least trace.
    balancedfact.closed_forms.minimal_sharpness : The closed form for regressions.

    Notes
    -----
    For weights :math:`\omega\succeq0` of trace one on the measurements, the sharpness is at least the trace for the
    measurements rotated by :math:`\omega^{1/2}`, whose least value over the networks that fit is the problem of `flat_minimum`.
    For two layers that problem is convex, and the best :math:`\omega` leaves no gap: the least sharpness is a semidefinite
    programme, and its solution is proved. For more layers the bound is that of `flat_network`; it closes for regressions, for
    a single measurement and where the data determine the matrix, and is as a rule about half of the value elsewhere.

    The package minimises a smooth maximum of the eigenvalues by Newton's method on the layers that fit; the weights of that
    maximum are `omega`, and the flattest network for them shows where the rank has to change. A step factors matrices of the
    order of the number of weights, for each of up to `m` eigenvalues.

    References
    ----------
    Mulayoff, Michaeli, "Unique properties of flat minima in deep networks", 2020, for white data.
    Kamber, Parhi, "Sharpness of minima in deep matrix factorization: exact expressions", 2025, for one matrix.

    Chapter :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(12, (5, 4), rng=0)
    >>> b = A(np.outer(np.arange(5.0), np.ones(4)))
    >>> solution = bf.flattest_sharpness(A, b, depth=2, rng=0)
    >>> solution.status.name, bool(solution.certificate.gap < 1e-7)
    ('OPTIMAL', True)
    >>> bool(np.isclose(bf.curvature.sharpness(solution.layers, A, b), solution.value))
    True
    """
    data = as_array(b, "b", shape=(as_map(A).m,))
    L, goal, gap_tol = as_depth(depth), as_number(tol, "tol", above=0.0), as_number(gap_tol, "gap_tol", least=0.0)
    generator = as_rng(rng)
    log = Log(callback, False, limits)
    if not data.any():
        layers = [np.zeros(shape) for shape in [(1, A.matrix_shape[1]), *[(1, 1)] * (L - 2), (A.matrix_shape[0], 1)]]
        certificate = Certificate(0.0, 0.0, 0.0, proof="No Hessian has a negative largest eigenvalue.")
        message = "The data are zero: zero layers have no curvature."
        return Solution(layers, 0.0, Status.OPTIMAL, message, certificate, objective=Objective("sharpness", depth=L))
    near, power = log.insist(of_ordinary_size, A)
    size = frobenius(data)
    first = _flattest(near, data / size, L, generator, limits=Budget(log.limits.seconds).rest(_BEGINNING))
    widths = [A.matrix_shape[1], *[1] * (L - 1), A.matrix_shape[0]]
    if first.status is Status.INFEASIBLE:
        y = first.certificate.dual
        found = Contradiction(y, log.insist(excluded_norm, A, data, y))  # of the data as they were given
        return as_deep(contradictory(A, found, Objective("sharpness", depth=L)), L)
    if not np.any(first.matrix):
        log.ended = first.status, first.message
        return nothing(widths, log, _NEWTON_ON_NETWORKS)
    units = float(np.sqrt(2 / A.m)) * power ** (1 / L) * size ** (1 - 1 / L)
    search = log.insist(_Search, near, data / size, L, generator, log, units)
    if first.status is Status.INTERRUPTED:
        log.interrupt()
    if log.ended is None:
        with log:
            search.run(first, goal)
    if search.best is None:
        log.insist(search.keep, first.layers)
    if search.best is None:
        log.ended = log.ended or (Status.GAP_OPEN, "No network could be led onto the data.")
        return nothing(widths, log, _NEWTON_ON_NETWORKS)
    return log.insist(search.solution, A, data, (size / power) ** (1 / L), gap_tol)


def _flattest(
    A: MeasurementMap,
    b: np.ndarray,
    depth: int,
    rng: np.random.Generator,
    near: list[np.ndarray] | None = None,
    limits: Limits | None = None,
) -> Solution:
    """The flattest network for these measurements, or the one near some layers, with its certificate."""
    if near is not None:
        return flat_network(A, b, depth, method="riemannian", initial=near, tol=_DEEP_TOL, bound="quick", rng=rng)
    return flat_minimum(A, b, depth, tol=1e-10 if depth == 2 else _DEEP_TOL, rng=rng, limits=limits)


class _Search:
    """The descent on ever sharper smooth maxima, the best network and the best bound.

    The eigenvalues depend on the measurements through the sum of their squares alone: as many as are independent suffice, and
    directions that none of them sees are left out.
    """

    def __init__(self, A: MeasurementMap, b: np.ndarray, depth: int, rng: np.random.Generator, log: Log, units: float) -> None:
        unit = A.at_unit_scale()
        self.left, self.right = (vectors[:, values > 0] for values, vectors in (unit.left_root, unit.right_root))
        rows = A.rotated(self.left, self.right)
        U, s, Vt = np.linalg.svd(rows.reshape(A.m, -1), full_matrices=False)
        count = int(np.count_nonzero(s > max(rows.reshape(A.m, -1).shape) * EPS * s[0]))
        self.back = U[:, :count]
        self.stack = (s[:count, None] * Vt[:count]).reshape(count, *rows.shape[1:])
        self.b, self.depth, self.rng, self.log, self.units = self.back.T @ b, depth, rng, log, units
        self.best: SharpPoint | None = None  # of all points seen
        self.settled: SharpPoint | None = None  # the last end of a descent
        self.lower, self.dual, self.weighted_dual = 0.0, np.empty((A.m, 0)), np.empty(0)
        self.curvature, self.alone = np.nan, False

    def sharpness(self, f: float) -> float:
        """The sharpness in the user's units that belongs to the largest eigenvalue `f` of `Q`."""
        return float((self.units * np.sqrt(f)) ** 2)

    def keep(self, layers: list[np.ndarray]) -> None:
        """Take a network as the best one, led onto the data, if it can be."""
        inner = [layers[0] @ self.right, *layers[1:-1], self.left.T @ layers[-1]]
        point = SharpPoint(self.stack, self.b, inner, 1.0)
        self.best = point.moved(np.zeros_like(point.x))

    def run(self, first: Solution, goal: float) -> None:
        """Descend from the flattest network until the gap is at most `goal`, or the maximum as sharp as serves it."""
        point = self._started(self.left.T @ first.matrix @ self.right, self.stack, 1.0)
        if point is None:
            return
        self._seen(point)
        beta = _SMOOTH / point.largest if point.largest > 0 else np.inf
        while beta * point.largest < 1e2 / goal:
            last = beta * point.largest >= 1e1 / goal
            point = self._descended(point.smoothed(beta), last or self.depth == 2 or not self.alone)
            stuck = self.settled is not point and beta * point.largest > _SHARPEST  # rounding stops Newton's method
            if stuck or self.lower >= self.sharpest * (1 - goal):
                break
            beta *= 10.0
        if self.settled is not None and self.settled.largest <= self.sharpest * (1 + goal):
            self.best = self.settled

    def _descended(self, point: SharpPoint, judged: bool) -> SharpPoint:
        """The least smooth maximum that is found, with changes of rank as the flattest networks of its weights ask for."""
        for _ in range(_RANK_CHANGES):
            point, curvature = descend_smoothly(point, self._seen)
            if point.stationarity <= _LEAST_SLOPE:
                self.settled, self.curvature = point, curvature
            if not judged:
                return point
            weights = (1 - _EQUAL_SHARE) * point.weights + _EQUAL_SHARE / len(point.weights)
            Y = point.vectors * np.sqrt(weights)
            rotated = np.tensordot(Y.T, self.stack, 1)
            # Starts from afar are tried once where the problem is not convex.
            afar = self.depth == 2 or point.beta * point.largest <= _SMOOTH
            other = _flattest(Dense(rotated), Y.T @ self.b, self.depth, self.rng, None if afar else point.layers)
            share = self._share(rotated)
            if not np.isfinite(other.value):  # rounding is a contradiction where weights are small
                return point
            if other.certificate.lower_bound * share > self.lower:
                self.lower = other.certificate.lower_bound * share
                self.dual, self.weighted_dual = self.back @ Y, other.certificate.dual
            if self.alone or other.value * share > float(weights @ point.values) * (1 - _FLATTER):
                self.alone = self.depth > 2  # the data and the weights agree on the network
                return point
            ends = [descend_smoothly(start, self._seen)[0] for start in self._others(point, other.matrix, rotated)]
            better = min(ends, key=lambda end: end.value, default=point)
            if not better.value < point.value * (1 - 1e-9):
                # The exchange of minimum and maximum leaves a gap, or the weights are nearly singular.
                self.alone = self.depth > 2 or point.beta * point.largest > _RANK_KNOWN
                return point
            point = better
        return point

    @property
    def sharpest(self) -> float:
        return self.best.largest if self.best is not None else np.inf

    def _seen(self, point: SharpPoint) -> None:
        if point.largest <= self.sharpest:
            self.best = point
        value = self.sharpness(point.largest)
        self.log.write(f"sharpness {value:.6g}", {"value": value, "width": float(len(point.layers[0]))})

    def _share(self, stack: np.ndarray) -> float:
        """The factor from a trace for these measurements, scaled at two layers, to the sum of all squared derivatives."""
        return float(np.sqrt(np.prod(stack.shape[1:])) / 2) if self.depth == 2 else len(stack) / 2

    def _started(self, E: np.ndarray, stack: np.ndarray, beta: float) -> SharpPoint | None:
        """The flattest layers of a matrix at its numerical rank, led onto the data; ``None`` where that fails."""
        U, s, Vt = np.linalg.svd(E)
        rank = int(np.count_nonzero(s > _KEPT_SINGULAR * s[0]))
        matrix = (U[:, :rank] * s[:rank]) @ Vt[:rank]
        layers = induced_regularizer(matrix, Dense(stack), self.depth, tol=1e-6).layers
        point = SharpPoint(self.stack, self.b, layers, beta)
        return point.moved(np.zeros_like(point.x))

    def _others(self, point: SharpPoint, E: np.ndarray, stack: np.ndarray) -> list[SharpPoint]:
        """Starts from another matrix, for two layers from mixtures with that of the point."""
        here = product(point.layers)
        matrices = [E] if self.depth > 2 else [(1 - share) * here + share * E for share in _MIXTURES]
        starts = (self._started(matrix, stack, point.beta) for matrix in matrices)
        return [start for start in starts if start is not None]

    def solution(self, A: MeasurementMap, b: np.ndarray, share: float, gap_tol: float) -> Solution:
        """The best network in the user's units, with its certificate and the verdict."""
        assert self.best is not None
        layers = [share * W for W in self.best.layers]
        layers[0], layers[-1] = layers[0] @ self.right.T, self.left @ layers[-1]
        found = certify_sharpness(A, b, layers, self.dual, self.weighted_dual, rng=self.rng)
        certificate = replace(found, stationarity=self.best.stationarity, curvature=self.curvature)
        return Solution(
            layers,
            certificate.value,
            *self._verdict(certificate, gap_tol),
            certificate,
            self.log.history,
            _NEWTON_ON_NETWORKS,
            objective=Objective("sharpness", depth=self.depth),
        )

    def _verdict(self, certificate: Certificate, gap_tol: float) -> tuple[Status, str]:
        gap, ended = certificate.gap, self.log.ended
        if ended is not None and (not gap <= gap_tol or ended[0] is Status.INTERRUPTED):
            return ended
        status, message = verdict_on_sharpness(certificate, gap_tol)
        if status is Status.OPTIMAL or np.isnan(gap):
            return status, message
        proved = f"proved is {100 * (1 - gap):.0f} % of the value"
        if certificate.stationarity <= _LEAST_SLOPE and certificate.curvature >= -_LEAST_SLOPE:
            return Status.STATIONARY, f"A local minimum of the sharpness; {proved}, and others may be less sharp."
        return Status.GAP_OPEN, f"Stopped at a relative slope of {certificate.stationarity:.1e}; {proved}."
