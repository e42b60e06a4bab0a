r"""An upper bound on a largest singular value that can be trusted, for certificates.

Small matrices: the dense singular values, with a margin for rounding. Sparse ones with a short side: a Cholesky factorization
of its Gram matrix, where that is quicker. Other large ones: block elimination and a randomised Lanczos bound. For any
orthonormal `U`, `V` the matrix splits into four blocks; the three that meet ``span(U)`` or ``span(V)`` are small and their
norms exact. What is left, `N`, is bounded by Lanczos from a start drawn uniformly from the
sphere, in a stream of its own that no seed of a user can give. With `theta` the largest Ritz value of ``N.T N``, of order
``n``, after `k` steps, ``|N|^2 <= theta cosh(E / (2 k - 1))^2`` for all `k` at once, but with probability at most
``1.596 sqrt(n) exp(-E)``: if ``lambda`` is the largest eigenvalue and `b` the start's component along its vector,
``sinh((2 k - 1) arsinh sqrt(lambda / theta - 1))^2 b^2 <= 1 - b^2`` (after Kuczynski and Wozniakowski 1992, Theorem 4.2). Where
the iteration breaks down, the Krylov space is invariant, further steps would change nothing, and the bound is `theta` itself
up to what was neglected. Where `U` and `V` carry the singular values near the norm, the rest is smaller by a good factor, so
few steps suffice; where the rest decides, moderate matrices are decomposed after all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from balancedfact.certification._proved_norm import proved_sparse_norm

FAILURE = 1e-12
_TAG = (0x6E6F726D, 0x626F756E, 0x64)  # "norm", "boun", "d"
# A dense decomposition is the quicker way up to the first, and bearable where the norm of the rest decides up to the second.
_DENSE_ENTRIES, _MOST_DENSE = 500_000, 1_500_000
# Lanczos steps by default, and at most: each keeps a vector and makes it orthogonal to all before.
_LANCZOS_STEPS, _MOST_STEPS = 400, 1000
# Enough for a bound to about a hundredth.
ROUGH_STEPS = 120
# A step takes about so many times as long as its operations do in dense algebra (measured on 1e5 and 1e6 entries); but of more
# steps than rough ones, whose bases hold the leading vectors, about a part as small is taken.
_LANCZOS_SLOWER = 5
_DENSELY = "the norm of the dual matrix is its largest singular value, computed densely with a margin for rounding"


def is_small(shape: tuple[int, int]) -> bool:
    """True where a dense singular value decomposition of this shape is the quicker way."""
    return shape[0] * shape[1] <= _DENSE_ENTRIES


def as_dense(S: Any) -> np.ndarray:
    """The array of anything with ``@`` and ``.T``, by a product with the smaller of the two identities."""
    d1, d2 = S.shape
    return np.asarray(S @ np.eye(d2) if d2 <= d1 else (S.T @ np.eye(d1)).T)


def lanczos_steps(accuracy: float, shape: tuple[int, int]) -> int:
    """Lanczos steps for a relative `accuracy`; `_LANCZOS_STEPS` if that would take more than `_MOST_STEPS`."""
    steps = int(_exponent(min(shape)) / np.sqrt(8 * max(accuracy, np.finfo(float).eps))) + 1
    return max(steps, _LANCZOS_STEPS) if steps <= _MOST_STEPS else _LANCZOS_STEPS


def norm_bound(
    S: Any, U: np.ndarray, V: np.ndarray, rng: np.random.Generator, *, steps: int = _LANCZOS_STEPS, level: float = np.inf
) -> tuple[float, str]:
    """An upper bound on the largest singular value of `S`, and a sentence on what makes it one.

    `S` supports ``@`` and ``.T``; `U` and `V` are orthonormal bases of subspaces that should hold its leading singular vectors.
    Lanczos takes at most so many `steps`, and stops as soon as it is clear that the norm exceeds `level`.
    """
    # A wide basis cannot hold only leading vectors, so that its blocks would bound nothing well.
    wide = U.shape[1] > min(S.shape) // 4 and S.shape[0] * S.shape[1] <= 8 * _DENSE_ENTRIES
    if not is_small(S.shape) and hasattr(S, "to_sparse"):
        short = S if S.shape[0] <= S.shape[1] else S.T
        counts = short.column_counts()
        expected = _LANCZOS_SLOWER * steps if steps <= ROUGH_STEPS else steps
        if _gram_cost(counts, short.shape[0]) <= expected * (4 * counts.sum() + short.shape[0] * steps):
            return proved_sparse_norm(short.to_sparse()), (
                "the norm of the dual matrix is proved by a completed Cholesky factorization with its Gram matrix"
            )
    if is_small(S.shape) or wide:
        return _dense_bound(S)
    SV, SU = np.asarray(S @ V), np.asarray(S.T @ U)
    corner = U.T @ SV
    blocks = np.array(
        [[_top(corner), _top(SU - V @ corner.T)], [_top(SV - U @ corner), _complement_norm(S, U, V, rng, steps, level)]]
    )
    bound = _top(blocks) * (1 + 1e-14)
    if blocks[1, 1] > blocks[0, 0] > 0 and steps > ROUGH_STEPS and S.shape[0] * S.shape[1] <= _MOST_DENSE:
        return _dense_bound(S)  # the bases do not hold all of the leading vectors, and a few parts in 10,000 may decide
    return bound, (
        "the norm of the dual matrix is bounded by block elimination and randomised Lanczos, "
        f"with probability of failure at most {FAILURE:g}"
    )


def _dense_bound(S: Any) -> tuple[float, str]:
    """The largest singular value with a margin for rounding, and what it is called."""
    return float(np.linalg.svd(as_dense(S), compute_uv=False)[0]) * (1 + 4 * sum(S.shape) * np.finfo(float).eps), _DENSELY


def _gram_cost(counts: np.ndarray, rows: int) -> float:
    """The multiplications, roughly, for the Gram matrix of the rows, with so many entries a column, and its top eigenvalue."""
    return float(4 * counts @ counts) + rows**3 / 3


def _top(X: np.ndarray) -> float:
    return float(np.linalg.norm(X, 2)) if X.size else 0.0


def _own_stream(rng: np.random.Generator) -> np.random.Generator:
    """A stream that depends on `rng` and that no seed of a user coincides with: the operator may be made from such a seed."""
    return np.random.default_rng(np.random.SeedSequence(rng.integers(2**32, size=8).tolist(), spawn_key=_TAG))


def _exponent(n: int) -> float:
    return float(np.log(1.596 * np.sqrt(n) / FAILURE))


def _complement_norm(S: Any, U: np.ndarray, V: np.ndarray, rng: np.random.Generator, steps: int, level: float) -> float:
    """A bound, with probability ``1 - FAILURE``, on the norm of ``(I - U U.T) S (I - V V.T)``."""
    if S.shape[1] > S.shape[0]:  # Lanczos on the shorter side
        S, U, V = S.T, V, U
    n = S.shape[1] - V.shape[1]
    if n <= 0 or S.shape[0] <= U.shape[1]:
        return 0.0
    exponent, steps = _exponent(n), min(n, steps)

    def outside(x: np.ndarray, basis: np.ndarray) -> np.ndarray:
        x = x - basis @ (basis.T @ x)
        return x - basis @ (basis.T @ x)

    v = outside(_own_stream(rng).standard_normal(S.shape[1]), V)
    basis = np.empty((min(steps, 50), S.shape[1]))  # most bounds take no more
    basis[0] = v / np.linalg.norm(v)
    diagonal: list[float] = []
    off: list[float] = []
    best = np.inf
    for k in range(1, steps + 1):
        w = outside(S.T @ outside(S @ basis[k - 1], U), V)
        diagonal.append(float(basis[k - 1] @ w))
        w -= diagonal[-1] * basis[k - 1]
        if k > 1:
            w -= off[-1] * basis[k - 2]
        before = float(np.linalg.norm(w))
        w -= (basis[:k] @ w) @ basis[:k]
        beta = float(np.linalg.norm(w))
        if beta < 0.7 * before:  # much was taken away, and its rounding errors with it
            w -= (basis[:k] @ w) @ basis[:k]
            beta = float(np.linalg.norm(w))
        finished = beta <= 1e-14 * max(diagonal) or k == n
        if finished or k % 10 == 0 or k == steps:
            ritz = float(scipy.linalg.eigvalsh_tridiagonal(diagonal, off, select="i", select_range=(k - 1, k - 1))[0])
            gain = 1 + 1e-13 if finished else float(np.cosh(exponent / (2 * k - 1)))
            best = min(best, float(np.sqrt(max(ritz, 0.0))) * gain * (1 + 1e-13))
            if finished or best <= 0.99 or (k > exponent / 2 and np.sqrt(ritz) > level):
                break
        if k < steps:
            if k == len(basis):
                basis = np.vstack([basis, np.empty_like(basis)])
            off.append(beta)
            basis[k] = w / beta
    return best
