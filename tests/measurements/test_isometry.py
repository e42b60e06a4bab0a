"""Enclosures of isometry constants: against maps with known constants, dense grids, and the theorems that use them."""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, RankOne, isometry_constant
from balancedfact.measurements._isometry import _Form, _search
from tests.bad_input import BAD_COUNT, BAD_RNG
from tests.maps import BUILT_IN, DERIVED, Minimal, cases


def from_form(root, shape):
    """The map with (1/m) |A(X)|^2 = |root @ vec(X)|^2."""
    return Dense(np.sqrt(len(root)) * np.reshape(root, (-1, *shape)))


def ratio(A, X):
    return np.mean(A(X) ** 2) / np.sum(X**2)


def assert_attains(A, found):
    for X, value in ((found.most_stretched, found.largest[0]), (found.least_stretched, found.smallest[1])):
        assert np.linalg.norm(X) == pytest.approx(1, rel=1e-12)
        assert np.count_nonzero(np.linalg.svd(X, compute_uv=False) > 1e-12) <= found.rank
        assert ratio(A, X) == pytest.approx(value, rel=1e-10, abs=1e-13 * np.sum(A.row_norms**2) / A.m)


def assert_exact(found, largest, smallest, abs=1e-9):
    assert found.largest == pytest.approx((largest, largest), abs=abs)
    assert found.smallest == pytest.approx((smallest, smallest), abs=abs)
    assert found.delta == pytest.approx((max(largest - 1, 1 - smallest),) * 2, abs=abs)
    # Proven bounds never cross what is true, by however little.
    assert found.largest[1] >= largest * (1 - 1e-15)
    assert found.smallest[0] <= smallest * (1 + 1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 4), (5, 5)])
@pytest.mark.parametrize("rank", [1, 2, 7])
def test_orthonormal_basis_is_an_isometry(rng, shape, rank):
    size = shape[0] * shape[1]
    A = from_form(np.linalg.qr(rng.standard_normal((size, size)))[0], shape)
    found = isometry_constant(A, rank, rng=0)
    assert_exact(found, 1.0, 1.0)
    assert found.delta[1] < 1e-11
    assert found.condition == pytest.approx((1, 1), abs=1e-11)
    assert_attains(A, found)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (5, 4)])
def test_one_measurement_stretches_by_its_leading_singular_values(rng, rank, shape):
    X = rng.standard_normal(shape)
    singular = np.linalg.svd(X, compute_uv=False)
    found = isometry_constant(Dense([X]), rank, iterations=1500, rng=0)
    expected = np.sum(singular[:rank] ** 2)
    assert found.largest[0] == pytest.approx(expected, rel=1e-10)
    # The relaxation is exact here, but its solution is degenerate, and the method is slow to reach it at rank three.
    assert expected * (1 - 1e-14) <= found.largest[1] <= expected * (1 + {1: 1e-6, 2: 1e-5, 3: 1e-2, 4: 1e-11}[rank])
    assert found.smallest[0] == 0
    assert found.smallest[1] == pytest.approx(0, abs=1e-10)


def symmetric_part(d):
    """A root of X -> |(X + X.T) / 2|^2."""
    return (np.eye(d * d) + np.eye(d * d).reshape(d, d, d * d).transpose(1, 0, 2).reshape(d * d, d * d)) / 2


@pytest.mark.parametrize("d", [2, 3, 5])
def test_symmetric_part(d):
    """|sym(u v')|^2 = (1 + (u.v)^2) / 2, while antisymmetric matrices of rank two are not seen at all."""
    A = from_form(symmetric_part(d), (d, d))
    assert_exact(isometry_constant(A, 1, rng=0), 1.0, 0.5)
    assert_exact(isometry_constant(A, 2, rng=0), 1.0, 0.0)


@pytest.mark.parametrize(("rank", "largest"), [(1, 1.25), (2, 1.5), (3, 1.75), (4, 2.0), (9, 2.0)])
def test_identity_with_a_weighted_trace(rank, largest):
    """|X|^2 + tr(X)^2 / 4 on 4 x 4 matrices."""
    root = np.vstack([np.eye(16), np.eye(4).ravel() / 2])
    found = isometry_constant(from_form(root, (4, 4)), rank, rng=0)
    assert_exact(found, largest, 1.0, abs=1e-6)
    assert found.condition == pytest.approx((largest, largest), abs=1e-6)
    assert found.scaled_delta == pytest.approx(((largest - 1) / (largest + 1),) * 2, abs=1e-6)


