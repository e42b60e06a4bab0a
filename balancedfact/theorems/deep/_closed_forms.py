"""Closed forms of the flattest factorization: two layers, one measurement, data that separate the two sides."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from balancedfact import closed_forms, measurements, solvers
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import instance, orbit
from balancedfact.theorems._outcome import Outcome, all_of, at_least, equal


@claim(
    "New",
    "Two layers",
    "At depth two F(M) = 4|D M D'|_* with D^2 = (1/m) sum A_i A_i' and D'^2 = (1/m) sum A_i'A_i.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def two_layers(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng, rank=int(rng.integers(1, 4)))
    A = measurements.Dense(matrices)
    D = scipy.linalg.sqrtm(sum(P @ P.T for P in matrices) / len(matrices)).real
    E = scipy.linalg.sqrtm(sum(P.T @ P for P in matrices) / len(matrices)).real
    value = 4 * np.linalg.norm(D @ M @ E, "nuc")
    solved = solvers.induced_regularizer(M, A, 2)
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
    page="theory/deep_closed_forms",
)
def one_measurement(rng: np.random.Generator) -> Outcome:
    d, depth = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    M, A1 = rng.standard_normal((2, d, d))
    power = np.linalg.matrix_power(A1.T @ M, depth - 1) @ A1.T
    value = 2 * depth * float(np.sum(np.linalg.svd(power, compute_uv=False) ** (2 / depth)))
    solved = solvers.induced_regularizer(M, measurements.Dense(A1[None]), depth)
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
    page="theory/deep_closed_forms",
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
