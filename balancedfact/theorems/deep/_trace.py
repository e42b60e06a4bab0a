"""Trace of the Hessian of deep factorizations: what Gatmiry et al. 2023 state exactly."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.solution import Status
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import (
    coordinates,
    factorization,
    hessian_traces,
    isotropic,
    layers_of,
    loss,
    low_rank,
    nuclear,
    orthonormal,
    product,
    root,
    sides,
    sizes,
)
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal, fails


@claim(
    "GLCRMJ",
    "Lemma 1",
    "|A B|_* <= |A| |B| in Frobenius norms; a balanced pair attains it.",
    kind="bound",
    page="theory/deep_closed_forms",
)
def lemma_1(rng: np.random.Generator) -> Outcome:
    d1, d2, k = sizes(rng, 3)
    A, B = rng.standard_normal((d1, k)), rng.standard_normal((k, d2))
    L, R = closed_forms.balanced_pair(A @ B)
    return all_of(
        bound=at_most(nuclear(A @ B), float(np.linalg.norm(A) * np.linalg.norm(B))),
        attained=equal(np.linalg.norm(L) * np.linalg.norm(R), nuclear(A @ B)),
    )


def _network(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Layers and matrices that measure their product."""
    layers = layers_of(rng, sizes(rng, int(rng.integers(3, 6)), 1, 4))
    return layers, rng.standard_normal((sizes(rng, 1, 1, 5)[0], len(layers[-1]), layers[0].shape[1]))


def _trace_by_differences(layers: list[np.ndarray], matrices: np.ndarray, b: np.ndarray) -> float:
    """Trace of the Hessian of ``(1/m) |A(W_L ... W_1) - b|^2`` by differences."""
    return sum(hessian_traces(lambda weights: loss(matrices, b, product(weights)), layers)) / len(matrices)


def _gradient_form(layers: list[np.ndarray], matrices: np.ndarray) -> float:
    """``(2/m) sum_i |grad f_i|^2`` with ``f_i = <A_i, W_L ... W_1>``, by differences along every entry."""
    squares = 0.0
    for _, direction in coordinates(layers):
        ahead, behind = (product([W + t * e for W, e in zip(layers, direction, strict=True)]) for t in (1, -1))
        squares += float(sum((np.sum(A * (ahead - behind)) / 2) ** 2 for A in matrices))
    return 2 * squares / len(matrices)


@claim(
    "GLCRMJ",
    "Lemma 2",
    "At zero loss the trace of the Hessian of (1/m) sum (f_i - b_i)^2 is (2/m) sum |grad f_i|^2; for deep linear networks "
    "that is (2/m) sum_ij |W_{j-1}..W_1 A_i^T W_L..W_{j+1}|^2.",
    kind="exact",
    page="theory/curvature",
)
def lemma_2(rng: np.random.Generator) -> Outcome:
    layers, matrices = _network(rng)
    A = measurements.Dense(matrices)
    b = A(product(layers))
    formula = curvature.trace(layers, A)
    return all_of(
        hessian=equal(_trace_by_differences(layers, matrices, b), formula, rtol=1e-7),
        gradients=equal(_gradient_form(layers, matrices), formula),
        nonlinear=_nonlinear(rng),
    )


def _nonlinear(rng: np.random.Generator) -> Outcome:
    """The lemma for ``f_i(w) = sin(x_i . w)``, by differences of the loss."""
    x, w, h = rng.standard_normal((5, 3)), rng.standard_normal(3), 1e-3
    b = np.sin(x @ w)
    losses = [np.mean((np.sin(x @ (w + sign * h * unit)) - b) ** 2) for unit in np.eye(3) for sign in (1, -1)]
    return equal(sum(losses) / h**2, 2 / len(x) * np.sum((np.cos(x @ w)[:, None] * x) ** 2), rtol=1e-4)


@claim(
    "GLCRMJ",
    "Lemma 2, need of zero loss, as printed",
    "Zero loss is printed as a hypothesis, as if the formula failed elsewhere for deep linear networks.",
    kind="counterexample",
    page="theory/curvature",
)
def lemma_2_printed(rng: np.random.Generator) -> Outcome:
    layers, matrices = _network(rng)
    b = rng.standard_normal(len(matrices))
    formula = curvature.trace(layers, measurements.Dense(matrices))
    # The differences see the whole loss, so its size is what rounding is relative to.
    scale = formula + loss(matrices, b, product(layers)) / len(matrices)
    return fails(at_least(abs(_trace_by_differences(layers, matrices, b) - formula), 1e-6 * scale))