def test_weighted_entries_are_exact_for_every_kind_of_map():
    rows, cols, weights = [0, 0, 1, 2, 0], [0, 1, 1, 0, 0], np.array([2.0, 1.0, -3.0, 0.5, 2.0])
    A = Entries(rows, cols, (3, 2), weights)
    dense = Dense([A.adjoint(unit) for unit in np.eye(5)])
    outer = RankOne(weights[:, None] * np.eye(3)[rows], np.eye(2)[cols])
    for rank in (1, 2):
        for B in (A, dense, outer):
            found = isometry_constant(B, rank, rng=0)
            assert_exact(found, 9 / 5, 0.0)
            assert_attains(B, found)
    full = Entries([0, 0, 1, 1], [0, 1, 0, 1], (2, 2), [1.0, 2.0, 3.0, 4.0])
    found = isometry_constant(full)
    assert_exact(found, 4.0, 0.25)
    assert found.smallest[0] < found.smallest[1] < found.largest[0] < found.largest[1]  # rounding is allowed for
    assert (found.most_stretched[1, 1], found.least_stretched[0, 0]) == (1, 1)


def test_large_entry_map_is_quick():
    A = bf.measurements.bernoulli_mask((300, 200), 0.1, rng=0)
    assert_exact(isometry_constant(A, 2), 1 / A.m, 0.0)


