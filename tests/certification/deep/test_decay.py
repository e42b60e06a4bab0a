"""The certificate of deep networks with weight decay: bound, value and verdict from the definitions, and files that lie."""

from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import balancedfact as bf
from balancedfact import Status
from balancedfact._objective import Objective
from balancedfact.certification.deep._decay import OrdinaryDecay, _line, decay_bound
from balancedfact.certification.deep._decay_line import FallingLine, least
from balancedfact.certification.deep._separable_bound import SeparableBound
from balancedfact.measurements import Entries, RankOne, gaussian
from tests.certification.deep.test_layers import exact, measured, network, squares


def test_lines_are_below_the_distance(rng):
    """In exact arithmetic, also where the sum of the measurements cancels."""
    matrices = rng.standard_normal((3, 2, 2))
    A = bf.measurements.Dense(np.concatenate([matrices, matrices * (1 + 1e-12)]))
    y = np.concatenate([np.ones(3), -np.ones(3)])
    b = y + 1e-9 * rng.standard_normal(6)
    line = _line(A, b, 1e-3 * y)
    along = sum(Fraction(p) * Fraction(q) for p, q in zip(b.tolist(), y.tolist(), strict=True))
    assert Fraction(line.height) ** 2 <= along**2 / 6
    assert line.height == pytest.approx(float(along) / 6**0.5, rel=1e-12)
    total = [[sum(Fraction(q) * Fraction(X[i, j]) for q, X in zip(y, A.matrices, strict=True)) for j in (0, 1)] for i in (0, 1)]
    norm = np.linalg.norm(np.array([[float(each) for each in row] for row in total]), 2) / 6**0.5
    assert norm <= line.steepness <= norm + 1e-14


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 10), st.floats(0.01, 10), st.floats(-8, 4), st.integers(3, 12), st.floats(0, 2), st.floats(0, 3), st.booleans()
)
def test_the_least_on_an_interval_is_that_of_a_fine_grid(p, q, logarithm, depth, start, length, endless):
    penalty, end = float(np.exp(logarithm)), np.inf if endless else start + length
    found = least(FallingLine(p, q), penalty, depth, start, end)
    last = start + 3 * p / q + 1 if endless else end
    t = np.concatenate([np.linspace(start, last, 20001), start + np.geomspace(1e-9, 1, 2001) * (last - start)])
    values = np.maximum(p - q * t, 0) ** 2 / 2 + penalty * depth / 2 * t ** (2 / depth)
    assert found <= values.min()
    # Between the points of the grid a function of this curvature is no more than this below them.
    assert found >= values.min() - q**2 * (3 * p / q + 1 + length) ** 2 * 1e-8 - 1e-12 * (1 + p**2)


def test_the_bound_is_the_least_of_the_better_line(rng):
    """By brute force over the nuclear norm; a vector of which nothing is measured, and none, add nothing."""
    for _ in range(20):
        A = gaussian(7, (3, 2), rng)
        b, y, penalty = rng.standard_normal(7), rng.standard_normal(7), float(np.exp(rng.uniform(-3, 1)))
        y = b + 0.5 * y
        matrices = A.rotated(np.eye(3), np.eye(2))
        t = np.append(0.0, np.geomspace(1e-7, 100, 200001))
        lines = [(b @ z - np.linalg.norm(np.tensordot(z, matrices, 1), 2) * t) / np.linalg.norm(z) for z in (b, y)]
        values = np.maximum(np.max(lines, axis=0), 0) ** 2 / 2 + penalty * 3 / 2 * t ** (2 / 3)
        problem = OrdinaryDecay(A, b, 3, penalty)
        found = decay_bound(problem, y) * problem.unit**2
        assert found <= values.min()
        assert found == pytest.approx(values.min(), rel=1e-6)
        assert decay_bound(problem, np.zeros(7)) * problem.unit**2 <= found * (1 + 1e-13)
    assert decay_bound(OrdinaryDecay(A, 0 * b, 3, penalty), y) == 0


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_the_value_is_that_of_the_definition(scale, rng):
    """Of layers that are not balanced, in exact arithmetic."""
    A, layers, E = network(rng, 4, scale=scale)
    b = A(E) + scale * rng.standard_normal(A.m)
    penalty = 0.3 * scale**2
    value = Fraction(penalty) / 2 * sum(squares(exact(W)) for W in layers)
    value += sum((measured(M, layers) - Fraction(float(y))) ** 2 for M, y in zip(A.matrices, b, strict=True)) / 2
    found = bf.certify(A, b, layers, flat=False, penalty=penalty, depth=4)
    assert abs(Fraction(found.value) - value) <= Fraction(found.rounding) * value
    assert found.rounding < 1e-11
    assert 0 < found.lower_bound < found.value
    assert found.gap == pytest.approx(1 - found.lower_bound / found.value, rel=1e-9)


def solved(rng, penalty=1.0, rank=1):
    A, _, E = network(rng, 3, m=10, rank=rank)
    b = A(E) + 0.1 * rng.standard_normal(10)
    return A, b, bf.norm_minimum(A, b, depth=3, penalty=penalty)


