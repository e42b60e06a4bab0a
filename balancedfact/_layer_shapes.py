"""The shapes of the arrays of a solution: whether they are layers, and what to call their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def multiply(layers: Sequence[np.ndarray]) -> bool:
    """Tell whether arrays are layers: matrices each of which takes what the one before gives."""
    matrices = all(layer.ndim == 2 for layer in layers)
    return matrices and all(after.shape[1] == before.shape[0] for before, after in pairwise(layers))


def described(layers: Sequence[np.ndarray]) -> str:
    """The sizes of layers, or the shapes of the arrays of a point that has none, as a clause."""
    if multiply(layers):
        return "widths " + " x ".join(str(size) for size in [len(layers[-1]), *(w.shape[1] for w in layers[::-1])])
    return f"arrays of shapes {', '.join(str(layer.shape) for layer in layers)}"
