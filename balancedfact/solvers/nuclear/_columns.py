"""Columns of a pair: those that the certificate misses, and those that the penalty presses to zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, svds

from balancedfact.solvers.nuclear._problem import balanced

# Above this dual slack, block Krylov iteration with so many columns is accurate enough.
_COARSE_SLACK, _FEW_COLUMNS = 1e-2, 8
# Of the block Krylov iteration: the random columns beside those asked for, the rounds (with 3, 5, 8 and 12 of them a solve of
# uneven ratings of rank 75 takes 13, 8, 7 and 7 points), and the share of a direction below which it is spanned already.
_BESIDE, _KRYLOV_ROUNDS, _INSIDE = 8, 8, 1e-10
RELATIVE_RANK = 1e-8  # a singular value counts as nonzero above this fraction of the largest


def widened(A, L, R, y, penalty, room, slack, rng):  # type: ignore[no-untyped-def]
    """At most `room` columns added along the singular vectors of ``A*(y)`` whose values exceed 1."""
    if room == 0:
        return L, R
    S, U, V = A.adjoint_for_many(y), *directions(L, R)
    tol = min(0.1 * slack, 1e-2)
    if slack >= _COARSE_SLACK:
        none = np.zeros((min(S.shape), 0))
        left, sigma, right, found = leading_block(S, min(room, _FEW_COLUMNS), U, V, none, rng)
    else:
        left, sigma, right = leading(S, 1, U, V, rng, tol=tol)
        found = left if S.shape[0] <= S.shape[1] else right
    if room > sigma.size and sigma[-1] - 1 > slack:
        left, sigma, right, _ = leading_block(S, room, U, V, found, rng)
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
    left, sigma, right, found = leading_block(S, min(room, _FEW_COLUMNS), U, V, before, rng)
    if room > sigma.size and sigma[-1] - 1 > slack:
        left, sigma, right, _ = leading_block(S, room, U, V, found, rng)
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
        return whole(shape, times, transposed_times)
    start = rng.standard_normal(min(shape))
    ahead, back = (times, transposed_times) if shape[1] <= shape[0] else (transposed_times, times)
    image = ahead(start)
    unit = _power_of_two(image)  # without it the square of a huge matrix overflows
    if not np.any(back(image / unit)):  # nothing is left, and ARPACK refuses to start
        return np.zeros((shape[0], count)), np.zeros(count), np.zeros((shape[1], count))

    def along(x: np.ndarray) -> np.ndarray:
        return times(x) / unit

    def across(x: np.ndarray) -> np.ndarray:
        return transposed_times(x) / unit

    operator = LinearOperator(shape, along, across, along, dtype=float, rmatmat=across)
    left, sigma, right = svds(operator, k=count, tol=tol, v0=start)
    return left[:, ::-1], unit * sigma[::-1], right[::-1].T


def leading_block(S: Any, count: int, U: np.ndarray, V: np.ndarray, before: np.ndarray, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """Approximate leading `count` singular triplets of ``(I - U U.T) S (I - V V.T)``, and what to begin from next time.

    Block Krylov iteration on the shorter side from the vectors `before` and random ones, with Ritz values at its end (Musco and
    Musco 2015): where the values near the norm lie close together it finds by as many products what subspace iteration misses.
    The values are those on the subspace found, and never too large.
    """
    n, before, wide = min(S.shape), before[:, :count], S.shape[0] <= S.shape[1]
    block = count + _BESIDE
    if 2 * block >= n:
        left, sigma, right = whole(S.shape, *_outside(S, U, V))
        left, sigma, right = left[:, :count], sigma[:count], right[:, :count]
        return left, sigma, right, left if wide else right
    if not wide:
        S, U, V = S.T, V, U

    def back(x: np.ndarray) -> np.ndarray:
        w = S.T @ x
        return w - V @ (V.T @ w)

    new = np.hstack([before, rng.standard_normal((n, block - before.shape[1]))])
    basis, image, size = np.zeros((n, 0)), np.zeros((n, 0)), _longest(new)
    new -= U @ (U.T @ new)
    unit = _power_of_two(back(new[:, -1:]))  # squares are taken below
    for _ in range(min(_KRYLOV_ROUNDS, n // block)):
        new = _orthonormal_beside(basis, new, _INSIDE * size)
        if new.shape[1] == 0:
            break
        basis = np.hstack([basis, new])
        new = S @ (back(new) / unit) / unit
        new -= U @ (U.T @ new)
        size = max(size, _longest(new))
        image = np.hstack([image, new])
    gram = basis.T @ image
    near = basis @ np.linalg.eigh(0.5 * (gram + gram.T))[1][:, : -count - 1 : -1]
    far = np.ascontiguousarray(back(near) / unit)
    sigma = np.linalg.norm(far, axis=0)
    far /= np.where(sigma > 0, sigma, 1.0)
    left, right = (near, far) if wide else (far, near)
    return left, unit * sigma, right, near


def _orthonormal_beside(basis: np.ndarray, new: np.ndarray, negligible: float) -> np.ndarray:
    """An orthonormal basis of what columns have outside of a `basis`, but for negligible lengths."""
    for least in (negligible, 0.5):  # the second time around all lengths are near one
        # Pivots put what is negligible last, where its directions, mere rounding, cannot turn the others.
        Q, T, _ = scipy.linalg.qr(new - basis @ (basis.T @ new), mode="economic", pivoting=True, check_finite=False)
        new = Q[:, : np.count_nonzero(np.abs(np.diag(T)) > least)]
    return new


def _longest(columns: np.ndarray) -> float:
    return float(np.linalg.norm(columns, axis=0).max())


def _power_of_two(image: np.ndarray) -> float:
    """A power of two of the size of the largest number."""
    return float(np.ldexp(1.0, int(np.frexp(np.abs(image).max())[1])))


def _outside(S: Any, U: np.ndarray, V: np.ndarray) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """Products with ``(I - U U.T) S (I - V V.T)`` and its transpose."""

    def times(x: np.ndarray) -> np.ndarray:
        w = S @ (x - V @ (V.T @ x))
        return w - U @ (U.T @ w)

    def transposed_times(x: np.ndarray) -> np.ndarray:
        w = S.T @ (x - U @ (U.T @ x))
        return w - V @ (V.T @ w)

    return times, transposed_times


def whole(shape, times, transposed_times):  # type: ignore[no-untyped-def]
    """All singular triplets of an operator, by its array."""
    array = times(np.eye(shape[1])) if shape[1] <= shape[0] else transposed_times(np.eye(shape[0])).T
    # The quicker driver may not converge on a matrix with many singular values of rounding error, as this one has.
    left, sigma, right = scipy.linalg.svd(array, full_matrices=False, lapack_driver="gesvd")
    return left, sigma, right.T


def trimmed(L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The balanced pair without the columns that have vanished."""
    L, R, s = balanced(L, R)
    keep = s > RELATIVE_RANK * max(float(s.max(initial=0.0)), np.finfo(float).tiny)
    return L[:, keep], R[:, keep], s[keep]
