r"""Rigorous bounds on a quadratic form over matrices of rank at most `r`, by a relaxation whose every iterate proves something.

Write a matrix of rank at most `r` as :math:`X = UV^\top` with :math:`U^\top U = I_r`, so that :math:`\|X\| = \|V\|`, and let
`u`, `v` be `U`, `V` as vectors of :math:`R^r\otimes R^{d_1}` and :math:`R^r\otimes R^{d_2}`. Then

.. math:: \langle X, TX\rangle = \langle u\otimes v,\ (\varphi\varphi^\top\otimes T)\,(u\otimes v)\rangle,\qquad
          \varphi = \textstyle\sum_k e_k\otimes e_k .

Two kinds of operators vanish on all such :math:`u\otimes v` and may be added at will: those that change sign under partial
transposition of the second factor, because `v` is real; and :math:`(F + \varphi\varphi^\top - \tfrac2r I)\otimes(I\otimes S)`,
`F` the swap, because `U` has orthonormal columns. If the sum has largest eigenvalue :math:`\mu/r`, then
:math:`\langle X, TX\rangle\le\mu\|X\|^2`, because :math:`\|u\|^2\|v\|^2 = r\|X\|^2`. All may be taken invariant under
rotations of :math:`R^r`, which splits them into three blocks of order ``d1 * d2`` (one for ``r = 1``): on :math:`\varphi`, on
the traceless symmetric and on the antisymmetric tensors. The best sum is a semidefinite programme, solved by the boundary
point method of Povh, Rendl and Wiegele (2006); the bound is evaluated for a sum that is exactly of the form above.
"""

from __future__ import annotations

import numpy as np

from balancedfact._linalg import EPS

_STEP, _BOUND_EVERY, _CONVERGED = 1.6, 5, 1e-9  # over-relaxation; steps between bounds; relative residual


def rounding(*parts: np.ndarray) -> float:
    """Bound on what rounding changes in an eigenvalue, computed densely, of a sum of symmetric `parts`."""
    return 4 * EPS * len(parts[0]) * float(sum(np.linalg.norm(part) for part in parts))


