import numpy as np
import pytest

from balancedfact.certification._tangent import injectivity
from balancedfact.measurements import Dense, Entries, bernoulli_mask, bilinear, gaussian

pytestmark = pytest.mark.filterwarnings("error")


def naive(A, L, R):
    """The least singular value of the measurements on an orthonormal basis of the tangent space."""
    k, (d1, d2) = L.shape[1], A.matrix_shape
    U, V = (np.linalg.svd(each)[0] for each in (L, R))
    images = [A(np.outer(U[:, i], V[:, j])) for i in range(d1) for j in range(d2) if i < k or j < k]
    return np.linalg.svd(np.array(images).T, compute_uv=False)[-1] if A.m >= len(images) else 0.0


def maps(rng):
    repeated = rng.integers(0, 9, 90), rng.integers(0, 7, 90)
    return {
        "dense": gaussian(60, (8, 6), rng),
        "rank one": bilinear(70, (6, 9), rng),
        "wide entries": bernoulli_mask((12, 15), 0.7, rng),
        "long entries": bernoulli_mask((16, 9), 0.8, rng),
        "weighted, repeated entries": Entries(*repeated, (9, 7), 10.0 ** rng.uniform(-2, 2, 90)),
    }


@pytest.mark.parametrize("name", list(maps(np.random.default_rng(0))))
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_the_enclosure_holds_the_least_singular_value(name, rank, seed):
    rng = np.random.default_rng(seed)
    A = maps(rng)[name]
    L, R = (rng.standard_normal((d, rank)) * 10.0 ** -np.arange(rank) for d in A.matrix_shape)
    found, exact = injectivity(A, L, R), naive(A, L, R)
    assert found.lower <= exact * (1 + 1e-12)
    assert exact <= found.upper * (1 + 1e-12)
    if exact > 1e-6:
        assert found.lower >= 0.99 * exact
        assert found.upper <= 1.01 * exact


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_units_of_measurements_and_factors_change_nothing_else(size, rng):
    A = bernoulli_mask((12, 15), 0.7, rng)
    L, R = (rng.standard_normal((d, 2)) for d in A.matrix_shape)
    scaled = Entries(A.rows, A.cols, A.matrix_shape, np.full(A.m, size))
    np.testing.assert_allclose(injectivity(scaled, L, R), size * np.array(injectivity(A, L, R)), rtol=1e-9)
    np.testing.assert_allclose(injectivity(A, L * size, R), injectivity(A, L, R), rtol=1e-9)


def test_what_is_not_determined_has_no_positive_bound(rng):
    L, R = (rng.standard_normal((d, 2)) for d in (8, 6))
    few = injectivity(gaussian(23, (8, 6), rng), L, R)  # a matrix of rank 2 has 24 parameters
    assert few.lower == 0
    assert few.upper < 1e-6
    unseen = Entries(*np.divmod(np.arange(42), 6), (8, 6))  # nothing of the last row
    assert injectivity(unseen, L, R).lower == 0


def test_a_space_that_rounding_blurs_loses_the_bound(rng):
    A = gaussian(60, (8, 6), rng)
    L, R = (rng.standard_normal((d, 2)) for d in A.matrix_shape)
    blurred = np.column_stack([L[:, 0], L[:, 0] + 1e-16 * L[:, 1]])
    assert injectivity(A, blurred, R).lower == 0
    mild = np.column_stack([L[:, 0], L[:, 0] + 1e-8 * L[:, 1]])
    assert 0 < injectivity(A, mild, R).lower <= naive(A, mild, R)


def test_zero_and_what_is_too_large_have_none(monkeypatch, rng):
    from balancedfact.certification import _tangent

    A = gaussian(30, (5, 4), rng)
    assert injectivity(A, np.zeros((5, 1)), np.zeros((4, 1))) is None
    assert injectivity(Dense(np.zeros((3, 5, 4))), np.ones((5, 1)), np.ones((4, 1))) is None
    monkeypatch.setattr(_tangent, "_MOST_TANGENT_UNKNOWNS", 3)
    assert injectivity(A, np.ones((5, 1)), np.ones((4, 1))) is None
    assert injectivity(bernoulli_mask((5, 4), 0.9, rng), np.ones((5, 1)), np.ones((4, 1))) is None
