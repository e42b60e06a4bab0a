from fractions import Fraction

import numpy as np
import pytest

from balancedfact._validate import as_array, as_count, as_index, as_layers, as_number, as_pair, as_rng, as_shape, as_widths
from tests import bad_input


@pytest.mark.parametrize("value", bad_input.every_bad((2, 3)))
def test_arrays_that_are_no_finite_matrix_of_the_shape_are_refused(value):
    with pytest.raises(ValueError, match=r"^thing "):
        as_array(value, "thing", shape=(2, 3))


@pytest.mark.parametrize("value", bad_input.every_not_numbers((2, 3)) + bad_input.every_not_arrays(2))
def test_arrays_that_are_no_finite_matrix_are_refused(value):
    with pytest.raises(ValueError, match=r"^thing "):
        as_array(value, "thing", ndim=2)


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint64, np.float16, np.float32, np.float64, np.longdouble])
def test_real_numbers_of_any_type_become_float64(kind):
    array = as_array(np.array([[0, 1], [1, 1]], dtype=kind), "thing", ndim=2)
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, [[0.0, 1.0], [1.0, 1.0]])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_numbers_beyond_float64_are_refused():
    with pytest.raises(ValueError, match=r"^thing "):
        as_array([10**400], "thing")
    if np.finfo(np.longdouble).max > np.finfo(np.float64).max:
        with pytest.raises(ValueError, match=r"^thing has 1 NaN or infinite value;"):
            as_array(np.array([np.finfo(np.longdouble).max]), "thing")


def test_extreme_finite_numbers_are_accepted():
    extremes = [np.finfo(float).max, -np.finfo(float).max, 5e-324, 0.0, -0.0]
    np.testing.assert_array_equal(as_array(extremes, "thing"), extremes)


def test_a_good_array_is_neither_copied_nor_changed():
    array = np.ones((2, 3))
    assert as_array(array, "thing", shape=(2, 3)) is array


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, np.nan], "thing has 1 NaN or infinite value; expected finite numbers"),
        ([np.inf, np.nan], "thing has 2 NaN or infinite values; expected finite numbers"),
        (np.ones(3, complex), "thing has dtype complex128; expected real numbers"),
        (np.ones(3), r"thing has shape \(3,\); expected \(2,\)"),
        ([[1.0], [1.0, 2.0]], "thing is not an array of numbers; expected one with rows of equal length"),
    ],
)
def test_messages_say_what_was_found_and_what_was_expected(value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        as_array(value, "thing", shape=(2,))


def test_an_index_is_an_array_of_integers_in_range():
    for good in ([0, 2], (0, 2), np.array([0, 2], np.uint8), np.array([0, 2], np.int64)):
        index = as_index(good, "thing", 3)
        assert index.dtype == np.intp
        np.testing.assert_array_equal(index, [0, 2])


BAD_INDEX = [[-1], [3], [0, 5], [0.0], [True], ["0"], [], [[0]], 0, None, [[0], [1, 2]], [2**64], np.array([2**63], np.uint64)]


@pytest.mark.parametrize("value", BAD_INDEX, ids=str)
def test_a_bad_index_is_refused(value):
    with pytest.raises(ValueError, match=r"^thing "):
        as_index(value, "thing", 3)


def test_a_count_is_an_integer_of_at_least_the_least():
    assert as_count(np.int64(3), "thing") == 3
    assert type(as_count(np.uint8(3), "thing")) is int
    assert as_count(2, "thing", least=2) == 2
    with pytest.raises(ValueError, match=r"^thing is 1; expected at least 2$"):
        as_count(1, "thing", least=2)


@pytest.mark.parametrize("value", bad_input.EVERY_BAD_COUNT, ids=repr)
def test_a_bad_count_is_refused(value):
    with pytest.raises(ValueError, match=r"^thing is "):
        as_count(value, "thing")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), Fraction(1, 2)])
def test_a_number_may_be_of_any_real_type(value):
    assert as_number(value, "thing") == 0.5
    assert type(as_number(value, "thing")) is float


def test_bounds_of_a_number_are_as_stated():
    assert as_number(1, "thing", least=1, most=1) == 1.0
    assert as_number(0.1, "thing", above=0.0) == 0.1
    for value, options in [(0.9, {"least": 1}), (0, {"above": 0.0}), (-1, {"above": 0.0}), (1.1, {"most": 1.0})]:
        with pytest.raises(ValueError, match=rf"^thing is {value}"):
            as_number(value, "thing", **options)


BAD_NUMBER = [np.nan, np.inf, -np.inf, 10**400, -(10**400), True, np.True_, "1", None, 1j, [1.0], np.ones(1)]


@pytest.mark.parametrize("value", BAD_NUMBER, ids=lambda value: repr(value)[:9])
def test_a_bad_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^thing is "):
        as_number(value, "thing")


@pytest.mark.parametrize("value", [(3, 4), [3, 4], np.array([3, 4]), (np.int8(3), 4)])
def test_a_shape_is_a_pair_of_counts(value):
    assert as_shape(value) == (3, 4)
    assert all(type(size) is int for size in as_shape(value))


