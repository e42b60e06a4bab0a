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
