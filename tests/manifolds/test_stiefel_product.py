import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.manifolds import BalancedPairs, check_manifold, factors_of, pair_of, stiefel_product
from tests import bad_input

SIZES = st.integers(1, 6)


@given(SIZES, SIZES, SIZES, st.integers(0, 6), st.integers(0, 1000))
def test_every_balanced_pair_is_reached_whatever_its_rank(d1, d2, k, rank, seed):
    L, R = BalancedPairs(d1, d2, k, rng=seed).random_point()
    V = np.linalg.qr(np.random.default_rng(seed).standard_normal((k, k)))[0][:, :rank]
    L, R = L @ V @ V.T, R @ V @ V.T
    B, C, D = factors_of(L, R)
    q = min(d1, d2, k)
    assert (B.shape, C.shape, D.shape) == ((d1, q), (q, k), (d2, q))
    again = pair_of(B, C, D)
    assert np.abs(again[0] - L).max() < 1e-12 * (1 + np.abs(L).max())
    assert np.abs(again[1] - R).max() < 1e-12 * (1 + np.abs(R).max())


@given(SIZES, SIZES, SIZES, st.integers(0, 1000))
def test_triples_map_to_balanced_pairs_and_the_orthogonal_group_does_not_change_them(d1, d2, k, seed):
    rng = np.random.default_rng(seed)
    np.random.seed(seed)  # noqa: NPY002, what pymanopt draws from
    B, C, D = stiefel_product(d1, d2, k).random_point()
    L, R = pair_of(B, C, D)
    assert BalancedPairs(d1, d2, k).residual([L, R]) < 1e-14
    Q = np.linalg.qr(rng.standard_normal((C.shape[0],) * 2))[0]
    for found, expected in zip(pair_of(B @ Q, Q.T @ C, D @ Q), (L, R), strict=True):
        assert np.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("sizes", [(4, 3, 2), (3, 3, 5), (5, 2, 4)])
def test_its_dimension_is_that_of_the_pairs_and_the_group(sizes):
    q = min(sizes)
    assert stiefel_product(*sizes).dim == BalancedPairs(*sizes).dim + q * (q - 1) // 2
    report = check_manifold(stiefel_product(*sizes), 0)
    assert report.ok, str(report)


def test_the_triples_have_local_minima_that_the_pairs_do_not_have(rng):
    """Proposition 5 of the theory chapter: nothing near is lower, though turning a column that does not count leads down."""
    M = np.diag([3.0, 2.0, 1.0])

    def cost(B, C, D):
        return np.sum((B @ C @ C.T @ D.T - M) ** 2)

    manifold, point = stiefel_product(3, 3, 2), [np.eye(3, 2), np.diag([np.sqrt(3.0), 0.0]), np.eye(3, 2) * [1.0, -1.0]]
    assert cost(*point) == pytest.approx(5.0, rel=1e-14)
    for radius in (1e-3, 1e-2, 1e-1):
        for _ in range(200):
            step = [radius * rng.standard_normal(part.shape) for part in point]
            near = manifold.retraction(point, manifold.projection(point, step))
            assert cost(*near) >= 5.0 - 1e-12
    turned = [point[0], np.diag([np.sqrt(3.0), 0.1]), np.eye(3, 2)]
    assert cost(*turned) < 4.99


@pytest.mark.parametrize("bad", bad_input.BAD_COUNT)
def test_bad_sizes_are_refused(bad):
    for name in ("d1", "d2", "k"):
        with pytest.raises(ValueError, match=name):
            stiefel_product(**({"d1": 3, "d2": 3, "k": 2} | {name: bad}))


def test_bad_factors_are_refused():
    with pytest.raises(ValueError, match="B has columns that miss orthonormality"):
        pair_of(2 * np.eye(3, 2), np.eye(2), np.eye(3, 2))
    with pytest.raises(ValueError, match="D has 1 columns"):
        pair_of(np.eye(3, 2), np.eye(2), np.eye(3, 1))
    with pytest.raises(ValueError, match="not balanced"):
        factors_of(np.eye(3, 2), 1.1 * np.eye(4, 2))
