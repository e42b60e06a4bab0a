"""Matrices of any magnitude: an array of ordinary size and the power of two that multiplies it.

Products of many layers, and sums over layers of products of all the others, leave the range of float64 long before their
result does. Here only what leaves ordinary size is divided by a power of two, which rounds nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_LEAST_SQUARE, _MOST_SQUARE = 1e-40, 1e40  # squared norms of arrays that are left as they are
_EXPONENT_OF_ZERO = -1_000_000  # below all others, so that what a zero is added to keeps its own


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
        top = max(self.exponent, other.exponent)
        return ordinary(np.ldexp(self.array, self.exponent - top) + np.ldexp(other.array, other.exponent - top), top)

    def times(self, factor: float) -> Scaled:
        mantissa, shift = np.frexp(factor)
        return ordinary(self.array * mantissa, self.exponent + int(shift))

    def value(self, factor: float = 1.0) -> np.ndarray:
        """The array itself, times `factor`."""
        return np.ldexp(self.array * factor, self.exponent)


ONE = Scaled(None)
ZERO = Scaled(None)


def ordinary(array: np.ndarray, exponent: int = 0) -> Scaled:
    """The matrix ``array * 2**exponent`` with an array of ordinary size."""
    square = np.vdot(array, array)  # which, unlike `@`, overflows without a warning
    if _LEAST_SQUARE < square < _MOST_SQUARE:
        return Scaled(array, exponent)
    size = float(np.max(np.abs(array)))
    if size == 0:
        return Scaled(array, _EXPONENT_OF_ZERO)
    shift = int(np.frexp(size)[1])
    return Scaled(np.ldexp(array, -shift), exponent + shift)


def partial_products(layers: list[Scaled]) -> tuple[list[Scaled], list[Scaled]]:
    """``B[k] = W_k ... W_1`` and ``C[k] = W_L ... W_{k+2}``: what stands before and after the layer ``layers[k]``."""
    before, after = [ONE], [ONE]
    for layer in layers[:-1]:
        before.append(layer @ before[-1])
    for layer in layers[:0:-1]:
        after.append(after[-1] @ layer)
    return before, after[::-1]


def derivatives_before(layers: list[Scaled], directions: list[Scaled], before: list[Scaled]) -> list[Scaled]:
    """The derivatives of the first list of `partial_products` when the layers move along `directions`."""
    moved = [ZERO]
    for W, V, B in zip(layers[:-1], directions, before, strict=False):
        moved.append(V @ B + W @ moved[-1])
    return moved


def derivatives_after(layers: list[Scaled], directions: list[Scaled], after: list[Scaled]) -> list[Scaled]:
    """The derivatives of the second list."""
    moved = [ZERO]
    for W, V, C in zip(layers[:0:-1], directions[:0:-1], after[::-1], strict=False):
        moved.append(C @ V + moved[-1] @ W)
    return moved[::-1]
