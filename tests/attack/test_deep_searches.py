"""No false bound, value or verdict of the searches on networks, at spreads up to 1e10, and none that takes long.

What they return is held against other networks that fit and against descents from random layers, all from the definitions;
curvature alone is the package's, which the suite holds against dense derivatives.
"""

import time
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import minimize

import balancedfact as bf

pytestmark = pytest.mark.attack

# Of processor time on one problem of a few numbers, where a product of two small matrices takes so much of it.
_MOST_SECONDS, _SECONDS_OF_A_PRODUCT = 20.0, 1.05e-6
_ROUNDING = 1e-6


def draw(seed, index):
    """A map of a random kind and spread, a matrix, and a number of layers."""
    rng = np.random.default_rng([seed, 9, index])
    d1, d2 = rng.integers(1, 5, 2)
    m, depth = int(rng.integers(1, d1 * d2 + 3)), int(rng.integers(2, 5))
    kind = ("dense", "rank-one", "entries")[rng.integers(3)]
    sizes = np.exp(rng.uniform(-np.log(10.0 ** rng.uniform(0, 10)), 0, m))
    if kind == "dense":
        A = bf.measurements.Dense(rng.standard_normal((m, d1, d2)) * sizes[:, None, None])
    elif kind == "rank-one":
        A = bf.measurements.RankOne(rng.standard_normal((m, d1)) * sizes[:, None], rng.standard_normal((m, d2)))
    else:
        places = rng.choice(d1 * d2, min(m, d1 * d2), replace=False)
        A = bf.measurements.Entries(places // d2, places % d2, (d1, d2), sizes[: places.size])
    rank = int(rng.integers(1, min(d1, d2) + 1))
    return A, rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2)), depth, rng


def product(layers):
    found = layers[0]
    for layer in layers[1:]:
        found = layer @ found
    return found


def factorizations(matrix, depth):
    """Layers of a matrix with its singular values shared out in three ways."""
    U, s, Vt = np.linalg.svd(matrix, full_matrices=False)
    for share in (0.3, 0.5, 0.7):
        rest = s ** ((1 - share) / (depth - 1))
        yield [s[:, None] ** share * Vt, *[np.diag(rest)] * (depth - 2), U * rest]


def complaint_about_sharpness(A, matrix, depth, _):
    b = A(matrix)
    solution = bf.flattest_sharpness(A, b, depth, rng=0)
    others = [layers for fits in (matrix, solution.matrix) for layers in factorizations(fits, depth)]
    least = min(bf.curvature.sharpness(layers, A, b) for layers in others)
    if least < solution.certificate.lower_bound * (1 - _ROUNDING):
        return solution, f"bound {solution.certificate.lower_bound} above a sharpness of {least}"
    value = bf.curvature.sharpness(solution.layers, A, b)
    if abs(value - solution.value) > _ROUNDING * max(value, solution.value):
        return solution, f"value {solution.value} for a sharpness of {value}"
    known = np.maximum(abs(b), 1e-3 * A.row_norms * np.linalg.norm(solution.matrix))
    if solution.status.proved and np.any(abs(A(solution.matrix) - b) > _ROUNDING * known):
        return solution, "optimal, and a datum is missed"
    return solution, None


def slowdown():
    """How much slower the processor is now, other jobs beside it; one that is faster has no less time."""
    spent, X = [], np.eye(4)
    for _ in range(5):
        began = time.process_time()
        for _ in range(100_000):
            X = X @ X
        spent.append((time.process_time() - began) / 100_000)
    return max(float(np.median(spent)) / _SECONDS_OF_A_PRODUCT, 1.0)


def complaint_about_weight_decay(A, matrix, depth, rng):
    exact = A(matrix)
    b = exact + 0.1 * np.linalg.norm(exact) / np.sqrt(A.m) * rng.standard_normal(A.m)
    penalty = 10.0 ** rng.uniform(-4, 1) * np.linalg.norm(exact) * np.max(A.row_norms)
    solution = bf.norm_minimum(A, b, depth=depth, penalty=penalty)

    def objective(layers):
        return 0.5 * np.sum((A(product(layers)) - b) ** 2) + 0.5 * penalty * sum(np.sum(W**2) for W in layers)

    (d1, d2), k = A.matrix_shape, max(A.matrix_shape)
    shapes = [(k, d2), *[(k, k)] * (depth - 2), (d1, k)]
    ends = np.cumsum([rows * cols for rows, cols in shapes])

    def cut(x):
        return [part.reshape(shape) for part, shape in zip(np.split(x, ends[:-1]), shapes, strict=True)]

    found = [
        minimize(lambda x: objective(cut(x)), 0.5 * rng.standard_normal(ends[-1]), options={"maxiter": 300}, method="L-BFGS-B")
        for _ in range(2)
    ]
    least = min(0.5 * np.sum(b**2), *(each.fun for each in found))
    if least < solution.certificate.lower_bound * (1 - _ROUNDING):
        return solution, f"bound {solution.certificate.lower_bound} above an objective of {least}"
    value = objective(solution.layers)
    if abs(value - solution.value) > _ROUNDING * max(value, solution.value):
        return solution, f"value {solution.value} for an objective of {value}"
    if solution.status.proved and least < solution.value * (1 - 1e-3):
        return solution, f"optimal at {solution.value}, and a descent reached {least}"
    return solution, None


@pytest.mark.parametrize("complaint", [complaint_about_sharpness, complaint_about_weight_decay])
def test_random_problems(complaint, size, seed):
    verdicts, wrong = Counter(), []
    for index in range(int(np.ceil(10 * size))):
        problem = draw(seed, index)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            began = time.process_time()
            solution, said = complaint(*problem)
            spent = time.process_time() - began
        verdicts[solution.status.name] += 1
        if said is None and spent > _MOST_SECONDS and spent > _MOST_SECONDS * slowdown():
            said = f"{spent:.0f} s of processor time"
        if said is not None:
            wrong.append(f"seed {seed}, problem {index}: {said}")
    print(dict(verdicts))
    assert not wrong, "\n".join(wrong)
