"""The derivative of soft thresholding against finite differences, its preconditioner against a dense inverse."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.solvers.nuclear._thresholding import CorePreconditioner, Thresholded

SHAPES = pytest.mark.parametrize("shape", [(7, 7), (6, 9), (9, 6)])


def setting(shape, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.6
    rows, cols = np.nonzero(mask)
    A = bf.measurements.Entries(rows, cols, shape, rng.uniform(0.5, 2.0, rows.size))
    G = rng.standard_normal(shape)
    threshold = float(np.sort(np.linalg.svd(G, compute_uv=False))[2:4].mean())  # between two
    return A, G, threshold, rng


def thresholded(G, t):
    U, s, Vt = np.linalg.svd(G, full_matrices=False)
    return (U * np.maximum(s - t, 0)) @ Vt


def at(A, G, t):
    U, s, Vt = np.linalg.svd(G, full_matrices=False)
    return Thresholded(A, U, s, Vt.T, t)


@SHAPES
def test_value_and_image(shape):
    A, G, t, _ = setting(shape)
    here = at(A, G, t)
    np.testing.assert_allclose(here.matrix, thresholded(G, t), atol=1e-13)
    np.testing.assert_allclose(here.image, A(thresholded(G, t)), atol=1e-13)


@SHAPES
def test_product_is_the_derivative(shape):
    A, G, t, rng = setting(shape)
    y = rng.standard_normal(A.m)
    H, e = A.adjoint(y), 1e-5
    difference = (thresholded(G + e * H, t) - thresholded(G - e * H, t)) / (2 * e)
    np.testing.assert_allclose(at(A, G, t).product(y), A(difference), atol=1e-7)


def test_product_where_singular_values_coincide():
    A, _, _, rng = setting((6, 6))
    U, V = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    G = (U * np.array([3.0, 3.0, 2.0, 0.5, 0.5, 0.1])) @ V.T
    H, e = A.adjoint(y := rng.standard_normal(A.m)), 1e-5
    difference = (thresholded(G + e * H, 1.0) - thresholded(G - e * H, 1.0)) / (2 * e)
    np.testing.assert_allclose(at(A, G, 1.0).product(y), A(difference), atol=1e-7)


@SHAPES
def test_preconditioner_is_the_inverse_of_its_two_parts(shape, monkeypatch):
    monkeypatch.setattr("balancedfact.solvers.nuclear._thresholding._FEATURES_AT_ONCE", 20)  # more than one piece
    A, G, t, _ = setting(shape)
    here = at(A, G, t)
    inverse = CorePreconditioner(here, 1e-3)

    def core(y):
        K = here.left.T @ A.adjoint(y) @ here.right
        return A(here.left @ ((K + K.T) / 2) @ here.right.T)

    whole = np.array([core(e) for e in np.eye(A.m)]) + np.diag(inverse.diagonal)
    np.testing.assert_allclose(np.array([inverse(column) for column in whole.T]), np.eye(A.m), atol=1e-10)


@SHAPES
def test_diagonal_of_the_rest_from_its_definition(shape):
    A, G, t, _ = setting(shape)
    U, s, Vt = np.linalg.svd(G)  # all singular vectors
    d1, d2 = shape
    full = np.zeros(max(shape))
    full[: s.size] = s
    h, k = np.maximum(full - t, 0), int(np.count_nonzero(s > t))
    inverse = CorePreconditioner(at(A, G, t), 0.25)
    expected = np.zeros(A.m)
    for p, (i, j, w) in enumerate(zip(A.rows, A.cols, A.weights, strict=True)):
        for a in range(k):
            for c in range(k, max(shape)):
                straight = ((h[a] - h[c]) / (full[a] - full[c]) + (h[a] + h[c]) / (full[a] + full[c])) / 2
                if c < d2:
                    expected[p] += w**2 * straight * U[i, a] ** 2 * Vt[c, j] ** 2
                if c < d1:
                    expected[p] += w**2 * straight * U[i, c] ** 2 * Vt[a, j] ** 2
    np.testing.assert_allclose(inverse.diagonal, expected + 0.25, rtol=1e-10)
