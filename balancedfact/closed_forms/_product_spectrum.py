"""Singular values of a long product of square matrices, each to the accuracy that its factors allow."""

from __future__ import annotations

import numpy as np

# Bits of relative accuracy wanted, with a few to spare for the start.
_BITS = 64
# A group of singular values that spans fewer bits than this is left to a dense singular value decomposition.
_SPAN = 12
_MOST_SWEEPS = 9


def log2_singular_values(factors: list[np.ndarray]) -> np.ndarray:
    r"""Base-2 logarithms of the singular values of ``factors[-1] @ ... @ factors[0]``, ``-inf`` for zeros.

    The singular values of a long product spread over more orders of magnitude than the product, once formed, can represent:
    the small ones would be rounding error of the large ones. Here the product is never formed. Orthogonal iteration with its
    transpose, one QR factorization per factor, brings it to a product of upper triangular matrices,

    .. math:: T_n\cdots T_1 = Q_n\,(R_n\cdots R_1)\,Q_0^\top,

    with an error in each factor of the size of its rounding error, in bases in which the diagonal of the product descends. A
    ratio :math:`\sigma_{i+1}/\sigma_i` couples the two sides of the gap by its fourth power after one sweep, its eighth after
    two. Once that is below rounding, the diagonal blocks on both sides are decoupled, and each block is multiplied out and
    decomposed alone. The number of sweeps is the least for which no block spans more than a few digits.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact.closed_forms._product_spectrum import log2_singular_values
    >>> log2_singular_values([np.array([[1.0, 1.0], [0.0, 2.0**-40]])] * 50).round(6)
    array([    0.5, -2000.5])
    """
    size = factors[0].shape[0]
    # Any basis in general position: one that a factor maps to itself would keep its order, whatever the order.
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    for sweep in range(1, _MOST_SWEEPS + 1):
        for factor in factors:
            basis = np.linalg.qr(factor @ basis)[0]
        for factor in reversed(factors):
            basis = np.linalg.qr(factor.T @ basis)[0]
        triangular, left = [], basis
        for factor in factors:
            left, upper = np.linalg.qr(factor @ left)
            triangular.append(upper)
        with np.errstate(divide="ignore"):
            levels = np.log2(np.abs([np.diagonal(upper) for upper in triangular])).sum(axis=0)
        blocks = _decoupled(levels, _BITS / (4 * sweep))
        if all(np.ptp(levels[block]) <= _SPAN for block in blocks if np.isfinite(levels[block]).all()):
            break
    return np.sort(np.concatenate([_block_values(triangular, block) for block in blocks]))[::-1]


def _decoupled(levels: np.ndarray, gap: float) -> list[slice]:
    """The finest division into ranges of indices, each above the next by more than `gap`."""
    lowest_so_far, highest_to_come = np.minimum.accumulate(levels), np.maximum.accumulate(levels[::-1])[::-1]
    cuts = [i for i in range(1, levels.size) if lowest_so_far[i - 1] - gap > highest_to_come[i]]
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, levels.size], strict=True)]


def _block_values(triangular: list[np.ndarray], block: slice) -> np.ndarray:
    """Logarithms of the singular values of the product of one diagonal block."""
    product, exponent = np.eye(block.stop - block.start), 0
    for upper in triangular:
        product = upper[block, block] @ product
        shift = int(np.frexp(np.max(np.abs(product)))[1])
        product, exponent = np.ldexp(product, -shift), exponent + shift
    with np.errstate(divide="ignore"):
        return np.log2(np.linalg.svd(product, compute_uv=False)) + exponent
