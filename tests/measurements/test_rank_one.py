import numpy as np
import pytest
from hypothesis import given

from balancedfact.measurements import Dense, RankOne, check_measurements
from balancedfact.measurements._rank_one import _lengths
from tests import bad_input, maps, oracles


@given(maps.cases(maps.rank_one))
def test_every_method_agrees_with_the_matrices(case):
    oracles.assert_agrees(*case)


def test_every_method_agrees_with_the_dense_map_at_larger_sizes(rng):
    A, matrices = maps.rank_one(rng, 30, 20, 25, "none")
    B = Dense(matrices)
    X, P, Q = rng.standard_normal((30, 20)), rng.standard_normal((20, 20)), rng.standard_normal((30, 30))
    np.testing.assert_allclose(A(X), B(X), rtol=1e-10)
    np.testing.assert_allclose(A.left_moment(P), B.left_moment(P), atol=1e-9)
    np.testing.assert_allclose(A.right_moment(Q), B.right_moment(Q), atol=1e-9)
    np.testing.assert_allclose(A.D1, B.D1, atol=1e-7)
    np.testing.assert_allclose(A.D2, B.D2, atol=1e-7)
    np.testing.assert_allclose(A.energy(X, P), B.energy(X, P), rtol=1e-12)


def test_one_measurement_worked_by_hand():
    A = RankOne([[1.0, 2.0]], [[3.0, 0.0, 4.0]])
    np.testing.assert_array_equal(A([[1.0, 0.0, 0.0], [0.0, 0.0, 10.0]]), [83.0])
    np.testing.assert_array_equal(A.adjoint([10.0]), [[30.0, 0.0, 40.0], [60.0, 0.0, 80.0]])
    np.testing.assert_allclose(A.D1 @ A.D1, np.array([[1.0, 2.0], [2.0, 4.0]]) * 25 / 3, rtol=1e-14)


def test_repeated_and_mirrored_vectors_are_one_matrix_each(rng):
    u, v = rng.standard_normal(4), rng.standard_normal(3)
    A = RankOne([u, -u, 2 * u], [v, -v, v / 2])
    oracles.assert_agrees(A, [np.outer(u, v)] * 3, rng)


@pytest.mark.parametrize("sizes", [(1e150, 1.0), (1.0, 1e150), (1e75, 1e75), (1e-150, 1.0), (1e-75, 1e-75)])
def test_extreme_magnitude_changes_nothing_but_the_magnitude(sizes, rng):
    left, right = rng.standard_normal((8, 4)), rng.standard_normal((8, 3))
    A, scaled = RankOne(left, right), RankOne(sizes[0] * left, sizes[1] * right)
    np.testing.assert_allclose(scaled.D1, sizes[0] * sizes[1] * A.D1, rtol=1e-12)
    np.testing.assert_allclose(scaled.D2, sizes[0] * sizes[1] * A.D2, rtol=1e-12)
    assert check_measurements(scaled, rng).ok
    oracles.assert_whitened(scaled, rng)


@pytest.mark.parametrize("sizes", [(1e200, 1e-200), (1e-200, 1e200)])
def test_extreme_vectors_of_ordinary_matrices_give_the_same_map(sizes, rng):
    left, right = rng.standard_normal((8, 4)), rng.standard_normal((8, 3))
    A, scaled = RankOne(left, right), RankOne(sizes[0] * left, sizes[1] * right)
    X = rng.standard_normal((4, 3))
    np.testing.assert_allclose(scaled(X), A(X), rtol=1e-11)
    np.testing.assert_allclose(scaled.D1, A.D1, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(scaled.D2, A.D2, rtol=1e-11, atol=1e-13)


def test_no_matrix_is_formed():
    A = RankOne(np.ones((3, 200_000)), np.ones((3, 100_000)))
    assert A.forward_factored(np.ones((200_000, 1)), np.ones((100_000, 1)))[0] == 2e10
    assert (A.adjoint_operator(np.ones(3)) @ np.ones(100_000))[0] == 3e5


@pytest.mark.parametrize("name", ["left", "right"])
@pytest.mark.parametrize("vectors", bad_input.not_numbers((2, 3)) + bad_input.not_arrays(2))
def test_bad_vectors_are_refused(name, vectors):
    arguments = {"left": np.ones((2, 3)), "right": np.ones((2, 4)), name: vectors}
    with pytest.raises(ValueError, match=rf"^{name} "):
        RankOne(**arguments)


def test_unequal_numbers_of_vectors_are_refused():
    with pytest.raises(ValueError, match=r"^right has 3 rows; expected 2"):
        RankOne(np.ones((2, 4)), np.ones((3, 4)))


def test_a_map_describes_itself():
    assert repr(RankOne(np.ones((5, 3)), np.ones((5, 4)))) == "<RankOne: 5 measurements of 3 x 4 matrices>"


def test_lengths_of_rows_neither_overflow_nor_vanish(rng):
    X = rng.standard_normal((6, 5)) * np.array([1e-300, 1e-120, 1.0, 1e90, 1e200, 0.0])[:, None]
    expected = [float(np.max(np.abs(row))) * np.linalg.norm(row / (np.max(np.abs(row)) or 1.0)) for row in X]
    np.testing.assert_allclose(_lengths(X), expected, rtol=1e-14)
