"""Vectors of compiled loops: every operation against NumPy, in every precision and number of lanes."""

from fractions import Fraction

import numba
import numpy as np
import pytest

from balancedfact.dynamics._vectors import absolute, aligned, fill, fma, load, store, zero


@numba.njit
def operations(lanes, a, b, c, number, out):
    x, y, z = load(a, 1, lanes), load(b, 2, lanes), load(c, 0, lanes)
    store(out, 0, x + y)
    store(out, 1, x - y)
    store(out, 2, x * y)
    store(out, 3, -x)
    store(out, 4, absolute(x))
    store(out, 5, fma(x, y, z))
    store(out, 6, fill(number, lanes))
    store(out, 7, zero(out, lanes))


@pytest.mark.few(1)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_operations_are_those_of_numpy(lanes, dtype, rng):
    a, b, c = (rng.standard_normal((3, lanes)).astype(dtype) for _ in range(3))
    out, number = np.full((9, lanes), np.nan, dtype), dtype(0.1)
    operations((0,) * lanes, a, b, c, number, out)
    x, y = a[1], b[2]
    for found, expected in zip(out, [x + y, x - y, x * y, -x, abs(x)], strict=False):
        np.testing.assert_array_equal(found, expected)
    exact = [Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r)) for p, q, r in zip(x, y, c[0], strict=True)]
    np.testing.assert_array_equal(out[5], np.array([float(each) for each in exact], dtype))  # rounded once
    np.testing.assert_array_equal(out[6], number)
    np.testing.assert_array_equal(out[7], 0)
    assert np.isnan(out[8]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 16), (3, 1, 5, 8), (1000, 16)])
def test_aligned_zeros_begin_at_a_cache_line(shape, dtype):
    several = [aligned(shape, dtype) for _ in range(5)]
    for array in several:
        assert (array.shape, array.dtype, array.flags.c_contiguous, array.flags.writeable) == (shape, dtype, True, True)
        assert array.ctypes.data % 64 == 0
        np.testing.assert_array_equal(array, 0)
    several[0][...] = 1  # arrays share nothing
    np.testing.assert_array_equal(several[1], 0)
