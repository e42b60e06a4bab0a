r"""An upper bound on a largest singular value that can be trusted, for certificates.

Small matrices: the dense singular values, with a margin for rounding. Large sparse ones: block elimination and a randomised
Lanczos bound. For any orthonormal `U`, `V` the matrix splits into four blocks; the three that meet ``span(U)`` or
``span(V)`` are small and their norms exact. What is left, `N`, is bounded by Lanczos from a start drawn uniformly from the
sphere: by Kuczynski and Wozniakowski (1992, Theorem 4.2) ``k`` steps on ``N.T N``, of order ``n``, give a value below ``(1
- eps) |N|^2`` with probability at most ``1.648 sqrt(n) exp(-sqrt(eps) (2 k - 1))``. Where `U` and `V` carry the singular
values near the norm, the rest is smaller by a good factor, so a large `eps` and few steps suffice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FAILURE = 1e-12
_DENSE = 500_000


def is_small(shape: tuple[int, int]) -> bool:
    """Whether a dense singular value decomposition of this shape is the quicker way."""
    return shape[0] * shape[1] <= _DENSE


def as_dense(S: Any) -> np.ndarray:
    """The array of anything with ``@`` and ``.T``, by a product with the smaller of the two identities."""
    d1, d2 = S.shape
    return np.asarray(S @ np.eye(d2) if d2 <= d1 else (S.T @ np.eye(d1)).T)


def norm_bound(S: Any, U: np.ndarray, V: np.ndarray, rng: np.random.Generator, *, steps: int = 400) -> tuple[float, str]:
    """An upper bound on the largest singular value of `S`, and a sentence on what makes it one.

    `S` supports ``@`` and ``.T``; `U` and `V` are orthonormal bases of subspaces that should hold its leading singular vectors.
    """
    # A wide basis cannot hold only leading vectors, so that its blocks would bound nothing well.
    wide = U.shape[1] > min(S.shape) // 4 and S.shape[0] * S.shape[1] <= 8 * _DENSE
    if is_small(S.shape) or wide:
        bound = float(np.linalg.svd(as_dense(S), compute_uv=False)[0]) * (1 + 4 * sum(S.shape) * np.finfo(float).eps)
        return bound, "the norm of the dual matrix is its largest singular value, computed densely with a margin for rounding"
    SV, SU = np.asarray(S @ V), np.asarray(S.T @ U)
    corner = U.T @ SV
    blocks = np.array(
        [[_top(corner), _top(SU - V @ corner.T)], [_top(SV - U @ corner), _complement_norm(S, U, V, rng, steps)]]
    )
    bound = _top(blocks) * (1 + 1e-14)
    return bound, (
        "the norm of the dual matrix is bounded by block elimination and randomised Lanczos, "
        f"with probability of failure at most {FAILURE:g}"
    )


def _top(X: np.ndarray) -> float:
    return float(np.linalg.norm(X, 2)) if X.size else 0.0


def _complement_norm(S: Any, U: np.ndarray, V: np.ndarray, rng: np.random.Generator, steps: int) -> float:
    """A bound, with probability ``1 - FAILURE``, on the norm of ``(I - U U.T) S (I - V V.T)``."""
    n = S.shape[1] - V.shape[1]
    if n <= 0 or S.shape[0] <= U.shape[1]:
        return 0.0
    exponent = np.log(1.648 * np.sqrt(n) / FAILURE)

    def outside(x: np.ndarray, basis: np.ndarray) -> np.ndarray:
        x = x - basis @ (basis.T @ x)
        return x - basis @ (basis.T @ x)

    v = outside(rng.standard_normal(S.shape[1]), V)
    v /= np.linalg.norm(v)
    basis: list[np.ndarray] = [v]
    diagonal: list[float] = []
    off: list[float] = []
    best = np.inf
    for k in range(1, min(steps, n) + 1):
        w = outside(S.T @ outside(S @ basis[-1], U), V)
        diagonal.append(float(basis[-1] @ w))
        stacked = np.array(basis)
        for _ in range(2):
            w = w - stacked.T @ (stacked @ w)
        beta = float(np.linalg.norm(w))
        finished = beta <= 1e-14 * max(diagonal) or k == n
        if finished or k % 10 == 0 or k == steps:
            ritz = float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))[-1])
            eps = 0.0 if finished else (exponent / (2 * k - 1)) ** 2
            if eps < 1:
                best = min(best, float(np.sqrt(ritz / (1 - eps))))
            if finished or best <= 0.99:
                break
        off.append(beta)
        basis.append(w / beta)
    return best
