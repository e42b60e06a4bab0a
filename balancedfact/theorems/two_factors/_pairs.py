"""Flat, balanced and norm-minimal pairs: the statements of Ding et al. 2022 and of the course report."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import (
    definite,
    hessian_traces,
    loss,
    low_rank,
    nuclear,
    orthonormal,
    rescalings,
    second_derivative,
    sizes,
)
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal, fails


def _pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A pair, matrices that measure its product, and data that it does not fit."""
    d1, d2, k = sizes(rng, 3, 1, 4)
    matrices = rng.standard_normal((sizes(rng, 1, 1, 7)[0], d1, d2))
    return rng.standard_normal((d1, k)), rng.standard_normal((d2, k)), matrices, rng.standard_normal(len(matrices))


def _problem(rng: np.random.Generator, share: float = 0.7) -> tuple[np.ndarray, measurements.Dense, np.ndarray]:
    """Fewer measurements than unknowns of a matrix of rank two."""
    d1, d2 = sizes(rng, 2, 3, 6)
    matrices = rng.standard_normal((int(share * d1 * d2), d1, d2)) * np.exp(0.4 * rng.standard_normal((d1, d2)))
    A = measurements.Dense(matrices)
    return matrices, A, A(low_rank(rng, d1, d2, 2))


def _second_derivatives(rng: np.random.Generator) -> tuple[float, float, dict[str, float], float]:
    """``D^2 f(L, R)[U, V]`` by differences and by the package, its two terms apart, and the first term as printed."""
    L, R, matrices, b = _pair(rng)
    U, V = rng.standard_normal(L.shape), rng.standard_normal(R.shape)
    A = measurements.Dense(matrices)
    differences = second_derivative(lambda t: loss(matrices, b, (L + t * U) @ (R + t * V).T))
    images = curvature.hessian_vector_product([R.T, L], [V.T, U], A, b)
    package = A.m * float(np.sum(images[0] * V.T) + np.sum(images[1] * U))
    residual, first = A(L @ R.T) - b, A(L @ V.T + U @ R.T)
    terms = {"residual": 4 * float(residual @ A(U @ V.T)), "gauss_newton": 2 * float(first @ first)}
    return differences, package, terms, 4 * float(residual @ first)


@claim(
    "CS282",
    "Section 3, Hessian",
    "The second derivative of |A(L R^T) - b|^2 along (U, V) is 4 <A(L R^T) - b, A(U V^T)> + 2 |A(L V^T + U R^T)|^2.",
    kind="exact",
    page="theory/curvature",
)
def hessian(rng: np.random.Generator) -> Outcome:
    differences, package, terms, _ = _second_derivatives(rng)
    scale = abs(terms["residual"]) + terms["gauss_newton"]
    formula = sum(terms.values())
    return all_of(differences=equal(differences, formula, scale=scale, rtol=1e-8), package=equal(package, formula, scale=scale))


@claim(
    "CS282",
    "Section 3, Hessian, as printed",
    "The first term of the second derivative is printed as 4 <A(L R^T) - b, A(L V^T + U R^T)>.",
    kind="counterexample",
    page="theory/curvature",
)
def hessian_printed(rng: np.random.Generator) -> Outcome:
    differences, _, terms, printed = _second_derivatives(rng)
    scale = abs(terms["residual"]) + abs(printed) + terms["gauss_newton"]
    return fails(equal(differences, printed + terms["gauss_newton"], scale=scale, rtol=1e-6))


@claim(
    "CS282",
    "Equation 5, scaled trace",
    "At every pair, fitting or not, the scaled trace of the Hessian is 2m (|D1 L|^2 + |D2 R|^2).",
    kind="exact",
    page="theory/curvature",
)
def scaled_trace(rng: np.random.Generator) -> Outcome:
    L, R, matrices, b = _pair(rng)
    left, right = hessian_traces(lambda pair: loss(matrices, b, pair[0] @ pair[1].T), [L, R])
    by_definition = left / len(L) + right / len(R)
    D1, D2 = rescalings(matrices)
    formula = 2 * len(matrices) * (np.sum((D1 @ L) ** 2) + np.sum((D2 @ R) ** 2))
    scale = formula + loss(matrices, b, L @ R.T)
    return all_of(
        formula=equal(by_definition, formula, scale=scale, rtol=1e-8),
        package=equal(curvature.scaled_trace(L, R, measurements.Dense(matrices)), formula),
    )


