r"""The lifted semidefinite bound for three layers.

In whitened coordinates :math:`Q_j = C_jC_j^\top`, :math:`P_j = B_j^\top B_j`, the matrices
:math:`X_j = \begin{pmatrix}Q_j&E\\E^\top&P_j\end{pmatrix}` are positive semidefinite, and half the trace is
:math:`d_2\operatorname{tr}Q_1 + \langle T,Q_2\otimes P_1\rangle + d_1\operatorname{tr}P_2`. Scaling the layers makes the
first and the last term 1 and the middle one `t`, and half the trace is at least :math:`3t^{1/3}`. The lift replaces
:math:`X_1\otimes X_2` by an unknown positive semidefinite matrix in the span of such products: `X_1` is a combination of
``E_0 + I/(d1 d2)`` (the identity in the place of `Q_1`), of traceless `Q`, of `P`, and of a basis of the matrices that no
measurement sees; `X_2` likewise. The coefficients form a matrix `c` with `c_00 = 1` whose block of the unseen directions, and
of the first, is symmetric and positive semidefinite: the moment matrix of `E`. The least `t` over all `c` is a semidefinite
programme, solved by the alternating direction method of multipliers.

**Rounding.** From any positive semidefinite `S` and `Y` let `r` be what is missing for dual feasibility. The basis is
orthonormal, so that `S` and `r` together are feasible exactly, with a least eigenvalue that may be negative by some
:math:`\epsilon`, and :math:`t\ge\lambda - \epsilon\operatorname{tr}X_1\operatorname{tr}X_2`. If
:math:`\|E\|_*\ge\nu` for all that fit and :math:`T\ge\ell` on unit matrices of rank one, the traces of networks that are no
worse than the best known are at most :math:`1/d_2 + t/(\ell\nu^2d_1)` and :math:`1/d_1 + t/(\ell\nu^2d_2)`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from balancedfact._linalg import EPS
from balancedfact.certification.deep._white import well_whitened
from balancedfact.measurements import MeasurementMap, isometry_constant
from balancedfact.measurements._isometry_bounds import rounding

_STEPS_A_BOUND = 50  # steps between bounds
LIFT_WORK, _MOST_STEPS_LIFTED, _FEWEST_STEPS_LIFTED = 4e11, 20000, 500  # steps times order^3; most and fewest steps
_ISOMETRY_STEPS = 100
_ENOUGH = 1 - 6e-4  # of the best known `t`, whose third root counts


def lifted_bound(
    A: MeasurementMap,
    b: np.ndarray,
    y: np.ndarray,
    value: float,
    rng: np.random.Generator,
    *,
    work: float = LIFT_WORK,
    stop: Callable[[], bool] = lambda: False,
) -> float:
    """The bound on the trace of three layers, for a map of ordinary scale that sees every direction; 0 if nothing is proved.

    Parameters
    ----------
    A : MeasurementMap
    b : numpy.ndarray, shape (m,)
    y : numpy.ndarray, shape (m,)
        The dual vector of two layers, for the least nuclear norm.
    value : float
        The trace of a network that fits.
    rng : numpy.random.Generator
        Of the search beside the relaxation of the isometry constant; it does not affect the bounds.
    work : float
        Steps times the cube of the order.
    stop : callable
        Ends the search early; what was found until then is still proved.
    """
    d1, d2 = A.matrix_shape
    steps = min(work / (d1 + d2) ** 6, _MOST_STEPS_LIFTED)
    along = float(b @ y)
    if steps < _FEWEST_STEPS_LIFTED or A.of_entries or along <= 0 or value <= 0:
        return 0.0
    whitened = well_whitened(A)
    if whitened is None:
        return 0.0
    white, stretch = whitened
    least = isometry_constant(white.map, 1, starts=1, iterations=_ISOMETRY_STEPS, rng=rng).smallest[0]
    if least <= 0:
        return 0.0
    known = (value / 6) ** 3
    unit = (1 / (d1 * d2 * known)) ** (1 / 4)  # t is of the fourth degree in the data
    known = (1 + 1e-9) / (d1 * d2)
    stack = white.map.rotated(np.eye(d1), np.eye(d2))
    nuclear = unit * along / float(np.linalg.norm(np.tensordot(y, stack, 1), 2)) * (1 - 1e-9)
    spread = known / (least * nuclear**2)
    traces = (1 / d2 + spread / d1) * (1 / d1 + spread / d2)
    t = Lift(stack, unit * b).least(int(steps), traces, _ENOUGH * known, stop)
    margin = 1 - 64 * EPS * (d1 + d2) ** 2 * stretch**2
    return 6 * (min(max(t, 0.0), known) * margin * unit**-4) ** (1 / 3)


class Lift:
    """The semidefinite programme.

    Parameters
    ----------
    stack : numpy.ndarray, shape (m, d1, d2)
        Whitened measurements.
    b : numpy.ndarray, shape (m,)
        Data for which the least `t` is of the order of ``1 / (d1 * d2)``.
    """

    def __init__(self, stack: np.ndarray, b: np.ndarray) -> None:
        m, d1, d2 = stack.shape
        self.shape, self.n = (d1, d2), d1 + d2
        rows = stack.reshape(m, -1)
        self.T = rows.T @ rows / m
        U, s, Vt = np.linalg.svd(rows)
        rank = int(np.count_nonzero(s > s[0] * 1e-10))
        fitting = Vt[:rank].T @ ((U[:, :rank].T @ b) / s[:rank])
        unseen = Vt[rank:]
        self.k = len(unseen) + 1
        couplings = [self._coupling(E.reshape(d1, d2)) for E in (fitting, *unseen)]
        ident = np.zeros((self.n, self.n)), np.zeros((self.n, self.n))
        ident[0][:d1, :d1], ident[1][d1:, d1:] = np.eye(d1) / (d1 * d2), np.eye(d2) / (d1 * d2)
        lefts, rights = self._symmetric(0, d1), self._symmetric(d1, self.n)
        bases = [
            [couplings[0] + ident[0], *couplings[1:], *self._traceless(lefts), *rights],
            [couplings[0] + ident[1], *couplings[1:], *lefts, *self._traceless(rights)],
        ]
        self.norms = [np.array([np.linalg.norm(each) for each in basis]) for basis in bases]
        self.bases = [
            np.array([each.ravel() / norm for each, norm in zip(basis, norms, strict=True)])
            for basis, norms in zip(bases, self.norms, strict=True)
        ]
        four = np.zeros((self.n,) * 4)  # (b, b', a, a'): P_1 from the first factor, Q_2 from the second
        four[d1:, d1:, :d1, :d1] = self.T.reshape(d1, d2, d1, d2).transpose(1, 3, 0, 2)
        self.objective = self.bases[0] @ four.reshape(self.n**2, -1) @ self.bases[1].T
        self.e = slice(0, self.k)
        # Moments, from normalised coefficients; entries of the block in units in which it is symmetric.
        self.moment_scale = np.outer(self.norms[0][self.e], self.norms[1][self.e])

    def _coupling(self, E: np.ndarray) -> np.ndarray:
        X = np.zeros((self.n, self.n))
        X[: self.shape[0], self.shape[0] :], X[self.shape[0] :, : self.shape[0]] = E, E.T
        return X

    def _symmetric(self, start: int, stop: int) -> list[np.ndarray]:
        """An orthonormal basis of the symmetric matrices on some of the indices, the diagonal ones first."""
        basis = []
        for gap in range(stop - start):
            for i in range(start, stop - gap):
                X = np.zeros((self.n, self.n))
                X[i, i + gap] = X[i + gap, i] = 1 / np.sqrt(1 + (gap > 0))
                basis.append(X)
        return basis

    def _traceless(self, basis: list[np.ndarray]) -> list[np.ndarray]:
        d = int(sum(bool(np.trace(X)) for X in basis))
        rotation = scipy.linalg.null_space(np.ones((1, d)))
        return [*np.tensordot(rotation.T, np.array(basis[:d]), 1), *basis[d:]]

    def lifted(self, c: np.ndarray) -> np.ndarray:
        """The matrix of order ``n**2`` with coefficients `c`."""
        n = self.n
        F = (self.bases[0].T @ c @ self.bases[1]).reshape(n, n, n, n)
        return F.transpose(0, 2, 1, 3).reshape(n * n, n * n)

    def coefficients(self, S: np.ndarray) -> np.ndarray:
        """The adjoint of `lifted`."""
        n = self.n
        F = S.reshape(n, n, n, n).transpose(0, 2, 1, 3).reshape(n * n, n * n)
        return self.bases[0] @ F @ self.bases[1].T

    def symmetrised(self, c: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
        """The nearest coefficients with a symmetric moment block, for weights of that block."""
        scale = self.moment_scale
        per = np.broadcast_to(weight, scale.shape) / scale**2  # squared distance of moments c / scale
        M = c[self.e, self.e] / scale
        M = (per * M * scale**4 + (per * M * scale**4).T) / (per * scale**4 + (per * scale**4).T)
        c = c.copy()
        c[self.e, self.e] = M * scale
        return c

    def dual(self, S: np.ndarray, Y: np.ndarray) -> tuple[float, float]:
        """`lambda`, and by how much the least eigenvalue of the completed `S` is negative, with its rounding."""
        adjoint = np.zeros_like(self.objective)
        adjoint[self.e, self.e] = Y / self.moment_scale
        r = self.objective - self.coefficients(S) - adjoint
        # Only the sum of a coefficient and of its mirror counts in the moment block.
        g = r[self.e, self.e] * self.moment_scale
        r = r.copy()
        half = (g + g.T) / 2
        level = half[0, 0]
        half[0, 0] = 0.0
        r[self.e, self.e] = half / self.moment_scale
        completed = S + self.lifted(r)
        completed = (completed + completed.T) / 2
        margin = rounding(completed, S) + 64 * EPS * self.n**2 * float(np.linalg.norm(self.objective))
        return float(level), max(margin - float(np.linalg.eigvalsh(completed)[0]), 0.0)

    def least(self, steps: int, traces: float, enough: float, stop: Callable[[], bool]) -> float:
        """The best proved lower bound on `t` within some steps; it stops when it is `enough`.

        `traces` bounds the product of the traces of `X_1` and `X_2` at the networks that matter.
        """
        n2, k, w = self.n**2, self.k, 1.0
        Z, U = np.zeros((n2, n2)), np.zeros((n2, n2))
        Y, V = np.zeros((k, k)), np.zeros((k, k))
        penalty, best = 1.0, 0.0
        weight = np.ones_like(self.objective)
        weight[self.e, self.e] += w / self.moment_scale**2
        for step in range(1, steps + 1):
            target = self.coefficients(Z - U) - self.objective / penalty
            target[self.e, self.e] += w * (Y - V) / self.moment_scale
            c = target / weight
            c = self.symmetrised(c, weight[self.e, self.e])
            c[0, 0] = self.moment_scale[0, 0]
            X, M = self.lifted(c), c[self.e, self.e] / self.moment_scale
            Xr, Mr = 1.6 * X - 0.6 * Z, 1.6 * M - 0.6 * Y
            before = Z
            Z, U = self._split(Xr + U)
            Y, V = self._split(Mr + V)
            if step % _STEPS_A_BOUND == 0:
                level, negative = self.dual(-penalty * U, -penalty * w * V)
                best = max(best, level - negative * traces)
                primal, dual = float(np.linalg.norm(X - Z)), float(penalty * np.linalg.norm(Z - before))
                if best >= enough or stop():
                    break
                ratio = np.sqrt(primal / max(dual, 1e-300))
                factor = float(np.clip(ratio, 0.7, 1.4)) if step < 1000 else 1.0
                penalty, U, V = penalty * factor, U / factor, V / factor
        return best

    @staticmethod
    def _split(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positive semidefinite part of a symmetric matrix, and the rest."""
        W = (W + W.T) / 2
        values, vectors = np.linalg.eigh(W)
        kept = vectors[:, values < 0]
        rest = (kept * values[values < 0]) @ kept.T
        return W - rest, rest
