"""Norms and products that neither overflow nor vanish at extreme scales."""

from __future__ import annotations

import numpy as np


def magnitude(X: np.ndarray) -> float:
    """The largest absolute entry, or 1 for a zero or empty array: what to divide by to bring `X` to ordinary size."""
    return float(np.max(np.abs(X), initial=0.0)) or 1.0


def frobenius(X: np.ndarray) -> float:
    """The Frobenius norm, without squaring numbers that are far from 1."""
    size = magnitude(X)
    return size * float(np.linalg.norm(X / size))


def nuclear(X: np.ndarray) -> float:
    """The nuclear norm, the sum of the singular values."""
    return float(np.linalg.svd(X, compute_uv=False).sum())


def partial_products(layers: list[np.ndarray]) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
    """The products ``B[j] = W_{j-1} ... W_1`` and ``C[j] = W_L ... W_{j+1}`` around layer ``j + 1``; ``None`` is I."""
    before: list[np.ndarray | None] = [None]
    for layer in layers[:-1]:
        before.append(layer if before[-1] is None else layer @ before[-1])
    after: list[np.ndarray | None] = [None]
    for layer in layers[:0:-1]:
        after.append(layer if after[-1] is None else after[-1] @ layer)
    return before, after[::-1]
