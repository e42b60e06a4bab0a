import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.measurements import Dense, Entries, IsotropicMoment, RankOne, _dense, gaussian
from balancedfact.measurements._second_moment import MapMoment, RankOneMoment, Superoperator
from tests import bad_input, maps, oracles

ALL = [*maps.BUILT_IN.values(), *maps.DERIVED.values()]


def forms(A):
    """Every form of the second moments that this map has."""
    return [A.second_moment(), A.streamed_moment(), MapMoment(A)]


def symmetric(rng, d):
    X = rng.standard_normal((d, d))
    return X + X.T


def dense(operator, d):
    return operator @ np.eye(d)


@given(maps.cases(*ALL))
def test_every_form_computes_both_moments(case):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    P, Q = symmetric(rng, d2), symmetric(rng, d1)
    for moment in forms(A):
        assert (moment.matrix_shape, moment.weight, moment.scale) == (A.matrix_shape, 2 / A.m, A.scale)
        oracles.assert_computes(moment.left_moment, oracles.left_moment, matrices, P)
        oracles.assert_computes(moment.right_moment, oracles.right_moment, matrices, Q)


@given(maps.cases(*ALL), st.integers(1, 4))
def test_products_of_factors_stand_for_their_symmetric_part(case, k):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    F, G, U, V = (rng.standard_normal((k, d)) for d in (d2, d2, d1, d1))
    pairs = [(F, G), (None, None), (F, F)]
    sums = [(F.T @ G + G.T @ F) / 2, np.eye(d2), F.T @ F]
    sides = [(U, V), (None, None), (V, V)]
    side_sums = [(U.T @ V + V.T @ U) / 2, np.eye(d1), V.T @ V]
    for moment in forms(A):
        for found, P in zip(moment._left(pairs), sums, strict=True):
            oracles.assert_computes(lambda _: dense(found, d1), oracles.left_moment, matrices, P)
            assert found.trace() == pytest.approx(np.trace(oracles.left_moment(matrices, P)), rel=1e-11, abs=1e-11)
        for found, Q in zip(moment._right(sides), side_sums, strict=True):
            oracles.assert_computes(lambda _: dense(found, d2), oracles.right_moment, matrices, Q)
        energies = moment.energies([(U.T, F), (None, F), (U.T, None), (None, None)])
        eyes = np.eye(d1), np.eye(d2)
        expected = [oracles.energy(matrices, *each) for each in ((U.T, F.T), (eyes[0], F.T), (U.T, eyes[1]), eyes)]
        np.testing.assert_allclose(energies, expected, rtol=1e-11, atol=1e-12)


@given(
    maps.cases(maps.dense),
    st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans(), st.sampled_from([0.0, 1e-9, 1.0, 1e9])), max_size=6),
)
def test_energies_in_pairs_are_those_one_by_one(case, terms):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    factors = []
    for k, ends, narrow, size in terms:
        C, B = size * rng.standard_normal((d1, k)), rng.standard_normal((k, d2))
        if narrow:
            C[:, 1:], B[1:] = 0, 0
        factors.append((None if ends and k % 2 else C, None if ends and k < 4 else B))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dense, "_WORTH_PAIRING", 0)
        found = A.streamed_moment().energies(factors)
    assert len(found) == len(factors)
    for each, (C, B) in zip(found, factors, strict=True):
        C, B = np.eye(d1) if C is None else C, np.eye(d2) if B is None else B
        size = np.sum(C**2) * np.sum(B**2) * sum(np.sum(M**2) for M in matrices)
        assert each >= 0
        assert oracles.deviation(each, oracles.energy(matrices, C, B.T), size) <= 1e-13


def test_energies_in_pairs_of_a_large_map(rng):
    A = gaussian(80, (40, 30), rng)
    factors = [(rng.standard_normal((40, k)), rng.standard_normal((k, 30))) for k in (5, 40, 60)]
    expected = MapMoment(A).energies(factors)
    np.testing.assert_allclose(A.streamed_moment().energies(factors), expected, rtol=1e-13)


@given(maps.cases(*maps.BUILT_IN.values()))
def test_a_matrix_that_is_not_symmetric_counts_by_its_symmetric_part(case):
    A, _, rng = case
    P, Q = (rng.standard_normal((d, d)) for d in A.matrix_shape[::-1])
    for moment in forms(A):
        size = np.abs(A.left_moment(P @ P.T)).max() + np.abs(A.right_moment(Q @ Q.T)).max() or 1.0
        assert oracles.deviation(moment.left_moment(P), A.left_moment((P + P.T) / 2), size) <= 1e-12
        assert oracles.deviation(moment.right_moment(Q), A.right_moment((Q + Q.T) / 2), size) <= 1e-12


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 5), (5, 1), (1, 1)])
def test_the_isotropic_moment_is_that_of_an_orthonormal_basis(shape, rng):
    d1, d2 = shape
    basis = np.linalg.qr(rng.standard_normal((d1 * d2, d1 * d2)))[0].reshape(-1, d1, d2)
    moment, P, Q = IsotropicMoment(shape), symmetric(rng, d2), symmetric(rng, d1)
    np.testing.assert_allclose(moment.left_moment(P), oracles.left_moment(basis, P), atol=1e-13)
    np.testing.assert_allclose(moment.right_moment(Q), oracles.right_moment(basis, Q), atol=1e-13)


def test_maps_of_many_measurements_are_formed_and_maps_of_few_are_not(rng):
    assert isinstance(gaussian(60, (8, 9), rng).second_moment(), Superoperator)
    assert isinstance(gaussian(1, (30, 30), rng).second_moment(), MapMoment)
    assert isinstance(RankOne(*rng.standard_normal((2, 400, 6))).second_moment(), Superoperator)
    assert isinstance(RankOne(*rng.standard_normal((2, 4, 6))).second_moment(), RankOneMoment)


@pytest.mark.parametrize("c", [1e-150, 1e150])
@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_extreme_scales(build, c):
    A, _ = build(np.random.default_rng(0), 4, 3, 40, "none")
    scaled, _ = build(np.random.default_rng(0), 4, 3, 40, "none", c)
    for moment, large in zip(forms(A), forms(scaled), strict=True):
        np.testing.assert_allclose(large.left_moment(np.eye(3)), c**2 * moment.left_moment(np.eye(3)), rtol=1e-12)


def test_entries_of_large_matrices_form_nothing_of_their_size(rng):
    n, m = 300_000, 1000
    A = Entries(rng.integers(0, n, m), rng.integers(0, n, m), (n, n))
    F = rng.standard_normal((2, n))
    [found] = A.second_moment()._left([(F, F)])
    assert found.trace() == pytest.approx(np.sum(F[:, A.cols] ** 2))


@pytest.mark.parametrize("P", bad_input.bad((4, 4)))
def test_a_bad_matrix_is_refused(P):
    moment = Dense(np.ones((2, 4, 4))).second_moment()
    with pytest.raises(ValueError, match=r"^P "):
        moment.left_moment(P)
    with pytest.raises(ValueError, match=r"^Q "):
        moment.right_moment(P)


@pytest.mark.parametrize("shape", bad_input.BAD_SHAPE)
def test_a_bad_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"^shape"):
        IsotropicMoment(shape)
