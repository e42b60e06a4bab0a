r"""Sums over the measurements together with a bound on their rounding, for certificates.

The bounds are a priori: a sum of products of `n` terms in any order errs by at most :math:`\gamma_n = nu/(1-nu)` times the
sum of the absolute terms, with the unit roundoff :math:`u = 2^{-53}` (Higham, Accuracy and Stability of Numerical Algorithms,
2002, chapter 3). Long sums are taken in blocks, which keeps `n` small. Underflow is not counted: the arrays are of ordinary
size, and what underflows in them is smaller than :math:`10^{-300}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from balancedfact._memory import NUMBERS_AT_ONCE

UNIT = 2.0**-53
_TERMS_AT_ONCE = 512


def gamma(n: int) -> float:
    """The constant :math:`\\gamma_n`, with a margin for the rounding of the bound itself."""
    return 1.01 * (n + 3) * UNIT


def in_parts(*arrays: np.ndarray) -> Iterator[Any]:
    """Views of so many entries at a time of arrays of one length, for what would need a copy of all; of one, itself."""
    for start in range(0, arrays[0].size, NUMBERS_AT_ONCE):
        parts = tuple(each[start : start + NUMBERS_AT_ONCE] for each in arrays)
        yield parts if len(parts) > 1 else parts[0]


def careful_total(terms: np.ndarray) -> tuple[float, float]:
    """The sum of numbers and a bound on its error, when each is the rounded product of two."""
    size, depth = sum(float(np.abs(part).sum()) for part in in_parts(terms)), 1
    while terms.size > _TERMS_AT_ONCE:
        whole = terms.size // _TERMS_AT_ONCE * _TERMS_AT_ONCE
        terms = np.append(terms[:whole].reshape(-1, _TERMS_AT_ONCE).sum(axis=1), terms[whole:].sum())
        depth += _TERMS_AT_ONCE
    return float(terms.sum()), gamma(depth + terms.size) * size


def is_positive_definite(matrix: np.ndarray, error: float) -> bool:
    """Tell whether a symmetric matrix, known up to an `error` in the norm, is proved to be positive definite.

    A Cholesky factorization that runs to its end leaves no eigenvalue below its own rounding, which is at most
    :math:`\\gamma_{n+1}` times the trace (Rump, Verification of positive definiteness, 2006).
    """
    n, diagonal = len(matrix), np.diagonal(matrix)
    slack = 2 * gamma(n + 1) * float(np.abs(diagonal).sum()) + error + 4 * UNIT * float(np.abs(diagonal).max(initial=0.0))
    shifted = matrix - slack * np.eye(n)
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True


def careful_gram(N: np.ndarray, relative: float, T: np.ndarray) -> tuple[np.ndarray, float]:
    """``(N T).T (N T)`` and a bound on the Frobenius norm of its error, where `N` has relative errors of its own."""
    d = N.shape[1]
    G, reach = np.zeros((T.shape[1],) * 2), np.zeros(d)
    blocks = range(0, N.shape[0], _TERMS_AT_ONCE)
    for start in blocks:
        block = N[start : start + _TERMS_AT_ONCE]
        K = block @ T
        G += K.T @ K
        reach += np.einsum("ij,ij->j", block, block)
    size = float(np.sqrt(max(np.trace(G), 0.0)))
    # |N| |T| is the sum of the products of column p of |N| and row p of |T|.
    error = (gamma(d) + relative) * float(np.sqrt(reach) @ np.linalg.norm(T, axis=1))
    return G, 1.01 * (2 * size * error + error**2 + gamma(_TERMS_AT_ONCE + len(blocks)) * size**2)


def careful_combination(y: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``sum_i y_i A_i`` for matrices stacked along the second axis, ``(d1, m, d2)``, and entrywise bounds on its error."""
    d1, m, d2 = matrices.shape
    S, size = np.zeros((d1, d2)), np.zeros((d1, d2))
    blocks = range(0, m, _TERMS_AT_ONCE)
    for start in blocks:
        some, part = y[start : start + _TERMS_AT_ONCE], matrices[:, start : start + _TERMS_AT_ONCE]
        S += np.matmul(some, part)
        size += np.matmul(np.abs(some), np.abs(part))
    return S, gamma(min(_TERMS_AT_ONCE, m) + len(blocks)) * size
