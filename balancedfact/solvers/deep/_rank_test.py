r"""The first-order test across ranks: would a matrix of higher rank be flatter?

Let `E` have flattest layers, with :math:`X_j = \sum_i A_iB_{j-1}^\top B_{j-1}A_i^\top` and
:math:`Y_j = \sum_i A_i^\top C_{j+1}C_{j+1}^\top A_i` on either side of the hidden place `j`. For small `N` whose columns and
rows are orthogonal to those of `E`,

.. math:: F(E + N) = F(E) + \tfrac4m\sum_{j=1}^{L-1}\Big(\langle G_j, N\rangle + \|Q_j^{1/2}NR_j^{1/2}\|_*\Big) + o(\|N\|),

where :math:`G_j` is the gradient of :math:`\|X_j^{1/2}EY_j^{1/2}\|_*` and `Q_j`, `R_j` are the Schur complements of the part of
`X_j` and `Y_j` that `E` occupies. No rank increase helps to first order exactly when the multipliers leave a `Z` that splits
into :math:`\sum_jQ_j^{1/2}T_jR_j^{1/2}` with all :math:`\|T_j\|\le1`. The split is found by alternating projections with a
dual update (the alternating direction method of multipliers); a split is a proof, its absence is not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balancedfact._linalg import frobenius
from balancedfact.curvature._zero_loss import ZeroLossPoint
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients

_RANK_TEST_ROUNDS = 300


class RankTest(NamedTuple):
    """`excess` is at most 1 where no rank increase helps to first order; else ``left @ right.T`` is a direction to try."""

    excess: float
    left: np.ndarray
    right: np.ndarray


def rank_test(point: ZeroLossPoint, y: np.ndarray) -> RankTest:
    """Test a point whose layers are the flattest of their product, with multipliers `y`."""
    problem, k = point.problem, point.width
    d1, d2 = point.matrix.shape
    if k >= min(d1, d2):
        return RankTest(0.0, np.empty((d1, 0)), np.empty((d2, 0)))
    U, _, Vt = np.linalg.svd(point.matrix)
    U, V = U[:, k:], Vt[k:].T
    pull = problem.map._adjoint(y) / (2 * problem.moment.weight)  # weight = 2 / m
    rest, roots = pull.copy(), []
    for X, Y, C, B in zip(point.state.X, point.state.Y, point.after[1:-1], point.before[1:-1], strict=True):
        XC, YB = X.array @ C, Y.array @ B.T
        size_left, size_right = C.T @ XC, B @ YB
        # A moment that sees less than all of E leaves nothing to complete there; the pseudo-inverse says so.
        to_left, to_right = np.linalg.pinv(size_left, hermitian=True), np.linalg.pinv(size_right, hermitian=True)
        rest -= XC @ to_left @ YB.T
        Q = U.T @ (X.array @ U) - (U.T @ XC) @ to_left @ (U.T @ XC).T
        R = V.T @ (Y.array @ V) - (V.T @ YB) @ to_right @ (V.T @ YB).T
        roots.append((_root(Q, X.array.trace()), _root(R, Y.array.trace())))
    Z = U.T @ rest @ V
    if frobenius(Z) <= 1e-12 * frobenius(pull):
        return RankTest(0.0, np.empty((d1, 0)), np.empty((d2, 0)))
    excess = _split(Z, roots)
    P = np.linalg.pinv(sum(Q for Q, _ in roots) / len(roots))
    S = np.linalg.pinv(sum(R for _, R in roots) / len(roots))
    left, _, right = np.linalg.svd(P @ Z @ S)
    return RankTest(excess, U @ (P @ left[:, :1]), V @ (S @ right[:1].T))


def _split(Z: np.ndarray, roots: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The least ``max_j |T_j|`` found over ``sum_j Q_j^1/2 T_j R_j^1/2 = Z``; stops at 1."""
    lefts, rights = np.stack([Q for Q, _ in roots]), np.stack([R for _, R in roots])
    squares = lefts @ lefts, rights @ rights

    def assemble(T: np.ndarray) -> np.ndarray:
        return (lefts @ T @ rights).sum(axis=0)

    def onto(T: np.ndarray) -> np.ndarray:
        """The nearest split of `Z`."""
        return T + lefts @ _solve_sum(*squares, Z - assemble(T)) @ rights

    T = clipped = dual = np.zeros((len(roots), *Z.shape))
    best = np.inf
    for _ in range(_RANK_TEST_ROUNDS):
        T = onto(clipped - dual)
        lost = np.linalg.norm(assemble(T) - Z)
        if lost > 1e-9 * np.linalg.norm(Z):  # part of Z costs nothing at any place
            return np.inf
        W, s, Vt = np.linalg.svd(T + dual)
        best = min(best, float(np.linalg.norm(T, 2, axis=(1, 2)).max()))
        if best <= 1:
            break
        clipped = W[:, :, : s.shape[1]] * np.minimum(s, 1.0)[:, None, :] @ Vt[:, : s.shape[1]]
        dual = dual + T - clipped
    return best


def _solve_sum(lefts: np.ndarray, rights: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """The `Y` with ``sum_j lefts_j Y rights_j = Z``, by conjugate gradients."""
    return conjugate_gradients(lambda Y: (lefts @ Y @ rights).sum(axis=0), Z, accuracy=1e-13, max_products=200).x


def _root(P: np.ndarray, whole: float) -> np.ndarray:
    """The square root of a Schur complement of a moment of trace `whole`, zero where only the rounding of that is left."""
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    noise = values.size * np.finfo(float).eps * whole
    return (vectors * np.sqrt(np.where(values > noise, values, 0.0))) @ vectors.T