@claim(
    "GLCRMJ",
    "Trace after Lemma 2, as printed",
    "The trace of deep linear networks is printed without the factor 2 of Lemma 2.",
    kind="counterexample",
    page="theory/curvature",
)
def trace_printed(rng: np.random.Generator) -> Outcome:
    layers, matrices = _network(rng)
    printed = sum(np.sum((right @ A.T @ left) ** 2) for left, right in sides(layers) for A in matrices) / len(matrices)
    return fails(equal(curvature.trace(layers, measurements.Dense(matrices)), printed, rtol=1e-3))


@claim(
    "GLCRMJ",
    "Definition 1",
    "The least trace over the weights of zero loss is the least induced regularizer F(M) over the matrices that fit.",
    kind="exact",
    page="theory/induced_regularizer",
)
def definition_1(rng: np.random.Generator) -> Outcome:
    d1, d2 = sizes(rng, 2, 2, 4)
    A = measurements.gaussian(max(d1 * d2 - 2, 2), (d1, d2), rng)
    b = A(rng.standard_normal((d1, d2)))
    flattest = solvers.flat_minimum(A, b, 3, rng=rng)
    value = solvers.induced_regularizer(flattest.matrix, A, 3).value
    # Along the solution set F is no lower at the other matrices that fit.
    rows = np.array([A(unit.reshape(d1, d2)) for unit in np.eye(d1 * d2)]).T
    kernel = np.linalg.svd(rows)[2][A.m :]
    nearby = [flattest.matrix + t * unseen.reshape(d1, d2) for unseen in kernel for t in (-0.3, 0.3)]
    return all_of(
        weights=equal(curvature.trace(flattest.layers, A), value, rtol=1e-6),
        matrices=at_least(min(solvers.induced_regularizer(M, A, 3).value for M in nearby), value, rtol=1e-7),
    )