@claim(
    "CS282",
    "Equation 6, nuclear norm",
    "The nuclear norm of X is the least |L||R|, and the least (|L|^2 + |R|^2)/2, over all pairs with product X.",
    kind="exact",
    page="theory/two_factors",
)
def variational_form(rng: np.random.Generator) -> Outcome:
    d1, d2, k = sizes(rng, 3, 1, 6)
    X = low_rank(rng, d1, d2, k)
    L, R = closed_forms.balanced_pair(X)
    G = definite(rng, L.shape[1])
    L2, R2 = L @ G, R @ np.linalg.inv(G)
    norms = np.linalg.norm
    return all_of(
        product=equal(L @ R.T, X),
        attained=equal((np.sum(L**2) + np.sum(R**2)) / 2, nuclear(X)),
        products=equal(norms(L) * norms(R), nuclear(X)),
        others=at_least(norms(L2) * norms(R2), nuclear(X)),
    )


@claim(
    "DDF",
    "Balanced and norm-minimal pairs of a matrix",
    "Of the pairs (L G, R G^-T) with one product the balanced ones, G orthogonal, are those of least norm.",
    kind="bound",
    page="theory/two_factors",
)
def balanced_is_norm_minimal(rng: np.random.Generator) -> Outcome:
    d1, d2 = sizes(rng, 2)
    k = min(d1, d2)
    L, R = closed_forms.balanced_pair(low_rank(rng, d1, d2, k))
    Q, G = orthonormal(rng, k, k), definite(rng, k)
    L1, R1, L2, R2 = L @ Q, R @ Q, L @ G, R @ np.linalg.inv(G)
    least = np.sum(L**2) + np.sum(R**2)
    # With W the polar factor of L2 R2^T the excess is |L2 - W R2|^2; the imbalance is (L2 - W R2)^T (L2 + W R2), symmetrised.
    imbalance = np.linalg.norm(L2.T @ L2 - R2.T @ R2)
    excess = np.sum(L2**2) + np.sum(R2**2) - least
    return all_of(
        rotated=equal(np.sum(L1**2) + np.sum(R1**2), least),
        still_balanced=equal(L1.T @ L1, R1.T @ R1),
        others=at_least(excess, imbalance**2 / (2 * (np.linalg.norm(L2, 2) ** 2 + np.linalg.norm(R2, 2) ** 2))),
    )


@claim(
    "DDF",
    "Flat value of a matrix",
    "Among the pairs with product X the least scaled trace is 4m |D1 X D2|_*, attained by the flat pair.",
    kind="exact",
    page="theory/two_factors",
)
def flat_value(rng: np.random.Generator) -> Outcome:
    d1, d2, k = sizes(rng, 3)
    matrices = rng.standard_normal((d1 * d2, d1, d2))
    A, (D1, D2) = measurements.Dense(matrices), rescalings(matrices)
    X = low_rank(rng, d1, d2, k)
    L, R = closed_forms.flat_pair(X, A)
    value = 4 * A.m * nuclear(D1 @ X @ D2)
    G = definite(rng, L.shape[1])
    return all_of(
        product=equal(L @ R.T, X),
        attained=equal(curvature.scaled_trace(L, R, A), value),
        others=at_least(curvature.scaled_trace(L @ G, R @ np.linalg.inv(G), A), value),
    )


@claim(
    "DDF",
    "Flat pairs are rescaled-balanced",
    "The flat pair of a matrix satisfies L^T D1^2 L = R^T D2^2 R.",
    kind="exact",
    page="theory/two_factors",
)
def rescaled_balance(rng: np.random.Generator) -> Outcome:
    d1, d2, k = sizes(rng, 3)
    matrices = rng.standard_normal((d1 * d2, d1, d2))
    L, R = closed_forms.flat_pair(low_rank(rng, d1, d2, k), measurements.Dense(matrices))
    D1, D2 = rescalings(matrices)
    return equal(L.T @ D1 @ D1 @ L, R.T @ D2 @ D2 @ R)


