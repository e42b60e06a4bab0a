r"""Upper bounds on a largest singular value that are proved in floating point.

That ``beta`` is no less than the norm of a matrix `W` is decided by a Cholesky factorization of ``beta^2 I - W.T W`` that runs
to its end (Rump, Verification of positive definiteness, 2006), with the rounding of the product, of the shift and of the
factorization taken off its diagonal. The constants are those of Higham (2002, chapter 3).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from balancedfact.measurements._careful import UNIT, gamma, is_positive_definite


def proved_norm(W: np.ndarray, guess: float | None = None) -> float:
    """An upper bound on the largest singular value that a completed Cholesky factorization proves, the `guess` if it can."""
    if W.size == 0 or not W.any():
        return 0.0
    if W.shape[0] < W.shape[1]:
        W = W.T
    size = np.ldexp(1.0, np.frexp(np.abs(W).max())[1] - 1)  # a power of two, by which one divides without rounding
    W = W / size
    gram = W.T @ W
    rounding = gamma(W.shape[0]) * float(np.vdot(W, W))
    if guess is not None:
        beta = _above(guess / size, len(gram), rounding)
        if _exceeds(beta, gram, rounding):
            return float(np.nextafter(beta * size, np.inf))
    beta = _above(float(np.linalg.norm(W, 2)), len(gram), rounding)
    while not _exceeds(beta, gram, rounding):
        beta *= 1 + 4 * len(gram) ** 2 * UNIT
    return float(np.nextafter(beta * size, np.inf))


def _above(top: float, n: int, rounding: float) -> float:
    """A number that a factorization of order `n` tells from `top` in spite of its rounding."""
    return top * (1 + 1.1 * n * gamma(n + 1) + 10 * UNIT) + 0.6 * rounding / top


def _exceeds(beta: float, gram: np.ndarray, rounding: float) -> bool:
    """Tell whether `beta` is proved to exceed the root of the largest eigenvalue of a `gram` with errors up to `rounding`."""
    return is_positive_definite(beta**2 * np.eye(len(gram)) - gram, rounding + 4 * UNIT * beta**2)


def proved_sparse_norm(S: sp.csr_array) -> float:
    """An upper bound on the largest singular value of a sparse matrix with few rows, proved as for `proved_norm`.

    An entry of ``S @ S.T`` is a sum of as many products as a row has entries, and each factor a sum over the repetitions of its
    place, so that ``gamma |S| |S|.T`` bounds the error entry by entry, and its largest row sum the norm of the error.
    """
    size = float(np.abs(S.data).max(initial=0.0))
    if size == 0:
        return 0.0
    power = int(np.frexp(size)[1])  # of two, so that nothing is rounded
    layout = S.indices.copy(), S.indptr.copy()
    absolute = sp.csr_array((np.abs(np.ldexp(S.data, -power)), *layout), shape=S.shape)
    counts = sp.csr_array((np.ones(S.nnz), *layout), shape=S.shape, copy=True)
    counts.sum_duplicates()
    S = sp.csr_array((np.ldexp(S.data, -power), *layout), shape=S.shape, copy=True)
    S.sum_duplicates()
    terms = int(np.diff(S.indptr).max()) + 2 * int(counts.data.max())
    rounding = gamma(terms) * 1.01 * float((absolute @ (absolute.T @ np.ones(S.shape[0]))).max())
    gram = (S @ S.T).toarray()
    n = len(gram)
    top = float(scipy.linalg.eigvalsh(gram, subset_by_index=[n - 1, n - 1])[0])
    beta = _above(float(np.sqrt(max(top, rounding))), n, rounding)
    while not _exceeds(beta, gram, rounding):
        beta *= 1 + 4 * n**2 * UNIT
    return float(np.nextafter(np.ldexp(beta, power), np.inf))
