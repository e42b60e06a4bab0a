import numpy as np
import pytest
import scipy.sparse as sp

from balancedfact.certification import _proved_norm
from balancedfact.certification._proved_norm import proved_norm, proved_sparse_norm


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 40), (300, 7), (120, 200)])
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_a_proved_norm_is_not_below_the_norm_and_hardly_above(shape, size, rng):
    W = size * rng.standard_normal(shape)
    norm = np.linalg.norm(W / size, 2) * size
    for guess in (None, norm, 0.9 * norm, norm * (1 - 1e-9)):
        found = proved_norm(W, guess)
        assert norm * (1 - 1e-14) <= found <= norm * (1 + 1e-10)
    assert norm <= proved_norm(W, 2 * norm) <= 2.001 * norm


def test_a_guess_saves_the_decomposition(monkeypatch, rng):
    W = rng.standard_normal((30, 20))
    norm = np.linalg.norm(W, 2)

    def refuse(*_, **__):
        raise AssertionError("a norm was computed")

    monkeypatch.setattr(_proved_norm.np.linalg, "norm", refuse)
    assert norm <= proved_norm(W, norm) <= norm * (1 + 1e-11)


def test_equal_singular_values_are_proved_too():
    W = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))[0]
    assert 1 - 1e-15 <= proved_norm(W) <= 1 + 1e-10
    assert proved_norm(np.zeros((3, 2))) == 0


@pytest.mark.parametrize(("m", "places"), [(4000, 20_000), (4000, 50), (1, 1)])
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_a_sparse_norm_is_proved_from_its_gram_matrix_repetitions_included(m, places, size, rng):
    seen = rng.integers(0, places, m)
    values = rng.standard_normal(m) * 10.0 ** rng.uniform(-8, 0, m)
    S = sp.coo_array((size * values, (seen % 20, seen // 20)), shape=(20, 1000)).tocsr()
    rows = seen % 20
    order = np.argsort(rows, kind="stable")  # rows in order, repetitions kept
    pointers = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=20))])
    repeated = sp.csr_array((size * values[order], (seen // 20)[order], pointers), shape=(20, 1000))
    norm = np.linalg.norm(S.toarray() / size, 2) * size
    indices = repeated.indices.copy()
    for each in (S, repeated):
        assert norm * (1 - 1e-14) <= proved_sparse_norm(each) <= norm * (1 + 1e-10)
    assert np.array_equal(repeated.indices, indices)  # what was given is left as it is
    assert proved_sparse_norm(0 * S) == 0


def test_no_sparse_norm_is_below_the_norm_in_many_digits():
    mpmath = pytest.importorskip("mpmath")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        S = sp.csr_array(np.where(rng.random((6, 9)) < 0.6, rng.standard_normal((6, 9)), 0))
        with mpmath.workdps(40):
            exact = mpmath.mp.sqrt(
                max(mpmath.mp.eigsy(mpmath.matrix(S.toarray()) * mpmath.matrix(S.toarray()).T, eigvals_only=True))
            )
            assert exact <= mpmath.mpf(proved_sparse_norm(S)) <= exact * (1 + mpmath.mpf(1e-12))


def test_a_sparse_norm_counts_what_sums_of_repetitions_lose():
    """Ten thousand small numbers after a one are lost one by one, and 1e-13 in all."""
    data = np.r_[1.0, np.full(10_000, 1e-17)]
    S = sp.csr_array((data, np.zeros(data.size, dtype=int), [0, data.size]), shape=(1, 2))
    assert 1 + 1e-13 <= proved_sparse_norm(S) <= 1 + 1e-9
