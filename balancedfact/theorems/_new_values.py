"""What is new on values and bounds: closed forms of the flattest factorization, and bounds on the trace of every network."""

from __future__ import annotations

import numpy as np
import scipy.linalg

import balancedfact as bf
from balancedfact import closed_forms, curvature, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import Outcome, all_of, at_least, at_most, claim, equal
from balancedfact.theorems._new_induced import instance, orbit

PAGE = "theory/deep_closed_forms"


@claim(
    "New",
    "Two layers",
    "At depth two F(M) = 4|D M D'|_* with D^2 = (1/m) sum A_i A_i' and D'^2 = (1/m) sum A_i'A_i.",
    kind="exact",
    page=PAGE,
)
def two_layers(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng, rank=int(rng.integers(1, 4)))
    A = measurements.Dense(matrices)
    D = scipy.linalg.sqrtm(sum(P @ P.T for P in matrices) / len(matrices)).real
    E = scipy.linalg.sqrtm(sum(P.T @ P for P in matrices) / len(matrices)).real
    value = 4 * np.linalg.norm(D @ M @ E, "nuc")
    solved = bf.induced_regularizer(M, A, 2)
    return all_of(
        solver=equal(solved.value, value),
        closed=equal(closed_forms.two_layer_minimum(M, A), value),
        layers=equal(naive.trace(solved.layers, matrices), value),
    )


@claim(
    "New",
    "One measurement",
    "For one measurement F(M) = 2L|(A'M)^(L-1) A'|_(S_2/L)^(2/L), which bounds the trace of every factorization from below.",
    kind="exact",
    page=PAGE,
)
def one_measurement(rng: np.random.Generator) -> Outcome:
    d, depth = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    M, A1 = rng.standard_normal((2, d, d))
    power = np.linalg.matrix_power(A1.T @ M, depth - 1) @ A1.T
    value = 2 * depth * float(np.sum(np.linalg.svd(power, compute_uv=False) ** (2 / depth)))
    solved = bf.induced_regularizer(M, measurements.Dense(A1[None]), depth)
    return all_of(
        closed=equal(closed_forms.single_measurement_minimum(M, A1, depth), value, rtol=1e-6, depth=depth),
        solver=equal(solved.value, value, rtol=1e-6),
        bound=at_least(naive.trace(orbit(rng, M, d, depth), A1[None]), value, rtol=1e-6),
    )


@claim(
    "New",
    "Separated sides of any shape",
    "For X and Y of any shape with rank(XMY) = rank(M) the least sum_j |X C_j|^2 |B_(j-1) Y|^2 is L(|X||Y|)^(2/L) "
    "|XMY|_*^(2-2/L).",
    kind="exact",
    page=PAGE,
)
def separated_sides(rng: np.random.Generator) -> Outcome:
    d1, d2, rank, depth = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.integers(1, 3)), int(rng.integers(2, 6))
    M = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    X, Y = rng.standard_normal((int(rng.integers(rank, 6)), d1)), rng.standard_normal((d2, int(rng.integers(rank, 6))))
    sizes = np.linalg.norm(X) * np.linalg.norm(Y)
    value = depth * sizes ** (2 / depth) * np.linalg.norm(X @ M @ Y, "nuc") ** (2 - 2 / depth)

    def cost(layers: list[np.ndarray]) -> float:
        sides = ((X @ naive.after(layers, j), naive.before(layers, j - 1) @ Y) for j in range(1, depth + 1))
        return float(sum(np.sum(left**2) * np.sum(right**2) for left, right in sides))

    best = closed_forms.kronecker_layers(M, X, Y, [d2, *(rank + rng.integers(0, 3, depth - 1)), d1])
    return all_of(
        formula=equal(closed_forms.kronecker_minimum(M, X, Y, depth), value, depth=depth),
        attained=equal(cost(best), value),
        product=equal(naive.product(best), M),
        bound=at_least(cost(orbit(rng, M, rank, depth)), value),
    )


@claim(
    "New",
    "Flattest deep network, lower bound",
    "For any y, no network of depth L that fits has a trace below (2L/m)(b'y)^(2-2/L) |y|^(4/L-2) (sum_k "
    "t_k^(2/(L-2)))^(2/L-1), t the singular values of (sum A_i A_i')^(-1/2) A*(y) (sum A_i'A_i)^(-1/2): no isometry is "
    "needed.",
    kind="bound",
    page="theory/induced_regularizer",
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

    solved = bf.flat_minimum(A, b, depth, rng=rng)
    fitting = [naive.trace(orbit(rng, M, 2, depth, spread), matrices) for spread in (0.1, 0.5)]
    best = max(bound(y) for y in [b, *rng.standard_normal((20, m))])
    return all_of(
        any_vector=at_most(best, min(solved.value, *fitting), depth=depth, m=m),
        solver=at_most(solved.certificate.lower_bound, min(naive.trace(solved.layers, matrices), *fitting)),
        dual=equal(solved.certificate.lower_bound, bound(solved.certificate.dual), rtol=1e-4),
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
