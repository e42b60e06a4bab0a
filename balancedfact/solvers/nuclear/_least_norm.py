"""The dual vector of least norm that a pair can have, and by which its optimality is tried (Candes and Recht 2009)."""

from __future__ import annotations

import numpy as np

from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.iteration._conjugate_gradients import conjugate_gradients


def least_norm_certificate(A: MeasurementMap, U: np.ndarray, V: np.ndarray, *, max_iterations: int = 500) -> np.ndarray:
    """The `y` of least norm with ``A*(y) @ V = U`` and ``A*(y).T @ U = V``, by conjugate gradients in the tangent space.

    It is ``A(X V.T + U Y.T)`` for the solution ``(X, Y)`` of the normal equations, whose matrix is that of Gauss and Newton.
    """
    d1, normal = len(U), A.pair_hessian(U, V)
    found = conjugate_gradients(
        lambda P: np.vstack(normal(P[:d1], P[d1:])), np.vstack([U, V]), accuracy=1e-12, max_products=max_iterations
    )
    X, Y = found.x[:d1], found.x[d1:]
    return A.forward_factored(np.hstack([X, U]), np.hstack([V, Y]))
