"""What is given comes back filled in, of the same kind; and what else neighbours of NumPy hand over."""

import numpy as np
import pytest
import scipy.sparse as sp

import balancedfact as bf

RNG = np.random.default_rng(0)
TRUTH = np.outer(RNG.standard_normal(8), RNG.standard_normal(6))
SEEN = RNG.random(TRUTH.shape) < 0.8
SEEN[0], SEEN[:, 0] = True, True
HOLES = np.where(SEEN, TRUTH, np.nan)


def test_arrays_masked_and_sparse():
    np.testing.assert_allclose(bf.complete(HOLES, 0.0, tol=1e-9), TRUTH, atol=1e-6)
    masked = bf.complete(np.ma.masked_array(np.where(SEEN, TRUTH, -999.0), ~SEEN), 0.0, tol=1e-9)
    assert isinstance(masked, np.ma.MaskedArray)
    assert not np.ma.getmaskarray(masked).any()
    np.testing.assert_allclose(masked.filled(), TRUTH, atol=1e-6)
    sparse = bf.complete(sp.csr_array(np.where(SEEN, TRUTH, 0.0)), 0.0, tol=1e-9)
    assert sparse.format == "csr"
    np.testing.assert_allclose(sparse.toarray(), TRUTH, atol=1e-6)


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_frames(name):
    library = pytest.importorskip(name)
    columns = [f"x{k}" for k in range(6)]
    frame = library.DataFrame(dict(zip(columns, HOLES.T, strict=True)))
    found, solution = bf.complete(frame, 0.0, tol=1e-9, return_solution=True)
    assert isinstance(found, library.DataFrame)
    assert list(found.columns) == columns
    np.testing.assert_allclose(found.to_numpy(), TRUTH, atol=1e-6)
    assert solution.status.name == "OPTIMAL"


def test_the_penalty_is_chosen_and_what_was_seen_stays():
    noisy = HOLES + 0.01
    found = bf.complete(noisy, rng=0)
    np.testing.assert_array_equal(found[SEEN], noisy[SEEN])


@pytest.mark.parametrize("M", [np.full((2, 2), np.nan), "text", np.ones(3), [[1.0, np.inf]], [["a", 1]]])
def test_what_is_no_matrix(M):
    with pytest.raises(ValueError, match=r"^M "):
        bf.complete(M)


def test_linear_operator_and_outputs():
    X = RNG.standard_normal((5, 3))
    A = bf.measurements.regression(X, outputs=2)
    E = RNG.standard_normal((2, 3))
    np.testing.assert_allclose(A(E), (X @ E.T).ravel())
    np.testing.assert_allclose(A.to_linear_operator() @ E.ravel(), A(E))
    np.testing.assert_allclose(A.to_linear_operator().T @ np.ones(10), A.adjoint(np.ones(10)).ravel())
    with pytest.raises(ValueError, match="outputs and readout"):
        bf.measurements.regression(X, [1.0], outputs=2)


def test_tensors_and_strange_arrays_go_in():
    A = bf.measurements.Entries(*np.nonzero(SEEN), SEEN.shape)
    b = TRUTH[SEEN]
    expected = bf.flat_minimum(A, b).matrix
    strided = np.zeros(2 * b.size)
    strided[::2] = b
    frozen = b.copy()
    frozen.flags.writeable = False
    for given in (strided[::2], frozen, b[::-1][::-1], b.tolist()):
        np.testing.assert_array_equal(bf.flat_minimum(A, given).matrix, expected)
    torch = pytest.importorskip("torch")
    given = torch.nn.Parameter(torch.from_numpy(b.copy()))
    np.testing.assert_array_equal(bf.flat_minimum(A, given).matrix, expected)
    layers = [RNG.standard_normal((4, 6)), RNG.standard_normal((8, 4))]
    model = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(4, 8, bias=False)).double()
    with torch.no_grad():
        for layer, weight in zip(model, layers, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
    for given in (model, list(model.parameters())):
        assert bf.curvature.trace(given, A) == pytest.approx(bf.curvature.trace(layers, A))
        assert bf.curvature.sharpness(given, A, b) == pytest.approx(bf.curvature.sharpness(layers, A, b))
    with pytest.raises(ValueError, match=r"layers\[0\] has a bias"):
        bf.curvature.trace(torch.nn.Sequential(torch.nn.Linear(6, 8)), A)


def test_limits_end_the_choice_and_the_solve():
    M = np.where(SEEN, TRUTH, np.nan)
    filled, solution = bf.complete(M, 0.0, limits=bf.Limits(iterations=1), return_solution=True, rng=0)
    assert solution.status is bf.Status.LIMIT
    np.testing.assert_array_equal(filled[SEEN], TRUTH[SEEN])
    assert np.all(np.isfinite(bf.complete(M, limits=bf.Limits(seconds=1e-6), rng=0)))
    with pytest.raises(ValueError, match=r"limits is 3; expected bf\.Limits"):
        bf.complete(M, limits=3)