def sphere(points):
    """Points on the half sphere of R^3 no two neighbours of which are further apart than about pi / points."""
    polar, around = np.meshgrid(np.linspace(0, np.pi / 2, points // 2 + 1), np.linspace(0, 2 * np.pi, 2 * points))
    x = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1)
    return x.reshape(-1, 3)


@pytest.mark.parametrize("kind", ["dense", "rank_one"])
@pytest.mark.parametrize(("d1", "m"), [(2, 4), (3, 5), (3, 9), (4, 30)])
def test_rank_one_against_a_grid(rng, kind, d1, m):
    """For every right vector on a grid the best left vector is an eigenvector."""
    A, matrices = BUILT_IN[kind](rng, d1, 3, m, "none")
    products = np.einsum("iab,nb->nia", matrices, sphere(120))
    values = np.linalg.eigvalsh(np.einsum("nia,nic->nac", products, products) / m)
    most, least = values[:, -1].max(), values[:, 0].min()
    found = isometry_constant(A, 1, rng=0)
    # The value moves by at most 2 |T| h^2 within the distance h = pi / 240 of its extreme.
    error = 2 * np.linalg.norm(np.reshape(matrices, (m, -1)), 2) ** 2 / m * (np.pi / 240) ** 2
    assert most - 1e-12 <= found.largest[0] <= most + error
    assert least - error <= found.smallest[1] <= least + 1e-12
    assert found.largest[1] >= found.largest[0]
    assert found.smallest[0] <= found.smallest[1]
    assert_attains(A, found)
    if d1 == 2:  # nonnegative biquadratic forms in 2 + n variables are sums of squares (Calderon 1973)
        assert found.largest[1] - found.largest[0] < 1e-6 * found.largest[0]
        assert found.smallest[1] - found.smallest[0] < 1e-6 * found.largest[0]


@pytest.mark.few(1)
@pytest.mark.parametrize(("d2", "m"), [(3, 6), (3, 9), (3, 40), (4, 20)])
def test_rank_two_against_a_grid(rng, d2, m):
    """A 3 x d matrix of rank two has a left null vector; for each on a grid what is left is an eigenproblem."""
    A, matrices = BUILT_IN["dense"](rng, 3, d2, m, "none")
    values = []
    for n in sphere(60):
        plane = np.linalg.svd(n[None])[2][1:]
        rows = np.einsum("pa,iab->ipb", plane, matrices).reshape(m, -1)
        values.append(np.linalg.eigvalsh(rows.T @ rows / m)[[0, -1]])
    least, most = np.min(values, axis=0)[0], np.max(values, axis=0)[1]
    found = isometry_constant(A, 2, rng=0)
    error = 2 * np.linalg.norm(np.reshape(matrices, (m, -1)), 2) ** 2 / m * (np.pi / 120) ** 2
    assert most - 1e-12 <= found.largest[0] <= most + error
    assert least - error <= found.smallest[1] <= least + 1e-12
    assert found.largest[1] >= found.largest[0]
    assert found.smallest[0] <= found.smallest[1]
    assert_attains(A, found)


@given(cases(*BUILT_IN.values(), *DERIVED.values(), largest=4), st.integers(1, 3), st.integers(0, 20))
def test_encloses_what_random_matrices_attain(case, rank, iterations):
    A, matrices, rng = case
    found = isometry_constant(A, rank, starts=2, iterations=iterations, rng=0)
    d1, d2 = A.matrix_shape
    size = sum(np.sum(M**2) for M in matrices) / len(matrices)
    for _ in range(30):
        X = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
        value = ratio(Minimal(matrices), X)
        assert found.smallest[0] - 1e-14 * size <= value <= found.largest[1] + 1e-14 * size
    assert 0 <= found.smallest[0] <= found.smallest[1] + 1e-14 * size
    assert found.smallest[1] <= found.largest[0] + 1e-14 * size
    assert found.largest[0] <= found.largest[1] + 1e-14 * size
    assert found.delta[0] <= found.delta[1] + 1e-14 * size
    assert_attains(A, found)


def test_zero_map():
    found = isometry_constant(Dense(np.zeros((2, 3, 3))), 2, rng=0)
    assert (*found.largest, *found.smallest) == (0, 0, 0, 0)
    assert found.delta == (1, 1)
    assert found.condition == (np.inf, np.inf)
    assert found.scaled_delta == (1, 1)


def test_rank_beyond_the_size_means_all_matrices(rng):
    A, matrices = BUILT_IN["dense"](rng, 3, 4, 30, "none")
    values = np.linalg.eigvalsh(np.einsum("ipq,irs->pqrs", matrices, matrices).reshape(12, 12) / 30)
    for rank in (3, 50):
        assert_exact(isometry_constant(A, rank, rng=0), values[-1], values[0], abs=1e-10)
    underdetermined = isometry_constant(A.select(np.arange(11)), 3, rng=0)
    assert underdetermined.smallest == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "bilinear"])
def test_grows_with_the_rank(kind):
    A = getattr(bf.measurements, kind)(60, (5, 4), rng=3)
    found = [isometry_constant(A, rank, rng=0) for rank in (1, 2, 3, 4)]
    for low, high in pairwise(found):
        assert low.largest[0] <= high.largest[0] * (1 + 1e-12)
        assert low.smallest[1] >= high.smallest[1] * (1 - 1e-12)
        assert low.largest[1] <= high.largest[1] * (1 + 1e-5)
        assert low.smallest[0] >= high.smallest[0] * (1 - 1e-5)


def test_search_begins_where_that_of_one_rank_less_ended(rng):
    class Recorder:
        shape = (4, 5)
        seen: ClassVar[list[list[np.ndarray]]] = []

        def extreme(self, starts, sign):
            self.seen.append(starts)
            return np.outer(np.arange(1.0, 5.0), np.arange(5.0))

    _search(Recorder(), 2, 1, 3, rng)
    first, second = Recorder.seen
    assert (len(first), len(second)) == (3, 4)
    direction = np.arange(5.0) / np.linalg.norm(np.arange(5.0))
    assert np.linalg.norm(second[-1].T @ direction) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_relaxation_suggests_where_to_search(seed):
    """A single random start misses the largest value here, which is near one of the measurements."""
    A = bf.measurements.bilinear(12, (5, 5), rng=seed)
    assert isometry_constant(A, starts=1, iterations=0, rng=seed).largest[0] < 7
    found = isometry_constant(A, starts=1, iterations=60, rng=seed)
    assert found.largest[0] == pytest.approx(found.largest[1], rel=1e-9)


