"""Norms and products that neither overflow nor vanish at extreme scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from balancedfact._memory import NUMBERS_AT_ONCE

EPS = float(np.finfo(float).eps)
FITTED = 1e-12  # relative residual up to which data count as fitted


def magnitude(X: np.ndarray) -> float:
    """The largest absolute entry, or 1 for a zero or empty array: what to divide by to bring `X` to ordinary size."""
    return float(max(np.max(X, initial=0.0), -np.min(X, initial=0.0))) or 1.0


def frobenius(X: np.ndarray) -> float:
    """The Frobenius norm, without squaring numbers that are far from 1."""
    size = magnitude(X)
    if X.size <= NUMBERS_AT_ONCE:
        return size * float(np.linalg.norm(X / size))
    flat = X.reshape(-1)
    parts = [np.linalg.norm(flat[k : k + NUMBERS_AT_ONCE] / size) for k in range(0, flat.size, NUMBERS_AT_ONCE)]
    return size * float(np.linalg.norm(parts))


def scaled_product(*factors: float) -> float:
    """The product of numbers whose partial products may overflow or vanish; infinite or zero only where the result is."""
    mantissas, exponents = np.frexp(np.array(factors))
    with np.errstate(over="ignore"):
        return float(np.ldexp(np.prod(mantissas), int(exponents.sum())))


def product(layers: Sequence[np.ndarray]) -> np.ndarray:
    """The end-to-end matrix ``W_L @ ... @ W_1`` of ``[W_1, ..., W_L]``, multiplied from the side of the inputs."""
    end = layers[0]
    for layer in layers[1:]:
        end = layer @ end
    return end


def safe_scale(magnitude: float) -> float:
    """A power of two near `magnitude` where its square would be badly scaled, else exactly 1: no digit is lost by it."""
    return 1.0 if magnitude == 0 or 1e-50 < magnitude < 1e50 else float(np.ldexp(1.0, int(np.frexp(magnitude)[1]) - 1))


def square_root(P: np.ndarray) -> np.ndarray:
    """The square roots of positive semidefinite matrices, of shape ``(..., d, d)``; eigenvalues below zero count as zero."""
    values, vectors = np.linalg.eigh(P)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2))
