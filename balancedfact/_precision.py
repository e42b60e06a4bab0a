"""The number of digits that data carry."""

from __future__ import annotations

import numpy as np

_FEWEST_NUMBERS = 12  # different numbers below which nothing can be said: they may be exact
_MOST_DECIMALS = 10  # decimal places beyond which rounding is not told from float64
SINGLE = 7  # decimal digits of float32


def digits(data: np.ndarray) -> int | None:
    """The significant digits that numbers carry, relative to the largest; ``None`` where they may have all that float64 has.

    Data are short if all are float32 numbers or decimals of a few places. Integers and small sets of values, such as ratings,
    say nothing: they may be exact.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact._precision import digits
    >>> x = np.random.default_rng(0).standard_normal(50)
    >>> digits(x), digits(x.astype(np.float32).astype(float)), digits(x.round(3))
    (None, 7, 4)
    """
    size = float(np.abs(data).max(initial=0.0))
    sample = data[:10_000]
    if not 1e-30 < size < 1e30 or np.unique(sample).size < _FEWEST_NUMBERS:
        return None
    found = None
    with np.errstate(over="ignore", under="ignore"):
        if np.all(data.astype(np.float32).astype(np.float64) == data):
            found = SINGLE
    leading = int(np.floor(np.log10(size))) + 1
    for places in range(max(0, -leading) + 1, _MOST_DECIMALS + 1):
        if np.all(np.round(sample, places) == sample) and np.all(np.round(data, places) == data):
            if np.all(data == np.floor(data)):
                return None
            short = max(leading + places, 1)
            return short if found is None else min(short, found)
    return None if found is None or np.all(data == np.floor(data)) else found
