"""The matrix exponential, with NumPy alone."""

from __future__ import annotations

from math import factorial

import numpy as np

_ORDER = 8
_NUMERATOR = [
    factorial(2 * _ORDER - k) * factorial(_ORDER) / (factorial(2 * _ORDER) * factorial(k) * factorial(_ORDER - k))
    for k in range(_ORDER + 1)
]


def exponential(A: np.ndarray) -> np.ndarray:
    """The exponential of a square matrix: the diagonal Padé approximation of order 8, with scaling and squaring.

    Higham 2005, The scaling and squaring method for the matrix exponential revisited: at order 8 no squaring is needed up to
    norm 1.5; here it starts at norm 1.
    """
    squarings = max(0, int(np.frexp(np.abs(A).sum(axis=0).max())[1]))
    X = np.ldexp(A, -squarings)
    square = X @ X
    even = odd = np.zeros_like(X)
    for k in range(_ORDER, -1, -2):
        even = even @ square + _NUMERATOR[k] * np.eye(len(X))
    for k in range(_ORDER - 1, 0, -2):
        odd = odd @ square + _NUMERATOR[k] * np.eye(len(X))
    odd = X @ odd
    result = np.linalg.solve(even - odd, even + odd)
    for _ in range(squarings):
        result = result @ result
    return result
