import numpy as np
import pytest
import scipy.sparse as sp

from balancedfact.certification import _spectral_norm
from balancedfact.certification._spectral_norm import FAILURE, is_small, norm_bound
from balancedfact.measurements import Entries

pytestmark = pytest.mark.filterwarnings("error")

LARGE = (800, 700)


def orthonormal(rng, size, count):
    return np.linalg.qr(rng.standard_normal((size, count)))[0]


def nothing(shape):
    return [np.zeros((size, 0)) for size in shape]


def sparse_noise(rng, shape, density=0.02):
    return sp.csr_array(sp.random(*shape, density=density, random_state=rng, data_rvs=rng.standard_normal))


class LowRankPlusSparse:
    """A low-rank matrix plus a sparse one, as an operator that has products only."""

    def __init__(self, U, s, V, rest):
        self.U, self.s, self.V, self.rest = U, s, V, rest
        self.shape = rest.shape

    def __matmul__(self, X):
        return (self.U * self.s) @ (self.V.T @ X) + self.rest @ X

    @property
    def T(self):
        return LowRankPlusSparse(self.V, self.s, self.U, sp.csr_array(self.rest.T))

    def dense(self):
        return (self.U * self.s) @ self.V.T + self.rest.toarray()


@pytest.fixture(scope="module")
def example():
    """A matrix of norm about 1 with five singular values near the norm, and its singular value decomposition."""
    rng = np.random.default_rng(7)
    rest = sparse_noise(rng, LARGE)
    rest = rest * (0.5 / np.linalg.norm(rest.toarray(), 2))
    S = LowRankPlusSparse(orthonormal(rng, 800, 5), np.linspace(0.9, 1.0, 5), orthonormal(rng, 700, 5), rest)
    return S, *np.linalg.svd(S.dense(), full_matrices=False)


def test_large_matrices_are_not_treated_as_small_ones():
    assert not is_small(LARGE)
    assert is_small((500, 400))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (30, 20), (20, 30)])
def test_small_matrices_have_their_exact_norm_with_a_margin(shape, rng):
    for S in (rng.standard_normal(shape), 1e-150 * rng.standard_normal(shape), sp.csr_array(rng.standard_normal(shape))):
        exact = np.linalg.norm(S if isinstance(S, np.ndarray) else S.toarray(), 2)
        bound, proof = norm_bound(S, *nothing(shape), rng)
        assert exact * (1 + 1e-15) <= bound <= exact * (1 + 1e-12)
        assert "dense" in proof
    assert norm_bound(np.zeros(shape), *nothing(shape), rng)[0] == 0


def test_the_bound_is_tight_for_the_leading_subspace(example, rng):
    S, U, s, Vt = example
    bound, proof = norm_bound(S, U[:, :5], Vt[:5].T, rng)
    assert s[0] * (1 - 1e-13) <= bound <= s[0] * (1 + 1e-6)
    assert f"{FAILURE:g}" in proof


@pytest.mark.slow
def test_the_bound_holds_for_any_subspace(example, rng):
    S, U, s, Vt = example
    wrong = orthonormal(rng, 800, 5), orthonormal(rng, 700, 5)
    nearly = [np.linalg.qr(basis + 1e-3 * rng.standard_normal(basis.shape))[0] for basis in (U[:, :5], Vt[:5].T)]
    subspaces = {
        "none": nothing(LARGE),
        "wrong": wrong,
        "half right": (U[:, :5], wrong[1]),
        "one side more": (U[:, :8], Vt[:3].T),
        "others": (U[:, 5:9], Vt[5:9].T),
        "too few": (U[:, :3], Vt[:3].T),
        "nearly": nearly,
        "one": (np.eye(800)[:, :1], np.eye(700)[:, :1]),
    }
    for name, (left, right) in subspaces.items():
        bound, _ = norm_bound(S, left, right, rng)
        assert bound >= s[0] * (1 - 1e-13), name
        assert bound <= 1.5 * s[0], name


@pytest.mark.parametrize("steps", [20, 40, 120])
def test_the_bound_holds_however_few_the_steps(example, steps):
    S, U, s, Vt = example
    for seed in range(5):
        assert norm_bound(S, *nothing(LARGE), np.random.default_rng(seed), steps=steps)[0] >= s[0]


@pytest.mark.slow
def test_the_bound_holds_for_sparse_matrices_of_every_kind(rng):
    for density in (1e-5, 1e-3, 0.05):
        S = sparse_noise(rng, LARGE, density)
        exact = np.linalg.norm(S.toarray(), 2)
        for seed in range(3):
            bound, _ = norm_bound(S, *nothing(LARGE), np.random.default_rng(seed))
            assert exact * (1 - 1e-13) <= bound <= 1.01 * exact
    diagonal = sp.csr_array((np.linspace(0, 1, 700), (np.arange(700), np.arange(700))), shape=LARGE)
    assert 1 <= norm_bound(diagonal, *nothing(LARGE), rng)[0] <= 1.01