def _target(rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """A matrix, a depth and a hidden width that is large enough."""
    d1, d2 = sizes(rng, 2, 2, 5)
    rank = int(rng.integers(1, min(d1, d2) + 1))
    return low_rank(rng, d1, d2, rank), int(rng.integers(2, 7)), rank + int(rng.integers(0, 3))


@claim(
    "GLCRMJ",
    "Lemma 4",
    "The least R(W) over the factorizations of M is L (d_0 d_L)^(1/L) |M|_*^(2 - 2/L), attained.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def lemma_4(rng: np.random.Generator) -> Outcome:
    M, depth, width = _target(rng)
    value = depth * (M.shape[0] * M.shape[1]) ** (1 / depth) * nuclear(M) ** (2 - 2 / depth)
    layers = closed_forms.min_isotropic_layers(M, [M.shape[1], *[width] * (depth - 1), M.shape[0]])
    return all_of(
        form=equal(closed_forms.min_isotropic_trace(M, depth), value),
        product=equal(product(layers), M),
        attained=equal(isotropic(layers), value),
        package=equal(curvature.isotropic_trace(layers), value),
        others=at_least(isotropic(factorization(rng, M, depth, width)), value),
    )


@claim(
    "GLCRMJ",
    "Lemma 4, constants, as printed",
    "alpha = (|M|_*/(d_0 d_L))^(1/L), alpha' = (d_L/d_0)^(1/2) are printed; from depth 3 they miss the bound.",
    kind="counterexample",
    page="theory/deep_closed_forms",
)
def lemma_4_printed(rng: np.random.Generator) -> Outcome:
    M, depth, _ = _target(rng)
    depth, (d_L, d_0) = max(depth, 3), M.shape
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    alpha, alpha1 = (nuclear(M) / (d_0 * d_L)) ** (1 / depth), (d_L / d_0) ** 0.5
    outer = alpha ** (-(depth - 2) / 2)
    first, last = outer / alpha1 * np.sqrt(s[:, None]) * Vt, alpha1 * outer * U * np.sqrt(s)
    layers = [first, *[alpha * np.eye(s.size)] * (depth - 2), last]
    missed = at_most(isotropic(layers), closed_forms.min_isotropic_trace(M, depth), rtol=1e-3)
    return all_of(product=equal(product(layers), M), value=fails(missed))


@claim(
    "GLCRMJ",
    "Lemma 6",
    "For a standard Gaussian X and c > 0, E[X^2; |X| >= c] <= 2 (c^2 + 2) exp(-c^2/2) / (c sqrt(2 pi)).",
    kind="bound",
    page="theory/induced_regularizer",
)
def lemma_6(rng: np.random.Generator) -> Outcome:
    c = float(np.exp(rng.uniform(-3, 2)))
    tail, _ = scipy.integrate.quad(lambda x: x**2 * np.exp(-(x**2 - c**2) / 2), c, np.inf, epsrel=1e-10)
    unit = 2 / np.sqrt(2 * np.pi)
    return at_most(unit * tail, unit * (c**2 + 2) / c, c=c)  # both sides times exp(c^2/2)


def _depth_two(M: np.ndarray, matrices: np.ndarray) -> float:
    """``|(mean of A A^T)^(1/2) M (mean of A^T A)^(1/2)|_*``."""
    left = root(sum(A @ A.T for A in matrices) / len(matrices))
    return nuclear(left @ M @ root(sum(A.T @ A for A in matrices) / len(matrices)))


@claim(
    "GLCRMJ",
    "Theorem 5",
    "At depth 2, F(M) = 4 |(mean of A_i A_i^T)^(1/2) M (mean of A_i^T A_i)^(1/2)|_*.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def theorem_5(rng: np.random.Generator) -> Outcome:
    M, _, width = _target(rng)
    matrices = rng.standard_normal((sizes(rng, 1, 5, 20)[0], *M.shape))
    A, value = measurements.Dense(matrices), 4 * _depth_two(M, matrices)
    return all_of(
        search=equal(solvers.induced_regularizer(M, A, 2).value, value),
        form=equal(closed_forms.two_layer_minimum(M, A), value),
        others=at_least(curvature.trace(factorization(rng, M, 2, width), A), value),
    )


@claim(
    "GLCRMJ",
    "Theorem 5, as printed",
    "F(M) at depth 2 is printed with the factor 2 in place of 4.",
    kind="counterexample",
    page="theory/deep_closed_forms",
)
def theorem_5_printed(rng: np.random.Generator) -> Outcome:
    M, _, _ = _target(rng)
    matrices = rng.standard_normal((sizes(rng, 1, 5, 20)[0], *M.shape))
    value = solvers.induced_regularizer(M, measurements.Dense(matrices), 2).value
    return fails(equal(value, 2 * _depth_two(M, matrices), rtol=1e-3))


@claim(
    "GLCRMJ",
    "Theorem 5, squares in the proof, as printed",
    "The proof prints |B_1 W_2|^2 + |W_1 B_2|^2 >= 2 |B_1 M B_2|_*^2 with B_1^2 = sum A_i A_i^T; there is no square.",
    kind="counterexample",
    page="theory/deep_closed_forms",
)
def theorem_5_squares(rng: np.random.Generator) -> Outcome:
    M, _, _ = _target(rng)
    matrices = rng.standard_normal((sizes(rng, 1, 5, 20)[0], *M.shape))
    A = measurements.Dense(matrices)
    layers = solvers.induced_regularizer(M, A, 2).layers
    B1, B2 = root(sum(matrix @ matrix.T for matrix in matrices)), root(sum(matrix.T @ matrix for matrix in matrices))
    least = float(np.sum((B1 @ layers[1]) ** 2) + np.sum((layers[0] @ B2) ** 2))
    size = 1 / nuclear(B1 @ M @ B2)  # a bound that is not homogeneous fails for some multiple of M
    true = equal(least, 2 / size)
    t = 4 * size  # of t M both sides are t and t^2 times those of M
    return all_of(without=true, printed=fails(at_least(t * least, 2 * (t / size) ** 2, rtol=1e-3)))


def _single(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, float]:
    """A matrix, one measurement, a depth, and ``|(A^T M)^(L-1) A^T|_{S_2/L}^{2/L}``."""
    d1, d2, depth = *sizes(rng, 2, 1, 4), int(rng.integers(2, 5))
    M, A = rng.standard_normal((d1, d2)), rng.standard_normal((d1, d2))
    power = np.linalg.matrix_power(A.T @ M, depth - 1) @ A.T
    values = np.linalg.svd(power, compute_uv=False)[: min(d1, d2)]
    return M, A, depth, float(np.sum(values ** (2 / depth)))


@claim(
    "GLCRMJ",
    "Theorem 7",
    "For a single measurement, F(M) = 2L |(A^T M)^(L-1) A^T|_{S_2/L}^{2/L}, as an infimum.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def theorem_7(rng: np.random.Generator) -> Outcome:
    M, A1, depth, norm = _single(rng)
    A = measurements.Dense(A1[None])
    return all_of(
        search=equal(solvers.induced_regularizer(M, A, depth).value, 2 * depth * norm, rtol=1e-6),
        form=equal(closed_forms.single_measurement_minimum(M, A1, depth), 2 * depth * norm, rtol=1e-6),
        others=at_least(curvature.trace(factorization(rng, M, depth, min(M.shape)), A), 2 * depth * norm, rtol=1e-6),
    )


@claim(
    "GLCRMJ",
    "Theorem 7, as printed",
    "F(M) for a single measurement is printed without the factor 2 of Lemma 2.",
    kind="counterexample",
    page="theory/deep_closed_forms",
)
def theorem_7_printed(rng: np.random.Generator) -> Outcome:
    M, A1, depth, norm = _single(rng)
    value = solvers.induced_regularizer(M, measurements.Dense(A1[None]), depth).value
    return fails(equal(value, depth * norm, rtol=1e-3))


@claim(
    "GLCRMJ",
    "Theorem 7, minimum, as printed",
    "A minimum is printed; for a nilpotent A^T M the infimum is 0 and no layers have trace 0.",
    kind="counterexample",
    page="theory/deep_closed_forms",
)
def theorem_7_minimum(rng: np.random.Generator) -> Outcome:
    d, depth = sizes(rng, 1, 2, 5)[0], int(rng.integers(3, 6))
    P, Q = orthonormal(rng, d, d), orthonormal(rng, d, d)
    M, A = np.outer(P[:, 0], Q[:, 1]), measurements.Dense((P @ Q.T)[None])
    found = solvers.induced_regularizer(M, A, depth)
    t = np.exp(rng.uniform(0, 3))
    family = [t * Q[:, 1:2].T, *[np.full((1, 1), t ** (-2 / (depth - 2)))] * (depth - 2), t * P[:, 0:1]]
    return all_of(
        product=equal(product(family), M),
        infimum=equal(curvature.trace(family, A), 4 / t**2),
        unattained=equal(float(found.status is Status.UNATTAINED), 1.0),
        # All terms vanish only if A^T W_L..W_2 does, hence the product.
        positive=fails(at_most(curvature.trace(factorization(rng, M, depth, 1), A), 0.0)),
    )


@claim(
    "GLCRMJ",
    "Section 6, identity measurement",
    "For A = I and a symmetric M with eigenvalues s_i, F(M) = 2L sum |s_i|^(2 - 2/L); F(M)/2L tends to |M|^2 with the depth.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def identity_measurement(rng: np.random.Generator) -> Outcome:
    eigenvalues, M, depth = _symmetric(rng)
    value = 2 * depth * float(np.sum(np.abs(eigenvalues) ** (2 - 2 / depth)))
    deep = 10**6
    limit = closed_forms.single_measurement_minimum(M, np.eye(len(M)), 60) / 120
    return all_of(
        search=equal(solvers.induced_regularizer(M, measurements.Dense(np.eye(len(M))[None]), depth).value, value, rtol=1e-7),
        deeper=equal(limit, float(np.sum(np.abs(eigenvalues) ** (2 - 2 / 60))), rtol=1e-7),
        limit=equal(float(np.sum(np.abs(eigenvalues) ** (2 - 2 / deep))), float(np.sum(M**2)), rtol=1e-4),
    )


def _symmetric(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Eigenvalues between 1/2 and 2 in modulus, a symmetric matrix that has them, and a depth."""
    d, depth = sizes(rng, 1, 2, 4)[0], int(rng.integers(2, 6))
    Q = orthonormal(rng, d, d)
    eigenvalues = rng.choice([-1.0, 1.0], d) * 2 ** rng.uniform(-1, 1, d)
    return eigenvalues, (Q * eigenvalues) @ Q.T, depth


@claim(
    "GLCRMJ",
    "Section 6, identity measurement, as printed",
    "F(M) = sum s_i^(2(L-1)/L) is printed, without the depth that Theorem 7 has in front and without its factor 2.",
    kind="counterexample",
    page="theory/deep_closed_forms",
)
def identity_measurement_printed(rng: np.random.Generator) -> Outcome:
    eigenvalues, M, depth = _symmetric(rng)
    value = closed_forms.single_measurement_minimum(M, np.eye(len(M)), depth)
    return fails(equal(value, float(np.sum(np.abs(eigenvalues) ** (2 - 2 / depth))), rtol=1e-3))
