"""The matrix ``J.T @ J`` for the Jacobian `J` of ``A(L R.T)`` by the entries of `L` above those of `R`, row by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_NUMBERS_AT_ONCE = 2**20  # of the Jacobian


def gram_of_blocks(jacobian: Callable[[slice], np.ndarray], m: int, unknowns: int) -> np.ndarray:
    """The sum of ``J.T @ J`` over blocks `J` of the rows of a Jacobian that may be too large to be formed."""
    rows, total = max(1, _NUMBERS_AT_ONCE // max(unknowns, 1)), np.zeros((unknowns, unknowns))
    for start in range(0, m, rows):
        J = jacobian(slice(start, start + rows))
        total += J.T @ J
    return total


def gram_of_products(
    product: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], d1: int, d2: int, k: int
) -> np.ndarray:
    """The matrix of a symmetric `product` of pairs, one unit vector at a time."""
    unknowns = (d1 + d2) * k
    columns = [np.vstack(product(e[:d1], e[d1:])).ravel() for e in np.eye(unknowns).reshape(unknowns, d1 + d2, k)]
    H = np.reshape(columns, (unknowns, unknowns))
    return (H + H.T) / 2


def gram_of_entries(squares: np.ndarray, L: np.ndarray, R: np.ndarray) -> np.ndarray:
    """The matrix for entries, of whose weights `squares` holds the sums of squares, shape ``(d1, d2)``.

    A row of `L` meets no other row of `L`, and a row of `R` no other of `R`.
    """
    (d1, k), d2 = L.shape, len(R)
    total = np.zeros((d1 + d2, k, d1 + d2, k))
    for block, weights, partner in ((total[:d1, :, :d1], squares, R), (total[d1:, :, d1:], squares.T, L)):
        own = np.arange(len(weights))
        block[own, :, own] = np.tensordot(weights, partner[:, :, None] * partner[:, None], axes=1)
    total[:d1, :, d1:] = np.einsum("ij,jp,iq->ipjq", squares, R, L)
    total[d1:, :, :d1] = total[:d1, :, d1:].transpose(2, 3, 0, 1)
    return total.reshape((d1 + d2) * k, -1)
