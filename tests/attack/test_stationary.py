"""No false ``STATIONARY``: layers from random starts, held against the second-order conditions in 70-digit arithmetic.

The trace of the Hessian, the weight of the layers and the constraints are written from their definitions; derivatives are
difference quotients with steps of 1e-20, which is exact to about 20 digits. Nothing here but the solve itself is the package's.
"""

from collections import Counter

import numpy as np
import pytest

import balancedfact as bf

flint = pytest.importorskip("flint")
pytestmark = pytest.mark.attack

_STEP_DIGITS = 20
# What a point called stationary may have: relative gradient, relative negative curvature, relative misfit.
_SLOPE, _CURVATURE, _MISFIT = 1e-5, 1e-5, 1e-7


@pytest.fixture(autouse=True)
def precision():
    before, flint.ctx.prec = flint.ctx.prec, 240
    yield
    flint.ctx.prec = before


def exact(array):
    rows, cols = np.shape(array)
    return flint.arb_mat(rows, cols, [float(x) for x in np.ravel(array)])


def dot(P, Q):
    return sum((p * q for p, q in zip(P.entries(), Q.entries(), strict=True)), flint.arb(0))


def product(factors):
    found = factors[0]
    for each in factors[1:]:
        found = each * found
    return found


def trace(layers, stack):
    """``2/m sum_i sum_k |d<A_i, W_L ... W_1>/dW_k|^2``."""
    total = flint.arb(0)
    for A in stack:
        for k in range(len(layers)):
            slope = A
            if k + 1 < len(layers):
                slope = product(layers[k + 1 :]).transpose() * slope
            if k:
                slope = slope * product(layers[:k]).transpose()
            total += dot(slope, slope)
    return 2 * total / len(stack)


def weight(layers, _):
    return sum((dot(W, W) for W in layers), flint.arb(0))


def derivatives(functions, layers):
    """Values, gradients and Hessians of the functions of the layers, the coordinates scaled by the size of their layer."""
    sizes = [float(np.linalg.norm(W)) for W in layers]
    shapes = [W.shape for W in layers]
    base = [exact(W) for W in layers]
    step = flint.arb(10) ** -_STEP_DIGITS
    places = [(k, i, j) for k, (rows, cols) in enumerate(shapes) for i in range(rows) for j in range(cols)]

    def at(*moves):
        moved = [flint.arb_mat(W) for W in base]
        for k, i, j in moves:
            moved[k][i, j] += step * sizes[k]
        return functions(moved)

    centre = at()
    ahead = [at(place) for place in places]
    slopes = np.array([[float((a - c) / step) for a, c in zip(values, centre, strict=True)] for values in ahead])
    bends = np.empty((len(centre), len(places), len(places)))
    for p, one in enumerate(places):
        for q in range(p, len(places)):
            both = at(one, places[q])
            bends[:, p, q] = [
                float((f - a - b + c) / step / step) for f, a, b, c in zip(both, ahead[p], ahead[q], centre, strict=True)
            ]
            bends[:, q, p] = bends[:, p, q]
    return np.array([float(c) for c in centre]), slopes.T, bends


def conditions(layers, stack, objective, constraints):
    """Relative misfit, slope and curvature along the constraints; nothing where these depend on one another."""
    scale = float(np.abs(stack).max())
    matrices = [exact(A / scale) for A in stack]
    unit = objective([exact(W) for W in layers], matrices)

    def functions(moved):
        return [objective(moved, matrices) / unit, *constraints(product(moved))]

    values, slopes, bends = derivatives(functions, layers)
    J, gradient = slopes[1:], slopes[0]
    _, sigma, V = np.linalg.svd(J)
    if sigma.size > V.shape[0] or sigma[-1] < 1e-6 * sigma[0]:
        return None
    multipliers = np.linalg.lstsq(J.T, gradient, rcond=None)[0]
    free = V[sigma.size :].T
    lagrangian = free.T @ (bends[0] - np.tensordot(multipliers, bends[1:], 1)) @ free
    curvature = np.linalg.eigvalsh(lagrangian) if free.shape[1] else np.ones(1)
    slope = np.linalg.norm(gradient - J.T @ multipliers)
    return float(np.abs(values[1:]).max()), float(slope), float(curvature[0] / max(1.0, curvature[-1]))


