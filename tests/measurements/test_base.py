import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from scipy.sparse.linalg import aslinearoperator

from balancedfact.measurements import Dense, Entries, MeasurementMap, RankOne, check_measurements
from tests import bad_input, maps, oracles


@given(maps.cases(maps.minimal))
def test_four_methods_are_enough_for_all_others(case):
    oracles.assert_agrees(*case)


@given(maps.cases(maps.congruence))
def test_the_general_congruence_is_a_full_map(case):
    oracles.assert_agrees(*case)


@given(maps.cases(maps.selected))
def test_the_general_selection_is_a_full_map(case):
    oracles.assert_agrees(*case)


def test_a_selection_may_repeat_and_reorder(rng):
    A, matrices = maps.minimal(rng, 3, 2, 5, "none")
    index = np.array([4, 0, 4, 2])
    oracles.assert_agrees(A.select(index), [matrices[i] for i in index], rng)


@pytest.mark.parametrize("method", ["_forward", "_adjoint", "_left_moment", "_right_moment"])
def test_no_map_lacks_one_of_the_four_methods(method):
    incomplete = type("Incomplete", (maps.Minimal,), {method: getattr(MeasurementMap, method)})
    with pytest.raises(TypeError, match=method):
        incomplete(np.ones((1, 2, 2)))


def test_default_methods_of_a_user_map_equal_the_built_in_ones(rng):
    for build in maps.BUILT_IN.values():
        A, matrices = build(rng, 4, 3, 6, "none")
        B = maps.Minimal(matrices)
        C, Q = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
        root = rng.standard_normal((7, 8))
        W = root @ root.T
        np.testing.assert_allclose(A.energy(C, Q), B.energy(C, Q), rtol=1e-12)
        np.testing.assert_allclose(A.D1, B.D1, atol=1e-13)
        np.testing.assert_allclose(A.D2, B.D2, atol=1e-13)
        np.testing.assert_allclose(
            A.scaled_gram(W[:4, :4], W[:4, 4:], W[4:, 4:]), B.scaled_gram(W[:4, :4], W[:4, 4:], W[4:, 4:]), atol=1e-9
        )


def test_the_scaled_gram_matrix_of_the_identity_is_the_gram_matrix(rng):
    for build in (*maps.BUILT_IN.values(), maps.minimal):
        A, matrices = build(rng, 4, 3, 6, "none")
        rows = np.reshape(matrices, (6, 12))
        np.testing.assert_allclose(A.scaled_gram(np.eye(4), np.zeros((4, 3)), np.eye(3)), rows @ rows.T, atol=1e-12)


class SparseAdjoint(maps.Minimal):
    """A map that gives its adjoint as a sparse array with entries stored in several parts."""

    def adjoint_operator(self, y):
        parts = [sp.coo_array(number * A) for number, A in zip(y, self.matrices, strict=True)]
        data, rows, cols = (np.concatenate([getattr(each, name) for each in parts]) for name in ("data", "row", "col"))
        return sp.coo_array((data, (rows, cols)), shape=self.matrix_shape)


class OperatorAdjoint(maps.Minimal):
    """A map that gives its adjoint as an operator only."""

    def adjoint_operator(self, y):
        return aslinearoperator(self._adjoint(y))


@pytest.mark.parametrize("kind", [maps.Minimal, Dense, SparseAdjoint, OperatorAdjoint])
def test_the_norm_of_the_adjoint_in_every_form(kind, rng):
    matrices, y = rng.standard_normal((4, 3, 600)), rng.standard_normal(4)
    expected = np.linalg.norm(np.tensordot(y, matrices, 1))
    assert kind(matrices).adjoint_norm(y) == pytest.approx(expected, rel=1e-13)


def test_the_norm_of_the_adjoint_without_forming_it(rng):
    d1, d2, m = 700, 500, 30
    rank_one = RankOne(rng.standard_normal((m, d1)), rng.standard_normal((m, d2)))
    entries = Entries(rng.integers(0, 4, m), rng.integers(0, 3, m), (d1, d2), rng.standard_normal(m))  # some repeatedly
    y = rng.standard_normal(m)
    for A in (rank_one, entries):
        assert A.adjoint_norm(y) == pytest.approx(np.linalg.norm(A.adjoint(y)), rel=1e-13)