def test_counts_the_rounding_of_the_form(rng):
    A = Dense(rng.standard_normal((50, 3, 4)) * 10.0 ** rng.uniform(-3, 3, (50, 3, 4)))
    form = _Form(A)
    rows = np.reshape(A.matrices, (50, 12)).astype(np.longdouble)
    difference = np.asarray(rows.T @ rows / 50 / np.longdouble(form.unit) - form.matrix, dtype=float)
    assert 0 < np.linalg.norm(difference) <= form.error <= 1e-12 * np.trace(form.matrix)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_does_not_depend_on_the_coordinates(rng, rank):
    A = bf.measurements.gaussian(40, (4, 5), rng=1)
    P, Q = (np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (4, 5))
    plain = isometry_constant(A, rank, rng=0)
    for B in (A.congruence(P, Q), Dense(A.matrices[::-1]), Dense(np.concatenate([A.matrices, -A.matrices]))):
        other = isometry_constant(B, rank, rng=0)
        assert other.largest == pytest.approx(plain.largest, rel=1e-8)
        assert other.smallest == pytest.approx(plain.smallest, rel=1e-8)


@pytest.mark.slow
def test_transposed_map():
    """The rank-one relaxation is symmetric in the two sides; for higher rank only the attained values are."""
    A = bf.measurements.gaussian(40, (3, 5), rng=1)
    B = Dense(A.matrices.transpose(0, 2, 1))
    one, other = isometry_constant(A, 1, rng=0), isometry_constant(B, 1, rng=0)
    assert other.largest == pytest.approx(one.largest, rel=1e-8)
    assert other.smallest == pytest.approx(one.smallest, rel=1e-8)
    one, other = isometry_constant(A, 2, rng=0), isometry_constant(B, 2, rng=0)
    assert other.largest[0] == pytest.approx(one.largest[0], rel=1e-8)
    assert other.smallest[1] == pytest.approx(one.smallest[1], rel=1e-8)


@pytest.mark.few(4)
@pytest.mark.parametrize("scale", [3.0, 1e-150, 1e-70, 1e70, 1e150])
@pytest.mark.parametrize("kind", ["dense", "rank_one", "entries", "minimal"])
def test_scale(kind, scale):
    A, matrices = (BUILT_IN | DERIVED)[kind](np.random.default_rng(5), 3, 3, 12, "none")
    if kind == "entries":
        scaled = Entries(A.rows, A.cols, (3, 3), scale * A.weights)
    elif kind == "rank_one":
        scaled = RankOne(scale * A.left, A.right)
    else:
        scaled = type(A)(scale * np.array(matrices))
    one, other = isometry_constant(A, 1, rng=0), isometry_constant(scaled, 1, rng=0)
    assert np.array(other.largest) / scale / scale == pytest.approx(np.array(one.largest), rel=1e-9)
    assert np.array(other.smallest) / scale / scale == pytest.approx(np.array(one.smallest), rel=1e-6, abs=1e-12)
    assert other.condition[1] == pytest.approx(one.condition[1], rel=1e-6)


@pytest.mark.slow
def test_determined_by_the_seed():
    A = bf.measurements.gaussian(20, (4, 4), rng=0)
    one, other = (isometry_constant(A, 2, rng=7) for _ in range(2))
    assert (one.largest, one.smallest) == (other.largest, other.smallest)
    np.testing.assert_array_equal(one.least_stretched, other.least_stretched)
    elsewhere = isometry_constant(A, 2, rng=8)  # bounds may stop early at what was attained, up to 1e-9
    assert elsewhere.largest[1] == pytest.approx(one.largest[1], rel=1e-8)


def test_no_steps_still_bound():
    A = bf.measurements.gaussian(30, (4, 4), rng=0)
    quick, full = (isometry_constant(A, 1, iterations=n, rng=0) for n in (0, 300))
    assert quick.largest[1] >= full.largest[1]
    assert quick.smallest[0] <= full.smallest[0]
    values = np.linalg.eigvalsh(np.reshape(A.matrices, (30, -1)).T @ np.reshape(A.matrices, (30, -1)) / 30)
    assert quick.largest[1] < values[-1] - 0.1  # half of the partial transpose already improves on the eigenvalues


