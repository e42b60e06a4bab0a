"""Arguments that must be refused: every kind for the validators, one or two of a kind for the functions that call them.

`balancedfact/_validate.py` decides what is refused; `tests/test_validate.py` tries everything (``EVERY_...``, ``every_...``)
on it. The tests of a function show that its arguments go through: for that one value and one shape are enough.
"""

import numpy as np
import pytest


def every_not_numbers(shape):
    """Arrays of the right shape whose entries are not finite real numbers."""
    good = np.ones(shape)
    nan, infinite, negative = good.copy(), good.copy(), good.copy()
    nan.flat[-1], infinite.flat[0], negative.flat[0] = np.nan, np.inf, -np.inf
    return [
        pytest.param(nan, id="nan"),
        pytest.param(infinite, id="inf"),
        pytest.param(negative, id="minus inf"),
        pytest.param(good.astype(complex), id="complex"),
        pytest.param(good.astype(object), id="object"),
        pytest.param(good.astype(str), id="strings"),
        pytest.param(good.astype("datetime64[s]"), id="dates"),
    ]


def every_not_arrays(ndim):
    """Things that are no array of `ndim` dimensions with at least one entry."""
    return [
        pytest.param(np.ones((2,) * (ndim + 1)), id="one dimension more"),
        pytest.param(np.empty((0,) * ndim), id="empty"),
        pytest.param(np.empty((2,) * (ndim - 1) + (0,)), id="empty last axis"),
        pytest.param(np.ones((2,) * (ndim - 1)), id="one dimension less"),
        pytest.param([[1.0, 2.0], [3.0]], id="ragged"),
        pytest.param("matrix", id="string"),
        pytest.param(None, id="none"),
        pytest.param({}, id="dict"),
        pytest.param(3.0, id="number"),
    ]


def _every_wrong_shape(shape):
    longer = tuple(size + 1 for size in shape)
    wrong = [pytest.param(np.ones(longer), id="wrong shape")]
    if len(set(shape)) > 1:
        wrong.append(pytest.param(np.ones(shape[::-1]), id="transposed"))
    return wrong


def every_bad(shape):
    """All of the above for an array of `shape`, with wrong shapes of the same number of dimensions."""
    return every_not_numbers(shape) + every_not_arrays(len(shape)) + _every_wrong_shape(shape)


EVERY_BAD_RNG = [-1, np.int64(-3), True, 1.5, "seed", [1, 2], np.random.RandomState(0), object()]
EVERY_BAD_COUNT = [0, -1, 2.5, 3.0, True, np.True_, "3", None, np.nan, [3], np.array([3])]
EVERY_BAD_SHAPE = [3, None, (3,), (3, 4, 5), (3, 0), (-1, 4), (3.0, 4), (True, 4), "ab", ("3", "4"), (np.nan, 4)]


# One or two of a kind.


def not_numbers(shape):
    """An array of the right shape with a NaN."""
    return every_not_numbers(shape)[:1]


def not_arrays(ndim):
    """An array with one dimension more than `ndim`."""
    return every_not_arrays(ndim)[:1]


def bad(shape):
    """An array of `shape` with a NaN, and arrays of other shapes with the same number of dimensions."""
    return not_numbers(shape) + _every_wrong_shape(shape)


BAD_RNG = [-1]
BAD_COUNT = [0, 2.5]
BAD_SHAPE = [(3, 0)]
