"""Weight decay at any depth: the Schatten quasi-norm, its closed form for observed matrices, local minima of any rank."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.optimize

from balancedfact import closed_forms, measurements, solvers
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems import _draw as draw
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal

PAGE = "theory/weight_decay"


@claim(
    "New",
    "Weight decay is a Schatten quasi-norm",
    "The least sum of squares of layers with product M is L times the sum of the singular values to the power 2/L, attained by "
    "balanced layers.",
    kind="exact",
    page=PAGE,
)
def schatten(rng: np.random.Generator) -> Outcome:
    d1, d2, rank = draw.sizes(rng, 3, 1, 4)
    L, width = int(rng.integers(2, 6)), max(d1, d2)
    M = draw.low_rank(rng, d1, d2, min(rank, d1, d2))
    value = closed_forms.schatten_value(M, L)
    layers = closed_forms.schatten_layers(M, [d2, *[width] * (L - 1), d1])
    other = draw.factorization(rng, M, L, width)
    return all_of(
        attained=equal(sum(float(np.sum(W**2)) for W in layers), value, rtol=1e-12, depth=L),
        product=equal(naive.product(layers), M, rtol=1e-10),
        never_below=at_least(sum(float(np.sum(W**2)) for W in other), value),
    )


@claim(
    "New",
    "Collapse under weight decay",
    "For one singular value y the best network with weight decay is zero up to y* = (L-1)/(L-2) (lambda (L-2))^(L/(2L-2)), and "
    "jumps there to (L-2)/(L-1) y*.",
    kind="exact",
    page=PAGE,
)
def collapse(rng: np.random.Generator) -> Outcome:
    L, weight = int(rng.integers(3, 9)), float(np.exp(rng.uniform(-2, 2)))
    threshold = closed_forms.collapse_threshold(weight, L)[0]

    def least(y: float) -> tuple[float, float]:
        """The best number that is not small, and what it costs, by search."""

        def value(x: float) -> float:
            return float((x - y) ** 2 / 2 + weight * L / 2 * x ** (2 / L))

        end = scipy.optimize.minimize_scalar(value, bounds=(0.3 * y, y), method="bounded", options={"xatol": 1e-12})
        return float(end.x), float(end.fun)

    x, cost = least(threshold)
    above = 1.01 * threshold
    return all_of(
        indifferent=equal(cost, threshold**2 / 2, rtol=1e-7, depth=L),
        jump=equal(x, (L - 2) / (L - 1) * threshold, rtol=1e-5),
        shrunk=equal(float(closed_forms.schatten_shrinkage([[above]], weight, L)[0, 0]), least(above)[0], rtol=1e-5),
        zero=at_most(float(closed_forms.schatten_shrinkage([[0.99 * threshold]], weight, L)[0, 0]), 0.0),
    )


@claim(
    "New",
    "Isolated fits are minima of weight decay",
    "At depth three and more a fit that is the only one of its rank nearby is a strict local minimum of the sum of squares "
    "among the fits of all ranks.",
    kind="bound",
    page=PAGE,
)
def isolated(rng: np.random.Generator) -> Outcome:
    d, L = int(rng.integers(2, 4)), int(rng.integers(3, 6))
    m = 2 * d - 1  # the dimension of the matrices of rank one
    E = draw.low_rank(rng, d, d, 1)
    A = measurements.gaussian(m, (d, d), rng)
    value, null = closed_forms.schatten_value(E, L), np.linalg.svd(A.rotated(np.eye(d), np.eye(d)).reshape(m, -1))[2][m:]
    others = []
    for size in (1e-12, 1e-10, 1e-8):
        for _ in range(20):
            away = rng.standard_normal(len(null)) @ null
            away = away.reshape(d, d) / np.linalg.norm(away) * np.linalg.norm(E)
            others.append(closed_forms.schatten_value(E + size * away, L))
    return all_of(above=at_least(min(others) / value, 1.0, rtol=0.0, depth=L))


@claim(
    "New",
    "Weight decay under measurements",
    "Over all networks of L layers the loss with weight decay is at least the least, over t, of half the square of the largest "
    "of (b'y - |A*(y)| t) / |y|, or zero, plus lambda L t^(2/L) / 2; minima of several ranks coexist, and what is found is "
    "stationary.",
    kind="bound",
    page=PAGE,
)
def under_measurements(rng: np.random.Generator) -> Outcome:
    d1, d2, L = int(rng.integers(2, 4)), int(rng.integers(2, 4)), int(rng.integers(3, 5))
    m, weight = int(rng.integers(3, 2 * d1 * d2)), float(np.exp(rng.uniform(-3, 1)))
    A, E = measurements.gaussian(m, (d1, d2), rng), draw.low_rank(rng, d1, d2, 1)
    b = A(E) + 0.1 * rng.standard_normal(m)
    found = solvers.norm_minimum(A, b, depth=L, penalty=weight)
    matrices = A.rotated(np.eye(d1), np.eye(d2))

    def cost(layers: list[np.ndarray]) -> float:
        misfit = np.array([np.sum(X * naive.product(layers)) for X in matrices]) - b
        return float(misfit @ misfit) / 2 + weight / 2 * sum(float(np.sum(W**2)) for W in layers)

    others = [cost(closed_forms.schatten_layers(s * E, [d2, *[2] * (L - 1), d1])) for s in (0.5, 0.9, 1.0)]
    others += [cost(draw.factorization(rng, found.matrix, L, 3)), cost([0 * W for W in found.layers])]
    steps = [[1e-6 * rng.standard_normal(W.shape) for W in found.layers] for _ in range(3)]
    slopes = []
    for step in steps:  # central differences, relative to the change of the weights alone
        ends = [cost([W + sign * S for W, S in zip(found.layers, step, strict=True)]) for sign in (1, -1)]
        size = weight * np.sqrt(sum(np.sum(W**2) for W in found.layers) * sum(np.sum(S**2) for S in step))
        slopes.append(abs(ends[0] - ends[1]) / 2 / (size or 1.0))
    return all_of(
        value=equal(cost(found.layers), found.value, rtol=1e-10, depth=L),
        bound=at_least(min(others), found.certificate.lower_bound, rtol=1e-9),
        least_of_these=at_least(min(others), found.value, rtol=1e-9),
        stationary=at_most(max(slopes), 1e-4),
    )


@claim(
    "New",
    "Rank-one networks that are global minima of weight decay",
    "A matrix of rank one that solves the convex problem with the nuclear norm times lambda t^(2/L-1), t its own, is the best "
    "network of L layers, of any widths, where the bound of the data and of its residual is least at t.",
    kind="bound",
    page=PAGE,
)
def rank_one_is_global(rng: np.random.Generator) -> Outcome:
    d1, d2, L = int(rng.integers(2, 4)), int(rng.integers(2, 4)), int(rng.integers(3, 6))
    m = int(rng.integers(3, d1 * d2 + 3))
    A = measurements.gaussian(m, (d1, d2), rng)
    matrices = A.rotated(np.eye(d1), np.eye(d2))
    b = A(draw.low_rank(rng, d1, d2, 1)) + 0.05 * rng.standard_normal(m)
    top = float(np.linalg.norm(np.tensordot(b, matrices, 1), 2))
    slope = top * float(np.exp(rng.uniform(-4, -0.5)))
    X = solvers.norm_minimum(A, b, penalty=slope, tol=1e-12).matrix
    while np.linalg.svd(X, compute_uv=False)[1:].max(initial=0.0) > 1e-9 * np.linalg.norm(X):  # until it has rank one
        slope = (slope + top) / 2
        X = solvers.norm_minimum(A, b, penalty=slope, tol=1e-12).matrix
    t = float(np.linalg.norm(X, "nuc"))
    weight = slope * t ** (1 - 2 / L)

    cost = partial(_cost_of_matrix, matrices, b, weight, L)
    y = b - np.array([np.sum(M * X) for M in matrices])
    sizes = np.concatenate([[0.0, 1.0], np.geomspace(1e-4, 1e2, 20001)]) * t
    lines = [(b @ z - np.linalg.norm(np.tensordot(z, matrices, 1), 2) * sizes) / np.linalg.norm(z) for z in (b, y)]
    bound = np.maximum(np.max(lines, axis=0), 0.0) ** 2 / 2 + weight * L / 2 * sizes ** (2 / L)
    found = solvers.norm_minimum(A, b, depth=L, penalty=weight)
    least = float(bound.min())
    others = [cost(X + s * rng.standard_normal((d1, d2))) for s in np.geomspace(1e-6, 1.0, 40)]
    others += [cost(s * X) for s in np.linspace(0.0, 2.0, 41)]
    proved = least >= cost(X) * (1 - 1e-9)  # the bound is least at t
    return all_of(
        bound=at_least(min(others), least, rtol=1e-9, depth=L),
        proved=at_least(found.certificate.lower_bound, cost(X) if proved else least, rtol=1e-7),
        best=at_most(found.value, cost(X), rtol=1e-9),
    )


@claim(
    "New",
    "Networks of any rank that are global minima of weight decay",
    "Where A*A is at least l, a stationary matrix of rank r is the best network of L layers, of any widths, if its singular "
    "values solve r of the scalar problems l x^2/2 - n x + lambda L x^(2/L)/2 and zero the others, n the singular values of "
    "A*(b - A(E)) + l E.",
    kind="bound",
    page=PAGE,
)
def any_rank_is_global(rng: np.random.Generator) -> Outcome:
    d1, d2, L = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.integers(3, 6))
    rank, m = int(rng.integers(1, min(d1, d2) + 1)), int(rng.integers(2, 6)) * d1 * d2
    A = measurements.gaussian(m, (d1, d2), rng)
    truth = draw.low_rank(rng, d1, d2, rank)
    b = A(truth) + 1e-3 * rng.standard_normal(m)
    matrices = A.rotated(np.eye(d1), np.eye(d2)).reshape(m, -1)
    ell = float(np.linalg.eigvalsh(matrices.T @ matrices)[0]) * (1 - 1e-3)
    weight = ell * float(np.linalg.norm(truth, 2)) ** (2 - 2 / L) * float(np.exp(rng.uniform(-8, -3)))
    found = solvers.norm_minimum(A, b, depth=L, penalty=weight)
    E = found.matrix

    cost = partial(_cost_of_matrix, matrices, b, weight, L)
    residual = b - matrices @ E.ravel()
    ends = np.linalg.svd((matrices.T @ residual + ell * E.ravel()).reshape(d1, d2), compute_uv=False)
    bound = float(b @ b - np.sum((matrices @ E.ravel()) ** 2) + ell * np.sum(E**2)) / 2
    for n in ends:  # by Proposition 2 the minimum is at zero or at the shrunk number
        x = float(closed_forms.schatten_shrinkage([[n / ell]], weight / ell, L)[0, 0])
        bound += ell * x**2 / 2 - n * x + weight * L / 2 * x ** (2 / L)
    proved = bound >= cost(E) * (1 - 1e-9)
    others = [cost(E + s * rng.standard_normal((d1, d2))) for s in np.geomspace(1e-6, 1.0, 40)]
    U, sigma, Vt = np.linalg.svd(E, full_matrices=False)
    others += [cost((U[:, :k] * sigma[:k]) @ Vt[:k]) for k in range(len(sigma) + 1)]
    return all_of(
        bound=at_least(min(others), bound, rtol=1e-9, depth=L),
        proved=at_least(found.certificate.lower_bound, cost(E) if proved else bound, rtol=1e-7),
    )


def _cost_of_matrix(matrices: np.ndarray, b: np.ndarray, weight: float, L: int, E: np.ndarray) -> float:
    """The loss with weight decay at the best layers of a matrix."""
    misfit = matrices.reshape(len(b), -1) @ E.ravel() - b
    return float(misfit @ misfit) / 2 + weight / 2 * closed_forms.schatten_value(E, L)
