"""The singular values of a product of layers, without the product."""

from __future__ import annotations

import numpy as np

# Relative to the largest. Solvers leave smaller singular values at the size of their tolerance.
RANK_CUT = 1e-6


def product_singular_values(layers: list[np.ndarray]) -> np.ndarray:
    """The singular values of ``W_L @ ... @ W_1``, descending, as many as its narrowest width allows.

    The outer layers are reduced to square factors by QR, so that the end-to-end matrix is never formed: for two layers of inner
    width `k` this takes ``O((d1 + d2) k^2)`` operations and ``O(k^2)`` of memory.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact._spectrum import product_singular_values
    >>> product_singular_values([np.ones((1, 3)), np.ones((4, 1))]).round(4)
    array([3.4641])
    """
    widths = [layers[0].shape[1], *(layer.shape[0] for layer in layers)]
    if len(layers) == 1:
        return np.linalg.svd(layers[0], compute_uv=False)
    core = np.asarray(np.linalg.qr(layers[0].T, mode="r")).T
    for layer in layers[1:-1]:
        core = layer @ core
    core = np.linalg.qr(layers[-1], mode="r") @ core
    return np.linalg.svd(core, compute_uv=False)[: min(widths)]


def numerical_rank(singular_values: np.ndarray) -> int:
    """Count the singular values that exceed `RANK_CUT` times the largest; 0 for a zero matrix."""
    return int(np.count_nonzero(singular_values > RANK_CUT * singular_values.max(initial=0.0)))
