"""The squared distance of a pair from a matrix: cost, derivatives, and a lower bound on it over all matrices of a rank."""

from __future__ import annotations

import numpy as np

from balancedfact._linalg import frobenius, magnitude
from balancedfact.certification._spectral_norm import norm_bound
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.iteration._log import Log
from balancedfact.solvers.riemannian._search import CLOSED, Search

# A residual below this, relative to the matrix, is rounding error of the product of the factors.
_ROUNDING_RESIDUAL = 1e-12
# Numbers of entries of a block of rows.
_ROWS_AT_ONCE = 2_000_000


class MatrixTarget:
    """A matrix scaled to Frobenius norm one (or zero), the squared distance from it, and the bound on that distance."""

    def __init__(self, M: np.ndarray, k: int, rng: np.random.Generator) -> None:
        self.k, self.rng = k, rng
        self.size = magnitude(M)
        self.size *= float(np.linalg.norm(M / self.size)) or 1.0
        self.M = M / self.size
        self.square = float(np.vdot(self.M, self.M))
        self.rows = max(1, _ROWS_AT_ONCE // M.shape[1])
        self._at: tuple[np.ndarray, ...] = ()
        self._bounded: tuple[np.ndarray, float] | None = None

    # The cost. What a pair determines is kept for the Hessian, which is asked for many directions.

    def _parts(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self._at or self._at[0] is not L or self._at[1] is not R:
            self._at = L, R, self.M @ R, L.T @ L, R.T @ R
        return self._at

    def value(self, L: np.ndarray, R: np.ndarray) -> float:
        _, _, MR, G, H = self._parts(L, R)
        found = self.square - 2 * float(np.vdot(MR, L)) + float(np.vdot(G, H))
        return found if found > 1e-2 * self.square else self.distance(L, R)

    def distance(self, L: np.ndarray, R: np.ndarray) -> float:
        """The squared distance from the residual itself, in blocks of rows: no cancellation."""
        blocks = range(0, len(L), self.rows)
        return sum(float(np.sum((L[i : i + self.rows] @ R.T - self.M[i : i + self.rows]) ** 2)) for i in blocks)

    def gradient(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, _, MR, G, H = self._parts(L, R)
        return 2 * (L @ H - MR), 2 * (R @ G - self.M.T @ L)

    def hessian(self, L: np.ndarray, R: np.ndarray, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, _, _, G, H = self._parts(L, R)
        left, right = L.T @ U, R.T @ V
        return 2 * (U @ H + L @ (right + right.T) - self.M @ V), 2 * (V @ G + R @ (left + left.T) - self.M.T @ U)

    # The certificate.

    def lower_bound(self, R: np.ndarray) -> float:
        """A lower bound on the squared distance of every matrix of rank `k`, from the columns of `R`."""
        if self._bounded is None or self._bounded[0] is not R:
            self._bounded = R, self._lower_bound(R)
        return self._bounded[1]

    def _lower_bound(self, R: np.ndarray) -> float:
        M = self.M
        if self.k >= min(M.shape):
            return 0.0
        Z, s, _ = np.linalg.svd(R, full_matrices=False)
        Z = Z[:, s > np.finfo(float).eps * s[0]]
        W = M @ Z
        a = np.zeros(self.k)
        a[: Z.shape[1]] = np.linalg.eigvalsh(W.T @ W)
        D = M.T @ W
        D -= Z @ (Z.T @ D)
        off, rest = float(np.sum(D**2)), self.distance(W, Z)
        # Only how the norm compares with the smallest of the leading singular values matters: it is bounded in that unit.
        unit = float(np.sqrt(max(a.min(), 0.0))) or 1.0
        none = np.zeros((M.shape[0], 0)), np.zeros((M.shape[1], 0))
        top = (unit * norm_bound(_Deflated(M, Z, unit), *none, self.rng)[0]) ** 2
        losses = [off / e + float(np.maximum(top + e - a, 0).sum()) for e in [*np.logspace(-24, 0, 97), a.min() - top] if e > 0]
        return max(0.0, rest - min(losses))

    def gap(self, L: np.ndarray, R: np.ndarray) -> float:
        """The relative gap between distance and bound, with rounding errors left out."""
        value = self.distance(L, R)
        return max(value - self.lower_bound(R) - _ROUNDING_RESIDUAL**2, 0.0) / value if value > 0 else 0.0

    def solution(
        self, L: np.ndarray, R: np.ndarray, method: str, search: Search | None = None, log: Log | None = None
    ) -> Solution:
        """The pair in the user's units, `size` times the matrix here, with its certificate."""
        gap, units = self.gap(L, R), self.size**2
        curvature = np.nan
        if search is not None and search.curvature is not None and not search.log.ended:
            curvature = search.curvature.ratio
        norm = float(np.hypot(np.linalg.norm(L), np.linalg.norm(R))) or 1.0
        balance = float(np.linalg.norm(L.T @ L - R.T @ R)) / norm**2
        # The largest eigenvalue of the Hessian at the truncated singular value decomposition is 4 sigma_1.
        scale = 4 * (float(np.linalg.norm(L.T @ L, 2)) or 1.0) * norm
        stationarity = frobenius(np.concatenate(self.gradient(L, R))) / scale
        status = Status.OPTIMAL if gap <= CLOSED else Status.GAP_OPEN
        message = f"No pair of {self.k} columns is nearer by more than a relative {gap:.1e}."
        if log is not None and log.ended is not None and (status is not Status.OPTIMAL or log.ended[0] is Status.INTERRUPTED):
            status, message = log.ended
        proof = "Eckart and Young, with the leading eigenvalues of M.T @ M bounded from above by block elimination"
        lower = self.lower_bound(R) * units
        certificate = Certificate(
            balance, lower, gap, stationarity=stationarity, balance=balance, curvature=curvature, proof=proof
        )
        pad, root = ((0, 0), (0, self.k - L.shape[1])), np.sqrt(self.size)
        layers = [np.pad(root * R, pad).T.copy(), np.pad(root * L, pad)]
        history = {} if log is None else log.history
        return Solution(layers, self.distance(L, R) * units, status, message, certificate, history, method)


class _Deflated:
    """``M (I - Z Z.T) / unit``, as far as `norm_bound` looks at it."""

    def __init__(self, M: np.ndarray, Z: np.ndarray, unit: float, transposed: bool = False) -> None:
        self.M, self.Z, self.unit, self.transposed = M, Z, unit, transposed
        self.shape = M.shape[::-1] if transposed else M.shape

    @property
    def T(self) -> _Deflated:
        return _Deflated(self.M, self.Z, self.unit, not self.transposed)

    def __matmul__(self, X: np.ndarray) -> np.ndarray:
        if self.transposed:
            Y = self.M.T @ (X / self.unit)
            return Y - self.Z @ (self.Z.T @ Y)
        return self.M @ ((X - self.Z @ (self.Z.T @ X)) / self.unit)
