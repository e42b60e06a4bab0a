"""Lower bounds on the trace of the Hessian of every network that fits."""

from __future__ import annotations

import numpy as np

from balancedfact import curvature, measurements, solvers
from balancedfact.certification.deep import _multiplier as deep_bounds
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import instance, orbit
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "New",
    "Flattest deep network, lower bound",
    "For any y, no network of depth L that fits has a trace below (2L/m)(b'y)^(2-2/L) |y|^(4/L-2) (sum_k "
    "t_k^(2/(L-2)))^(2/L-1), t the singular values of (sum A_i A_i')^(-1/2) A*(y) (sum A_i'A_i)^(-1/2): no isometry is "
    "needed.",
    kind="bound",
    page="theory/deep_flat_minimum",
)
def multiplier_bound(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng, m=int(rng.integers(1, 5)))
    depth, m = int(rng.integers(3, 5)), len(matrices)
    A, b = measurements.Dense(matrices), np.array([np.sum(P * M) for P in matrices])
    left, right = sum(P @ P.T for P in matrices), sum(P.T @ P for P in matrices)

    def bound(y: np.ndarray) -> float:
        if b @ y <= 0:
            return 0.0
        weights = [naive.inverse_root(left), np.tensordot(y, matrices, 1), naive.inverse_root(right)]
        t = np.linalg.svd(weights[0] @ weights[1] @ weights[2], compute_uv=False)
        size = np.sum(t ** (2 / (depth - 2))) ** (1 - 2 / depth) * np.linalg.norm(y) ** (2 - 4 / depth)
        return float(2 * depth / m * (b @ y) ** (2 - 2 / depth) / size)

    solved = solvers.flat_minimum(A, b, depth, rng=rng)
    fitting = [naive.trace(orbit(rng, M, 2, depth, spread), matrices) for spread in (0.1, 0.5)]
    vectors = [b, *rng.standard_normal((20, m))]
    return all_of(
        any_vector=at_most(max(bound(y) for y in vectors), min(solved.value, *fitting), depth=depth, m=m),
        solver=at_most(solved.certificate.lower_bound, min(naive.trace(solved.layers, matrices), *fitting)),
        dual=at_least(solved.certificate.lower_bound, bound(solved.certificate.dual), rtol=1e-6),
        formula=equal([deep_bounds.multiplier_bound(A, b, y, depth) for y in vectors], [bound(y) for y in vectors], rtol=1e-6),
    )


@claim(
    "New",
    "Trace between the isometry constants",
    "At every network the trace of the Hessian is between 2 s R(W) and 2 l R(W), with s and l the extremes of "
    "|A(X)|^2/(m|X|^2) over matrices of rank one.",
    kind="bound",
    page="theory/isometry",
)
def between_isometry_constants(rng: np.random.Generator) -> Outcome:
    widths = [int(d) for d in rng.integers(2, 4, rng.integers(3, 5))]
    matrices = rng.standard_normal((int(rng.integers(4, 30)), widths[-1], widths[0]))
    enclosure = measurements.isometry_constant(measurements.Dense(matrices), 1, starts=2, iterations=30, rng=rng)
    layers = naive.gaussian_layers(rng, widths)
    sizes = [np.sum(naive.after(layers, j) ** 2) * np.sum(naive.before(layers, j - 1) ** 2) for j in range(1, len(widths))]
    found, R = naive.trace(layers, matrices), float(sum(sizes))
    return all_of(
        lower=at_least(found, 2 * enclosure.smallest[0] * R),
        upper=at_most(found, 2 * enclosure.largest[1] * R),
        surrogate=equal(curvature.isotropic_trace(layers), R),
    )
