"""Arrays that every function must refuse."""

import numpy as np
import pytest


def not_numbers(shape):
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


def not_arrays(ndim):
    """Things that are no array of `ndim` dimensions with at least one entry."""
    return [
        pytest.param(np.empty((0,) * ndim), id="empty"),
        pytest.param(np.empty((2,) * (ndim - 1) + (0,)), id="empty last axis"),
        pytest.param(np.ones((2,) * (ndim + 1)), id="one dimension more"),
        pytest.param(np.ones((2,) * (ndim - 1)), id="one dimension less"),
        pytest.param([[1.0, 2.0], [3.0]], id="ragged"),
        pytest.param("matrix", id="string"),
        pytest.param(None, id="none"),
        pytest.param({}, id="dict"),
        pytest.param(3.0, id="number"),
    ]


def bad(shape):
    """All of the above for an array of `shape`, with wrong shapes of the same number of dimensions."""
    longer = tuple(size + 1 for size in shape)
    wrong = [pytest.param(np.ones(longer), id="wrong shape")]
    if len(set(shape)) > 1:
        wrong.append(pytest.param(np.ones(shape[::-1]), id="transposed"))
    return not_numbers(shape) + not_arrays(len(shape)) + wrong


BAD_RNG = [-1, np.int64(-3), True, 1.5, "seed", [1, 2], np.random.RandomState(0), object()]
BAD_COUNT = [0, -1, 2.5, 3.0, True, np.True_, "3", None, np.nan, [3], np.array([3])]
BAD_SHAPE = [3, None, (3,), (3, 4, 5), (3, 0), (-1, 4), (3.0, 4), (True, 4), "ab", ("3", "4"), (np.nan, 4)]
