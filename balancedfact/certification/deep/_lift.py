r"""The lifted semidefinite programme: the least of one term of the trace over the two places beside a middle layer.

In whitened coordinates :math:`Q_j = C_jC_j^\top`, :math:`P_j = B_j^\top B_j`, the matrices
:math:`X_j = \begin{pmatrix}Q_j&E\\E^\top&P_j\end{pmatrix}` are positive semidefinite, and the term of layer `j` is
:math:`t = \langle T,Q_j\otimes P_{j-1}\rangle`. A gauge fixes the scale of each place,
:math:`\langle F,Q\rangle+\langle G,P\rangle = h`. The lift replaces :math:`X_{j-1}\otimes X_j` by an unknown positive
semidefinite matrix in the span of such products: each factor is a combination of ``E_0`` plus multiples of `F` and `G` that
satisfy the gauge, of a basis of the matrices that no measurement sees, and of the pairs `Q`, `P` that the gauge does not see.
The coefficients form a matrix `c` with `c_00 = 1` whose block of the unseen directions, and of the first, is symmetric and
positive semidefinite: the moment matrix of `E`. Where a gauge has a box, what is left to either of its ends times the other
place is positive semidefinite as well, and for two boxes the products of what is left are not negative. The least `t` over all
`c` is a semidefinite programme, solved by the alternating direction method of multipliers.

**Rounding.** From any positive semidefinite multipliers, `S` that of the lifted matrix, let `r` be what is missing for dual
feasibility. The basis is orthonormal, so that with `S` and `r` together the dual is feasible exactly, but for a least
eigenvalue that may be negative by some :math:`\epsilon`, and
:math:`t\ge\lambda - \epsilon\operatorname{tr}X_{j-1}\operatorname{tr}X_j`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from balancedfact._linalg import EPS
from balancedfact.measurements._isometry_bounds import rounding

_STEPS_A_BOUND = 50  # steps between bounds
_PATIENT_GAIN = 1e-3  # part of itself that the best bound has to gain for the search to go on


class Gauge(NamedTuple):
    """``<left, Q> + <right, P> = level``, which fixes the scale of one place, and bounds on its size ``<left, Q>``, if any."""

    left: np.ndarray
    right: np.ndarray
    level: float
    box: tuple[float, float] | None = None


class Tied(NamedTuple):
    """Coefficients that boxes tie to each other: their places, what they are of the unknowns, and the normal equations."""

    rows: np.ndarray
    cols: np.ndarray
    share: np.ndarray
    given: np.ndarray
    load: np.ndarray
    normal: tuple[np.ndarray, bool] | None


class State(NamedTuple):
    """The state of a search: the penalty, the semidefinite parts, and the multipliers over the penalty."""

    penalty: float
    parts: list[np.ndarray]
    scaled: list[np.ndarray]


class Lift:
    """The semidefinite programme.

    Parameters
    ----------
    stack : numpy.ndarray, shape (m, d1, d2)
        Whitened measurements.
    b : numpy.ndarray, shape (m,)
        Data for which the least `t` is of the order of ``1 / (d1 * d2)``.
    gauges : tuple of Gauge
        Those of the place before the layer, whose `P` counts, and of the place after it, whose `Q` counts.
    """

    def __init__(self, stack: np.ndarray, b: np.ndarray, gauges: tuple[Gauge, Gauge]) -> None:
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
        diagonal = np.array(self._symmetric(0, d1) + self._symmetric(d1, self.n))
        bases = [[*couplings, *self._diagonals(gauge, diagonal)] for gauge in gauges]
        for basis, (left, right, level, _) in zip(bases, gauges, strict=True):
            size = float(np.sum(left**2) + np.sum(right**2))
            basis[0] = basis[0] + level / size * scipy.linalg.block_diag(left, right)
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
        # How much of its size a unit of the basis matrix for the size gives a place.
        norms = [[float(np.linalg.norm(W)) for W in gauge[:2]] for gauge in gauges]
        self.of_size = [left * right / np.hypot(left, right) for left, right in norms]
        self.enclose([gauge.box for gauge in gauges])
        parts = [np.zeros_like(image) for image in self.images(self.objective)]
        self.state = State(1.0, parts, parts)
        self.steps = 0  # of the last search

    def enclose(self, boxes: Sequence[tuple[float, float] | None]) -> None:
        """Put the sizes of the two places, where their gauges have boxes, into others."""
        self.ends = [self._ends(box, j) for j, box in enumerate(boxes)]
        self._prepare()

    def _ends(self, box: tuple[float, float] | None, j: int) -> np.ndarray:
        """The distances of ``<left, Q>`` from its least and its most value, as unit functionals of the coefficients."""
        ends = np.zeros((0 if box is None else 2, len(self.bases[j])))
        if box is not None:
            ends[:, 0] = np.array([-box[0], box[1]]) / self.norms[j][0]
            ends[:, self.k] = np.array([1.0, -1.0]) * self.of_size[j]
            ends /= np.linalg.norm(ends, axis=1, keepdims=True)
        return ends

    def _prepare(self) -> None:
        """The normal equations of the least squares in every step; all but a few unknowns are on their own."""
        self.weight = np.ones(self.objective.shape)
        self.weight[self.e, self.e] += 1 / self.moment_scale**2
        tied = np.logical_or.outer(*(np.any(ends, axis=0) for ends in self.ends))
        tied[self.e, self.e] |= tied[self.e, self.e].T
        rows, cols = np.nonzero(tied)
        A, B = (np.eye(len(basis)) + ends.T @ ends for basis, ends in zip(self.bases, self.ends, strict=True))
        H = A[np.ix_(rows, rows)] * B[np.ix_(cols, cols)]
        H[np.diag_indices(len(rows))] += self.weight[rows, cols] - 1
        # A coefficient and its mirror in the moment block are one unknown; the first moment is given.
        scale = np.ones(self.objective.shape)
        scale[self.e, self.e] = self.moment_scale
        paired = (rows < self.k) & (cols < self.k) & (rows > cols)
        names = rows * len(self.bases[1]) + cols
        names[paired] = cols[paired] * len(self.bases[1]) + rows[paired]
        first = names == 0
        share = (names[:, None] == np.unique(names[~first])) * scale[rows, cols][:, None]
        given = first * self.moment_scale[0, 0]
        self.tied = Tied(
            rows, cols, share, given, H @ given, scipy.linalg.cho_factor(share.T @ H @ share) if len(rows) else None
        )

    def _coupling(self, E: np.ndarray) -> np.ndarray:
        X = np.zeros((self.n, self.n))
        X[: self.shape[0], self.shape[0] :], X[self.shape[0] :, : self.shape[0]] = E, E.T
        return X

    def _symmetric(self, start: int, stop: int) -> list[np.ndarray]:
        """An orthonormal basis of the symmetric matrices on some of the indices."""
        basis = []
        for gap in range(stop - start):
            for i in range(start, stop - gap):
                X = np.zeros((self.n, self.n))
                X[i, i + gap] = X[i + gap, i] = 1 / np.sqrt(1 + (gap > 0))
                basis.append(X)
        return basis

    def _diagonals(self, gauge: Gauge, diagonal: np.ndarray) -> np.ndarray:
        """An orthonormal basis of the symmetric pairs `Q`, `P` on which the gauge vanishes; the first for the size in a box."""
        zeros = np.zeros_like(gauge.left), np.zeros_like(gauge.right)
        parts = [scipy.linalg.block_diag(gauge.left, zeros[1]), scipy.linalg.block_diag(zeros[0], gauge.right)]
        seen = np.tensordot(np.array(parts), diagonal, ((1, 2), (1, 2)))
        if gauge.box is None:
            return np.tensordot(scipy.linalg.null_space(seen.sum(axis=0)[None]).T, diagonal, 1)
        sized = parts[0] / np.sum(gauge.left**2) - parts[1] / np.sum(gauge.right**2)
        return np.concatenate([sized[None], np.tensordot(scipy.linalg.null_space(seen).T, diagonal, 1)])

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

    def images(self, c: np.ndarray) -> list[np.ndarray]:
        """The matrices to be positive semidefinite: the lifted matrix, the moments, and the products of the ends of the boxes.

        Those are products with the other place, in order of its index, and numbers as matrices of order one.
        """
        n, (first, last) = self.n, self.ends
        after = ((row @ c @ self.bases[1]).reshape(n, n) for row in first)
        before = ((c @ column @ self.bases[0]).reshape(n, n) for column in last)
        numbers = (np.array([[row @ c @ column]]) for row in first for column in last)
        return [self.lifted(c), c[self.e, self.e] / self.moment_scale, *after, *before, *numbers]

    def adjoint(self, parts: list[np.ndarray]) -> np.ndarray:
        """The adjoint of `images`."""
        first, last = self.ends
        lifted, moments, *others = parts
        c = self.coefficients(lifted)
        c[self.e, self.e] += moments / self.moment_scale
        rest = iter(others)
        for row in first:
            c += np.outer(row, self.bases[1] @ next(rest).ravel())
        for column in last:
            c += np.outer(self.bases[0] @ next(rest).ravel(), column)
        for row in first:
            for column in last:
                c += next(rest)[0, 0] * np.outer(row, column)
        return c

    def nearest(self, target: np.ndarray) -> np.ndarray:
        """The coefficients whose images are nearest, from the adjoint of the images to be near."""
        c = self.symmetrised(target / self.weight, self.weight[self.e, self.e])
        c[0, 0] = self.moment_scale[0, 0]
        rows, cols, share, given, load, normal = self.tied
        if normal is not None:
            c[rows, cols] = given + share @ scipy.linalg.cho_solve(normal, share.T @ (target[rows, cols] - load))
        return c

    def dual(self, parts: list[np.ndarray]) -> tuple[float, float]:
        """`lambda`, and by how much the least eigenvalue of the completed first part is negative, with its rounding."""
        r = self.objective - self.adjoint(parts)
        # Only the sum of a coefficient and of its mirror counts in the moment block.
        g = r[self.e, self.e] * self.moment_scale
        half = (g + g.T) / 2
        level = half[0, 0]
        half[0, 0] = 0.0
        r[self.e, self.e] = half / self.moment_scale
        completed = parts[0] + self.lifted(r)
        completed = (completed + completed.T) / 2
        # The other parts are semidefinite up to rounding, which the norms of their adjoints bound.
        sizes = [self.objective, parts[1] / self.moment_scale, *parts[2:]]
        margin = rounding(completed, parts[0]) + 64 * EPS * self.n**2 * float(sum(np.linalg.norm(part) for part in sizes))
        return float(level), max(margin - float(np.linalg.eigvalsh(completed)[0]), 0.0)

    def least(self, steps: int, traces: float, enough: float, stop: Callable[[], bool], patience: int = 0) -> float:
        """The best proved lower bound on `t` within some steps from `state`; it stops when it is `enough`.

        `traces` bounds the product of the traces of the two places at the networks that matter; `patience`, if any, is the
        number of bounds over which the best one has to gain a part of itself for the search to go on.
        """
        (penalty, split, U), best, earlier = self.state, 0.0, [-np.inf] * patience
        for step in range(1, steps + 1):
            target = self.adjoint([Z - u for Z, u in zip(split, U, strict=True)]) - self.objective / penalty
            c = self.nearest(target)
            images, before = self.images(c), split
            relaxed = [1.6 * X - 0.6 * Z + u for X, Z, u in zip(images, split, U, strict=True)]
            split, U = (list(parts) for parts in zip(*(self._split(W) for W in relaxed), strict=True))
            if step % _STEPS_A_BOUND == 0:
                self.steps = step
                level, negative = self.dual([-penalty * u for u in U])
                best = max(best, level - negative * traces)
                if best >= enough or stop() or (patience and 0 < best <= (1 + _PATIENT_GAIN) * earlier[-patience]):
                    break
                earlier.append(best)
                primal, dual = (float(np.linalg.norm(D)) for D in (images[0] - split[0], penalty * (split[0] - before[0])))
                factor = float(np.clip(np.sqrt(primal / max(dual, 1e-300)), 0.7, 1.4)) if step < 1000 else 1.0
                penalty, U = penalty * factor, [u / factor for u in U]
        self.state = State(penalty, split, U)
        return best

    @staticmethod
    def _split(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positive semidefinite part of a symmetric matrix, and the rest."""
        W = (W + W.T) / 2
        values, vectors = np.linalg.eigh(W)
        kept = vectors[:, values < 0]
        rest = (kept * values[values < 0]) @ kept.T
        return W - rest, rest
