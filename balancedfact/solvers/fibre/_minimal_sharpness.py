"""The least sharpness over all factorizations of a matrix, for any measurements, with its proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import EPS, frobenius, magnitude, product
from balancedfact._validate import as_array, as_depth, as_number
from balancedfact.measurements import Dense, MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.fibre._chain import stacks
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer
from balancedfact.solvers.fibre._soft_maximum import Ensemble, Smooth, at, descend
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback, Log
from balancedfact.solvers.iteration._nothing import nothing

_NEWTON_ON_MAXIMUM = "Newton on a smooth maximum"
_PROOF_OF_SHARPNESS = (
    "For every weight matrix of trace one on the measurements the least weighted trace bounds the least largest eigenvalue; "
    "the least weighted trace is a geodesically convex problem with a bound of its own. Rigorous up to rounding errors."
)


def minimal_sharpness(
    M: ArrayLike,
    A: MeasurementMap,
    depth: int,
    *,
    tol: float = 1e-8,
    limits: Limits | None = None,
    callback: Callback | None = None,
) -> Solution:
    r"""Find the factorization of a given matrix that has the least sharpness, and prove it.

    Over all factorizations :math:`M = W_L\cdots W_1`, of any hidden widths,

    .. math:: S_{\min}(M) = \min\ \lambda_{\max}(\nabla^2\mathcal L(W)), \qquad
              \mathcal L(W) = \tfrac1m\|\mathcal A(W_L\cdots W_1) - \mathcal A(M)\|^2 .

    Parameters
    ----------
    M : array_like, shape (d1, d2)
        The matrix to factor.
    A : MeasurementMap
        Measurements of ``d1 x d2`` matrices.
    depth : int
        The number of layers `L`, at least 2.
    tol : float
        Relative gap between value and lower bound at which to stop.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called once per iteration with the newest record of `Solution.history`; returning ``True`` or raising ``StopIteration``
        stops the solve as a limit does.

    Returns
    -------
    Solution
        `value` is the sharpness of `layers`, whose hidden widths are the rank of `M`. The lower bound holds for factorizations
        of any width. The columns of ``certificate.dual``, shape ``(m, q)``, are vectors `y_k` with squared norms that add up to
        one. The bound is ``q / m`` times the induced regularizer (`induced_regularizer`) of `M` for the `q` measurements by the
        matrices :math:`\mathcal A^*(y_k)`.

    Raises
    ------
    ValueError
        If `M` is not a finite real matrix of the shape that `A` measures, `depth` is below 2 or `tol` is not positive.

    See Also
    --------
    induced_regularizer : The least trace.
    flattest_sharpness : The least over all matrices that fit the data.
    balancedfact.closed_forms.minimal_sharpness : The closed form for regressions.

    Notes
    -----
    At weights that fit, the sharpness is :math:`\frac2m\max_{\|y\|=1}\sum_j\|C_j^\top\mathcal A^*(y)B_{j-1}^\top\|_F^2`: for
    each `y` the functional of `induced_regularizer` for a single matrix. So the least sharpness is geodesically convex, and by
    Ky Fan's minimax theorem it is the maximum, over :math:`\omega\succeq0` of trace one, of the least trace for the matrices
    rotated by :math:`\omega^{1/2}`. The package minimises a smooth maximum of the eigenvalues by Newton's method; the weights
    of that maximum are `omega`.

    The cost per step grows with the cube of the smaller of `m` and ``r * (d1 + d2 - r)``, `r` the rank of `M`, and of
    ``(L - 1) * r * (r + 1) / 2``.

    References
    ----------
    Mulayoff, Michaeli, "Unique properties of flat minima in deep networks", 2020, for white data.
    Kamber, Parhi, "Sharpness of minima in deep matrix factorization: exact expressions", 2025.

    Chapter :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (4, 3), rng=0)
    >>> solution = bf.minimal_sharpness(np.outer(np.arange(4.0), np.ones(3)), A, depth=3)
    >>> solution.status.ok, bool(solution.certificate.gap < 1e-8)
    (True, True)
    """
    matrix = as_array(M, "M", shape=as_map(A).matrix_shape)
    L, gap_goal = as_depth(depth), as_number(tol, "tol", above=0.0)
    if not matrix.any():
        layers = [np.zeros(shape) for shape in [(1, matrix.shape[1]), *[(1, 1)] * (L - 2), (matrix.shape[0], 1)]]
        certificate = Certificate(0.0, 0.0, 0.0, proof="No Hessian has a negative largest eigenvalue.")
        return Solution(layers, 0.0, Status.OPTIMAL, "The matrix is zero: zero layers have no curvature.", certificate)
    log = Log(callback, False, limits)
    search = None
    with log:
        search = _SharpnessSearch(matrix, A, L, log)
        search.run(gap_goal)
    if search is None:
        return nothing([matrix.shape[1], *[1] * (L - 1), matrix.shape[0]], log, _NEWTON_ON_MAXIMUM)
    return log.insist(search.solution, gap_goal)


class _SharpnessSearch:
    """The descent on ever sharper smooth maxima from the flattest factorization, and the best that it has found."""

    def __init__(self, M: np.ndarray, A: MeasurementMap, depth: int, log: Log) -> None:
        self.M, self.A, self.depth, self.log, self.size = M, A, depth, log, magnitude(M)
        U, s, Vt = np.linalg.svd(M / self.size, full_matrices=True)
        rank = int(np.count_nonzero(s > max(M.shape) * EPS * s[0]))
        self.seen = _Seen(A.at_unit_scale(), U, Vt.T, rank)
        root = np.sqrt(s[:rank])
        self.hi, self.lo = U[:, :rank] * root, root[:, None] * Vt[:rank]
        left, right = self.hi.T @ self.seen.matrices, self.seen.matrices @ self.lo.T
        self.ensemble = Ensemble(left, right, left @ self.lo.T)
        G, inverse = _start(self.hi @ self.lo, self.seen, self.hi, self.lo, depth)
        self.point = self.best = at(self.ensemble, G, inverse, 1.0)
        self.lower, self.omega = 0.0, np.empty((0, 0))

    def sharpness(self, f: float) -> float:
        """The sharpness that belongs to the value `f` of the ensemble."""
        factor = np.sqrt(2 / self.A.m * f) * self.A.scale * self.size ** (1 - 1 / self.depth)
        return float(factor**2)

    def run(self, goal: float) -> None:
        """Descend until the relative gap is at most `goal`, or the maximum as sharp as serves it."""
        beta = 10 / self.point.largest if self.point.largest > 0 else np.inf
        while beta * self.best.largest < 1e3 / goal:
            start = at(self.ensemble, self.point.G, self.point.inverse, beta)
            self.point = descend(self.ensemble, start, beta, self._report)
            self.best = min(self.best, self.point, key=lambda point: point.largest)
            found, y = _lower(self.hi @ self.lo, self.point, self.seen, self.depth)
            if found > self.lower:
                self.lower, self.omega = found, y
            if self.lower >= self.best.largest * (1 - goal):
                break
            beta *= 10.0

    def _report(self, point: Smooth) -> None:
        self.best = min(self.best, point, key=lambda point: point.largest)
        value = self.sharpness(point.largest)
        self.log.write(f"sharpness {value:.6g}", {"value": value})

    def solution(self, goal: float) -> Solution:
        """The layers of the best point, with their certificate and the verdict."""
        best = self.best
        lower = min(self.lower, best.largest)
        gap = 1 - lower / best.largest if best.largest > 0 else 0.0
        share = self.size ** (1 / self.depth)
        layers = [best.G[0] @ self.lo, *(best.G[1:] @ best.inverse[:-1]), self.hi @ best.inverse[-1]]
        layers = [share * layer for layer in layers]
        certificate = Certificate(
            feasibility=frobenius(product(layers) - self.M) / frobenius(self.M),
            lower_bound=self.sharpness(lower),
            gap=gap,
            dual=self.seen.dual(self.omega),
            proof=_PROOF_OF_SHARPNESS,
        )
        ended = self.log.ended
        if ended is not None and (gap > goal or ended[0] is Status.INTERRUPTED):
            verdict = ended
        elif gap <= goal:
            verdict = Status.OPTIMAL, f"No factorization of the matrix is less sharp, within a relative {gap:.1e}."
        else:
            rest = "rounding, or an infimum not attained"
            verdict = Status.GAP_OPEN, f"The descent ended at a relative gap of {gap:.1e}: {rest}."
        value = self.sharpness(best.largest)
        return Solution(layers, value, *verdict, certificate, self.log.history, _NEWTON_ON_MAXIMUM)


class _Seen:
    """The measurements as the factorizations of a matrix see them: fewer, and without what no layer's derivative touches.

    A derivative sees of `A_i` only the rows of ``U.T @ A_i`` and the columns of ``A_i @ V``, and the largest eigenvalue is the
    same for any matrices with the same second moments: the triangular factor of these numbers.
    """

    def __init__(self, A: MeasurementMap, U: np.ndarray, V: np.ndarray, rank: int) -> None:
        d1, d2 = A.matrix_shape
        rows = np.empty((0, rank * d2 + (d1 - rank) * rank))
        for turned in stacks(A, U, V):
            above, below = turned[:, :rank], turned[:, rank:, :rank]
            flat = [above.reshape(len(turned), rank * d2), below.reshape(len(turned), (d1 - rank) * rank)]
            rows = np.concatenate([rows, np.concatenate(flat, axis=1)])
        self.Q, self.R = np.eye(len(rows)), rows
        if len(rows) > rows.shape[1]:
            self.Q, self.R = np.linalg.qr(rows)
        stack = np.zeros((len(self.R), d1, d2))
        stack[:, :rank] = self.R[:, : rank * d2].reshape(len(self.R), rank, d2)
        stack[:, rank:, :rank] = self.R[:, rank * d2 :].reshape(len(self.R), d1 - rank, rank)
        self.matrices = U @ stack @ V.T

    def dual(self, omega: np.ndarray) -> np.ndarray:
        """The columns of the dual variable in the order of the measurements."""
        return self.Q @ omega if omega.size else np.empty(0)


def _start(M: np.ndarray, seen: _Seen, hi: np.ndarray, lo: np.ndarray, L: int) -> tuple[np.ndarray, np.ndarray]:
    """The flattest factorization in the sense of the trace, as factors of the positive-definite matrices."""
    if not seen.matrices.any():
        identity = np.broadcast_to(np.eye(len(lo)), (L - 1, len(lo), len(lo))).copy()
        return identity, identity.copy()
    layers = induced_regularizer(M, Dense(seen.matrices), L, tol=1e-6).layers
    r, before, G = len(lo), np.eye(M.shape[1]), []
    for layer in layers[:-1]:
        before = layer @ before
        G.append(before[:r] @ np.linalg.pinv(lo))
    stack = np.array(G)
    return stack, np.linalg.inv(stack)


def _lower(M: np.ndarray, point: Smooth, seen: _Seen, L: int) -> tuple[float, np.ndarray]:
    """The least trace for the matrices weighted as at a point, a lower bound, and the weights' factor."""
    kept = point.weights > 1e-14
    weights = point.weights[kept] / point.weights[kept].sum()
    y = point.vectors[:, kept] * np.sqrt(weights)
    matrices = np.tensordot(y.T, seen.matrices, axes=1)
    found = induced_regularizer(M, Dense(matrices), L).certificate.lower_bound * len(matrices) / 2
    return found * (1 - 8 * EPS), y