@pytest.mark.parametrize(("penalty", "rank"), [(1.0, 1), (0.01, 2), (1e4, 1)])
def test_what_is_true_of_a_file_survives_its_data(penalty, rank, rng, tmp_path):
    A, b, solution = solved(rng, penalty, rank)
    assert solution.status.ok
    solution.save(tmp_path / "decay.npz")
    found = bf.Solution.load(tmp_path / "decay.npz", A, b)
    assert found.status is solution.status
    assert found.message.startswith("Checked: ")
    again = solution.verify(A, b)
    assert again.value == solution.value == found.value
    assert again.lower_bound == pytest.approx(solution.certificate.lower_bound, rel=1e-12)
    anyone = bf.certify(A, b, solution.matrix, flat=False, penalty=penalty, depth=3)
    assert anyone.value == pytest.approx(solution.value, rel=1e-9)
    assert anyone.lower_bound <= solution.value
    with pytest.raises(ValueError, match=r"^rigorous is True; expected False, with a penalty on 3 layers"):
        solution.verify(A, b, rigorous=True)


def test_no_forged_network_survives_its_data(rng, tmp_path):
    A, b, solution = solved(rng)
    claims = {
        "status": Status.OPTIMAL,
        "certificate": replace(solution.certificate, lower_bound=solution.value, gap=0.0, stationarity=0.0),
    }
    longer = [2.0 * solution.layers[0], solution.layers[1] / 2, *solution.layers[2:]]
    forged = {
        "longer layers of the same product": replace(solution, layers=longer, **claims),
        "another penalty": replace(solution, objective=Objective("norm", 0.5, depth=3), **claims),
        "no penalty": replace(solution, objective=Objective("norm", depth=3), **claims),
        "the trace with a penalty": replace(solution, objective=Objective("flat", 1.0, depth=3), **claims),
    }
    for name, file in forged.items():
        file.save(tmp_path / "forged.npz")
        found = bf.Solution.load(tmp_path / "forged.npz", A, b)
        assert found.status is Status.GAP_OPEN, name
        assert not found.certificate.gap <= 1e-8, name
    vector = replace(solution.certificate, dual=1e6 * rng.standard_normal(A.m), lower_bound=1e9)
    replace(solution, certificate=vector, value=1e9).save(tmp_path / "forged.npz")
    found = bf.Solution.load(tmp_path / "forged.npz", A, b)
    assert found.certificate.lower_bound <= solution.value
    assert found.value == solution.value


def test_layers_of_too_many_numbers_have_no_second_order(rng):
    A = gaussian(5, (40, 30), rng)
    layers = [rng.standard_normal((25, 30)), rng.standard_normal((25, 25)), rng.standard_normal((40, 25))]
    found = bf.certify(A, rng.standard_normal(5), layers, np.zeros(5), flat=False, penalty=1.0, depth=3)
    assert np.isnan(found.stationarity)
    assert np.isnan(found.curvature)
    assert 0 <= found.lower_bound < found.value


def objective(A, b, penalty, depth, E):
    misfit = np.tensordot(A.rotated(*map(np.eye, A.matrix_shape)), E, 2) - b
    return misfit @ misfit / 2 + penalty * depth / 2 * np.sum(np.linalg.svd(E, compute_uv=False) ** (2 / depth))


def determining(kind, rng):
    """Measurements that leave nothing of a 3 x 4 matrix open."""
    if kind == "entries":
        rows, cols = np.divmod(np.r_[rng.permutation(12), rng.integers(0, 12, 5)], 4)
        return Entries(rows, cols, (3, 4), rng.uniform(0.5, 2, 17))
    return gaussian(40, (3, 4), rng) if kind == "gaussian" else RankOne(*(rng.standard_normal((40, d)) for d in (3, 4)))


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", ["entries", "gaussian", "rank-one"])
@pytest.mark.parametrize("depth", [3, 5])
def test_the_separable_bound_is_below_every_matrix_and_just_below_its_definition(kind, depth, rng):
    for _ in range(10):
        A = determining(kind, rng)
        E, penalty = rng.standard_normal((3, 4)), float(np.exp(rng.uniform(-4, 2)))
        b = A(rng.standard_normal((3, 2)) @ rng.standard_normal((2, 4))) + 0.1 * rng.standard_normal(A.m)
        found = SeparableBound(A, b, penalty, depth).at(E)
        stack = A.rotated(np.eye(3), np.eye(4)).reshape(A.m, 12)
        ell = np.linalg.eigvalsh(stack.T @ stack)[0] * (1 - 1e-6)
        K = stack.T @ stack - ell * np.eye(12)
        N = (stack.T @ (b - stack @ E.ravel()) + ell * E.ravel()).reshape(3, 4)
        naive = b @ b / 2 - E.ravel() @ K @ E.ravel() / 2
        for n in np.linalg.svd(N)[1]:
            x = np.append(0.0, np.geomspace(1e-6, 1.1, 100001) * n / ell)
            naive += np.min(ell * x**2 / 2 - n * x + penalty * depth / 2 * x ** (2 / depth))
        assert found <= naive
        assert found == pytest.approx(naive, rel=1e-5, abs=1e-5 * b @ b)
        best = SeparableBound(A, b, penalty, depth).best(E, np.inf)
        assert best >= found
        others = [E * s for s in (0, 0.5, 1)] + [s * rng.standard_normal((3, 4)) for s in np.geomspace(1e-3, 3, 30)]
        assert best <= min(objective(A, b, penalty, depth, X) for X in others)


