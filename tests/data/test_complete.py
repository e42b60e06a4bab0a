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


def converters():
    """Ways in which arrays come, each with the package that it takes."""
    yield "read-only", None, lambda module, x: np.lib.stride_tricks.as_strided(x, writeable=False)
    yield "strided", None, lambda module, x: np.repeat(x, 2, axis=0)[::2]
    yield "column by column", None, lambda module, x: np.asfortranarray(x)
    yield "jax", "jax.numpy", lambda module, x: module.asarray(x)
    yield "torch", "torch", lambda module, x: module.from_numpy(x.copy()).requires_grad_(x.dtype.kind == "f")
    yield "pandas", "pandas", lambda module, x: module.Series(x) if x.ndim == 1 else module.DataFrame(x)
    yield "polars", "polars", lambda module, x: module.Series(x) if x.ndim == 1 else module.DataFrame(x)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "package", "convert"), converters(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_arrays_of_any_kind_go_in_everywhere(name, package, convert):
    module = None if package is None else pytest.importorskip(package)

    def given(x):
        return convert(module, np.ascontiguousarray(x, dtype=kind if x.dtype.kind == "f" else x.dtype))

    kind = np.float32 if package == "jax.numpy" else np.float64  # which JAX has by default
    rows, cols = np.nonzero(SEEN)
    b, X, P = (x.astype(kind).astype(float) for x in (TRUTH[SEEN], TRUTH, np.cov(RNG.standard_normal((6, 30)))))
    holes = np.where(SEEN, X, np.nan)
    treated = np.zeros(X.shape, bool)
    treated[-1, -1] = True
    layers = [RNG.standard_normal(shape).astype(kind).astype(float) for shape in ((4, 6), (8, 4))]
    A = bf.measurements.gaussian(30, X.shape, rng=0)
    E = bf.measurements.Entries(rows, cols, X.shape)
    solution = bf.flat_minimum(E, b, penalty=0.5, offset_penalty=1.0)
    doors = {
        "Entries": lambda f: bf.measurements.Entries(f(rows), f(cols), X.shape)(f(X)),
        "Dense": lambda f: bf.measurements.Dense([f(X), f(2 * X)])(f(X)),
        "RankOne": lambda f: bf.measurements.RankOne(f(layers[1].T), f(layers[0]))(f(X)),
        "from_array": lambda f: bf.measurements.Entries.from_array(f(holes))[1],
        "adjoint": lambda f: E.adjoint(f(b)),
        "left_moment": lambda f: A.left_moment(f(P)),
        "matvec": lambda f: A.matvec(f(X.ravel())),
        "flat_minimum": lambda f: bf.flat_minimum(E, f(b), penalty=0.5).matrix,
        "norm_minimum": lambda f: bf.norm_minimum(E, f(b), penalty=0.5).matrix,
        "certify": lambda f: bf.certify(E, f(b), f(X), f(b), penalty=0.5).gap,
        "verify": lambda f: solution.verify(E, f(b)).gap,
        "complete": lambda f: bf.complete(f(holes), 0.5),
        "transform": lambda f: solution.transform(f(holes)),
        "predict": lambda f: solution.predict(f(rows), f(cols)),
        "panel_effect": lambda f: bf.panel_effect(f(X), f(treated), 1.0).effect,
        "select_penalty": lambda f: bf.solvers.select_penalty(E, f(b), limits=bf.Limits(iterations=2), rng=0).penalty,
        "trace": lambda f: bf.curvature.trace([f(W) for W in layers], A),
        "sharpness": lambda f: bf.curvature.sharpness([f(W) for W in layers], E, f(b)),
        "balanced_pair": lambda f: bf.closed_forms.balanced_pair(f(X))[0],
        "minimal_sharpness": lambda f: bf.closed_forms.minimal_sharpness(f(P), f(X[0]), 3),
        "schatten_value": lambda f: bf.closed_forms.schatten_value(f(X), 3),
        "gradient_descent": lambda f: bf.dynamics.gradient_descent(
            [f(W) for W in layers], E, f(b), step=1e-3, iterations=3
        ).layers[0],
    }
    for door, enter in doors.items():
        np.testing.assert_allclose(enter(given), enter(np.asarray), rtol=1e-6, atol=1e-9, err_msg=f"{door} of {name}")


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
    X = np.outer(np.arange(8.0), np.ones(6))
    certified = bf.certify(A, b, TRUTH)
    torch = pytest.importorskip("torch")
    tracked = torch.from_numpy(X).requires_grad_()
    np.testing.assert_array_equal(A.matvec(tracked), A(X))
    np.testing.assert_array_equal(A.rmatvec(torch.nn.Parameter(torch.from_numpy(b.copy()))), A.adjoint(b).ravel())
    assert bf.certify(A, b, torch.from_numpy(TRUTH.copy()).requires_grad_()).gap == certified.gap
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
