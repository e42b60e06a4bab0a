"""The door of every function of a measurement map: anything else is refused by name."""

from __future__ import annotations

from typing import TypeVar

from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._second_moment import SecondMoment

_Map = TypeVar("_Map", MeasurementMap, "MeasurementMap | SecondMoment")


def as_map(A: _Map, *, or_moment: bool = False) -> _Map:
    """Return `A` if it is a measurement map or, with `or_moment`, the second moment of one."""
    if isinstance(A, MeasurementMap) or (or_moment and isinstance(A, SecondMoment)):
        return A
    moment = " or its second moment" if or_moment else ""
    raise ValueError(f"A is {type(A).__name__}; expected a measurement map such as bf.measurements.Dense{moment}")