@claim(
    "CS282",
    "First claim, equal values",
    "Problem (2), least (|D1 L|^2 + |D2 R|^2)/2, and problem (3), least |X|_* with A(D1^-1 X D2^-1) = b, have equal values.",
    kind="exact",
    page="theory/two_factors",
)
def equal_values(rng: np.random.Generator) -> Outcome:
    matrices, A, b = _problem(rng)
    D1, D2 = rescalings(matrices)
    flat = solvers.flat_minimum(A, b)
    convex = solvers.norm_minimum(measurements.Dense(np.linalg.solve(D1, matrices) @ np.linalg.inv(D2)), b)
    L, R = flat.pair
    return all_of(
        fits=equal(A(L @ R.T), b, rtol=1e-7),
        values=equal((np.sum((D1 @ L) ** 2) + np.sum((D2 @ R) ** 2)) / 2, convex.value / 2, rtol=1e-6),
    )


@claim(
    "CS282",
    "Second claim, minimisers",
    "If (L, R) solves problem (2), then D1 L R^T D2 solves problem (3).",
    kind="exact",
    page="theory/two_factors",
)
def minimisers(rng: np.random.Generator) -> Outcome:
    matrices, A, b = _problem(rng)
    D1, D2 = rescalings(matrices)
    L, R = solvers.flat_minimum(A, b).pair
    X = D1 @ L @ R.T @ D2
    rescaled = measurements.Dense(np.linalg.solve(D1, matrices) @ np.linalg.inv(D2))
    y = solvers.norm_minimum(rescaled, b).certificate.dual
    bound = float(b @ y) / np.linalg.norm(np.linalg.solve(D1, A.adjoint(y)) @ np.linalg.inv(D2), 2)
    return all_of(feasible=equal(rescaled(X), b, rtol=1e-7), minimal=equal(nuclear(X), bound, rtol=1e-6))


@claim(
    "CS282",
    "Third claim, recovery",
    "If D1 M D2 is the unique minimiser of problem (3) and b = A(M), then every flat pair has product M.",
    kind="exact",
    page="theory/two_factors",
)
def unique_minimiser(rng: np.random.Generator) -> Outcome:
    d1, d2 = sizes(rng, 2, 3, 5)
    M = low_rank(rng, d1, d2, 1)
    everything = rng.standard_normal((d1 * d2, d1, d2))
    for m in itertools.count(2 * (d1 + d2 - 1) - 2):
        matrices = everything[:m]
        D1, D2 = rescalings(matrices)
        rescaled = np.linalg.solve(D1, matrices) @ np.linalg.inv(D2)
        if m >= d1 * d2 or _is_unique(rescaled, D1 @ M @ D2):
            break
    A = measurements.Dense(matrices)
    flat = solvers.flat_minimum(A, A(M))
    return equal(flat.matrix, M, rtol=1e-6, m=float(A.m))


def _is_unique(matrices: np.ndarray, X: np.ndarray) -> bool:
    """Tell whether `X`, of rank one, is proven the only matrix of least nuclear norm with its measurements.

    So it is if the map is injective on the tangent space at `X` and a dual vector certifies it with room across.
    """
    A = measurements.Dense(matrices)
    y = solvers.norm_minimum(A, A(X)).certificate.dual
    U, _, Vt = np.linalg.svd(X)
    dual = U.T @ A.adjoint(y) @ Vt.T
    if np.linalg.norm(dual[1:, 1:], 2) > 0.99 or abs(dual[0, 0] - 1) > 1e-6:
        return False
    tangent = (U.T @ matrices @ Vt.T).copy()
    tangent[:, 1:, 1:] = 0
    values = np.linalg.svd(tangent.reshape(A.m, -1), compute_uv=False)
    return bool(A.m >= sum(X.shape) - 1 and values[sum(X.shape) - 2] > 1e-2 * values[0])


@claim(
    "CS282",
    "First claim, as printed",
    "The first claim is printed for problems (1) and (2), whose numbers are shifted by one: (1) has the value 0, (2) has not.",
    kind="counterexample",
    page="theory/two_factors",
)
def equal_values_printed(rng: np.random.Generator) -> Outcome:
    _, A, b = _problem(rng)
    solution = solvers.flat_minimum(A, b)
    first = float(np.sum((A(solution.matrix) - b) ** 2))
    return fails(equal(first, solution.value / (4 * A.m), rtol=1e-3))