def test_matrices_of_low_rank(rng):
    U, V = orthonormal(rng, 800, 2), orthonormal(rng, 700, 2)
    zero = sp.csr_array(LARGE)
    S = LowRankPlusSparse(U, np.array([3.0, 1.0]), V, zero)
    for left, right in ((U, V), nothing(LARGE), (U[:, :1], V[:, :1])):
        np.testing.assert_allclose(norm_bound(S, left, right, rng)[0], 3.0, rtol=1e-9)
    assert norm_bound(zero, *nothing(LARGE), rng)[0] == 0


def test_thin_matrices_of_any_length(rng):
    S = sparse_noise(rng, (60_000, 9))
    exact = np.linalg.norm(S.toarray(), 2)
    for matrix in (S, sp.csr_array(S.T)):
        for count in (0, 1, 9):
            bases = [np.eye(size)[:, :count] if size == 9 else np.eye(size, count) for size in matrix.shape]
            bound, _ = norm_bound(matrix, *bases, rng)
            assert exact * (1 - 1e-12) <= bound <= exact * (1 + 1e-9 if count == 0 else 1.5)


@pytest.mark.slow
def test_a_subspace_of_all_columns_leaves_nothing_to_estimate(rng):
    S = sparse_noise(rng, (5000, 900), 0.002)
    exact = np.linalg.norm(S.toarray(), 2)
    bound, _ = norm_bound(S, np.zeros((5000, 0)), np.eye(900), rng)
    np.testing.assert_allclose(bound, exact, rtol=1e-12)
    bound, _ = norm_bound(sp.csr_array(S.T), np.eye(900), np.zeros((5000, 0)), rng)
    np.testing.assert_allclose(bound, exact, rtol=1e-12)


@pytest.mark.parametrize("steps", [40, 120])
def test_the_bound_is_that_of_the_theorem(steps):
    # Kuczynski and Wozniakowski 1992: where Lanczos has converged, the bound is cosh(E / (2 k - 1)) times the value it found.
    values = np.concatenate([[1.0], np.linspace(0, 0.5, 699)])
    S = sp.csr_array((values, (np.arange(700), np.arange(700))), shape=LARGE)
    gain = np.cosh(np.log(1.596 * np.sqrt(700) / 1e-12) / (2 * steps - 1))
    bound, _ = norm_bound(S, *nothing(LARGE), np.random.default_rng(0), steps=steps)
    np.testing.assert_allclose(bound, gain, rtol=1e-9)


def test_the_probability_of_failure_is_that_of_the_theorem(monkeypatch):
    # With a generous probability of failure the bound is exceeded now and then, but no more often than allowed.
    rng = np.random.default_rng(1)
    values = np.concatenate([[1.0], np.full(699, 0.99)])
    S = sp.csr_array((values, (np.arange(700), np.arange(700))), shape=LARGE)
    for allowed in (0.5, 0.1):
        monkeypatch.setattr(_spectral_norm, "FAILURE", allowed)
        failures = sum(norm_bound(S, *nothing(LARGE), rng, steps=10)[0] < 1 for _ in range(60))
        assert failures <= 60 * allowed


@pytest.mark.parametrize("shape", [(30, 20_000), (20_000, 30)])
@pytest.mark.parametrize("size", [1.0, 1e-150, 1e150])
def test_the_gram_matrix_of_a_short_side_gives_the_norm_with_a_margin(shape, size, rng):
    places = [rng.integers(0, d, 30_000) for d in shape]
    y = rng.standard_normal(30_000)
    A = Entries(*places, shape)
    A = Entries(*([each[A.best_order] for each in places]), shape)
    exact = np.linalg.norm(A.adjoint(y), 2)
    bound, proof = norm_bound(A.adjoint_operator(size * y), *nothing(shape), rng)
    assert "Gram" in proof
    assert exact <= bound / size <= exact * (1 + 1e-9)
    assert norm_bound(A.adjoint_operator(0 * y), *nothing(shape), rng)[0] == 0


def test_where_the_rest_decides_a_moderate_matrix_is_decomposed(example, rng):
    S, U, s, Vt = example
    bound, proof = norm_bound(S, U[:, 1:5], Vt[1:5].T, rng)  # without the leading pair
    np.testing.assert_allclose(bound, s[0], rtol=1e-11)
    assert "densely" in proof
    assert "Lanczos" in norm_bound(S, U[:, 1:5], Vt[1:5].T, rng, steps=_spectral_norm.ROUGH_STEPS)[1]
