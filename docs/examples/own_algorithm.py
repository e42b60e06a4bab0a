"""An algorithm of one's own for the convex problem: accelerated proximal gradient steps."""

from dataclasses import dataclass

import numpy as np

import balancedfact as bf
from balancedfact.solvers import Algorithm, Point


# [algorithm]
@dataclass(frozen=True)
class ProximalGradient(Algorithm):
    """FISTA (Beck and Teboulle 2009) with restarts: one singular value decomposition an iteration.

    Parameters
    ----------
    max_iterations : int
        Where to stop at last.
    """

    name = "proximal gradient"
    max_iterations: int = 5000

    def suits(self, problem):
        """Say why it cannot serve, as a clause that follows its name, or nothing."""
        if problem.offsets is not None:
            return "it has no place for offsets"
        return None if problem.q > 0 else "it needs a penalty"

    def points(self, problem, rng, *, max_rank=None, initial=None):
        """Propose points for ``min |Z|_* + |A(Z) - b|^2 / (2 q)``; somebody else decides when one is good enough."""
        A, b, q = problem.map, problem.b, problem.q
        Z = np.zeros(A.matrix_shape) if initial is None else initial[0] @ initial[1].T
        t = q / largest_eigenvalue(A, rng)  # the step: one over the Lipschitz constant of the smooth part
        ahead, momentum = Z, 1.0
        for iteration in range(self.max_iterations):
            if iteration % 10 == 0:
                yield Point.from_matrix(Z, (b - A.forward(Z)) / q)  # a point, and a dual vector for the bound
            gradient = -A.adjoint_matrix(b - A.forward(ahead)) / q
            U, s, Vt = np.linalg.svd(ahead - t * gradient, full_matrices=False)
            step = (U * np.maximum(s - t, 0)) @ Vt - Z
            if np.vdot(ahead - Z - step, step) > 0:  # the momentum points uphill
                momentum = 1.0
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            Z = Z + step
            ahead, momentum = Z + (momentum - 1) / following * step, following


def largest_eigenvalue(A, rng, iterations=50):
    """Estimate the largest eigenvalue of ``A* A`` from above: power steps, and a margin for those that are missing."""
    X = rng.standard_normal(A.matrix_shape)
    for _ in range(iterations):
        X = A.adjoint_matrix(A.forward(X / np.linalg.norm(X)))
    return 1.1 * np.linalg.norm(X)


# [algorithm end]


# [use]
rng = np.random.default_rng(0)
truth = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 25))
A = bf.measurements.bernoulli_mask(truth.shape, 0.5, rng=rng)
b = A(truth) + 0.1 * rng.standard_normal(A.m)
solution = bf.flat_minimum(A, b, penalty=1000.0, method=ProximalGradient(), rng=0)
print(solution)
other = bf.flat_minimum(A, b, penalty=1000.0, rng=0)
print(f"{other.method} finds {other.value:.10g}")
# [use end]
