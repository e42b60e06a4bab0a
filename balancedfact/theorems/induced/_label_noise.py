"""Deep linear networks under label noise: the statements of the blog post, in its order of the layers."""

from __future__ import annotations

import numpy as np

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import coordinates, definite, factorization, layers_of, low_rank, nuclear, product, sizes
from balancedfact.theorems._outcome import Outcome, all_of, at_least, equal


def _regularizer(weights: list[np.ndarray], X: np.ndarray, Y: np.ndarray) -> float:
    """``sum_l |X W_1 .. W_{l-1}|^2 |W_{l+1} .. W_L Y|^2`` for the blog's order of the weights."""
    total = 0.0
    for index in range(len(weights)):
        before, after = X, Y
        for W in weights[:index]:
            before = before @ W
        for W in weights[:index:-1]:
            after = W @ after
        total += float(np.sum(before**2) * np.sum(after**2))
    return total


def _design(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Invertible `X` and `Y`, a matrix between them, and a depth."""
    d0, dL = sizes(rng, 2, 2, 4)
    rank = int(rng.integers(1, min(d0, dL) + 1))
    X, Y = (definite(rng, d) @ np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (d0, dL))
    return X, Y, low_rank(rng, d0, dL, rank), int(rng.integers(2, 6))


def _all_pairs(X: np.ndarray, Y: np.ndarray) -> measurements.RankOne:
    """The data ``x_i^T W y_i`` for every row `x` of `X` with every column `y` of `Y`: they satisfy the assumption."""
    rows, columns = np.divmod(np.arange(len(X) * Y.shape[1]), Y.shape[1])
    return measurements.RankOne(X[rows], Y.T[columns])


def _value(X: np.ndarray, Y: np.ndarray, M: np.ndarray, depth: int) -> float:
    """``L (|X| |Y|)^(2/L) |X M Y|_*^(2 - 2/L)``."""
    norms = float(np.linalg.norm(X) * np.linalg.norm(Y))
    return float(depth * norms ** (2 / depth) * nuclear(X @ M @ Y) ** (2 - 2 / depth))


@claim(
    "Blog",
    "Regularizer",
    "sum_i sum_l |grad_{W_l} P(x_i, y_i)|^2 for P(x, y) = x^T W_1..W_L y is "
    "sum_i sum_l |x_i^T W_1..W_{l-1}|^2 |W_{l+1}..W_L y_i|^2.",
    kind="exact",
    page="theory/curvature",
)
def regularizer(rng: np.random.Generator) -> Outcome:
    depth = int(rng.integers(2, 5))
    layers = layers_of(rng, sizes(rng, depth + 1, 1, 4))  # the package's order: the blog's first weight is the last layer
    left, right = rng.standard_normal((3, len(layers[-1]))), rng.standard_normal((3, layers[0].shape[1]))
    gradients = 0.0
    for _, direction in coordinates(layers):
        ahead, behind = (product([W + t * e for W, e in zip(layers, direction, strict=True)]) for t in (1, -1))
        gradients += float(sum((x @ (ahead - behind) @ y / 2) ** 2 for x, y in zip(left, right, strict=True)))
    norms = sum(_regularizer(layers[::-1], x[None], y[:, None]) for x, y in zip(left, right, strict=True))
    package = curvature.trace(layers, measurements.RankOne(left, right)) * len(left) / 2
    return all_of(norms=equal(gradients, norms), trace=equal(package, norms))


@claim(
    "Blog",
    "Assumption",
    "If sum (x_i x_i^T) (x) (y_i y_i^T) = (X^T X) (x) (Y Y^T), the regularizer is sum_l |X W_1..W_{l-1}|^2 |W_{l+1}..W_L Y|^2.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def assumption(rng: np.random.Generator) -> Outcome:
    X, Y, M, depth = _design(rng)
    A = _all_pairs(X, Y)
    layers = factorization(rng, M, depth, min(M.shape) + 1)
    moment = sum(np.kron(np.outer(x, x), np.outer(y, y)) for x in X for y in Y.T)
    return all_of(
        assumption=equal(moment, np.kron(X.T @ X, Y @ Y.T)),
        regularizer=equal(curvature.trace(layers, A) * A.m / 2, _regularizer(layers[::-1], X, Y)),
    )


@claim(
    "Blog",
    "Lower bound",
    "The regularizer of every factorization of W is at least L (|X| |Y|)^(2/L) |X W Y|_*^(2 - 2/L).",
    kind="bound",
    page="theory/deep_closed_forms",
)
def lower_bound(rng: np.random.Generator) -> Outcome:
    X, Y, M, depth = _design(rng)
    bound = closed_forms.kronecker_minimum(M, X, Y, depth)
    # Near the minimum, where the bound could fail, and far from it.
    near = closed_forms.kronecker_layers(M, X, Y, [M.shape[1], *[min(M.shape)] * (depth - 1), M.shape[0]])
    G = np.eye(min(M.shape)) + 0.1 * rng.standard_normal((min(M.shape),) * 2)
    near[:2] = [G @ near[0], near[1] @ np.linalg.inv(G)]
    far = factorization(rng, M, depth, min(M.shape))
    return all_of(
        far=at_least(_regularizer(far[::-1], X, Y), bound),
        near=at_least(_regularizer(near[::-1], X, Y), bound),
    )


@claim(
    "Blog",
    "Construction",
    "The printed weights, with beta = (|X W Y|_*/(|X| |Y|))^(1/L), alpha and gamma = (|X|/|Y|)^(+-1/2) beta^(1 - L/2), "
    "multiply to W and attain the lower bound.",
    kind="exact",
    page="theory/deep_closed_forms",
)
def construction(rng: np.random.Generator) -> Outcome:
    X, Y, M, depth = _design(rng)
    U, s, Vt = np.linalg.svd(X @ M @ Y, full_matrices=False)
    x, y = np.linalg.norm(X), np.linalg.norm(Y)
    beta = (s.sum() / (x * y)) ** (1 / depth)
    alpha, gamma = (x / y) ** 0.5 * beta ** (1 - depth / 2), (y / x) ** 0.5 * beta ** (1 - depth / 2)
    first, last = np.linalg.solve(X, U * np.sqrt(s)), np.sqrt(s)[:, None] * Vt @ np.linalg.inv(Y)
    weights = [alpha * first, *[beta * np.eye(s.size)] * (depth - 2), gamma * last]
    package = closed_forms.kronecker_layers(M, X, Y, [M.shape[1], *[min(M.shape)] * (depth - 1), M.shape[0]])
    value = _value(X, Y, M, depth)
    return all_of(
        product=equal(product(weights[::-1]), M),
        attained=equal(_regularizer(weights, X, Y), value),
        package_product=equal(product(package), M),
        package_attained=equal(_regularizer(package[::-1], X, Y), value),
        package_value=equal(closed_forms.kronecker_minimum(M, X, Y, depth), value),
    )


@claim(
    "Blog",
    "Conclusion",
    "The least regularizer of W is L (|X| |Y|)^(2/L) |X W Y|_*^(2 - 2/L).",
    kind="exact",
    page="theory/induced_regularizer",
)
def conclusion(rng: np.random.Generator) -> Outcome:
    X, Y, M, depth = _design(rng)
    A = _all_pairs(X, Y)
    return equal(solvers.induced_regularizer(M, A, depth).value * A.m / 2, _value(X, Y, M, depth))


@claim(
    "Blog",
    "Conclusion, isotropic data",
    "For X and Y proportional to the identity the least regularizer is a power of the nuclear norm of W.",
    kind="exact",
    page="theory/induced_regularizer",
)
def isotropic_data(rng: np.random.Generator) -> Outcome:
    _, _, M, depth = _design(rng)
    x, y = np.exp(rng.standard_normal(2))
    X, Y = x * np.eye(M.shape[0]), y * np.eye(M.shape[1])
    A = _all_pairs(X, Y)
    searched = solvers.induced_regularizer(M, A, depth).value * A.m / 2
    return all_of(
        power=equal(searched, (x * y) ** 2 * closed_forms.min_isotropic_trace(M, depth)),
        formula=equal(searched, depth * (x * y) ** 2 * M.size ** (1 / depth) * nuclear(M) ** (2 - 2 / depth)),
    )


@claim(
    "Blog",
    "Conclusion, change of variables",
    "With W' = X W Y, fitting W with the penalty |X W Y|_* is fitting W' to the data X^-T x_i, Y^-1 y_i with |W'|_*.",
    kind="exact",
    page="theory/two_factors",
)
def change_of_variables(rng: np.random.Generator) -> Outcome:
    X, Y, M, _ = _design(rng)
    n = int(rng.integers(2, M.size + 1))
    x, y = rng.standard_normal((n, M.shape[0])), rng.standard_normal((n, M.shape[1]))
    targets = np.array([row @ M @ column for row, column in zip(x, y, strict=True)]) + 0.1 * rng.standard_normal(n)
    whitened = measurements.RankOne(x @ np.linalg.inv(X), np.linalg.solve(Y, y.T).T)
    penalty = 0.5
    found = solvers.norm_minimum(whitened, targets, penalty=penalty)
    W = np.linalg.solve(X, found.matrix) @ np.linalg.inv(Y)
    misfit = sum((row @ W @ column - t) ** 2 for row, column, t in zip(x, y, targets, strict=True))
    value = float(misfit / 2 + penalty * nuclear(X @ W @ Y))
    dual = found.certificate.dual
    pulled = sum(t * np.outer(row, column) for row, column, t in zip(x, y, dual, strict=True))
    # In the first variables the dual constraint is |X^-T (sum y_i x_i y_i^T) Y^-T| <= penalty.
    size = np.linalg.norm(np.linalg.solve(X.T, pulled) @ np.linalg.inv(Y.T), 2)
    return all_of(
        value=equal(value, found.value, rtol=1e-7),
        feasible=at_least(penalty, float(size), rtol=1e-7),
        optimal=equal(value, float(targets @ dual - dual @ dual / 2), rtol=1e-6),
    )


@claim(
    "Blog",
    "Conclusion, singular X and Y",
    "What the post expects for singular X and Y holds: the same value is the infimum over the factorizations of W.",
    kind="exact",
    page="theory/induced_regularizer",
)
def singular_data(rng: np.random.Generator) -> Outcome:
    X, Y, M, depth = _design(rng)
    X[0] = X[1]
    A = _all_pairs(X, Y)
    value = _value(X, Y, M, depth)
    # Adding little to the data makes it invertible, and bounds the infimum from above; it is bounded from below as before.
    full = np.vstack([X, 1e-9 * np.eye(len(X))])
    layers = closed_forms.kronecker_layers(M, full, Y, [M.shape[1], *[min(M.shape)] * (depth - 1), M.shape[0]])
    return all_of(
        bound=at_least(curvature.trace(factorization(rng, M, depth, min(M.shape)), A) * A.m / 2, value),
        approached=equal(_regularizer(layers[::-1], X, Y), value, rtol=1e-5),
        package=equal(closed_forms.kronecker_minimum(M, X, Y, depth), value),
    )
