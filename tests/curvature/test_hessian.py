import numpy as np
import pytest

import balancedfact as bf
from tests.oracles import hessian, trace_terms

CASES = [([3, 2, 2], 4), ([2, 3, 2, 3], 30), ([3, 2, 1, 3], 5), ([2, 2], 3), ([2, 2, 2, 2, 1], 3)]


def instance(widths, m, kind, seed=0, fits=False):
    rng = np.random.default_rng(seed)
    layers = [rng.standard_normal(shape) for shape in zip(widths[1:], widths, strict=False)]
    shape = (widths[-1], widths[0])
    if kind == "dense":
        A = bf.measurements.gaussian(m, shape, rng)
    elif kind == "rank one":
        A = bf.measurements.bilinear(m, shape, rng)
    else:
        A = bf.measurements.Entries(rng.integers(0, shape[0], m), rng.integers(0, shape[1], m), shape)
    b = A(np.linalg.multi_dot(layers[::-1]) if len(layers) > 1 else layers[0])
    return layers, A, b if fits else b + rng.standard_normal(m)


def dense(layers, A, b):
    return hessian(layers, A.rotated(*map(np.eye, A.matrix_shape)), b)


@pytest.mark.parametrize("kind", ["dense", "rank one", "entries"])
@pytest.mark.parametrize(("widths", "m"), CASES)
def test_diagonal_and_traces(widths, m, kind):
    layers, A, b = instance(widths, m, kind)
    expected = np.diag(dense(layers, A, b))
    found = bf.curvature.diagonal(layers, A)
    assert [each.shape for each in found] == [layer.shape for layer in layers]
    np.testing.assert_allclose(np.concatenate([each.ravel() for each in found]), expected, rtol=1e-11, atol=1e-13)
    traces = bf.curvature.layer_traces(layers, A)
    np.testing.assert_allclose(traces, trace_terms(layers, list(A.rotated(*map(np.eye, A.matrix_shape)))), rtol=1e-11)
    assert traces.sum() == pytest.approx(bf.curvature.trace(layers, A), rel=1e-13)


@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.parametrize("kind", ["dense", "entries"])
@pytest.mark.parametrize(("widths", "m"), CASES)
def test_spectrum_norm_and_eigenpairs(widths, m, kind, fits):
    layers, A, b = instance(widths, m, kind, 1, fits)
    H = dense(layers, A, b)
    values, size = np.linalg.eigvalsh(H), np.linalg.norm(H)
    np.testing.assert_allclose(bf.curvature.spectrum(layers, A, b), values, atol=1e-12 * size)
    assert bf.curvature.hessian_norm(layers, A, b) == pytest.approx(size, rel=1e-11)
    top, vectors = bf.curvature.top_eigenpairs(layers, A, b, 3)
    np.testing.assert_allclose(top, values[:-4:-1], atol=1e-12 * size)
    flat = np.array([np.concatenate([part.ravel() for part in vector]) for vector in vectors])
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(H @ flat.T, flat.T * top, atol=1e-11 * size)


def test_large_eigenpairs_by_lanczos():
    rng = np.random.default_rng(0)
    A = bf.measurements.gaussian(40, (30, 30), rng)
    layers = [rng.standard_normal((40, 30)) / 6, rng.standard_normal((30, 40)) / 6]
    b = A(layers[1] @ layers[0]) + rng.standard_normal(40)
    values, vectors = bf.curvature.top_eigenpairs(layers, A, b, 4)
    assert values[0] == pytest.approx(bf.curvature.sharpness(layers, A, b), rel=1e-10)
    for value, vector in zip(values, vectors, strict=True):
        image = bf.curvature.hessian_vector_product(layers, vector, A, b)
        for part, moved in zip(vector, image, strict=True):
            np.testing.assert_allclose(moved, value * part, atol=1e-8 * values[0])


@pytest.mark.parametrize("power", [-40, 40])
def test_extreme_scales(power):
    layers, A, b = instance([2, 2, 2], 3, "dense", 2, True)
    factor = 10.0**power
    far = [layer * factor for layer in layers]
    data = A(far[1] @ far[0])
    for function in (bf.curvature.spectrum, bf.curvature.hessian_norm):
        ratio = np.max(function(far, A, data)) / np.max(function(layers, A, b))
        assert ratio == pytest.approx(factor**2, rel=1e-11)
    np.testing.assert_allclose(bf.curvature.diagonal(far, A)[0], bf.curvature.diagonal(layers, A)[0] * factor**2, rtol=1e-12)


@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0])
def test_worst_direction(radius, fits):
    layers, A, b = instance([2, 3, 2], 4, "dense", 3, fits)

    def loss(W):
        return np.mean((A(np.linalg.multi_dot(W[::-1])) - b) ** 2)

    rise = bf.curvature.worst_direction_sharpness(layers, A, b, radius)
    moved = [w + v for w, v in zip(layers, rise.directions, strict=True)]
    assert np.sqrt(sum(np.sum(v**2) for v in rise.directions)) == pytest.approx(radius, rel=1e-12)
    assert loss(moved) - loss(layers) == pytest.approx(rise.value, rel=1e-6)
    assert rise.value <= rise.upper
    rng = np.random.default_rng(0)
    for _ in range(300):
        V = [rng.standard_normal(w.shape) for w in layers]
        size = np.sqrt(sum(np.sum(v**2) for v in V))
        assert loss([w + radius / size * v for w, v in zip(layers, V, strict=True)]) - loss(layers) <= rise.value * (1 + 1e-9)
    if radius == 1e-3:
        first = radius * np.linalg.norm(np.concatenate([g.ravel() for g in bf.curvature.loss_gradient(layers, A, b)]))
        expected = radius**2 / 2 * bf.curvature.sharpness(layers, A, b) if fits else first
        assert rise.value == pytest.approx(expected, rel=2e-2)
        assert rise.upper == pytest.approx(expected, rel=5e-2)


def test_bad_input():
    layers, A, b = instance([2, 2, 2], 3, "dense")
    with pytest.raises(ValueError, match="k is"):
        bf.curvature.top_eigenpairs(layers, A, b, 9)
    with pytest.raises(ValueError, match="radius"):
        bf.curvature.worst_direction_sharpness(layers, A, b, 0.0)
    with pytest.raises(ValueError, match="layers"):
        bf.curvature.diagonal([np.ones((2, 3))], A)
    with pytest.raises(ValueError, match="at most 2048"):
        bf.curvature.spectrum([np.ones((1100, 2)), np.ones((2, 1100))], A, b)
