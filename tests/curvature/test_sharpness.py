from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancedfact.curvature import _sharpness, hessian_vector_product, sharpest_direction, sharpness
from balancedfact.measurements import Dense, Entries, RankOne
from balancedfact.measurements._sampled import Layout
from tests import bad_input, maps, oracles

ALL = [*maps.BUILT_IN.values(), maps.minimal]


def chain(rng, widths):
    return [rng.standard_normal((out, into)) for into, out in pairwise(widths)]


def flat(layers):
    return np.concatenate([np.ravel(layer) for layer in layers])


def product_of(layers):
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    return product


def assert_is_top(layers, A, matrices, b, rtol=1e-12):
    """The eigenvalue is that of the dense Hessian by differentiation, and the vector is an eigenvector to it."""
    H = oracles.hessian(layers, matrices, b)
    values = np.linalg.eigvalsh(H)
    size = np.abs(values).max()
    value, vector = sharpest_direction(layers, A, b)
    assert value == sharpness(layers, A, b)
    assert abs(value - values[-1]) <= rtol * (values[-1] if np.abs(values[0]) < values[-1] else size) + 1e-300
    assert [each.shape for each in vector] == [layer.shape for layer in layers]
    v = flat(vector)
    assert np.linalg.norm(v) == pytest.approx(1, rel=1e-12)
    assert np.linalg.norm(H @ v - value * v) <= 1e-6 * size


@pytest.mark.slow
@settings(max_examples=60)
@given(
    maps.cases(*ALL, largest=4, most=6),
    st.lists(st.integers(1, 4), min_size=0, max_size=4),
    st.sampled_from(["none", "zero layer", "zero loss"]),
)
def test_sharpness_is_the_top_of_the_hessian_by_differentiation(case, hidden, edge):
    A, matrices, rng = case
    layers = chain(rng, [A.matrix_shape[1], *hidden, A.matrix_shape[0]])
    if edge == "zero layer":
        layers[rng.integers(len(layers))][:] = 0
    b = A(product_of(layers)) if edge == "zero loss" else rng.standard_normal(A.m)
    assert_is_top(layers, A, matrices, b)


def larger_maps(rng):
    vectors = rng.standard_normal((90, 10)), rng.standard_normal((90, 9))
    matrices = rng.standard_normal((90, 10, 9))
    rows, cols, weights = rng.integers(0, 10, 90), rng.integers(0, 9, 90), rng.standard_normal(90)
    single = np.zeros((90, 10, 9))
    single[np.arange(90), rows, cols] = weights
    return {
        "dense": (Dense(matrices), matrices),
        "rank one": (RankOne(*vectors), np.einsum("ip,iq->ipq", *vectors)),
        "entries": (Entries(rows, cols, (10, 9), weights), single),
        "minimal": (maps.Minimal(matrices), matrices),
    }


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", ["dense", "rank one", "entries", "minimal"])
@pytest.mark.parametrize("m", [5, 70, 90])
@pytest.mark.parametrize("hidden", [[2], pytest.param([5, 6], marks=pytest.mark.slow), [4, 3, 5, 4]])
def test_every_side_at_zero_loss_and_off_it(kind, m, hidden, rng, monkeypatch):
    A, matrices = larger_maps(rng)[kind]
    A, matrices = A.select(np.arange(m)), matrices[:m]
    layers = chain(rng, [9, *hidden, 10])
    b = A(product_of(layers))
    assert_is_top(layers, A, matrices, b + 0.3 * rng.standard_normal(m) * np.abs(b).max())
    value = sharpness(layers, A, b)
    monkeypatch.setattr(_sharpness, "_LARGEST_DENSE", 10)  # never by matrices of order d_0 d_L
    assert sharpness(layers, A, b) == pytest.approx(value, rel=1e-12)
    assert_is_top(layers, A, matrices, b)
    monkeypatch.setattr(_sharpness, "_NEGLIGIBLE", 0.0)  # never without the residual term
    assert sharpness(layers, A, b) == pytest.approx(value, rel=1e-12)


