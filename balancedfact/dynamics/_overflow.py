"""The range of numbers: starts of a flow beyond it are refused, and derivatives that leave it on the way raise an error."""

from __future__ import annotations

import numpy as np

LARGEST = 1e150  # of numbers whose squares are numbers too
FASTEST = 1e100  # of what is integrated, whose squares in units of its accuracy are then numbers


class Overflowed(ValueError):
    """The loss or one of its derivatives is not a finite number."""

    def __init__(self) -> None:
        super().__init__("layers, A and b make the loss or its derivatives overflow; expected smaller ones")


def finite(array: np.ndarray) -> np.ndarray:
    """Return `array`, or raise `Overflowed` where an entry is not a finite number."""
    if not np.all(np.isfinite(array)):
        raise Overflowed
    return array


def check_speed(moving: np.ndarray, given: str, most: float = FASTEST) -> None:
    """Refuse what is `given` where it makes a flow, or what the flow is computed from, run faster than `most`."""
    speed = float(np.nan_to_num(np.abs(moving), nan=np.inf, posinf=np.inf).max())
    if speed > most:
        raise ValueError(f"{given} make the flow run at {speed:.1e}; expected at most {most:.0e}")
