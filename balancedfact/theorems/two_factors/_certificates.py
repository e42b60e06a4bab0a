"""The scaled trace at every pair, and bounds that prove a pair flat, with and without a penalty."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.optimize

from balancedfact import curvature, measurements, solvers
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "New",
    "Scaled trace off minimisers",
    "The scaled trace of the Hessian of |A(LR') - b|^2 is 2m(|D_1 L|^2 + |D_2 R|^2) at every pair, whatever the data.",
    kind="exact",
    page="theory/two_factors",
)
def scaled_trace_everywhere(rng: np.random.Generator) -> Outcome:
    d1, d2, k, m = (int(n) for n in rng.integers(1, 5, 4))
    matrices = rng.standard_normal((m, d1, d2))
    L, R = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    # Layers R' and L of the loss with 1/m; the Hessian of the loss without it is m times as large.
    diagonal = m * np.diag(naive.hessian([R.T, L], matrices, rng.standard_normal(m)))
    dense = np.sum(diagonal[R.size :]) / d1 + np.sum(diagonal[: R.size]) / d2
    return equal(curvature.scaled_trace(L, R, measurements.Dense(matrices)), dense)


@claim(
    "New",
    "Certificate of a flat pair",
    "For any y, 4m b'y / max(1, |D_1^(-1) A*(y) D_2^(-1)|_op) bounds the scaled trace of every pair that fits from below, "
    "and the flat minimum meets its bound.",
    kind="bound",
    page="theory/two_factors",
)
def flat_certificate(rng: np.random.Generator) -> Outcome:
    d1, d2, m = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.integers(1, 7))
    matrices = rng.standard_normal((m, d1, d2))
    rank = min(d1, d2)
    L, R = rng.standard_normal((d1, rank)), rng.standard_normal((d2, rank))
    A, b = measurements.Dense(matrices), np.array([np.sum(P * (L @ R.T)) for P in matrices])
    # D_1 and D_2 may be singular; the bound only needs what they see.
    left, right = sum(P @ P.T for P in matrices) / (m * d2), sum(P.T @ P for P in matrices) / (m * d1)

    def bound(y: np.ndarray) -> float:
        seen = naive.inverse_root(left) @ np.tensordot(y, matrices, 1) @ naive.inverse_root(right)
        return float(4 * m * (b @ y) / max(1.0, np.linalg.norm(seen, 2)))

    scaled = 2 * m * (np.trace(L.T @ left @ L) + np.trace(R.T @ right @ R))
    solution = solvers.flat_minimum(A, b)
    return all_of(
        any_vector=at_most(max(bound(y) for y in rng.standard_normal((20, m))), min(scaled, solution.value)),
        dual=equal(bound(solution.certificate.dual), solution.value, rtol=1e-6),
        fits=equal(A(solution.matrix), b, rtol=1e-6),
    )


@claim(
    "New",
    "Certificate of a penalised pair",
    "If |D_1^(-1) A*(y) D_2^(-1)|_op <= lambda then b'y - |y|^2/2 bounds |A(X) - b|^2/2 + lambda |D_1 X D_2|_* from below "
    "for every X, and the minimum meets it; X = 0 is optimal exactly from lambda = |D_1^(-1) A*(b) D_2^(-1)|_op on.",
    kind="bound",
    page="theory/two_factors",
)
def penalised_certificate(rng: np.random.Generator) -> Outcome:
    d1, d2 = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    matrices = rng.standard_normal((int(rng.integers(d1 + d2, 20)), d1, d2))
    m, b = len(matrices), rng.standard_normal(len(matrices))
    A = measurements.Dense(matrices)
    left, right = sum(P @ P.T for P in matrices) / (m * d2), sum(P.T @ P for P in matrices) / (m * d1)
    roots = [scipy.linalg.sqrtm(square).real for square in (left, right)]

    def size(y: np.ndarray) -> float:
        seen = naive.inverse_root(left) @ np.tensordot(y, matrices, 1) @ naive.inverse_root(right)
        return float(np.linalg.norm(seen, 2))

    def objective(X: np.ndarray) -> float:
        misfit = sum((np.sum(P * X) - value) ** 2 for P, value in zip(matrices, b, strict=True)) / 2
        return float(misfit + penalty * np.linalg.norm(roots[0] @ X @ roots[1], "nuc"))

    threshold = size(b)
    penalty = float(rng.uniform(0.05, 0.9)) * threshold
    solution = solvers.flat_minimum(A, b, penalty=penalty)
    bounds = []
    for y in rng.standard_normal((20, m)):
        t = max(min(b @ y / (y @ y), penalty / size(y)), 0.0)
        bounds.append(float(t * b @ y - t**2 * (y @ y) / 2))
    near = [objective(solution.matrix + 1e-2 * rng.standard_normal((d1, d2))) for _ in range(5)]
    return all_of(
        any_vector=at_most(max(bounds), min(*near, objective(solution.matrix))),
        least=at_least(min(near), objective(solution.matrix)),
        value=equal(solution.value, objective(solution.matrix)),
        dual=equal(solution.certificate.lower_bound, objective(solution.matrix), rtol=1e-7),
        zero=at_most(float(np.linalg.norm(solvers.flat_minimum(A, b, penalty=1.001 * threshold).matrix)), 1e-6),
        not_zero=at_least(float(np.linalg.norm(solvers.flat_minimum(A, b, penalty=0.9 * threshold).matrix)), 1e-3),
    )
