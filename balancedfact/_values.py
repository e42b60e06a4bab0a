"""Equality by value for records that hold arrays, which dataclasses do not compare."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np


class ByValue:
    """A frozen dataclass that equals another of its kind with the same numbers; ``nan`` equals ``nan`` here."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, each.name), getattr(other, each.name)) for each in fields(self))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        # Arrays and what holds them cannot be hashed; equal records have equal numbers and texts.
        plain = [getattr(self, each.name) for each in fields(self)]  # type: ignore[arg-type]
        return hash((type(self), *(each for each in plain if isinstance(each, (int, float, str)) and each == each)))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f")
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)
