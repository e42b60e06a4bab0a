import numpy as np
import pytest
from hypothesis import given

from balancedfact.measurements import Dense, check_measurements
from tests import bad_input, maps, oracles


@given(maps.cases(maps.dense))
def test_every_method_agrees_with_the_matrices(case):
    oracles.assert_agrees(*case)


@pytest.mark.parametrize("shape", [(30, 20), (7, 40)])
def test_every_method_agrees_with_the_matrices_at_larger_sizes(shape, rng):
    oracles.assert_agrees(*maps.dense(rng, *shape, 25, "none"), rng)


def test_one_measurement_worked_by_hand():
    A = Dense([[[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]])
    np.testing.assert_array_equal(A([[1.0, 10.0, 0.0], [0.0, 0.0, 100.0]]), [321.0])
    np.testing.assert_array_equal(A.adjoint([2.0]), [[2.0, 4.0, 0.0], [0.0, 0.0, 6.0]])
    np.testing.assert_allclose(A.D1, np.diag([np.sqrt(5 / 3), np.sqrt(3)]), rtol=1e-15)
    np.testing.assert_allclose(A.D2 @ A.D2, [[0.5, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 4.5]], atol=1e-15)


def test_matrices_are_kept_in_order(rng):
    stack = rng.standard_normal((4, 3, 2))
    np.testing.assert_array_equal(Dense(stack).matrices, stack)


def test_integers_lists_and_any_memory_order_are_accepted(rng):
    stack = rng.integers(-3, 4, (4, 3, 2))
    X, expected = rng.standard_normal((3, 2)), Dense(stack.astype(float))
    for same in (stack, stack.tolist(), np.asfortranarray(stack), stack.astype(np.float32), stack.astype(np.int8)):
        np.testing.assert_array_equal(Dense(same)(X), expected(X))
    np.testing.assert_array_equal(expected(np.asfortranarray(X)), expected(X))


@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
def test_extreme_magnitude_changes_nothing_but_the_magnitude(c, rng):
    stack = rng.standard_normal((8, 4, 3))
    A, scaled = Dense(stack), Dense(c * stack)
    np.testing.assert_allclose(scaled.D1, c * A.D1, rtol=1e-12)
    np.testing.assert_allclose(scaled.D2, c * A.D2, rtol=1e-12)
    np.testing.assert_allclose(scaled.adjoint(np.ones(8)), c * A.adjoint(np.ones(8)), rtol=1e-12)
    assert check_measurements(scaled, rng).ok
    oracles.assert_whitened(scaled, rng)


def test_a_map_of_large_and_small_matrices_is_not_lost(rng):
    stack = rng.standard_normal((5, 3, 3)) * np.array([1e-120, 1.0, 1e120, 1e150, 1e-150])[:, None, None]
    np.testing.assert_allclose(Dense(stack).D1, Dense(stack[3:4]).D1 / np.sqrt(5), rtol=1e-12)
    oracles.assert_maps(Dense(stack).select(np.array([0, 1])), list(stack[:2]), rng)


@pytest.mark.parametrize("matrices", bad_input.not_numbers((2, 3, 4)) + bad_input.not_arrays(3))
def test_bad_matrices_are_refused(matrices):
    with pytest.raises(ValueError, match=r"^matrices "):
        Dense(matrices)


def test_a_map_describes_itself():
    assert repr(Dense(np.ones((5, 3, 4)))) == "<Dense: 5 measurements of 3 x 4 matrices>"
