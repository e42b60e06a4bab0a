"""Rows and columns by their names or by their positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_index


def positions(labels: Sequence[str] | None, wanted: ArrayLike, name: str, bound: int) -> np.ndarray:
    """Positions of rows or columns, ``-1`` for a label that there is none of. Integers are positions, texts are labels."""
    texts = [wanted] if isinstance(wanted, str) else wanted
    array = np.asarray(texts, dtype=object) if _has_text(texts) else None
    if array is None:
        return as_index(texts, name, bound)
    if array.ndim != 1 or not all(isinstance(label, str) for label in array):
        raise ValueError(f"{name} mixes labels with other things; expected all labels or all positions")
    if labels is None:
        raise ValueError(f"{name} has the label {array[0]!r} and there are no labels; expected positions from 0 to {bound - 1}")
    places = {label: k for k, label in enumerate(labels)}
    return np.fromiter((places.get(label, -1) for label in array), np.intp, array.size)


def _has_text(wanted: object) -> bool:
    if isinstance(wanted, np.ndarray):
        return wanted.dtype.kind in "UTO" and wanted.size > 0
    try:
        return any(isinstance(each, str) for each in wanted)  # type: ignore[attr-defined]
    except TypeError:
        return False


def as_labels(value: Sequence[str] | None, name: str, size: int) -> list[str] | None:
    """Return `value` as `size` different texts."""
    if value is None:
        return None
    try:
        labels = list(map(str, value))
    except TypeError:
        raise ValueError(f"{name} is {value!r}; expected a list of labels") from None
    if len(labels) != size:
        raise ValueError(f"{name} has {len(labels)} labels; expected {size}")
    if len(set(labels)) < size:
        raise ValueError(f"{name} has a label twice; expected different ones")
    return labels


def numbered(identifiers: np.ndarray | Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Positions ``0, 1, ...`` of identifiers and their labels: integers as they rise, texts in order of first appearance."""
    if isinstance(identifiers, np.ndarray) and identifiers.dtype.kind in "iuO":
        distinct, at = np.unique(identifiers, return_inverse=True)
        return at.astype(np.intp, copy=False).ravel(), list(map(str, distinct.tolist()))
    places: dict[str, int] = {}
    at = np.fromiter((places.setdefault(name, len(places)) for name in identifiers), np.intp, len(identifiers))
    return at, list(places)