def test_unchecked_operations_are_those_of_the_hooks(rng):
    for build in (*maps.BUILT_IN.values(), maps.minimal):
        A, _ = build(rng, 4, 3, 6, "none")
        X, y, P, Q = (rng.standard_normal(shape) for shape in [(4, 3), 6, (3, 3), (4, 4)])
        np.testing.assert_array_equal(A.forward(X), A(X))
        np.testing.assert_array_equal(A.adjoint_matrix(y), A.adjoint(y))
        np.testing.assert_array_equal(A.left_moment_matrix(P), A.left_moment(P))
        np.testing.assert_array_equal(A.right_moment_matrix(Q), A.right_moment(Q))


@pytest.mark.parametrize("build", [*maps.BUILT_IN.values(), *maps.DERIVED.values()], ids=[*maps.BUILT_IN, *maps.DERIVED])
def test_squares_of_images_of_rank_one_matrices(build, rng):
    A, _ = build(rng, 5, 4, 12, "none")
    U, V = rng.standard_normal((A.matrix_shape[0], 3)), rng.standard_normal((A.matrix_shape[1], 3))
    expected = [np.sum(A(np.outer(u, v)) ** 2) for u, v in zip(U.T, V.T, strict=True)]
    np.testing.assert_allclose(A.image_squares(U, V), expected, atol=1e-12)
    assert A.image_squares(U[:, :0], V[:, :0]).size == 0


def test_a_vanishing_energy_is_never_negative(rng):
    for _ in range(50):
        u, C = rng.standard_normal(4), rng.standard_normal((4, 3))
        C -= np.outer(u, u @ C) / (u @ u)
        A = Dense([np.outer(u, rng.standard_normal(3)) for _ in range(3)])
        assert 0 <= A.energy(C, rng.standard_normal((3, 2))) < 1e-12


MAPS = [Dense(np.ones((4, 2, 3))), RankOne(np.ones((4, 2)), np.ones((4, 3))), Entries([0] * 4, [1] * 4, (2, 3))]


@pytest.mark.parametrize("A", MAPS, ids=lambda A: type(A).__name__)
@pytest.mark.parametrize("X", bad_input.bad((2, 3)))
def test_a_bad_matrix_is_refused(A, X):
    with pytest.raises(ValueError, match=r"^X "):
        A(X)


@pytest.mark.parametrize("y", bad_input.bad((4,)))
def test_a_bad_dual_vector_is_refused(y):
    for A in MAPS:
        with pytest.raises(ValueError, match=r"^y "):
            A.adjoint(y)


@pytest.mark.parametrize("P", bad_input.bad((3, 3)))
def test_a_bad_left_weight_is_refused(P):
    for A in MAPS:
        with pytest.raises(ValueError, match=r"^P "):
            A.left_moment(P)


@pytest.mark.parametrize("Q", bad_input.bad((2, 2)))
def test_a_bad_right_weight_is_refused(Q):
    for A in MAPS:
        with pytest.raises(ValueError, match=r"^Q "):
            A.right_moment(Q)


def test_messages_say_what_was_found_and_what_was_expected():
    with pytest.raises(ValueError, match=r"^X has shape \(3, 2\); expected \(2, 3\)$"):
        MAPS[0](np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"^X has 2 NaN or infinite values; expected finite numbers$"):
        MAPS[0]([[np.nan, 1, 1], [1, np.inf, 1]])
    with pytest.raises(ValueError, match=r"^X has dtype complex128; expected real numbers$"):
        MAPS[0](np.ones((2, 3), dtype=complex))


@pytest.mark.parametrize("build", [*maps.BUILT_IN.values(), *maps.DERIVED.values()], ids=[*maps.BUILT_IN, *maps.DERIVED])
@pytest.mark.parametrize("edge", maps.EDGES)
def test_the_conformance_check_passes_for_every_map_of_the_package(build, edge, rng):
    A, _ = build(rng, 4, 3, 6, edge)
    for each in (A, A.select(np.array([5, 1, 1])), A.congruence(rng.standard_normal((4, 2)), rng.standard_normal((3, 3)))):
        report = check_measurements(each, rng)
        assert report.ok, f"{each!r}\n{report}"
