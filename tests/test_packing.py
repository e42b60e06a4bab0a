import numpy as np
import pytest

from balancedfact._packing import Packing


@pytest.mark.parametrize("d", [1, 2, 5])
def test_coordinates_are_orthonormal_and_invertible(d, rng):
    packing, (X, Y) = Packing(d), rng.standard_normal((2, 3, d, d))
    X, Y = X + X.swapaxes(1, 2), Y + Y.swapaxes(1, 2)
    x, y = packing.pack(X), packing.pack(Y)
    assert x.shape == (3, packing.size) == (3, d * (d + 1) // 2)
    np.testing.assert_allclose(packing.unpack(x), X, rtol=1e-15)
    np.testing.assert_allclose(np.einsum("ij,ij->i", x, y), np.einsum("iab,iab->i", X, Y))
    np.testing.assert_allclose(packing.unpack(packing.pack(X[0])), X[0], rtol=1e-15)


def test_only_the_upper_triangle_counts(rng):
    X = rng.standard_normal((4, 4))
    packing = Packing(4)
    np.testing.assert_allclose(packing.unpack(packing.pack(X)), np.triu(X) + np.triu(X, 1).T, rtol=1e-15)
    np.testing.assert_array_equal(X[packing.rows, packing.cols] * packing.weights, packing.pack(X))
