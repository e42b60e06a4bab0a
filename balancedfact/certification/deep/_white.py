"""The coordinates in which bounds by isometries are computed: the measurements whitened, where that is well conditioned."""

from __future__ import annotations

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._base import Whitened

_WORST_STRETCH = 1e4  # product of the condition numbers of D1 and D2 from which on whitening is not trusted


def well_whitened(A: MeasurementMap) -> tuple[Whitened, float] | None:
    """The whitened map and the product of the condition numbers of `D1` and `D2`; nothing where some direction is unseen."""
    white = A.whitened()
    stretch = float(np.prod([values[-1] / values[0] for values, _ in (A.left_root, A.right_root)]))
    return (white, stretch) if white.map.matrix_shape == A.matrix_shape and stretch < _WORST_STRETCH else None
