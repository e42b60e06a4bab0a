"""The Newton matrix of the interior-point method, for measurements whose matrices can be rotated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def scaled_gram(
    rotated: Callable[[np.ndarray, np.ndarray], np.ndarray], W11: np.ndarray, W12: np.ndarray, W22: np.ndarray
) -> np.ndarray:
    r"""The matrix :math:`\langle A_i, W_{11} A_j W_{22} + W_{12} A_j^\top W_{12}\rangle`.

    `rotated` gives the stack of all :math:`P^\top A_i Q`.

    Notes
    -----
    With ``W = diag(B1, B2) [[I, K], [K.T, I]] diag(B1, B2).T`` and `K` made diagonal by its singular value decomposition,
    the form decouples over the entries ``(p, q)``, ``(q, p)`` of ``F = B1.T @ A_i @ B2``: it is the squared norm of
    ``x F + y F.T`` with elementwise weights ``x**2 + y**2 = 1``, ``2 x y = k_p k_q``. So it is one symmetric product.
    """
    B1, B2, k = _diagonalised(W11, W12, W22)
    stack = np.ascontiguousarray(rotated(B1, B2))
    core = stack[:, : k.size, : k.size]
    both, one = np.sqrt(1 + np.multiply.outer(k, k)), np.sqrt(1 - np.multiply.outer(k, k))
    mixed = core.transpose(0, 2, 1) * ((both - one) / 2)
    core *= (both + one) / 2
    core += mixed
    features = stack.reshape(len(stack), -1)
    return features @ features.T


def _diagonalised(W11: np.ndarray, W12: np.ndarray, W22: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`B1`, `B2`, `k` with ``W = diag(B1, B2) [[I, diag k], [diag k, I]] diag(B1, B2).T``."""
    C1, C2 = np.linalg.cholesky(W11), np.linalg.cholesky(W22)
    K = np.linalg.solve(C1, np.linalg.solve(C2, W12.T).T)
    U, k, Vt = np.linalg.svd(K)
    return C1 @ U, C2 @ Vt.T, np.minimum(k, 1.0)
