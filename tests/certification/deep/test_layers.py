"""Certificates of given layers: values, bounds and verdicts from the definitions, and files that lie."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import balancedfact as bf
from balancedfact import Status
from balancedfact._objective import Objective
from balancedfact.certification.deep import _lifted_bound
from balancedfact.certification.deep._layers import certify_layers, flattest_of_product
from balancedfact.certification.deep._multiplier import multiplier_bound, proved_dual
from balancedfact.measurements import Dense, Entries, RankOne, gaussian


def exact(X):
    return [[Fraction(float(x)) for x in row] for row in X]


def times(P, Q):
    return [[sum((p * q for p, q in zip(row, col, strict=True)), Fraction(0)) for col in zip(*Q, strict=True)] for row in P]


def transposed(P):
    return [list(row) for row in zip(*P, strict=True)]


def squares(P):
    return sum((x * x for row in P for x in row), Fraction(0))


def exact_trace(layers, stack):
    """``(2 / m) sum_j sum_i ||C_j' A_i B_{j-1}'||^2`` in rational numbers, from the definition."""
    total = Fraction(0)
    for j in range(len(layers)):
        before, after = exact(np.eye(stack.shape[2])), exact(np.eye(stack.shape[1]))
        for W in layers[:j]:
            before = times(exact(W), before)
        for W in layers[:j:-1]:
            after = times(after, exact(W))
        for M in stack:
            total += squares(times(times(transposed(after), exact(M)), transposed(before)))
    return 2 * total / len(stack)


def least_trace(E, A, depth):
    return bf.induced_regularizer(E, A, depth).value


def network(rng, depth, *, m=8, scale=1.0, rank=2):
    A = Dense(scale * rng.standard_normal((m, 3, 4)))
    layers = [rng.standard_normal((rank, 4)), *rng.standard_normal((depth - 2, rank, rank)), rng.standard_normal((3, rank))]
    E = layers[0]
    for W in layers[1:]:
        E = W @ E
    return A, layers, E


@pytest.mark.parametrize("depth", [3, 4, 6])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_value_and_residual_are_those_of_the_definition(depth, scale, rng):
    A, layers, E = network(rng, depth, scale=scale)
    b = A(E) * (1 + 1e-9 * rng.standard_normal(A.m))
    value = exact_trace(layers, A.matrices)
    found = bf.certify(A, b, layers, np.zeros(A.m), depth=depth)
    assert abs(Fraction(found.value) - value) <= Fraction(found.rounding) * value
    assert found.rounding < 1e-11
    misses = [
        abs(measured(M, layers) - Fraction(float(y))) / Fraction(float(abs(y))) for M, y in zip(A.matrices, b, strict=True)
    ]
    floor = [1e-3 * np.linalg.norm(M / scale) * np.linalg.norm(E) / abs(y / scale) for M, y in zip(A.matrices, b, strict=True)]
    expected = max(float(miss) / max(1.0, least) for miss, least in zip(misses, floor, strict=True))
    assert found.worst_datum == pytest.approx(expected, rel=1e-3)
    closed = bf.certify(A, b, layers, np.zeros(A.m), depth=depth, rigorous=True)
    assert Fraction(closed.value) >= value
    assert closed.value == pytest.approx(found.value, rel=1e-12)
    assert closed.worst_datum == pytest.approx(expected, rel=1e-9)


def measured(M, layers):
    """``<A_i, W_L ... W_1>`` in rational numbers."""
    product = exact(layers[0])
    for W in layers[1:]:
        product = times(exact(W), product)
    return sum(
        (p * q for row, other in zip(exact(M), product, strict=True) for p, q in zip(row, other, strict=True)), Fraction(0)
    )


@pytest.mark.parametrize("depth", [3, 4, 7])
@pytest.mark.parametrize("kind", ["dense", "rank-one", "entries"])
def test_the_proved_bound_of_a_dual_vector_is_just_below_the_plain_one(depth, kind, rng):
    A = {
        "dense": gaussian(9, (3, 4), rng),
        "rank-one": RankOne(rng.standard_normal((9, 3)), rng.standard_normal((9, 4))),
        "entries": Entries(*np.divmod(rng.permutation(12)[:9], 4), (3, 4), rng.uniform(0.5, 2, 9)),
    }[kind]
    b, y = rng.standard_normal(9), rng.standard_normal(9)
    y *= np.sign(b @ y)
    plain, proved = multiplier_bound(A, b, y, depth), proved_dual(A, b, y).bound(9, (3, 4), depth)
    assert proved < plain * (1 + 1e-13)
    assert proved == pytest.approx(plain, rel=1e-10 if depth < 5 else 1e-4)  # roots of what rounds to zero


@pytest.mark.parametrize("depth", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_bounds_hold_in_exact_arithmetic(depth, rng):
    A, _, E = network(rng, depth, rank=1)
    b = A(E)
    solution = bf.flat_minimum(A, b, depth, rng=0)
    floating = certify_layers(
        *(A, b, Objective("flat", depth=depth), solution.layers, solution.certificate.dual), effort="dual", rng=rng
    )
    proved = bf.certify(A, b, solution.layers, floating.dual, depth=depth, rigorous=True)
    assert floating.lower_bound <= proved.lower_bound * (1 + 1e-14)
    assert proved.lower_bound <= solution.value * (1 + 1e-12)
    assert floating.lower_bound == pytest.approx(proved.lower_bound, rel=1e-3)


@pytest.mark.parametrize("depth", [3, 5])
@pytest.mark.parametrize("distance", [0.0, 1e-4, 1e-2, 0.3])
def test_no_factorization_of_the_product_is_flatter_than_the_bound(depth, distance, rng):
    A, _, E = network(rng, depth)
    least, layers = least_trace(E, A, depth), bf.induced_regularizer(E, A, depth).layers
    for j in range(depth - 1):
        G = np.eye(2) + distance * rng.standard_normal((2, 2))
        layers[j], layers[j + 1] = G @ layers[j], layers[j + 1] @ np.linalg.inv(G)
    layers = [factor * W for factor, W in zip([3.0, 1 / 3, *[1.0] * (depth - 2)], layers, strict=True)]
    found = flattest_of_product(A, layers)
    assert found <= least * (1 + 1e-12)
    assert found >= least * (1 - 20 * distance) * (1 - 1e-11)
    wide = [np.vstack([layers[0], np.zeros(4)]), np.hstack([layers[1], np.zeros((2, 1))]), *layers[2:]]
    assert flattest_of_product(A, wide) == 0.0


def solved(rng, kind, depth, m):
    A, _, E = network(rng, depth, m=m, rank=1)
    b = A(E)
    return A, b, bf.flat_minimum(A, b, depth, rng=0) if kind == "flat" else bf.norm_minimum(A, b, depth=depth)


@pytest.mark.few(1)
@pytest.mark.parametrize("depth", [3, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "m"), [("flat", 16), ("flat", 5), ("norm", 16), ("norm", 5)])
def test_what_is_true_of_a_file_survives_its_data(depth, kind, m, rng, tmp_path):
    A, b, solution = solved(rng, kind, depth, m)
    assert solution.status.ok
    solution.save(tmp_path / "deep.npz")
    assert "not checked" in bf.Solution.load(tmp_path / "deep.npz").message
    found = bf.Solution.load(tmp_path / "deep.npz", A, b)
    assert found.status is solution.status or found.status is Status.OPTIMAL
    assert found.message.startswith("Checked: ")
    assert found.value == pytest.approx(solution.value, rel=1e-12)
    again = solution.verify(A, b)
    assert again.value == pytest.approx(solution.value, rel=1e-12)
    assert again.stationarity <= 1e-8
    assert again.lower_bound <= solution.value * (1 + 1e-12)
    proved = solution.verify(A, b, rigorous=True)
    assert proved.lower_bound <= solution.value * (1 + 1e-12)
    assert proved.value >= solution.value * (1 - 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "norm"])
def test_no_forged_network_survives_its_data(kind, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(_lifted_bound, "_MOST_STEPS_LIFTED", 600)  # a file that claims a proof has every bound tried for it
    A, b, solution = solved(rng, kind, 3, 5)
    claims = {
        "status": Status.OPTIMAL,
        "certificate": replace(solution.certificate, lower_bound=solution.value, gap=0.0, stationarity=0.0, fibre_gap=0.0),
    }
    longer = [2.0 * solution.layers[0], solution.layers[1] / 2, *solution.layers[2:]]
    other = [2.0 * solution.layers[0], *solution.layers[1:]]
    vector = replace(solution.certificate, dual=1e6 * rng.standard_normal(A.m), lower_bound=1e9)
    forged = {
        "longer layers of the same product": replace(solution, layers=longer, **claims),
        "the same, as a minimum": replace(solution, layers=longer, **claims | {"status": Status.STATIONARY}),
        "layers that do not fit": replace(solution, layers=other, **claims),
        "another objective": replace(solution, objective=Objective("norm" if kind == "flat" else "flat", depth=3), **claims),
        "a depth that is not there": replace(solution, objective=Objective(kind, depth=4), **claims),
    }
    for name, file in forged.items():
        file.save(tmp_path / "forged.npz")
        found = bf.Solution.load(tmp_path / "forged.npz", A, b)
        assert found.status is Status.GAP_OPEN, name
        assert not found.certificate.gap <= 1e-3, name
    replace(solution, certificate=vector, value=1e9).save(tmp_path / "forged.npz")
    found = bf.Solution.load(tmp_path / "forged.npz", A, b)
    assert found.certificate.lower_bound <= solution.value * (1 + 1e-12)
    assert found.value == pytest.approx(solution.value, rel=1e-12)
    with pytest.raises(ValueError, match=r"^the solution has no objective that can be verified"):
        forged["a depth that is not there"].verify(A, b)


def test_a_network_is_demoted_on_other_data(rng, tmp_path):
    A, b, solution = solved(rng, "flat", 3, 16)
    assert solution.status is Status.OPTIMAL
    solution.save(tmp_path / "deep.npz")
    found = bf.Solution.load(tmp_path / "deep.npz", A, 1.1 * b)
    assert found.status is Status.GAP_OPEN
    assert "not reached" in found.message


def test_layers_of_another_matrix_do_not_bound_where_the_data_determine_one(rng):
    A, _, E = network(rng, 3, m=16)
    found = bf.certify(A, A(E), bf.induced_regularizer(3 * E, A, 3).layers, depth=3)
    assert found.lower_bound <= least_trace(E, A, 3) * (1 + 1e-12)


@pytest.mark.parametrize("flat", [True, False])
def test_anyone_s_network_is_certified(flat, rng):
    A, _, E = network(rng, 3, m=16)
    b = A(E)
    value = least_trace(E, A, 3) if flat else bf.closed_forms.schatten_value(E, 3)
    of_matrix = bf.certify(A, b, E, depth=3, flat=flat)
    assert of_matrix.value == pytest.approx(value, rel=1e-9)
    assert of_matrix.lower_bound <= value * (1 + 1e-12)
    if flat:  # the data determine the matrix
        assert of_matrix.gap <= 1e-9
    layers = bf.closed_forms.min_isotropic_layers(E, [4, 2, 2, 3])
    assert bf.certify(A, b, layers, depth=3, flat=flat).value >= value * (1 - 1e-12)


def test_what_exact_arithmetic_covers_is_named(rng):
    A = gaussian(700, (30, 30), rng)
    layers = [rng.standard_normal((1, 30)), np.eye(1), rng.standard_normal((30, 1))]
    with pytest.raises(ValueError, match=r"^rigorous is True and A has 700 x 30 x 30 numbers; expected at most"):
        bf.certify(A, A(layers[2] @ layers[0]), layers, depth=3, rigorous=True)


@pytest.mark.slow
def test_directions_that_no_measurement_sees_are_left_out(rng):
    stack = np.zeros((7, 4, 5))
    stack[:, :3, :4] = rng.standard_normal((7, 3, 4))
    A = Dense(stack)
    b = rng.standard_normal(7)
    solution = bf.flat_minimum(A, b, 3, rng=0)
    found = solution.verify(A, b)
    assert found.value == pytest.approx(solution.value, rel=1e-12)
    assert found.stationarity <= 1e-8
    assert found.lower_bound >= solution.certificate.lower_bound * (1 - 1e-2)
