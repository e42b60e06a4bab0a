"""Columns of a pair: those that the certificate misses, and those that the penalty presses to zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, svds

from balancedfact.solvers.nuclear._problem import balanced

# Above this dual slack, randomized subspace iteration with so many columns is accurate enough.
_COARSE_SLACK, _FEW_COLUMNS = 1e-2, 8
RELATIVE_RANK = 1e-8  # a singular value counts as nonzero above this fraction of the largest


def widened(A, L, R, y, penalty, room, slack, rng):  # type: ignore[no-untyped-def]
    """At most `room` columns added along the singular vectors of ``A*(y)`` whose values exceed 1."""
    if room == 0:
        return L, R
    S, U, V = A.adjoint_for_many(y), *directions(L, R)
    tol = min(0.1 * slack, 1e-2)
    if slack >= _COARSE_SLACK:
        left, sigma, right = many(S, min(room, _FEW_COLUMNS), U, V, np.zeros((len(R), 0)), rng)
    else:
        left, sigma, right = leading(S, 1, U, V, rng, tol=tol)
    if room > sigma.size and sigma[-1] - 1 > slack:
        left, sigma, right = many(S, room, U, V, right, rng)
    return _opened(A, L, R, left, sigma, right, penalty, slack)


def needed(A, L, R, s, y, penalty):  # type: ignore[no-untyped-def]
    """The balanced pair without the columns whose best coefficient, the others as they are, is zero."""
    S, (U, V) = A.adjoint_operator(y), directions(L, R)
    gain = np.einsum("ij,ij->j", U, S @ V) - 1
    keep = s * A.image_squares(U, V) + penalty * gain > 0
    return L[:, keep], R[:, keep], s[keep]


def probed(A, L, R, y, penalty, room, slack, before, rng):  # type: ignore[no-untyped-def]
    """The pair as `widened` gives it, by few passes from the singular vectors found `before`; and those found now.

    They grow precise over many calls while `y` changes little.
    """
    if room == 0:
        return L, R, before
    S, U, V = A.adjoint_for_many(y), *directions(L, R)
    left, sigma, right = many(S, min(room, _FEW_COLUMNS), U, V, before, rng)
    found = right
    if room > sigma.size and sigma[-1] - 1 > slack:
        left, sigma, right = many(S, room, U, V, right, rng)
    return *_opened(A, L, R, left, sigma, right, penalty, slack), found


def directions(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The singular vectors of a balanced pair."""
    norms = np.linalg.norm(L, axis=0)
    return L / norms, R / norms


def _opened(A, L, R, left, sigma, right, penalty, slack):  # type: ignore[no-untyped-def]
    """The pair with columns along the singular vectors whose values exceed 1 by more than `slack`, each of its best length."""
    chosen = sigma - 1 > slack
    left, right = left[:, chosen], right[:, chosen]
    root = np.sqrt(penalty * (sigma[chosen] - 1) / A.image_squares(left, right))
    return np.hstack([L, left * root]), np.hstack([R, right * root])


def leading(S: Any, count: int, U: np.ndarray, V: np.ndarray, rng: np.random.Generator, *, tol: float):  # type: ignore[no-untyped-def]
    """The leading singular triplets of ``(I - U U.T) S (I - V V.T)``, largest first."""
    times, transposed_times = _outside(S, U, V)
    shape = S.shape
    if count >= min(shape):
        return _whole(shape, times, transposed_times)
    start = rng.standard_normal(min(shape))
    ahead, back = (times, transposed_times) if shape[1] <= shape[0] else (transposed_times, times)
    image = ahead(start)
    unit = np.ldexp(1.0, int(np.frexp(np.abs(image).max())[1]))  # without it the square of a huge matrix overflows
    if not np.any(back(image / unit)):  # nothing is left, and ARPACK refuses to start
        return np.zeros((shape[0], count)), np.zeros(count), np.zeros((shape[1], count))

    def along(x: np.ndarray) -> np.ndarray:
        return times(x) / unit

    def across(x: np.ndarray) -> np.ndarray:
        return transposed_times(x) / unit

    operator = LinearOperator(shape, along, across, along, dtype=float, rmatmat=across)
    left, sigma, right = svds(operator, k=count, tol=tol, v0=start)
    return left[:, ::-1], unit * sigma[::-1], right[::-1].T


def many(S: Any, count: int, U: np.ndarray, V: np.ndarray, first: np.ndarray, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """Approximate leading `count` singular triplets by randomized subspace iteration.

    Subspace iteration from random columns beside those of `first`, three times there and back (Halko, Martinsson and Tropp
    2011). The values are those of `S` on the subspaces found, and never too large.
    """
    times, transposed_times = _outside(S, U, V)
    if 4 * count >= min(S.shape):
        left, sigma, right = _whole(S.shape, times, transposed_times)
        return left[:, :count], sigma[:count], right[:, :count]
    first = first[:, :count]
    Q = np.hstack([first, rng.standard_normal((S.shape[1], count + 8 - first.shape[1]))])
    for _ in range(3):
        P = np.linalg.qr(times(Q))[0]
        Q, T = np.linalg.qr(transposed_times(P))
    W, sigma, Xt = np.linalg.svd(T.T)
    return P @ W[:, :count], sigma[:count], Q @ Xt[:count].T


def _outside(S: Any, U: np.ndarray, V: np.ndarray) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """Products with ``(I - U U.T) S (I - V V.T)`` and its transpose."""

    def times(x: np.ndarray) -> np.ndarray:
        w = S @ (x - V @ (V.T @ x))
        return w - U @ (U.T @ w)

    def transposed_times(x: np.ndarray) -> np.ndarray:
        w = S.T @ (x - U @ (U.T @ x))
        return w - V @ (V.T @ w)

    return times, transposed_times


def _whole(shape, times, transposed_times):  # type: ignore[no-untyped-def]
    whole = times(np.eye(shape[1])) if shape[1] <= shape[0] else transposed_times(np.eye(shape[0])).T
    # The quicker driver may not converge on a matrix with many singular values of rounding error, as this one has.
    left, sigma, right = scipy.linalg.svd(whole, full_matrices=False, lapack_driver="gesvd")
    return left, sigma, right.T


def trimmed(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair without the columns that have vanished."""
    L, R, s = balanced(L, R)
    keep = s > RELATIVE_RANK * max(float(s.max(initial=0.0)), np.finfo(float).tiny)
    return L[:, keep], R[:, keep], s[keep]
