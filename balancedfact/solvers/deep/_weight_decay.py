r"""Weight decay on a deep linear network under measurements: a Schatten-2/L quasi-norm as penalty.

Over all layers,
:math:`\min\frac12\|\mathcal A(W_L\cdots W_1)-b\|^2+\frac\lambda2\sum_j\|W_j\|_F^2 = \min_E\frac12\|\mathcal A(E)-b\|^2
+\frac{\lambda L}2\|E\|_{S_{2/L}}^{2/L}`. Beyond two layers this is not convex: minima of several ranks coexist, zero always
among them. The search is iteratively reweighted least squares (`_reweighting`); its end and the truncations of it are polished
by Newton's method on layers of the width of their rank, and the best is returned. Where zero is proved to be best, nothing is
searched.

**Lower bound.** The quasi-norm is at least :math:`t^{2/L}`, `t` the nuclear norm of `E`, and for every `y` the squares are at
least :math:`c_y - s_yt` with :math:`c_y = b^\top y-\frac12\|y\|^2` and :math:`s_y = \|\mathcal A^*(y)\|`. So the least value
is at least the minimum over `t` of the largest of these lines, or zero, plus :math:`\frac{\lambda L}2t^{2/L}`: concave between
the corners of the lines, so that one of them, or zero, is the minimum. Lines are lowered by a bound on their rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact._linalg import EPS, frobenius, magnitude, product, scaled_product
from balancedfact.certification._pair import power_below
from balancedfact.certification._proved_norm import proved_norm
from balancedfact.closed_forms import schatten_layers, schatten_value
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import careful_total
from balancedfact.measurements._ordinary_size import of_ordinary_size
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.deep._reweighting import reweighted, solved
from balancedfact.solvers.deep._smooth_sharpness import bending, jacobian
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._certified import certified_minimum

_REWEIGHTING_SHRINK = 0.8
_RANK_CUT = 1e-5  # singular values kept, relative to the first
_GONE = 1e-6  # size of a matrix, relative to the first one, that counts as zero
_DECAY_STEPS = 60
_HEAVIEST = 1e150  # penalty beyond which the same is proved
_GAUGE = 1e-10  # curvatures below this fraction of the largest are those of rotations
_TANGENTS = (0.01, 0.1, 0.3, 0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.6, 3.0)  # penalties, relative to the slope at the minimum
_DECAY_GAP, _DECAY_SLOPE, _DECAY_CURVATURE = 1e-8, 1e-6, 1e-9
_REWEIGHTED_DECAY = "reweighted least squares, Newton at every rank"
_PROOF_OF_DECAY = (
    "Lower bound: lines below the least squares for every nuclear norm, from dual vectors, and the quasi-norm is at least the "
    "nuclear norm to the power 2/L. The local minimum is established numerically to second order."
)


class Decayed(NamedTuple):
    """A stationary point at one rank, in ordinary units."""

    layers: list[np.ndarray]
    value: float
    stationarity: float
    curvature: float

    @property
    def rank(self) -> int:
        return len(self.layers[0]) if np.any(self.layers[0]) else 0


def decayed_network(
    A: MeasurementMap, b: np.ndarray, depth: int, penalty: float, start: np.ndarray | None, log: Log
) -> Solution:
    """The best network with weight decay that is found, from the matrix `start` or, without it, from ridge regression."""
    near, power = of_ordinary_size(A)
    unit = power_below(magnitude(b)) if b.any() else 1.0  # of the data; that of matrices is `size`
    size = scaled_product(unit, 1 / power)
    weight = scaled_product(penalty, size ** (2 / depth), 1 / unit, 1 / unit)
    problem = _DecayProblem(near, b / unit, depth, min(weight, _HEAVIEST))

    def in_full(value: float) -> float:
        return scaled_product(value, unit, unit)

    def report(E: np.ndarray, smoothing: float) -> None:
        value = in_full(problem.of_matrix(E))
        log.write(f"value {value:.6g}  smoothing {smoothing:.1e}", {"smoothing": smoothing, "value": value})

    best, others = problem.nothing(), []
    lower = log.insist(problem.lower_bound, best)
    if not lower >= (1 - _DECAY_GAP) * best.value:
        with log:
            X = problem.ridge() if start is None or not start.any() else start / size
            others = problem.at_every_rank(problem.reweighted(X, report))
            best = min([best, *others], key=lambda each: each.value)
        lower = log.insist(problem.lower_bound, best)
    lower = min(lower, best.value)
    value, gap = in_full(best.value), 1 - lower / best.value if best.value > 0 else 0.0
    if best.value > 0 and not np.finfo(float).tiny <= value < np.inf:
        gap = np.nan  # the value itself overflows, or vanishes
    layers = [size ** (1 / depth) * W for W in best.layers]
    residual = frobenius(A(product(layers)) - b) / (frobenius(b) or 1.0)
    certificate = Certificate(
        residual,
        in_full(lower),
        gap,
        stationarity=best.stationarity,
        balance=0.0,
        curvature=best.curvature,
        proof=_PROOF_OF_DECAY,
    )
    verdict = _verdict(best, others, gap, log)
    return Solution(layers, value, *verdict, certificate, log.history, _REWEIGHTED_DECAY)


def _verdict(best: Decayed, others: list[Decayed], gap: float, log: Log) -> tuple[Status, str]:
    if log.ended is not None and (not gap <= _DECAY_GAP or log.ended[0] is Status.INTERRUPTED):
        return log.ended
    if np.isnan(gap):
        return Status.GAP_OPEN, "The value is beyond what floating-point numbers tell apart."
    ranks = ", ".join(f"{each.rank} ({each.value / best.value:.6g})" for each in others if each.value > best.value)
    seen = f" Stationary points of other ranks, with their values relative to it: {ranks}." if ranks else ""
    if gap <= _DECAY_GAP:
        return Status.OPTIMAL, f"No network is better, within a relative {gap:.1e}.{seen}"
    proved = f"the lower bound is {100 * (1 - gap):.1f} % of the value"
    if best.stationarity <= _DECAY_SLOPE and best.curvature >= -_DECAY_CURVATURE:
        return Status.STATIONARY, f"A local minimum of rank {best.rank}; {proved}.{seen}"
    return Status.GAP_OPEN, f"No local minimum to second order: stationarity {best.stationarity:.1e}; {proved}."


class _DecayProblem:
    """The problem in units in which map and data are of ordinary size."""

    def __init__(self, A: MeasurementMap, b: np.ndarray, depth: int, penalty: float) -> None:
        self.A, self.b, self.depth, self.penalty = A, b, depth, penalty
        self.stack = A.rotated(*map(np.eye, A.matrix_shape))

    def of_matrix(self, E: np.ndarray) -> float:
        """The objective at the best layers of a matrix."""
        misfit = self.A.forward(E) - self.b
        return float(misfit @ misfit) / 2 + self.penalty / 2 * schatten_value(E, self.depth)

    def nothing(self) -> Decayed:
        """Zero layers: for three and more always a local minimum."""
        d1, d2 = self.A.matrix_shape
        layers = [np.zeros(shape) for shape in [(1, d2), *[(1, 1)] * (self.depth - 2), (d1, 1)]]
        return Decayed(layers, float(self.b @ self.b) / 2, 0.0, 0.0)

    def ridge(self) -> np.ndarray:
        """Least squares with a penalty on the squares of the matrix."""
        gram = self.A.gram + self.penalty * np.eye(self.A.m)
        return self.A.adjoint(solved(gram, self.b))

    def reweighted(self, X: np.ndarray, report: Callable[[np.ndarray, float], None]) -> np.ndarray:
        """The end of reweighted least squares; zero where that vanishes."""
        found = reweighted(self.A, self.b, X, self.depth, report, shrink=_REWEIGHTING_SHRINK, penalty=self.penalty)
        return found if np.linalg.norm(found, 2) > _GONE * np.linalg.norm(X, 2) else np.zeros_like(X)

    def at_every_rank(self, E: np.ndarray) -> list[Decayed]:
        """Stationary points from the truncations of a matrix to every rank that it has; what collapses is left out."""
        found: list[Decayed] = []
        U, sigma, Vt = np.linalg.svd(E, full_matrices=False)
        for rank in range(int(np.count_nonzero(sigma > _RANK_CUT * sigma[0])) if E.any() else 0, 0, -1):
            ended = self.polished((U[:, :rank] * sigma[:rank]) @ Vt[:rank], rank)
            if ended is not None and ended.rank not in [each.rank for each in found]:
                found.append(ended)
        return found

    def polished(self, E: np.ndarray, rank: int) -> Decayed | None:
        """Newton's method from the balanced layers of a matrix; ``None`` where a singular value collapses."""
        d1, d2 = E.shape
        widths = [d2, *[rank] * (self.depth - 1), d1]
        ends = np.cumsum([rows * columns for rows, columns in zip(widths[1:], widths[:-1], strict=True)])[:-1]
        layers = schatten_layers(E, widths)
        for step in range(_DECAY_STEPS + 1):
            x = np.concatenate([W.ravel() for W in layers])
            misfit = np.tensordot(self.stack, product(layers), 2) - self.b
            J = jacobian(self.stack, layers)
            pull = J.T @ misfit
            gradient = pull + self.penalty * x
            S = np.tensordot(misfit, self.stack, 1)
            values, vectors = np.linalg.eigh(J.T @ J + bending(S, layers) + self.penalty * np.eye(x.size))
            stiff = np.abs(values) > _GAUGE * np.abs(values).max()
            slopes = vectors[:, stiff].T @ gradient
            v = -vectors[:, stiff] @ (slopes / np.abs(values[stiff]))
            here = float(misfit @ misfit) / 2 + self.penalty / 2 * float(x @ x)
            size = float(np.linalg.norm(pull) + self.penalty * np.linalg.norm(x))
            stationarity = float(np.linalg.norm(gradient)) / size
            taken, moved = min(1.0, 0.5 * float(np.linalg.norm(x)) / (float(np.linalg.norm(v)) or 1.0)), None
            while step < _DECAY_STEPS and moved is None and taken > 1e-6 and stationarity > 64 * EPS:
                trial = [part.reshape(W.shape) for part, W in zip(np.split(x + taken * v, ends), layers, strict=True)]
                matrix = product(trial)
                if self.of_matrix(matrix) < here - 1e-4 * taken * float(slopes @ (slopes / np.abs(values[stiff]))):
                    moved = matrix
                taken /= 3
            if moved is None:
                return Decayed(layers, here, stationarity, float(values[0]) / float(np.abs(values).max()))
            sigma = np.linalg.svd(moved, compute_uv=False)
            if sigma[rank - 1] <= _RANK_CUT * sigma[0] or sigma[0] <= _GONE * np.linalg.norm(E, 2):
                return None
            layers = schatten_layers(moved, widths)
        return None

    def line(self, y: np.ndarray) -> tuple[float, float]:
        """The line below the least squares of a dual vector: height and steepness, with a bound on their rounding."""
        height, error = careful_total(np.concatenate([self.b * y, -y * y / 2]))
        S, errors = self.A.careful_adjoint(y)
        return height - error, proved_norm(S) + 1.01 * float(np.linalg.norm(errors))

    def lower_bound(self, best: Decayed) -> float:
        """The bound of the lines from several dual vectors."""
        E = product(best.layers)
        t = float(np.linalg.norm(E, "nuc"))
        top = float(np.linalg.norm(self.A.adjoint_matrix(self.b), 2))
        slope = self.penalty * t ** (2 / self.depth - 1) if t > 0 else top
        duals = [self.b]
        for share in _TANGENTS:
            if share * slope < top:
                found = _nuclear(self.A, self.b, share * slope)
                if found.certificate.dual is not None and found.certificate.dual.shape == self.b.shape:
                    duals.append(found.certificate.dual)
        c, s = np.array([(0.0, 0.0), *map(self.line, duals)]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            corners = np.subtract.outer(c, c) / np.subtract.outer(s, s)
        corners = np.append(corners[np.isfinite(corners) & (corners > 0)], 0.0)
        lowest = np.max(c[:, None] - np.multiply.outer(s, corners), axis=0)
        return float(np.min(lowest + self.penalty * self.depth / 2 * corners ** (2 / self.depth)))


def _nuclear(A: MeasurementMap, b: np.ndarray, penalty: float) -> Solution:
    """Least squares with the nuclear norm as penalty."""
    plain = {"max_rank": None, "rng": None, "initial": None, "callback": None, "progress": False}
    return certified_minimum(A, b, flat=False, penalty=penalty, tol=1e-7, **plain)  # type: ignore[arg-type]