def of_matrix(M):
    size, target = float(np.abs(M).max()), exact(M)
    return lambda P: [(p - t) / size for p, t in zip(P.entries(), target.entries(), strict=True)]


def of_data(stack, b):
    size = float(np.abs(b).max())
    matrices = [exact(A) for A in stack]
    return lambda P: [(dot(A, P) - float(y)) / size for A, y in zip(matrices, b, strict=True)]


def draw(seed, index):
    """A solve, and what its layers are held against."""
    rng = np.random.default_rng([seed, 4, index])
    scale = 10.0 ** rng.integers(-100, 101) if index % 2 else 1.0
    d1, d2 = rng.integers(2, 5, size=2)
    m = int(rng.integers(2, 9))
    stack = rng.standard_normal((m, d1, d2)) * 10.0 ** rng.uniform(-2, 0, (m, 1, 1)) * scale
    A = bf.measurements.Dense(stack)
    kind = ("matrix", "network", "weight")[index // 2 % 3]
    if kind == "matrix":
        r = min(d1, d2)
        M = rng.standard_normal((d1, r)) @ rng.standard_normal((r, d2))
        solution = bf.flattest_factorization(M, [d2, r, r + index % 3, d1], A, rng=index)
        return kind, solution, (stack, trace, of_matrix(M))
    m = min(m, d1 * d2 - 1)
    stack = stack[:m]
    A = bf.measurements.Dense(stack)
    b = A(rng.standard_normal((d1, 1)) @ rng.standard_normal((1, d2)) + 0.3 * rng.standard_normal((d1, d2)))
    if kind == "network":
        solution = bf.flat_network(A, b, 3, bound="quick", rng=index, limits=bf.Limits(seconds=20))
        return kind, solution, (stack, trace, of_data(stack, b))
    return kind, bf.norm_minimum(A, b, depth=3, rng=index), (stack, weight, of_data(stack, b))


def test_stationary_from_random_starts(size, seed):
    verdicts, judged, wrong = Counter(), 0, []
    for index in range(max(3, int(12 * size))):
        kind, solution, (stack, objective, constraints) = draw(seed, index)
        verdicts[kind, solution.status.name] += 1
        if solution.status not in (bf.Status.STATIONARY, bf.Status.OPTIMAL if kind == "matrix" else None):
            continue
        layers = [np.asarray(W) for W in solution.layers]
        found = conditions(layers, stack, objective, constraints)
        if found is None:
            verdicts[kind, "dependent constraints"] += 1
            continue
        judged += 1
        misfit, slope, curvature = found
        if misfit > _MISFIT or slope > _SLOPE or curvature < -_CURVATURE:
            wrong.append(f"draw({seed}, {index}), {kind}: misfit {misfit:.1e}, slope {slope:.1e}, curvature {curvature:.1e}")
    print(f"seed {seed}: {judged} minima judged, {len(wrong)} wrong; {dict(verdicts)}")
    assert not wrong, "\n".join(wrong)


def test_the_conditions_tell_a_saddle_from_a_minimum():
    """Two numbers with product one, twice: ``x^2 + y^2`` is least at one and one, stationary on no other point."""
    one = [np.ones((1, 1)), np.ones((1, 1))]
    stack = np.ones((1, 1, 1))
    misfit, slope, curvature = conditions(one, stack, trace, of_matrix(np.ones((1, 1))))
    assert misfit == 0
    assert slope < 1e-15
    assert curvature == pytest.approx(1.0)
    assert conditions([2 * one[0], one[1] / 2], stack, trace, of_matrix(np.ones((1, 1))))[1] > 0.1
    # Minus the weight has its saddle or maximum where the weight has its minimum.
    found = conditions(one, stack, lambda W, A: 10 - weight(W, A), of_matrix(np.ones((1, 1))))
    assert found[1] < 1e-15
    assert found[2] < -0.1