@pytest.mark.parametrize("value", bad_input.EVERY_BAD_SHAPE, ids=repr)
def test_a_bad_shape_is_refused(value):
    with pytest.raises(ValueError, match=r"^thing"):
        as_shape(value, "thing")


def test_a_generator_comes_from_a_seed_or_is_passed_through():
    generator = np.random.default_rng(5)
    assert as_rng(generator) is generator
    assert isinstance(as_rng(None), np.random.Generator)
    draws = [as_rng(seed).random() for seed in (5, np.int64(5), np.random.SeedSequence(5), np.random.default_rng(5))]
    assert len(set(draws)) == 1
    assert as_rng(0).random() != as_rng(1).random()


@pytest.mark.parametrize("value", bad_input.EVERY_BAD_RNG, ids=lambda value: type(value).__name__)
def test_a_bad_generator_is_refused(value):
    with pytest.raises(ValueError, match=r"^rng is .*; expected a .*seed or a numpy.random.Generator$"):
        as_rng(value)


def test_layers_are_matrices_that_multiply():
    layers = as_layers([[[1, 2]], np.ones((3, 1), dtype=int)], (3, 2))
    assert [layer.shape for layer in layers] == [(1, 2), (3, 1)]
    assert all(layer.dtype == np.float64 for layer in layers)
    assert len(as_layers(np.ones((4, 2, 2)))) == 4
    assert len(as_layers(iter([np.ones((2, 2))]))) == 1


@pytest.mark.parametrize("layers", [[], (), None, 3, np.float64(3)])
def test_layers_that_are_no_list_are_refused(layers):
    with pytest.raises(ValueError, match=r"^layers is "):
        as_layers(layers)


@pytest.mark.parametrize("layer", bad_input.every_not_numbers((2, 3)) + bad_input.every_not_arrays(2))
def test_a_bad_layer_is_refused_by_its_place(layer):
    with pytest.raises(ValueError, match=r"^layers\[1\] "):
        as_layers([np.ones((3, 3)), layer])


def test_layers_that_do_not_multiply_are_refused():
    with pytest.raises(ValueError, match=r"^layers\[1\] has shape \(2, 4\) after .* of shape \(3, 2\); expected 3 columns$"):
        as_layers([np.ones((3, 2)), np.ones((2, 4))])
    with pytest.raises(ValueError, match=r"^layers multiply to shape \(4, 2\); expected \(2, 4\)"):
        as_layers([np.ones((3, 2)), np.ones((4, 3))], (2, 4))


def test_a_pair_has_factors_of_equal_width():
    L, R = as_pair([[1], [2]], np.ones((3, 1), dtype=int), (2, 3))
    assert (L.shape, R.shape, L.dtype, R.dtype) == ((2, 1), (3, 1), np.float64, np.float64)
    with pytest.raises(ValueError, match=r"^R has 2 columns; expected 1, as L has"):
        as_pair(np.ones((2, 1)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"^L and R have 3 and 2 rows; expected \(2, 3\)"):
        as_pair(np.ones((3, 1)), np.ones((2, 1)), (2, 3))


@pytest.mark.parametrize("name", ["L", "R"])
@pytest.mark.parametrize("factor", bad_input.every_not_numbers((2, 3)) + bad_input.every_not_arrays(2))
def test_a_bad_factor_is_refused_by_its_name(name, factor):
    with pytest.raises(ValueError, match=rf"^{name} "):
        as_pair(**{"L": np.ones((2, 3)), "R": np.ones((2, 3)), name: factor})


@pytest.mark.parametrize("value", [[4, 2, 3], (4, 2, 3), np.array([4, 2, 3]), iter([4, 2, 3])])
def test_widths_start_with_the_columns_and_end_with_the_rows(value):
    widths = as_widths(value, (3, 4))
    assert widths == [4, 2, 3]
    assert all(type(width) is int for width in widths)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"^widths is 5; expected a list \[d_0, ..., d_L\]$"),
        ([4, 3], r"^widths has 2 entries; expected at least 3, for two layers$"),
        ([4, 0, 3], r"^widths\[1\] is 0; expected at least 1$"),
        ([4, 2.0, 3], r"^widths\[1\] is 2.0; expected an integer$"),
        ([3, 2, 4], r"^widths is \[3, 2, 4\]; expected it to start with 4 and to end with 3$"),
        ([4, 2, 4], r"^widths is \[4, 2, 4\]; expected it to start with 4 and to end with 3$"),
    ],
)
def test_bad_widths_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        as_widths(value, (3, 4))


def test_masked_values_are_not_data():
    with pytest.raises(ValueError, match=r"^b has 1 masked value; expected none, leave them out$"):
        as_array(np.ma.masked_equal([1, 2, -999], -999), "b")
    assert as_array(np.ma.masked_equal([1, 2, 3], -999), "b").tolist() == [1, 2, 3]
