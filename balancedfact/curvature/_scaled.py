"""Matrices of any magnitude: an array of ordinary size and the power of two that multiplies it.

Products of many layers, and sums over layers of products of all the others, leave the range of float64 long before their
result does. Here only what leaves ordinary size is divided by a power of two, which rounds nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from balancedfact._linalg import magnitude

_LEAST, _MOST = 1e-40, 1e40  # squared norms of arrays that are left as they are


class Scaled:
    """The matrix ``array * 2**exponent``; `array` may be anything with ``@`` where only products are taken."""

    __slots__ = ("array", "exponent")

    def __init__(self, array: Any, exponent: int = 0) -> None:
        self.array, self.exponent = array, exponent

    @property
    def T(self) -> Scaled:
        return self if self.array is None else Scaled(self.array.T, self.exponent)

    def __matmul__(self, other: Scaled) -> Scaled:
        if self is ZERO or other is ZERO:
            return ZERO
        if self is ONE:
            return other
        if other is ONE:
            return self
        return ordinary(self.array @ other.array, self.exponent + other.exponent)

    def __add__(self, other: Scaled) -> Scaled:
        if other is ZERO:
            return self
        if self is ZERO:
            return other
        if self.exponent == other.exponent:
            return ordinary(self.array + other.array, self.exponent)
        if not self.array.any():
            return other
        if not other.array.any():
            return self
        top = max(self.exponent, other.exponent)
        return ordinary(np.ldexp(self.array, self.exponent - top) + np.ldexp(other.array, other.exponent - top), top)

    def dot(self, other: Scaled) -> Scaled:
        """The inner product of two matrices."""
        return ordinary(np.asarray(np.vdot(self.array, other.array)), self.exponent + other.exponent)

    def value(self, factor: float = 1.0, scale: float = 1.0) -> np.ndarray:
        """The array itself, times ``factor * scale**2``."""
        mantissa, shift = np.frexp(scale)
        return np.ldexp(self.array * (factor * mantissa**2), self.exponent + 2 * int(shift))


ONE = Scaled(None)
ZERO = Scaled(None)


def ordinary(array: np.ndarray, exponent: int = 0) -> Scaled:
    """The matrix ``array * 2**exponent`` with an array of ordinary size."""
    flat = array.ravel()
    if _LEAST < flat @ flat < _MOST:
        return Scaled(array, exponent)
    shift = int(np.frexp(magnitude(array))[1])
    return Scaled(np.ldexp(array, -shift), exponent + shift)


def partial_products(layers: list[Scaled]) -> tuple[list[Scaled], list[Scaled]]:
    """``B[k] = W_k ... W_1`` and ``C[k] = W_L ... W_{k+2}``: what stands before and after the layer ``layers[k]``."""
    before, after = [ONE], [ONE]
    for layer in layers[:-1]:
        before.append(layer @ before[-1])
    for layer in layers[:0:-1]:
        after.append(after[-1] @ layer)
    return before, after[::-1]


def partial_derivatives(
    layers: list[Scaled], directions: list[Scaled], before: list[Scaled], after: list[Scaled]
) -> tuple[list[Scaled], list[Scaled]]:
    """The derivatives of both lists of `partial_products` when the layers move along `directions`."""
    d_before, d_after = [ZERO], [ZERO]
    for W, V, B in zip(layers[:-1], directions, before, strict=False):
        d_before.append(V @ B + W @ d_before[-1])
    for W, V, C in zip(layers[:0:-1], directions[:0:-1], after[::-1], strict=False):
        d_after.append(C @ V + d_after[-1] @ W)
    return d_before, d_after[::-1]
