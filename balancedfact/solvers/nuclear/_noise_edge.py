"""The penalty from which on nothing of the data is left in the solution."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import aslinearoperator, svds

from balancedfact.certification._spectral_norm import as_dense, is_small
from balancedfact.measurements import MeasurementMap


def largest_penalty(A: MeasurementMap, b: np.ndarray, rng: np.random.Generator, *, flat: bool = True) -> float:
    r"""The least penalty at which zero is a solution, :math:`\|D_1^{-1} \mathcal A^*(b) D_2^{-1}\|`, without `flat` no `D`."""
    # In whitened coordinates A(X) = scale * map(Z) and D1 X D2 = scale**2 * Z; without flatness X = Z.
    white = A.whitened() if flat else A.unwhitened()
    S = white.map.adjoint_for_many(b)
    if is_small(white.map.matrix_shape):
        norm = float(np.linalg.norm(as_dense(S), 2))
    elif not b.any():
        norm = 0.0
    else:
        start = rng.standard_normal(min(white.map.matrix_shape))
        norm = float(svds(aslinearoperator(S), k=1, v0=start, tol=1e-4, return_singular_vectors=False)[0])
    return norm / white.scale if flat else norm * white.scale
