"""Values of options that more than one command takes."""

from __future__ import annotations

import argparse
import math


def seconds(text: str) -> float:
    """A length of time such as ``60`` or ``60s``, in seconds.

    Examples
    --------
    >>> from balancedfact.commands._options import seconds
    >>> seconds("90"), seconds("0.5s")
    (90.0, 0.5)
    """
    try:
        value = float(text.strip().removesuffix("s"))
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; expected seconds above 0, such as 60 or 60s")
    return value
