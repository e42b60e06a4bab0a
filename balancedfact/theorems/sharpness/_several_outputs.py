"""The least sharpness with several outputs, and over the factorizations of a matrix for any measurements."""

from __future__ import annotations

import numpy as np

from balancedfact import closed_forms, measurements, solvers
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems import _draw as draw
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal

PAGE = "theory/several_outputs"


def _regression(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Inputs as columns, their covariance, a matrix, and a depth; half of the covariances are singular."""
    q, d = (int(size) for size in rng.integers(1, 4, 2))
    n = d if rng.random() < 0.5 else max(1, d - 1)
    X = rng.standard_normal((d, n)) * np.exp(rng.uniform(-1, 1, d))[:, None]
    return X, X @ X.T / n, rng.standard_normal((q, d)), int(rng.integers(2, 5))


def _sharpness(layers: list[np.ndarray], X: np.ndarray) -> float:
    """The top of the dense Hessian of (1/n) |Y - W_L ... W_1 X|^2 at weights that fit."""
    outputs = layers[-1].shape[0]
    matrices = np.array([np.outer(e, x) for x in X.T for e in np.eye(outputs)])
    E = naive.product(layers)
    return outputs * naive.top(naive.hessian(layers, matrices, np.array([np.sum(A * E) for A in matrices])))


@claim(
    "New",
    "Least sharpness, several outputs",
    "With several outputs the least sharpness over the networks with product M is 2 min_s lambda_max(s Sigma + (L-1) "
    "s^(-1/(L-1)) Sigma^(1/2) M'M Sigma^(1/2)): attained, and no other network has less.",
    kind="exact",
    page=PAGE,
)
def several_outputs(rng: np.random.Generator) -> Outcome:
    X, sigma, M, L = _regression(rng)
    q, d = M.shape
    least = closed_forms.minimal_sharpness(sigma, M, L)
    flattest = closed_forms.flattest_regression_layers(sigma, M, [d, *[min(q, d)] * (L - 1), q])
    others = [_sharpness(draw.factorization(rng, M, L, max(q, d)), X) for _ in range(2)]
    return all_of(
        attained=equal(_sharpness(flattest, X), least, rtol=1e-8, depth=L),
        product=equal(naive.product(flattest), M, rtol=1e-10),
        never_below=at_least(min(others), least, rtol=1e-8),
    )


@claim(
    "New",
    "Least sharpness, dual form",
    "It is 2L max over unit vectors y of (y' Sigma y)^(1/L) |M Sigma^(1/2) y|^(2-2/L): every y bounds it from below, one "
    "reaches it.",
    kind="exact",
    page=PAGE,
)
def several_outputs_dual(rng: np.random.Generator) -> Outcome:
    _, sigma, M, L = _regression(rng)
    least, root = closed_forms.minimal_sharpness(sigma, M, L), draw.root(sigma)

    def bound(y: np.ndarray) -> float:
        y = y / np.linalg.norm(y)
        return float(2 * L * max(y @ sigma @ y, 0.0) ** (1 / L) * np.linalg.norm(M @ root @ y) ** (2 - 2 / L))

    best = bound(closed_forms.sharpest_data_direction(sigma, M, L))
    return all_of(
        reached=equal(best, least, rtol=1e-6, depth=L),
        bounds=at_most(max(bound(y) for y in rng.standard_normal((200, len(sigma)))), least, rtol=1e-7),
    )


@claim(
    "New",
    "Sharpness of balanced networks",
    "Balanced networks have the sharpness 2 lambda_max(Sigma^(1/2) sum_j s_1^(2(L-j)/L) (M'M)^((j-1)/L) Sigma^(1/2)), at most "
    "the condition number of a definite covariance times the least.",
    kind="exact",
    page=PAGE,
)
def balanced(rng: np.random.Generator) -> Outcome:
    q, d, L = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(2, 5))
    X = rng.standard_normal((d, d)) + 2 * np.eye(d)
    sigma, M = X @ X.T / d, rng.standard_normal((q, d))
    found = closed_forms.balanced_sharpness(sigma, M, L)
    layers = closed_forms.schatten_layers(M, [d, *[min(q, d)] * (L - 1), q])
    return all_of(
        value=equal(_sharpness(layers, X), found, rtol=1e-8, depth=L),
        ratio=at_most(found, float(np.linalg.cond(sigma)) * closed_forms.minimal_sharpness(sigma, M, L), rtol=1e-7),
    )


@claim(
    "New",
    "Least sharpness, any measurements",
    "Over the factorizations of a matrix the least sharpness equals the largest, over weights omega >= 0 of trace one, of the "
    "least trace for the ensemble rotated by omega^(1/2): the gap closes, and no factorization found is less sharp.",
    kind="exact",
    page=PAGE,
)
def any_measurements(rng: np.random.Generator) -> Outcome:
    d1, d2 = (int(size) for size in rng.integers(2, 4, 2))
    L, m, rank = int(rng.integers(2, 4)), int(rng.integers(2, 7)), int(rng.integers(1, 3))
    A, M = measurements.gaussian(m, (d1, d2), rng), draw.low_rank(rng, d1, d2, rank)
    solution = solvers.minimal_sharpness(M, A, L)
    matrices, data = A.rotated(np.eye(d1), np.eye(d2)), A(M)
    others = [naive.top(naive.hessian(draw.factorization(rng, M, L, 3), matrices, data)) for _ in range(2)]
    return all_of(
        attained=equal(naive.top(naive.hessian(solution.layers, matrices, data)), solution.value, rtol=1e-8, depth=L),
        closed=at_most(solution.certificate.gap, 1e-7),
        never_below=at_least(min(others), solution.certificate.lower_bound, rtol=1e-8),
    )


@claim(
    "New",
    "Least sharpness of all pairs that fit",
    "Over all pairs that fit, the least sharpness equals the largest, over weights omega >= 0 of trace one, of the least trace "
    "for the ensemble rotated by omega^(1/2): the gap closes, and no pair found is less sharp.",
    kind="exact",
    page=PAGE,
)
def all_pairs(rng: np.random.Generator) -> Outcome:
    d1, d2 = (int(size) for size in rng.integers(2, 4, 2))
    m = int(rng.integers(1, d1 * d2))
    A, M = measurements.gaussian(m, (d1, d2), rng), rng.standard_normal((d1, d2))
    matrices, data = A.rotated(np.eye(d1), np.eye(d2)), A(M)
    solution = solvers.flattest_sharpness(A, data, 2, rng=rng)
    rows = matrices.reshape(m, -1)
    step = rng.standard_normal(d1 * d2)
    along = (step - np.linalg.pinv(rows) @ (rows @ step)).reshape(d1, d2)  # what no measurement sees
    sizes = (-0.1, -1e-3, 1e-3, 0.1)
    others = [solvers.minimal_sharpness(solution.matrix + size * along, A, 2, tol=1e-6).value for size in sizes]
    others.append(naive.top(naive.hessian(draw.factorization(rng, M, 2, 3), matrices, data)))
    return all_of(
        attained=equal(naive.top(naive.hessian(solution.layers, matrices, data)), solution.value, rtol=1e-8),
        fits=at_most(float(np.linalg.norm(A(solution.matrix) - data) / np.linalg.norm(data)), 1e-10),
        closed=at_most(solution.certificate.gap, 1e-5),
        never_below=at_least(min(others), solution.certificate.lower_bound, rtol=1e-8),
    )


@claim(
    "New",
    "Critical step size, several outputs",
    "Beside the flattest minimiser gradient descent leaves with a step of 1.01 times 2/S_min and stays with one of 0.99 times.",
    kind="empirical",
    page=PAGE,
)
def critical_step(rng: np.random.Generator) -> Outcome:
    q, d, L = 2, int(rng.integers(2, 4)), int(rng.integers(2, 4))
    X, M = rng.standard_normal((d, 3 * d)), rng.standard_normal((q, d))
    sigma = X @ X.T / (3 * d)
    critical = 2 / closed_forms.minimal_sharpness(sigma, M, L)
    flattest = closed_forms.flattest_regression_layers(sigma, M, [d, *[2] * (L - 1), q])
    ends = []
    noise = [1e-6 * rng.standard_normal(W.shape) for W in flattest]
    for factor in (0.99, 1.01):
        layers = [W + N for W, N in zip(flattest, noise, strict=True)]
        farthest = start = float(np.trace((naive.product(layers) - M) @ sigma @ (naive.product(layers) - M).T))
        for _ in range(4000):
            E = naive.product(layers)
            slope = 2 * (E - M) @ sigma
            layers = [
                W - factor * critical * naive.after(layers, j).T @ slope @ naive.before(layers, j - 1).T
                for j, W in enumerate(layers, start=1)
            ]
            farthest = max(farthest, float(np.trace((naive.product(layers) - M) @ sigma @ (naive.product(layers) - M).T)))
            if farthest > 1e8 * start:
                break
        ends.append(farthest / start)
    return all_of(stays=at_most(ends[0], 100.0, depth=L), leaves=at_least(ends[1], 1e4))