@pytest.mark.slow
def test_no_tangent_gives_a_larger_bound_than_the_relaxation(rng):
    """By brute force, where the bound stays open."""
    A, X = gaussian(16, (3, 4), rng), rng.standard_normal((3, 2)) @ rng.standard_normal((2, 4))
    b = A(X) + 0.3 * rng.standard_normal(A.m)
    solution = bf.norm_minimum(A, b, depth=4, penalty=0.05 * np.linalg.norm(A.adjoint_matrix(b), 2))
    assert solution.status is Status.STATIONARY
    bound = SeparableBound(A, b, solution.objective.penalty, 4)
    best = bound.best(solution.matrix, np.inf)
    assert bound.at(solution.matrix) < 0.999 * best
    assert best < (1 - 1e-4) * solution.value
    for start in (solution.matrix, bound.relaxed()):
        found = minimize(lambda x: -bound.at(x.reshape(3, 4)), start.ravel(), method="Powell", options={"maxiter": 3})
        assert -found.fun <= best + 1e-7 * abs(best)


def test_without_enough_measurements_nothing_is_determined(rng):
    E = rng.standard_normal((3, 4))
    assert SeparableBound(gaussian(11, (3, 4), rng), rng.standard_normal(11), 1.0, 3).best(E, 0.0) == 0
    twice = Entries(*np.divmod(np.r_[np.arange(11), 0, 1], 4), (3, 4))
    assert SeparableBound(twice, rng.standard_normal(13), 1.0, 3).best(E, 0.0) == 0
    A = determining("gaussian", rng)
    assert SeparableBound(A, rng.standard_normal(A.m), 1.0, 3).best(np.full((3, 4), np.inf), 0.0) == 0


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", ["entries", "gaussian", "rank-one"])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_a_network_of_rank_two_is_proved_where_data_determine_it(kind, scale, rng):
    A = determining(kind, rng)
    X = scale * (rng.standard_normal((3, 2)) @ rng.standard_normal((2, 4)))
    b = A(X) + 1e-3 * scale * rng.standard_normal(A.m)
    solution = bf.norm_minimum(A, b, depth=4, penalty=0.01 * scale ** (2 - 2 / 4))
    assert solution.status is Status.OPTIMAL
    assert np.linalg.matrix_rank(solution.matrix) == 2
    assert "least eigenvalue" in solution.certificate.proof
    assert solution.verify(A, b).gap == solution.certificate.gap < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("depth", [4, 8])
def test_no_bound_exceeds_the_least_value_in_exact_digits(depth, rng):
    """A diagonal matrix, fully observed: the least is a sum over its entries, and the bound is next to it."""
    with localcontext() as digits:
        digits.prec = 60
        tight = 0
        for _ in range(40):
            d, penalty = int(rng.integers(1, 4)), float(np.exp(rng.uniform(-4, 1)))
            Y = np.diag(rng.uniform(0.5, 3, d))
            A = Entries(*np.nonzero(np.ones((d, d))), (d, d))
            least_value = sum(least_of_one_number(Decimal(float(y)), Decimal(penalty), depth) for y in np.diag(Y))
            found = SeparableBound(A, A(Y), penalty, depth).best(bf.closed_forms.schatten_shrinkage(Y, penalty, depth), np.inf)
            assert Decimal(found) <= least_value
            tight += float(Decimal(found) / least_value) > 1 - 1e-11
        assert tight == 40


def least_of_one_number(y, penalty, depth):
    """The least of ``(x - y)**2 / 2 + penalty * L / 2 * x**(2 / L)`` in decimal digits, at zero or at the larger root."""
    power, x = Decimal(2) / depth, y
    for _ in range(200):  # Newton from above
        slope = 1 - penalty * (1 - power) * x ** (power - 2)
        if slope <= 0:
            return y * y / 2
        x -= (x - y + penalty * x ** (power - 1)) / slope
        if x <= 0:
            return y * y / 2
    return min(y * y / 2, (x - y) ** 2 / 2 + penalty * depth / 2 * x**power)


@pytest.mark.slow
def test_a_network_of_rank_one_is_proved_from_fewer_measurements_than_entries(rng):
    """By the distance from all matrices of a nuclear norm: the least eigenvalue of the measurements is zero."""
    proved = 0
    for seed in range(8):
        draws = np.random.default_rng(seed)
        A = gaussian(11, (4, 3), draws)
        b = A(np.outer(draws.standard_normal(4), draws.standard_normal(3)))
        solution = bf.norm_minimum(A, b, depth=3, penalty=1e-3 * np.linalg.norm(A.adjoint_matrix(b), 2))
        assert "nuclear norm" in solution.certificate.proof
        proved += solution.status is Status.OPTIMAL and bool(solution.matrix.any())
    assert proved >= 2
