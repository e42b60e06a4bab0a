r"""The derivative of soft thresholding of singular values, on the measurements, and its approximate inverse.

At ``G = U s V.T`` thresholding by `t` has the value ``U h V.T`` with ``h = max(s - t, 0)``. Its derivative takes `H`, with
``K = U.T H V``, to ``U (x_ij (K + K.T)_ij / 2 + z_ij (K - K.T)_ij / 2) V.T``, where ``x_ij = (h_i - h_j) / (s_i - s_j)`` and
``z_ij = (h_i + h_j) / (s_i + s_j)``; directions outside of `U` or of `V` count as those with ``s_j = 0``. It vanishes unless
`i` or `j` is above the threshold, so that products cost `k` columns for each of the two sides (Liu, Sun and Toh 2012).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from balancedfact.measurements import MeasurementMap

_COINCIDE = 1e-14  # relative difference below which two singular values count as equal
_LEAST_DIAGONAL = 1e-3  # of an entry in the preconditioner, relative to the mean
_FEATURES_AT_ONCE = 4_000_000  # numbers, while the matrix of the core is summed


class Thresholded:
    """Soft thresholding at one matrix, by its singular value decomposition ``(U, s, V)``, and its derivative there.

    `rank` counts the singular values above the threshold; `values` are theirs less the threshold.
    """

    def __init__(self, A: MeasurementMap, U: np.ndarray, s: np.ndarray, V: np.ndarray, threshold: float) -> None:
        self.A, self.U, self.V = A, U, V
        k = self.rank = int(np.count_nonzero(s > threshold))
        h = np.maximum(s - threshold, 0.0)
        self.left, self.right, self.values = U[:, :k], V[:, :k], h[:k]
        above, other = s[:k, None], s[None]
        differ = np.abs(above - other) > _COINCIDE * s[0]
        symmetric = np.where(differ, (h[:k, None] - h) / np.where(differ, above - other, 1.0), 1.0)
        skew = (h[:k, None] + h) / (above + other)
        self.straight, self.crossed = (symmetric + skew) / 2, (symmetric - skew) / 2
        self.beyond = h[:k] / s[:k]  # towards directions outside of U or V

    @property
    def matrix(self) -> np.ndarray:
        """The value of soft thresholding."""
        return (self.left * self.values) @ self.right.T

    @property
    def image(self) -> np.ndarray:
        """The measurements of the value."""
        return self.A.forward_factored(self.left * self.values, self.right)

    def product(self, y: np.ndarray) -> np.ndarray:
        """``A(derivative(A*(y)))``."""
        k, S = self.rank, self.A.adjoint_operator(y)
        down, across = S.T @ self.left, S @ self.right
        K1, K2 = down.T @ self.V, (self.U.T @ across).T
        first = self.straight * K1 + self.crossed * K2 - self.beyond[:, None] * K1
        second = self.straight * K2 + self.crossed * K1
        second[:, :k] = 0.0  # what both are above the threshold for is in the first
        second -= self.beyond[:, None] * K2
        P = self.V @ first.T + down * self.beyond
        Q = self.U @ second.T + across * self.beyond
        return self.A.forward_factored(np.hstack([self.left, Q]), np.hstack([P, self.right]))


class CorePreconditioner:
    """The inverse of a diagonal matrix plus what the derivative does within the singular vectors above the threshold.

    Within them symmetric parts pass as they are, a space of ``k (k + 1) / 2`` dimensions whose eigenvalues are the large ones;
    the rest is replaced by its diagonal. For entries; the inverse is that of Woodbury.
    """

    def __init__(self, at: Thresholded, shift: float) -> None:
        A = at.A.as_entries()
        k = self.rank = at.rank
        self.A, self.left, self.right = A, at.left, at.right
        P, Q = at.left**2, at.right**2
        weights = at.straight[:, k:]
        inner = (P @ weights) @ (at.V[:, k:] ** 2).T + (at.U[:, k:] ** 2) @ (Q @ weights).T
        missing = [np.maximum(1 - np.sum(each**2, axis=1), 0.0) for each in (at.U, at.V)]
        inner += np.outer(P @ at.beyond, missing[1]) + np.outer(missing[0], Q @ at.beyond)
        d = A.weights**2 * inner[A.rows, A.cols]
        self.diagonal = np.maximum(d, _LEAST_DIAGONAL * float(d.mean())) + shift
        self.upper = np.triu_indices(k)
        self.share = np.where(self.upper[0] == self.upper[1], 0.5, np.sqrt(0.5))
        core = np.eye(self.share.size)
        count = max(_FEATURES_AT_ONCE // (k * k), 1)
        root = A.weights / np.sqrt(self.diagonal)
        for start in range(0, A.m, count):
            part = slice(start, start + count)
            features = np.einsum("ip,iq->ipq", root[part, None] * at.left[A.rows[part]], at.right[A.cols[part]])
            features += features.transpose(0, 2, 1)
            C = features.reshape(len(features), -1)[:, self.upper[0] * k + self.upper[1]] * self.share
            core += C.T @ C
        self.core = scipy.linalg.cho_factor(core, overwrite_a=True, check_finite=False)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        z = y / self.diagonal
        K = self.left.T @ (self.A.adjoint_operator(z) @ self.right)
        inner = scipy.linalg.cho_solve(self.core, (K + K.T)[self.upper] * self.share, check_finite=False)
        B = np.zeros_like(K)
        B[self.upper] = inner * self.share
        return z - self.A.forward_factored(self.left @ (B + B.T), self.right) / self.diagonal