@pytest.mark.parametrize("rank", [1, 2])
def test_beyond_the_size_of_dense_forms(monkeypatch, rank):
    A = bf.measurements.gaussian(10, (3, 4), rng=0)
    dense = isometry_constant(A, rank, rng=0)
    monkeypatch.setattr("balancedfact.measurements._isometry._FORMED_ORDER", 11)
    found = isometry_constant(A, rank, rng=0)
    assert found.largest[0] == pytest.approx(dense.largest[0], rel=1e-8)
    assert found.largest[1] == pytest.approx(np.linalg.norm(np.reshape(A.matrices, (10, 12)), 2) ** 2 / 10, rel=1e-10)
    assert found.smallest[0] == 0


@pytest.mark.parametrize("widths", [(5, 5, 5), (4, 3, 2, 6), (3, 7, 2, 2, 4)])
@pytest.mark.parametrize("kind", ["gaussian", "bernoulli", "bilinear"])
def test_trace_of_the_hessian_obeys_theorem_1(rng, widths, kind):
    """(1 - delta) 2 R <= trace <= (1 + delta) 2 R, in the sharper form with the two extremes (Gatmiry et al. 2023)."""
    A = getattr(bf.measurements, kind)(400, (widths[-1], widths[0]), rng=1)
    found = isometry_constant(A, 1, rng=0)
    assert found.smallest[0] > 0
    if kind != "bilinear":
        assert found.delta[1] < 1
    seen = []
    for _ in range(20):
        layers = [rng.standard_normal((a, b)) for b, a in pairwise(widths)]
        seen.append(bf.curvature.trace(layers, A) / (2 * bf.curvature.isotropic_trace(layers)))
    assert found.smallest[0] <= min(seen)
    assert max(seen) <= found.largest[1]
    assert found.delta[1] < 3


def test_trace_attains_the_smallest_value_of_a_planted_map():
    """Depth two with one output sees only rank-one matrices, and the trace of W_2 = 1 is that of the least stretched row."""
    A = from_form(np.diag([1.0, 2.0, 0.5]), (1, 3))
    found = isometry_constant(A, 1, rng=0)
    assert_exact(found, 4.0, 0.25)
    np.testing.assert_allclose(np.abs(found.least_stretched), [[0, 0, 1]], atol=1e-9)


def test_forms_of_low_rank_matrices_obey_lemma_5(rng):
    """|(1/m) sum <A_i, M>^2 - |M|^2| <= 2 delta |M|_*^2 under (2, delta)-RIP (Gatmiry et al. 2023)."""
    A = bf.measurements.gaussian(300, (3, 4), rng=2)
    delta = isometry_constant(A, 2, rng=0).delta[1]
    assert delta < 0.8
    for _ in range(50):
        M = rng.standard_normal((3, 3)) @ np.diag(rng.standard_normal(3) ** 3) @ rng.standard_normal((3, 4))
        assert abs(np.mean(A(M) ** 2) - np.sum(M**2)) <= 2 * delta * np.linalg.norm(M, "nuc") ** 2


def test_prints_the_intervals():
    found = isometry_constant(Entries([0, 0], [0, 1], (1, 2), [1.0, 2.0]))
    assert repr(found) == "<IsometryEnclosure: delta_1 in [1, 1], smallest in [0.5, 0.5], largest in [2, 2]>"


@pytest.mark.parametrize("name", ["rank", "starts"])
@pytest.mark.parametrize("value", BAD_COUNT)
def test_refuses_bad_counts(name, value):
    with pytest.raises(ValueError, match=name):
        isometry_constant(bf.measurements.gaussian(3, (2, 2), rng=0), **{name: value})


def test_refuses_bad_iterations():
    A = bf.measurements.gaussian(3, (2, 2), rng=0)
    for value in (-1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="iterations"):
            isometry_constant(A, iterations=value)


@pytest.mark.parametrize("value", BAD_RNG)
def test_refuses_bad_rng(value):
    with pytest.raises(ValueError, match="rng"):
        isometry_constant(bf.measurements.gaussian(3, (2, 2), rng=0), rng=value)