def partial_transpose(M: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`M`, acting on row-major ``d1 x d2`` matrices, with its two indices of columns exchanged."""
    d1, d2 = shape
    return M.reshape(d1, d2, d1, d2).transpose(0, 3, 2, 1).reshape(d1 * d2, d1 * d2)


class Relaxation:
    """The semidefinite programme that bounds ``<X, T X> / |X|^2`` from above over ``rank(X) <= rank``.

    Parameters
    ----------
    T : numpy.ndarray, shape (N, N)
        Symmetric, ``N = d1 * d2``, acting on row-major ``d1 x d2`` matrices.
    shape : tuple of int
        ``(d1, d2)``.
    rank : int
        At most ``d1``, so that `U` exists.
    error : float
        A bound on the spectral norm of the error of `T`.
    """

    def __init__(self, T: np.ndarray, shape: tuple[int, int], rank: int, error: float = 0.0) -> None:
        self.T, self.shape, self.rank, self.error = T, shape, rank, error
        r = rank
        self.counts = [1.0] if r == 1 else [1.0, r * (r + 1) / 2 - 1, r * (r - 1) / 2]  # dimensions of the three spaces
        self.slopes = [1 + r - 2 / r, 1 - 2 / r, -1 - 2 / r][: len(self.counts)]  # of F + phi phi' - 2 I / r on them

    def bound(self, iterations: int, *, enough: float = -np.inf) -> tuple[float, np.ndarray]:
        """The best bound proven in `iterations` steps, and eigenvectors of the primal iterate, the leading ones first.

        It stops when the bound is `enough`, or when the method has converged.
        """
        N, total = len(self.T), sum(self.counts)
        primal = [np.eye(N) / (N * total) for _ in self.counts]
        slack = [np.zeros_like(self.T) for _ in self.counts]
        size = self.rank * float(np.linalg.norm(self.T)) or 1.0
        penalty = 0.3 / size
        best = self._value(self._multipliers(self._with_objective(slack)))
        for k in range(1, iterations + 1):
            target = [block + P / penalty for block, P in zip(self._with_objective(slack), primal, strict=True)]
            multipliers = self._multipliers(target)
            level = (sum(n * np.trace(block) for n, block in zip(self.counts, target, strict=True)) - 1 / penalty) / (N * total)
            infeasible = moved = 0.0
            for i, block in enumerate(self._dual_slack(multipliers)):
                block[np.diag_indices(N)] += level
                W = block - primal[i] / penalty
                values, vectors = np.linalg.eigh(W)
                vectors = vectors[:, values > 0]
                positive = (vectors * values[values > 0]) @ vectors.T
                infeasible += self.counts[i] * float(np.linalg.norm(block - slack[i])) ** 2
                moved += self.counts[i] * float(np.linalg.norm(positive - slack[i])) ** 2
                slack[i] = positive
                primal[i] += _STEP * (penalty * (positive - W) - primal[i])
            if k % _BOUND_EVERY == 0 or k == iterations:
                best = min(best, self._value(multipliers))
                if best <= enough or max(infeasible, moved) <= (_CONVERGED * size) ** 2:
                    break
                # A large penalty closes the dual residual quickly, a small one the primal. Ever smaller changes let it settle.
                most = min(2.0, 1 + 20 / k)
                penalty *= float(np.clip(np.sqrt(infeasible / max(moved, np.finfo(float).tiny)), 1 / most, most))
        return best, np.linalg.eigh(primal[0])[1][:, ::-1]

    def _with_objective(self, blocks: list[np.ndarray]) -> list[np.ndarray]:
        return [blocks[0] + self.rank * self.T, *blocks[1:]]

    def _multipliers(self, blocks: list[np.ndarray]) -> list[np.ndarray]:
        """The orthogonal projection of `blocks` on the operators that vanish on product vectors: ``[Z]`` or ``[Z, Y, S]``."""
        if self.rank == 1:
            return [self._odd(blocks[0])]
        trivial, symmetric, antisymmetric = blocks
        of_phi, of_swap = (trivial - symmetric) / self.rank, (symmetric - antisymmetric) / 2
        (d1, d2), weights = self.shape, [n * slope for n, slope in zip(self.counts, self.slopes, strict=True)]
        mixed = sum(weight * block for weight, block in zip(weights, blocks, strict=True))
        S = np.einsum("abac->bc", np.reshape(mixed, (d1, d2, d1, d2)))
        S = S / (d1 * sum(weight * slope for weight, slope in zip(weights, self.slopes, strict=True)))
        Y = (of_swap - partial_transpose(of_phi, self.shape)) / 2
        return [self._odd((symmetric + antisymmetric) / 2), (Y + Y.T) / 2, (S + S.T) / 2]

    def _odd(self, M: np.ndarray) -> np.ndarray:
        """The part of `M` that changes sign under partial transposition, exactly so in floating point."""
        M = (M + M.T) / 2
        return (M - partial_transpose(M, self.shape)) / 2

    def _vanishing(self, multipliers: list[np.ndarray]) -> list[list[np.ndarray]]:
        """The terms of the operator with these multipliers, block by block."""
        if self.rank == 1:
            return [multipliers]
        Z, Y, S = multipliers
        lifted = np.kron(np.eye(self.shape[0]), S)
        parts = [[Z, Y, -self.rank * partial_transpose(Y, self.shape)], [Z, Y], [Z, -Y]]
        return [[*terms, slope * lifted] for terms, slope in zip(parts, self.slopes, strict=True)]

    def _dual_slack(self, multipliers: list[np.ndarray]) -> list[np.ndarray]:
        blocks = [np.sum(terms, axis=0) for terms in self._vanishing(multipliers)]
        return [blocks[0] - self.rank * self.T, *blocks[1:]]

    def _value(self, multipliers: list[np.ndarray]) -> float:
        """The bound that these multipliers prove."""
        slacks, terms = self._dual_slack(multipliers), self._vanishing(multipliers)
        terms[0] = [*terms[0], self.rank * self.T]
        errors = [rounding(*parts) for parts in terms]
        errors[0] += self.rank * self.error
        return self.rank * max(error - float(np.linalg.eigvalsh(slack)[0]) for slack, error in zip(slacks, errors, strict=True))
