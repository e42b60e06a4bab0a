"""What is new on values and bounds: closed forms of the flattest factorization, and bounds on the trace of every network."""

from __future__ import annotations

import numpy as np
import scipy.linalg

import balancedfact as bf
from balancedfact import closed_forms, curvature, measurements
from balancedfact.solvers.deep import _bounds as deep_bounds
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

    solved = bf.flat_minimum(A, b, depth, rng=rng)
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


@claim(
    "New",
    "Isometry enclosure",
    "The semidefinite relaxation bounds |A(X)|^2/(m|X|^2) over all matrices of a rank, and is exact for rank one and "
    "matrices with two rows or columns.",
    kind="bound",
    page="theory/isometry",
)
def isometry_enclosure(rng: np.random.Generator) -> Outcome:
    d1, d2, rank = 2, int(rng.integers(2, 4)), 1
    if rng.uniform() < 0.5:
        d1, d2, rank = 3, 3, int(rng.integers(1, 3))
    matrices = rng.standard_normal((int(rng.integers(2, 15)), d1, d2))
    T = sum(np.outer(P, P) for P in matrices) / len(matrices)
    enclosure = measurements.isometry_constant(measurements.Dense(matrices), rank, starts=5, rng=rng)
    values = []
    for sign in (1, -1):
        for _ in range(5):
            # Alternate between the two sides: with U orthonormal the form in V is a Rayleigh quotient.
            V = rng.standard_normal((d2, rank))
            for turn in range(60):
                basis = np.linalg.qr(V)[0]
                lifted = np.kron(np.eye(d1), basis) if turn % 2 == 0 else np.kron(basis, np.eye(d2))
                vector = lifted @ np.linalg.eigh(sign * lifted.T @ T @ lifted)[1][:, -1]
                X = vector.reshape(d1, d2)
                U, _, Vt = np.linalg.svd(X)
                V = U[:, :rank] if turn % 2 == 0 else Vt[:rank].T
            values.append(float(vector @ T @ vector))
    parts = {
        "largest": at_most(max(values), enclosure.largest[1], rank=rank),
        # The difference to the largest value has the rounding of a form whose smallest value may be zero.
        "smallest": at_most(max(values) - min(values), max(values) - enclosure.smallest[0]),
    }
    if rank == 1 and d1 == 2:
        ends = [enclosure.smallest, enclosure.largest]
        parts["exact"] = equal([low for low, _ in ends], [high for _, high in ends], rtol=1e-3, scale=enclosure.largest[1])
    return all_of(**parts)


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
    solution = bf.flat_minimum(A, b, penalty=penalty)
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
        zero=at_most(float(np.linalg.norm(bf.flat_minimum(A, b, penalty=1.001 * threshold).matrix)), 1e-6),
        not_zero=at_least(float(np.linalg.norm(bf.flat_minimum(A, b, penalty=0.9 * threshold).matrix)), 1e-3),
    )


@claim(
    "New",
    "Parts seen from one side",
    "F(M) = F(Q_1 M Q_2) with the projections on what the measurements see: what only one side sees costs nothing, as an "
    "infimum.",
    kind="exact",
    page="theory/induced_regularizer",
)
def seen_from_one_side(rng: np.random.Generator) -> Outcome:
    M, matrices = instance(rng)
    depth = int(rng.integers(2, 5))
    Q = np.eye(len(M)) - np.outer(v := rng.standard_normal(len(M)), v) / (v @ v)
    A = measurements.Dense(Q @ matrices)
    whole, seen = bf.induced_regularizer(M, A, depth), bf.induced_regularizer(Q @ M, A, depth)
    return all_of(
        value=equal(whole.value, seen.value, rtol=1e-5, depth=depth),
        product=equal(naive.product(whole.layers), M, rtol=1e-6),
        bound=at_least(naive.trace(orbit(rng, M, 2, depth), Q @ matrices), seen.value),
    )
