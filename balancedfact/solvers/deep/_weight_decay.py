r"""Weight decay on a deep linear network under measurements: a Schatten-2/L quasi-norm as penalty.

Over all layers,
:math:`\min\frac12\|\mathcal A(W_L\cdots W_1)-b\|^2+\frac\lambda2\sum_j\|W_j\|_F^2 = \min_E\frac12\|\mathcal A(E)-b\|^2
+\frac{\lambda L}2\|E\|_{S_{2/L}}^{2/L}`. Beyond two layers this is not convex: minima of several ranks coexist, zero always
among them. The search is iteratively reweighted least squares (`_reweighting`); its end and the truncations of it are polished
by Newton's method on layers of the width of their rank, and the best is returned. Where zero is proved to be best, nothing is
searched.

The lower bound is that of `certification.deep._decay`. Its dual vector is that of least squares with the nuclear norm times
:math:`\lambda t^{2/L-1}`, the slope of the penalty at the nuclear norm `t`; iterated from the solution's own `t`, this
majorises the concave penalty, and ends where the bound cannot be improved by moving `t`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancedfact._linalg import EPS, product, scaled_product
from balancedfact._objective import Objective
from balancedfact.certification.deep._decay import OrdinaryDecay, certify_decay, decay_bound
from balancedfact.certification.deep._layers import verdict_on_layers
from balancedfact.closed_forms import schatten_layers, schatten_value
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution, Status
from balancedfact.solvers.deep._reweighting import reweighted, solved
from balancedfact.solvers.deep._smooth_sharpness import bending, jacobian
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.nuclear._certified import certified_minimum

_REWEIGHTING_SHRINK = 0.8
_RANK_CUT = 1e-5  # singular values kept, relative to the first
_GONE = 1e-6  # size of a matrix, relative to the first one, that counts as zero
_DECAY_STEPS = 60
_GAUGE = 1e-10  # curvatures below this fraction of the largest are those of rotations
_FIRST_SLOPE = 0.01  # of the size of the penalty at which the least nuclear norm is zero
_DUAL_ROUNDS = 30
_SAME_SLOPE = 1e-9  # relative change of the slope at which its iteration has ended
_REWEIGHTED_DECAY = "reweighted least squares, Newton at every rank"


class Decayed(NamedTuple):
    """A stationary point at one rank, in ordinary units."""

    layers: list[np.ndarray]
    value: float

    @property
    def rank(self) -> int:
        return len(self.layers[0]) if np.any(self.layers[0]) else 0


def decayed_network(
    A: MeasurementMap, b: np.ndarray, depth: int, penalty: float, start: np.ndarray | None, tol: float, log: Log
) -> Solution:
    """The best network with weight decay that is found, from the matrix `start` or, without it, from ridge regression."""
    problem = log.insist(_DecayProblem, A, b, depth, penalty)
    unit, size = problem.ordinary.unit, problem.ordinary.size

    def report(E: np.ndarray, smoothing: float) -> None:
        value = scaled_product(problem.of_matrix(E), unit, unit)
        log.write(f"value {value:.6g}  smoothing {smoothing:.1e}", {"smoothing": smoothing, "value": value})

    best, others = log.insist(problem.nothing), []
    bound, dual = log.insist(problem.dual_vector, best, tol)
    if not bound >= (1 - tol) * best.value:
        with log:
            X = problem.ridge() if start is None or not start.any() else start / size
            others = problem.at_every_rank(problem.reweighted(X, report))
            best = min([best, *others], key=lambda each: each.value)
        _, dual = log.insist(problem.dual_vector, best, tol)
    said = Objective("norm", penalty, depth=depth)
    layers = [size ** (1 / depth) * W for W in best.layers]
    certificate = log.insist(certify_decay, A, b, said, layers, unit * dual, problem.ordinary)
    status, message = log.insist(verdict_on_layers, certificate, said, tol)
    if log.ended is not None and (status is not Status.OPTIMAL or log.ended[0] is Status.INTERRUPTED):
        status, message = log.ended
    ranks = ", ".join(f"{each.rank} ({each.value / best.value:.6g})" for each in others if each.value > best.value)
    if ranks:
        message += f" Stationary points of other ranks, with their values relative to it: {ranks}."
    return Solution(layers, certificate.value, status, message, certificate, log.history, _REWEIGHTED_DECAY, objective=said)


class _DecayProblem:
    """The problem in units in which map and data are of ordinary size."""

    def __init__(self, A: MeasurementMap, b: np.ndarray, depth: int, penalty: float) -> None:
        self.ordinary, self.depth = OrdinaryDecay(A, b, depth, penalty), depth
        ordinary = self.ordinary
        self.A, self.b, self.penalty = ordinary.map, ordinary.data, ordinary.penalty
        self.stack = self.A.rotated(*map(np.eye, self.A.matrix_shape))

    def of_matrix(self, E: np.ndarray) -> float:
        """The objective at the best layers of a matrix."""
        misfit = self.A.forward(E) - self.b
        return float(misfit @ misfit) / 2 + self.penalty / 2 * schatten_value(E, self.depth)

    def nothing(self) -> Decayed:
        """Zero layers: for three and more always a local minimum."""
        d1, d2 = self.A.matrix_shape
        layers = [np.zeros(shape) for shape in [(1, d2), *[(1, 1)] * (self.depth - 2), (d1, 1)]]
        return Decayed(layers, float(self.b @ self.b) / 2)

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
                return Decayed(layers, here)
            sigma = np.linalg.svd(moved, compute_uv=False)
            if sigma[rank - 1] <= _RANK_CUT * sigma[0] or sigma[0] <= _GONE * np.linalg.norm(E, 2):
                return None
            layers = schatten_layers(moved, widths)
        return None

    def dual_vector(self, best: Decayed, tol: float) -> tuple[float, np.ndarray]:
        """The largest bound found and its dual vector; the search ends where the gap to the best network is closed."""
        top = float(np.linalg.norm(self.A.adjoint_matrix(self.b), 2))
        dual, E = self.b, product(best.layers)
        t = float(np.linalg.norm(E, "nuc"))
        slope = self.penalty * t ** (2 / self.depth - 1) if t > 0 else _FIRST_SLOPE * top
        determined = self.ordinary.determined.best(E, enough=(1 - tol / 2) * best.value)
        bound = max(decay_bound(self.ordinary, dual), determined)
        for _ in range(_DUAL_ROUNDS):
            if bound >= (1 - tol / 2) * best.value or not slope < top:
                break
            found = _nuclear(self.A, self.b, slope)
            if found.status is Status.INTERRUPTED:
                raise KeyboardInterrupt  # which the inner search took for its own
            y = found.certificate.dual
            if y.shape != self.b.shape:
                break
            reached = decay_bound(self.ordinary, y)
            if reached > bound:
                bound, dual = reached, y
            t, last = float(np.linalg.norm(found.matrix, "nuc")), slope
            if t == 0:
                break
            slope = self.penalty * t ** (2 / self.depth - 1)
            if abs(slope - last) <= _SAME_SLOPE * last:
                break
        return bound, dual


def _nuclear(A: MeasurementMap, b: np.ndarray, penalty: float) -> Solution:
    """Least squares with the nuclear norm as penalty."""
    plain = {"max_rank": None, "rng": None, "initial": None, "callback": None, "progress": False}
    return certified_minimum(A, b, flat=False, penalty=penalty, tol=1e-10, **plain)  # type: ignore[arg-type]
