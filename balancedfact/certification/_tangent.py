r"""An enclosure of how well measurements determine a matrix among its neighbours of the same rank.

The matrices of rank `k` form a manifold, whose tangent space at `X`, with bases `U` and `V` of its column and row space, is
that of the ``Z = U B.T + C V.T``. Where the least singular value of the measurements on it, ``inf |A(Z)| / |Z|``, is
positive, no other matrix of rank `k` near `X` has the same data, and to first order an error of the data comes back divided
by no less.

Which `B`, `C` stand for `Z` is free up to ``(B - V K.T, C + U K)``. With ``U.T C = 0`` the norm of `Z` is that of ``(B, C)``,
so the square of the singular value is at least `s` if ``|A(Z)|^2 + c |U.T C|^2 - s |(B, C)|^2`` is positive definite for some
``c > 0``. That is decided by a Cholesky factorization that runs to its end, with all rounding taken off its diagonal (Rump,
Verification of positive definiteness, 2006). For entries the rows of `B` decouple: they are eliminated one by one, and what is
left to factorize has `k` unknowns for every row of the shorter side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, eigsh

from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._careful import UNIT, gamma

# Unknowns of the matrix that is factorized, numbers that are formed, and multiplications to eliminate the rest, at most.
_MOST_TANGENT_UNKNOWNS, _MOST_TANGENT_NUMBERS, _MOST_ELIMINATION = 7000, 2**26, 4e9
# The weight of what is redundant, relative to the mean curvature, and parts of the estimate that are tried as bounds.
_GAUGE_WEIGHT, _PARTS_TRIED = 100.0, (0.999, 0.9, 0.5, 0.1)


class Injectivity(NamedTuple):
    """Bounds on the least singular value of the measurements on a tangent space, between Frobenius and Euclidean norms."""

    lower: float
    upper: float


def injectivity(A: MeasurementMap, L: np.ndarray, R: np.ndarray) -> Injectivity | None:
    """The enclosure at ``X = L @ R.T`` for factors of full column rank; ``None`` if it is too large, or zero."""
    (d1, d2), k = A.matrix_shape, L.shape[1]
    norms = A.row_norms
    if k == 0 or not norms.any() or not (L.any() and R.any()):
        return None
    power = int(np.frexp(norms.max())[1])
    total = 1.01 * float(np.linalg.norm(np.ldexp(norms, -power)))  # bounds the norm of the measurements
    (U, off_left), (V, off_right) = _basis(L), _basis(R)
    form: _TangentForm
    if A.of_entries:
        entries = A.as_entries()
        places = entries.rows, entries.cols
        weights = np.ldexp(entries.weights, -power)
        flip = d1 > d2
        form = _EntryForm(*(places[::-1] if flip else places), weights, *((V, U) if flip else (U, V)))
    else:
        form = _DenseForm(A, power, U, V)
    if form.too_large:
        return None
    departure = off_left + off_right  # of the spaces of U and V from those of the factors
    lower, upper = _enclosed(form)
    if departure < 0.01:
        lower = max(lower * (1 - 2 * departure) - 2 * departure * total, 0.0)
        upper = upper * (1 + 2 * departure) + 2 * departure * total
    else:
        lower, upper = 0.0, total
    return Injectivity(float(np.ldexp(lower, power)), float(np.ldexp(upper, power)))


def _basis(L: np.ndarray) -> tuple[np.ndarray, float]:
    """A basis near the space of `L`, orthonormal up to rounding, and a bound on its distance from one of the space itself.

    That one is ``L @ X`` for the inverse `X` of ``U.T @ L`` as it was computed, whatever its error.
    """
    L = np.ldexp(L, -int(np.frexp(np.abs(L).max())[1]))
    L = L / np.ldexp(1.0, np.frexp(np.linalg.norm(L, axis=0))[1])  # powers of two for every column change no space
    U = np.linalg.qr(L)[0]
    try:
        X = np.linalg.inv(U.T @ L)
    except np.linalg.LinAlgError:
        return U, np.inf
    k = L.shape[1]
    off = float(np.linalg.norm(L @ X - U)) + gamma(k) * float(np.linalg.norm(np.abs(L) @ np.abs(X)))
    unit = float(np.linalg.norm(U.T @ U - np.eye(k))) + gamma(len(U)) * k
    return U, (1.01 * (off + unit) if np.isfinite(off) else np.inf)


class _TangentForm:
    """The quadratic form ``|A(Z)|^2 + c |U.T C|^2`` of ``x = (C, B)``, rows one after the other."""

    too_large = True
    size: int
    trace: float
    gauge: float
    slack: float

    def __init__(self, U: np.ndarray, V: np.ndarray) -> None:
        self.U, self.V = U, V
        self.split = U.size
        self.size = U.size + V.size

    def _weighed(self, trace: float) -> None:
        """Set the weight of what is redundant and the rounding of a factorization from the trace of the rest."""
        self.gauge = _GAUGE_WEIGHT * trace / self.size
        self.trace = trace + 1.01 * self.gauge * self.U.shape[1] ** 2
        self.slack = 4 * gamma(self.size + 20) * self.trace

    def image(self, x: np.ndarray) -> np.ndarray:
        """The measurements of `Z`."""
        raise NotImplementedError

    def back(self, y: np.ndarray) -> np.ndarray:
        """The transpose of `image`."""
        raise NotImplementedError

    def factorize(self, shift: float) -> bool:
        """Factorize the form less ``shift |x|^2``; whether the factorization ran to its end."""
        raise NotImplementedError

    def solve(self, f: np.ndarray) -> np.ndarray:
        """The solution for the last factorization that ran to its end."""
        raise NotImplementedError


def _enclosed(form: _TangentForm) -> tuple[float, float]:
    """Bounds on the least singular value for the bases that the form has."""
    if not form.factorize(-10 * form.slack):
        return 0.0, float(np.sqrt(form.trace))
    inverse = LinearOperator((form.size, form.size), form.solve, dtype=float)
    start = np.random.default_rng(0).standard_normal(form.size)
    vector = eigsh(inverse, 1, v0=start, tol=1e-3, maxiter=100 * form.size, which="LA")[1][:, 0]
    U, V, split = form.U, form.V, form.split
    C, B = vector[:split].reshape(U.shape), vector[split:].reshape(V.shape)
    K = U.T @ C
    vector = np.concatenate([(C - U @ K).ravel(), (B + V @ K.T).ravel()])
    size = float(np.linalg.norm(vector)) * (1 - 1e-9)
    upper = float(np.linalg.norm(form.image(vector))) / size + 2 * gamma(form.size) * float(np.sqrt(form.trace))
    for part in _PARTS_TRIED:
        least = part * upper**2
        if form.factorize(least + form.slack):
            return float(np.sqrt(least)) * (1 - 1e-9), upper
    return 0.0, upper


class _EntryForm(_TangentForm):
    """The form of single entries, ``w_e (U_i . B_j + C_i . V_j)``, with the unknowns of the columns eliminated."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, weights: np.ndarray, U: np.ndarray, V: np.ndarray) -> None:
        super().__init__(U, V)
        (d1, k), d2 = U.shape, len(V)
        # What is measured several times counts as once with the root of the sum of squares.
        squares = sp.coo_array((weights**2, (cols, rows)), shape=(d2, d1)).tocsr()
        squares.sum_duplicates()
        counts = np.diff(squares.indptr).astype(float)
        self.too_large = bool(U.size > _MOST_TANGENT_UNKNOWNS or k**2 * float(counts @ counts) > _MOST_ELIMINATION)
        self.pointers, self.rows = squares.indptr, squares.indices
        self.cols = np.repeat(np.arange(d2), np.diff(squares.indptr))
        root = np.sqrt(squares.data)[:, None]
        self.left, self.right = root * U[self.rows], root * V[self.cols]
        self._weighed(1.01 * float(np.vdot(self.left, self.left) + np.vdot(self.right, self.right)))
        times = sp.coo_array((np.ones(rows.size), (cols, rows)), shape=(d2, d1)).tocsr()
        times.sum_duplicates()
        self.slack += gamma(int(times.data.max()) + 4) * self.trace

    def image(self, x: np.ndarray) -> np.ndarray:
        C, B = x[: self.split].reshape(self.U.shape), x[self.split :].reshape(self.V.shape)
        return np.einsum("ea,ea->e", self.left, B[self.cols]) + np.einsum("ea,ea->e", self.right, C[self.rows])

    def back(self, y: np.ndarray) -> np.ndarray:
        out = np.zeros(self.size)
        np.add.at(out[: self.split].reshape(self.U.shape), self.rows, y[:, None] * self.right)
        np.add.at(out[self.split :].reshape(self.V.shape), self.cols, y[:, None] * self.left)
        return out

    def factorize(self, shift: float) -> bool:
        (d1, k), d2 = self.U.shape, len(self.V)
        rest = np.zeros((d1, k, d1, k))
        own, every = np.empty((d2, k, k)), np.arange(k)
        for j in range(d2):
            lo, hi = self.pointers[j], self.pointers[j + 1]
            F, G, places = self.left[lo:hi], self.right[lo:hi], self.rows[lo:hi]
            own[j] = F.T @ F - shift * np.eye(k)
            try:
                root = np.linalg.cholesky(own[j])
            except np.linalg.LinAlgError:
                return False
            if hi == lo:
                continue
            W = scipy.linalg.solve_triangular(root, F.T, lower=True, check_finite=False)
            T = np.eye(hi - lo) - W.T @ W
            rest[np.ix_(places, every, places, every)] += T[:, None, :, None] * (G[:, :, None, None] * G)
        redundant = self.gauge * self.U @ self.U.T
        for a in range(k):
            rest[:, a, :, a] += redundant
        S = rest.reshape(d1 * k, d1 * k)
        S[np.diag_indices(d1 * k)] -= shift
        try:
            factor = scipy.linalg.cholesky(S, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return False
        self._factor, self._own = factor, own
        return True

    def solve(self, f: np.ndarray) -> np.ndarray:
        split = self.split
        inner = np.linalg.solve(self._own, f[split:].reshape(len(self.V), -1, 1)).ravel()
        coupling = self.back(self.image(np.concatenate([np.zeros(split), inner])))[:split]
        C = scipy.linalg.cho_solve((self._factor, True), f[:split] - coupling, check_finite=False)
        coupling = self.back(self.image(np.concatenate([C, np.zeros(self.size - split)])))[split:]
        inner = np.linalg.solve(self._own, (f[split:] - coupling).reshape(len(self.V), -1, 1)).ravel()
        return np.concatenate([C, inner])


class _DenseForm(_TangentForm):
    """The form of measurements by any matrices, as one array."""

    def __init__(self, A: MeasurementMap, power: int, U: np.ndarray, V: np.ndarray) -> None:
        super().__init__(U, V)
        (d1, d2), k = A.matrix_shape, U.shape[1]
        self.too_large = self.size > _MOST_TANGENT_UNKNOWNS // 2 or A.m * max(d1 * d2, self.size) > _MOST_TANGENT_NUMBERS
        if self.too_large:
            return
        stack = np.ldexp(A.stack(), -power)
        right, left = stack @ V, stack.transpose(0, 2, 1) @ U
        self.J = np.hstack([right.reshape(A.m, -1), left.reshape(A.m, -1)])
        trace = 1.01 * float(np.vdot(self.J, self.J))
        self._weighed(trace)
        error = gamma(max(d1, d2)) * float(np.linalg.norm(stack)) * float(np.sqrt(2 * k)) * 1.01
        if A.uncertain:  # the matrices themselves carry rounding
            error += 8 * UNIT * float(np.linalg.norm(stack))
        self.slack += gamma(A.m + 2) * trace + 2.02 * np.sqrt(trace) * error + error**2
        self.gram = self.J.T @ self.J
        projection = self.gauge * np.kron(U @ U.T, np.eye(k))
        self.gram[: self.split, : self.split] += projection

    def image(self, x: np.ndarray) -> np.ndarray:
        return self.J @ x

    def back(self, y: np.ndarray) -> np.ndarray:
        return self.J.T @ y

    def factorize(self, shift: float) -> bool:
        try:
            self._factor = scipy.linalg.cholesky(self.gram - shift * np.eye(self.size), lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return False
        return True

    def solve(self, f: np.ndarray) -> np.ndarray:
        return np.asarray(scipy.linalg.cho_solve((self._factor, True), f, check_finite=False))
