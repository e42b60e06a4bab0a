r"""A matrix of given rank from few exact entries, by iteratively reweighted least squares.

Each step minimises :math:`\langle X, \mathcal W(X)\rangle` over the matrices that fit, where the weight of the direction
``u_i v_j.T`` is the inverse of ``max(s_i, e) max(s_j, e)`` for the singular values `s` of the last step: a smoothed logarithm
of the determinant, which sees singular values of all sizes alike. The smoothing `e` falls with the singular value after the
last one wanted, but slowly as long as that is not clearly smaller: what is small early on may become large. With the tangent
space `T` at the part whose singular values exceed `e` and ``A A* = 1``, which distinct entries have, the step is
one well-conditioned equation on `T` for conjugate gradients, and the new point is that on `T` plus a sparse matrix (Kümmerle
and Mayrink Verdun, "A scalable second order method for ill-conditioned matrix completion from few samples", 2021). It finds
matrices of any conditioning from little more measurements than they have parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients
from balancedfact.solvers.nuclear._columns import whole
from balancedfact.solvers.nuclear._problem import Pair

_MOST_STEPS_REWEIGHTED, _STEPS_TO_HALVE = 400, 40  # at most, and how many of them may pass without halving the smoothing
_FITS_ALREADY = 1e-12  # a relative residual that is left to a descent on the factors
_STEP_PRODUCTS, _LOOSEST, _TIGHTEST = 500, 1e-3, 1e-13  # of conjugate gradients for a step: at most, and relative accuracy
# Singular values followed beyond twice the rank, the fall that tells the rank, and the fastest fall of the smoothing before:
# the second where the first leads nowhere. Of 50 matrices 1000 x 1000 of rank 5 from 1.5 entries a parameter the first finds
# 22, and the second 23 of the others.
_FOLLOWED_BEYOND, _CLEAR, _SLOWLY = 3, 1e-4, (0.85, 0.95)
_LED_SOMEWHERE = 1e-4  # a relative residual from which a descent on the factors arrives
_LEAST_SMOOTHING = 1e-16  # relative to the first singular value


def reweighted(A: MeasurementMap, b: np.ndarray, rank: int, rng: np.random.Generator, *, again: bool = True) -> Pair:
    """The pair of at most so many columns to which the iteration comes, for distinct entries of weight 1 or -1.

    Where it leads nowhere it is tried `again` with a slower fall of the smoothing.
    """
    ends = []
    for slowly in _SLOWLY[: 1 + again]:
        ends.append(_followed(A, b, rank, rng, slowly))
        if ends[-1][0] <= _LED_SOMEWHERE:
            break
    return min(ends, key=lambda end: end[0])[1]


def _followed(A: MeasurementMap, b: np.ndarray, rank: int, rng: np.random.Generator, slowly: float) -> tuple[float, Pair]:
    """The pair of least relative residual on the way, after that residual."""
    d1, d2 = A.matrix_shape
    none, size = (np.zeros((d1, 0)), np.zeros((d2, 0))), float(np.linalg.norm(b))
    point, probe = _SparsePlusFactors(A.adjoint_operator(b), *none), np.zeros((d2, 0))
    smoothing, mark, first, halved = np.inf, np.inf, 0.0, 0
    best: Pair = none
    least = np.inf
    mean = A.m / (d1 * d2)
    for step in range(_MOST_STEPS_REWEIGHTED):
        left, values, probe = _singular_triplets(point, min(2 * rank + _FOLLOWED_BEYOND, d1, d2), probe, rng)
        first = first or float(values[0])
        after = float(values[rank]) if rank < values.size else 0.0
        slowest = 0.0 if after <= _CLEAR * values[rank - 1] or smoothing == np.inf else slowly * smoothing
        smoothing = max(min(smoothing, after), slowest, _LEAST_SMOOTHING * first)
        if smoothing <= 0.5 * mark:
            mark, halved = smoothing, step
        count = max(int(np.count_nonzero(values > smoothing * (1 + 1e-9))), 1)
        U, V, s = left[:, :count], probe[:, :count], values[:count]
        root = np.sqrt(s[:rank])
        within = U[:, :rank] * root, V[:, :rank] * root
        misfit = float(np.linalg.norm(b - A.forward_factored(*within))) / size
        if misfit < least:
            least, best = misfit, within
        if misfit <= _FITS_ALREADY or step - halved >= _STEPS_TO_HALVE:
            break
        tangent = _TangentSpace(A, U, V)
        core = smoothing**2 / np.maximum(np.outer(s, s) - smoothing**2, np.finfo(float).tiny)
        side = smoothing / np.maximum(s - smoothing, np.finfo(float).tiny)
        weights = np.vstack([core, np.broadcast_to(side, (d1 + d2, count))])
        start = np.vstack([np.diag(s), np.zeros((d1 + d2, count))])
        target = tangent.back(b) - tangent.back(tangent.image(start)) - weights * start
        inverse = 1 / (weights + mean)
        reach = float(np.linalg.norm(tangent.back(b))) / (float(np.linalg.norm(target)) or 1.0)
        found = conjugate_gradients(
            lambda x, t=tangent, w=weights: t.back(t.image(x)) + w * x,  # type: ignore[misc]
            target,
            accuracy=min(1.0, reach * float(np.clip(1e-3 * misfit, _TIGHTEST, _LOOSEST))),
            max_products=_STEP_PRODUCTS,
            precondition=lambda x, w=inverse: w * x,  # type: ignore[misc]
        )
        L, R = tangent.pair(start + found.x)
        point = _SparsePlusFactors(A.adjoint_operator(b - A.forward_factored(L, R)), L, R)
    return least, best


def _singular_triplets(S: Any, count: int, first: np.ndarray, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """Approximate leading `count` singular triplets, the smallest as exact as the largest.

    Subspace iteration from random columns beside those of `first`, three times there and back (Halko, Martinsson and Tropp
    2011). The values are those of `S` on the subspaces found, and never too large.
    """
    if 4 * count >= min(S.shape):
        left, sigma, right = whole(S.shape, S.__matmul__, S.T.__matmul__)
        return left[:, :count], sigma[:count], right[:, :count]
    first = first[:, :count]
    Q = np.hstack([first, rng.standard_normal((S.shape[1], count + 8 - first.shape[1]))])
    for _ in range(3):
        P = np.linalg.qr(S @ Q)[0]
        Q, T = np.linalg.qr(S.T @ P)
    W, sigma, Xt = np.linalg.svd(T.T)
    return P @ W[:, :count], sigma[:count], Q @ Xt[:count].T


class _TangentSpace:
    """The tangent space at ``U ... V.T``: ``x`` stacks `M`, `C` and `B` of ``U M V.T + C V.T + U B.T``."""

    def __init__(self, A: MeasurementMap, U: np.ndarray, V: np.ndarray) -> None:
        self.A, self.U, self.V = A, U, V

    def pair(self, x: np.ndarray) -> Pair:
        k, d1 = self.U.shape[1], len(self.U)
        M, C, B = x[:k], x[k : k + d1], x[k + d1 :]
        return np.hstack([self.U @ M + C, self.U]), np.hstack([self.V, B])

    def image(self, x: np.ndarray) -> np.ndarray:
        return self.A.forward_factored(*self.pair(x))

    def back(self, y: np.ndarray) -> np.ndarray:
        S = self.A.adjoint_operator(y)
        right, left = S @ self.V, S.T @ self.U
        M = self.U.T @ right
        return np.vstack([M, right - self.U @ M, left - self.V @ M.T])


class _SparsePlusFactors:
    """A sparse matrix plus a product of factors, as an operator."""

    def __init__(self, S: Any, L: np.ndarray, R: np.ndarray) -> None:
        self.S, self.L, self.R, self.shape = S, L, R, S.shape

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.S @ x + self.L @ (self.R.T @ x))

    @property
    def T(self) -> _SparsePlusFactors:
        return _SparsePlusFactors(self.S.T, self.R, self.L)