def test_the_side_of_the_layers(rng):
    A, matrices = larger_maps(rng)["dense"]
    layers = chain(rng, [9, 1, 10])
    assert_is_top(layers, A, matrices, A(product_of(layers)))
    wide = Dense(rng.standard_normal((200, 40, 40)))
    layers = chain(rng, [40, 2, 40])
    blocks = wide.rotated(layers[1], np.eye(40)), wide.rotated(np.eye(40), layers[0].T)
    expected = 2 / 200 * np.linalg.norm(np.concatenate([block.reshape(200, -1) for block in blocks], axis=1), 2) ** 2
    assert sharpness(layers, wide, wide(product_of(layers))) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_one_output_is_the_formula_of_regression(depth, d, n, seed):
    """2 Sigma^(1/2) K Sigma^(1/2) at a minimiser of noisy data, where the residuals do not vanish."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    w = np.linalg.lstsq(X, y, rcond=None)[0]
    layers = [np.eye(d) + 0.3 * rng.standard_normal((d, d)) for _ in range(depth - 1)]
    before = [np.eye(d)]
    for layer in layers:
        before.append(layer @ before[-1])
    layers.append(np.linalg.solve(before[-1].T, w)[None])
    after = [np.eye(1)]
    for layer in layers[:0:-1]:
        after.append(after[-1] @ layer)
    K = sum(np.sum(C**2) * B.T @ B for C, B in zip(after[::-1], before, strict=True))
    values, axes = np.linalg.eigh(X.T @ X / n)
    root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
    expected = 2 * np.linalg.eigvalsh(root @ K @ root)[-1]
    A = Dense(X[:, None, :])
    assert sharpness(layers, A, y) == pytest.approx(expected, rel=1e-9)
    assert_is_top(layers, A, list(A.matrices), y)


def test_the_one_dimensional_chain_has_sharpness_twice_its_depth():
    for depth in range(1, 7):
        A = Dense(np.ones((1, 1, 1)))
        assert sharpness([np.ones((1, 1))] * depth, A, [1.0]) == pytest.approx(2 * depth, rel=1e-13)


def test_the_residual_term_counts_as_soon_as_it_can_be_seen(rng):
    A, matrices = maps.dense(rng, 3, 3, 6, "none")
    layers, noise = chain(rng, [3, 4, 4, 3]), rng.standard_normal(6)
    b, scale = A(product_of(layers)), np.abs(A(product_of(layers))).max()
    at_zero_loss = sharpness(layers, A, b)
    H = [oracles.hessian(layers, matrices, b + t * scale * noise) for t in (0.0, 1.0)]
    v = flat(sharpest_direction(layers, A, b)[1])
    slope = v @ (H[1] - H[0]) @ v  # the residual term is linear in the residual
    assert abs(slope) > 0.01 * at_zero_loss
    for t in (1e-3, 1e-6, 1e-9):
        found = sharpness(layers, A, b + t * scale * noise)
        assert (found - at_zero_loss) / t == pytest.approx(slope, rel=1e3 * t + 1e-3)
    # Where the term is left out, it is below 1e-13; where it is not, it is all there.
    for t in np.logspace(-17, -9, 17):
        expected = np.linalg.eigvalsh(oracles.hessian(layers, matrices, b + t * scale * noise))[-1]
        assert sharpness(layers, A, b + t * scale * noise) == pytest.approx(expected, rel=1e-13 + 1e-14 * len(v))


@given(maps.cases(*ALL, largest=4, most=6), st.lists(st.integers(1, 4), max_size=4))
def test_the_bound_on_the_residual_term_is_one(case, hidden):
    A, matrices, rng = case
    layers, b = chain(rng, [A.matrix_shape[1], *hidden, A.matrix_shape[0]]), rng.standard_normal(A.m)
    residual_term = oracles.hessian(layers, matrices, b) - oracles.hessian(layers, matrices, A(product_of(layers)))
    norm = A.m / 2 * np.linalg.norm(residual_term, 2)
    at = _sharpness.Linearisation(layers, A, b)
    assert norm < 1e-12 or not _sharpness._residual_term_is_below(at, 0.999 * norm, 0)
    assert _sharpness._residual_term_is_below(at, 1e6 * norm + 1e-9, 0)


def test_a_large_completion_is_never_multiplied_by_an_identity(rng, monkeypatch):
    d, m, columns = 3000, 20_000, []
    A = Entries(rng.integers(0, d, m), rng.integers(0, d, m), (d, d))
    layers = chain(rng, [d, 2, d])
    times = Layout.times
    monkeypatch.setattr(Layout, "times", lambda self, data, V: columns.append(V[0].size) or times(self, data, V))
    assert sharpness(layers, A, A.forward_factored(layers[1], layers[0].T)) > 0
    assert columns
    assert max(columns) <= 2 * 2


def test_a_top_outside_of_all_that_the_gauss_newton_part_moves(rng):
    A, layers = Dense(np.eye(4).reshape(4, 2, 2)), [np.zeros((30, 2)), np.zeros((2, 30))]
    layers[0][0, 0] = layers[1][0, 0] = 1.0
    value, vector = sharpest_direction(layers, A, np.array([1.0, 0.0, 0.0, 10.0]))
    assert value == pytest.approx(2 / 4 * (1 + 10), rel=1e-12)
    assert abs(vector[0][:, 1] @ vector[1][1]) == pytest.approx(0.5)


@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_the_gram_matrix_is_formed_in_parts(build, rng, monkeypatch):
    A, matrices = build(rng, 3, 4, 11, "none")
    rows = np.reshape(matrices, (11, -1))
    for chunk in (11, 10, 4, 1):
        monkeypatch.setattr(_sharpness, "_MATRICES_AT_ONCE", chunk)
        np.testing.assert_allclose(_sharpness._gram(A), rows.T @ rows, rtol=0, atol=1e-13 * np.sum(rows**2))


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_bound_on_the_spectral_norm_is_close(rows, cols, seed):
    W = np.random.default_rng(seed).standard_normal((rows, cols))
    norm = np.linalg.norm(W, 2)
    for scale in (1e-200, 1.0, 1e200):
        assert norm * (1 - 1e-14) <= _sharpness._spectral_bound(scale * W) / scale <= 1.15 * norm
    assert _sharpness._spectral_bound(np.zeros((rows, cols))) == 0


def test_saddles_have_their_signed_top():
    """At zero layers of two factors the Hessian is the residual term alone, with eigenvalues of both signs."""
    A = Dense(np.eye(4).reshape(4, 2, 2))
    layers, b = [np.zeros((3, 2)), np.zeros((2, 3))], np.array([3.0, 0.0, 0.0, 1.0])
    assert sharpness(layers, A, b) == pytest.approx(2 / 4 * 3, rel=1e-13)
    assert sharpness([np.zeros((2, 2))] * 3, A, b) == 0
    large = [np.zeros((30, 2)), np.zeros((2, 30))]
    assert sharpness(large, A, b) == pytest.approx(2 / 4 * 3, rel=1e-12)
    value, vector = sharpest_direction([np.zeros((30, 2)), np.zeros((30, 30)), np.zeros((2, 30))], A, b)
    assert value == 0
    assert np.linalg.norm(flat(vector)) == pytest.approx(1)


def test_the_most_negative_eigenvalue_may_be_larger_in_magnitude(rng):
    """With residuals of large norm the Hessian is nearly their term, which changes sign with them: one sign or the other."""
    A, matrices = maps.dense(rng, 4, 4, 8, "none")
    layers, b = chain(rng, [4, 6, 5, 4]), 1e4 * rng.standard_normal(8)
    spectra = [np.linalg.eigvalsh(oracles.hessian(layers, matrices, sign * b)) for sign in (1, -1)]
    assert any(-values[0] > 1.001 * values[-1] for values in spectra)
    for sign in (1, -1):
        assert_is_top(layers, A, matrices, sign * b)


@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
@pytest.mark.parametrize("build", maps.BUILT_IN.values(), ids=maps.BUILT_IN)
def test_extreme_scales(build, c):
    A, _ = build(np.random.default_rng(0), 4, 3, 6, "none")
    large, _ = build(np.random.default_rng(0), 4, 3, 6, "none", c)
    rng = np.random.default_rng(1)
    layers, noise = chain(rng, [3, 2, 4]), rng.standard_normal(6)
    fits = A(product_of(layers))
    for b in (fits, fits + noise):
        value = sharpness(layers, A, b)
        # Scaling both layers by c and the data by c^2 multiplies the Hessian by c^2; so does scaling the map and the data.
        if abs(np.log10(c)) < 100:
            assert sharpness([c * layer for layer in layers], A, c**2 * b) == pytest.approx(c**2 * value, rel=1e-11)
        assert sharpness([layer / c for layer in layers], large, b / c) == pytest.approx(value, rel=1e-11)
        assert sharpness(layers, large, c * b) == pytest.approx(c**2 * value, rel=1e-11, abs=0)


def test_hundreds_of_layers(rng):
    rotations = [np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(200)]
    A = Dense(np.eye(36).reshape(36, 6, 6))
    assert sharpness(rotations, A, A(product_of(rotations))) == pytest.approx(2 / 36 * 200, rel=1e-10)
    scaled = [1e10 * rotations[0], *rotations[1:-1], rotations[-1] / 1e10]
    # The first layer is the only one whose others multiply to 1e-10, the last the only one with 1e10.
    assert sharpness(scaled, A, A(product_of(rotations))) == pytest.approx(2 / 36 * 1e20, rel=1e-10)


def test_the_same_input_gives_the_same_answer(rng):
    A, _ = larger_maps(rng)["dense"]
    layers, b = chain(rng, [9, 5, 10]), rng.standard_normal(90)
    first, again = sharpest_direction(layers, A, b), sharpest_direction(layers, A, b)
    assert first[0] == again[0]
    np.testing.assert_array_equal(flat(first[1]), flat(again[1]))


def test_a_large_zero_loss_point_of_completion_forms_no_matrix_of_its_size(rng):
    n, m = 50_000, 300
    A = Entries(rng.integers(0, n, m), rng.integers(0, n, m), (n, n))
    layers = chain(rng, [n, 2, n])
    L, R = layers[1], layers[0].T
    value, vector = sharpest_direction(layers, A, A.forward_factored(L, R))
    product = hessian_vector_product(layers, vector, A, A.forward_factored(L, R))
    np.testing.assert_allclose(flat(product), value * flat(vector), atol=1e-9 * value)


@pytest.mark.parametrize("layer", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_layer_is_refused(layer):
    with pytest.raises(ValueError, match=r"^layers\[1\] "):
        sharpness([np.ones((2, 4)), layer], Dense(np.ones((5, 3, 4))), np.ones(5))


@pytest.mark.parametrize("b", bad_input.bad((5,)))
def test_bad_data_are_refused(b):
    with pytest.raises(ValueError, match=r"^b "):
        sharpest_direction([np.ones((2, 4)), np.ones((3, 2))], Dense(np.ones((5, 3, 4))), b)