def _near_equivalence(rng: np.random.Generator) -> tuple[float, np.ndarray, np.ndarray, float]:
    """The squared condition number, a flat pair, and a proven lower bound on the squared norm of every pair that fits."""
    matrices, A, b = _problem(rng)
    spectra = np.concatenate([np.linalg.eigvalsh(D) for D in rescalings(matrices)])
    L, R = solvers.flat_minimum(A, b).pair
    return (spectra.max() / spectra.min()) ** 2, L, R, solvers.norm_minimum(A, b).certificate.lower_bound


@claim(
    "CS282",
    "Equation 7, near norm-minimality",
    "If the spectra of D1 and D2 lie between a1 and a2 and kappa = a2/a1, a flat pair's squared norm is at most kappa^2 times "
    "the least.",
    kind="bound",
    page="theory/two_factors",
)
def near_norm_minimality(rng: np.random.Generator) -> Outcome:
    square, L, R, least = _near_equivalence(rng)
    return at_most(np.sum(L**2) + np.sum(R**2), square * least, rtol=1e-7, kappa=square**0.5)


@claim(
    "CS282",
    "Equation 8, near balance",
    "With the same kappa, a flat pair has |L^T L - R^T R|_* <= 2 (kappa^2 - 1) |X|_* for every solution X.",
    kind="bound",
    page="theory/two_factors",
)
def near_balance(rng: np.random.Generator) -> Outcome:
    square, L, R, least = _near_equivalence(rng)
    return at_most(nuclear(L.T @ L - R.T @ R), 2 * (square - 1) * least / 2, rtol=1e-7, kappa=square**0.5)


@claim(
    "CS282",
    "Equation 10, Lemma",
    "A minimiser of |Q1 L|^2 + |Q2 R|^2 over Q1 L R^T Q2 = X has |L^T L - R^T R|_* <= (1 - kappa^-2) (|L|^2 + |R|^2).",
    kind="bound",
    page="theory/two_factors",
)
def lemma(rng: np.random.Generator) -> Outcome:
    d1, d2, k = sizes(rng, 3)
    Q1, Q2 = definite(rng, d1), definite(rng, d2)
    Q2 *= np.linalg.norm(Q1) / np.linalg.norm(Q2) * np.sqrt(d2 / d1)  # so that the map below has D1 and D2 in their ratio
    rows, columns = np.divmod(np.arange(d1 * d2), d2)
    A = measurements.RankOne(Q1[rows], Q2[columns])
    X = low_rank(rng, d1, d2, k)
    L, R = closed_forms.flat_pair(np.linalg.solve(Q1, X) @ np.linalg.inv(Q2), A)
    spectra = np.concatenate([np.linalg.eigvalsh(Q1), np.linalg.eigvalsh(Q2)])
    bound = (1 - (spectra.min() / spectra.max()) ** 2) * (np.sum(L**2) + np.sum(R**2))
    return all_of(
        minimal=equal((np.sum((Q1 @ L) ** 2) + np.sum((Q2 @ R) ** 2)) / 2, nuclear(X)),
        imbalance=at_most(nuclear(L.T @ L - R.T @ R), bound),
    )


@claim(
    "DDF",
    "Equivalence under isotropic measurements",
    "If D1 and D2 are multiples of the identity by one factor, the flat solutions are the norm-minimal ones.",
    kind="exact",
    page="theory/two_factors",
)
def isotropic_measurements(rng: np.random.Generator) -> Outcome:
    d = sizes(rng, 1, 3, 6)[0]
    A = measurements.Dense(np.array([orthonormal(rng, d, d) for _ in range(int(0.6 * d * d))]))
    b = A(low_rank(rng, d, d, 2))
    flat, least = solvers.flat_minimum(A, b), solvers.norm_minimum(A, b)
    return all_of(
        matrices=equal(flat.matrix, least.matrix, rtol=1e-5),
        norms=equal(sum(np.sum(factor**2) for factor in flat.pair), least.value, rtol=1e-6),
        traces=equal(curvature.scaled_trace(*least.pair, A), flat.value, rtol=1e-6),
    )
