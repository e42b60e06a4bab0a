"""Slow computations straight from the definitions, against which the package is compared."""

import autograd
import autograd.numpy as anp
import numpy as np
from scipy.sparse.linalg import aslinearoperator

EPS = np.finfo(float).eps


# Sums over the matrices A_1, ..., A_m, given as a list.


def forward(matrices, X):
    return np.array([np.trace(A.T @ X) for A in matrices])


def adjoint(matrices, y):
    total = np.zeros_like(matrices[0])
    for A, weight in zip(matrices, y, strict=True):
        total = total + weight * A
    return total


def left_moment(matrices, P):
    return sum(A @ P @ A.T for A in matrices)


def right_moment(matrices, Q):
    return sum(A.T @ Q @ A for A in matrices)


def left_square(matrices):
    """The square of D1."""
    d1, d2 = matrices[0].shape
    return sum(A @ A.T for A in matrices) / (len(matrices) * d2)


def right_square(matrices):
    """The square of D2."""
    d1, d2 = matrices[0].shape
    return sum(A.T @ A for A in matrices) / (len(matrices) * d1)


def energy(matrices, C, B):
    return np.array(sum(np.sum((C.T @ A @ B) ** 2) for A in matrices))


def rotated(matrices, P, Q):
    return np.array([P.T @ A @ Q for A in matrices])


def row_norms(matrices):
    return np.array([np.linalg.norm(A) for A in matrices])


def gram(matrices):
    return np.array([[np.trace(A.T @ B) for B in matrices] for A in matrices])


def scaled_gram(matrices, W11, W12, W22):
    return np.array([[np.trace(A.T @ (W11 @ B @ W22 + W12 @ B.T @ W12)) for B in matrices] for A in matrices])


# Curvature, by differentiating the loss.


def unpacked(theta, shapes):
    arrays, start = [], 0
    for rows, cols in shapes:
        arrays.append(anp.reshape(theta[start : start + rows * cols], (rows, cols)))
        start += rows * cols
    return arrays


def hessian(layers, matrices, b):
    """Dense Hessian of (1/m) |A(W_L ... W_1) - b|^2 over all entries of the layers."""
    shapes, rows = [layer.shape for layer in layers], np.reshape(matrices, (len(matrices), -1))

    def loss(theta):
        product = anp.eye(shapes[0][1])
        for layer in unpacked(theta, shapes):
            product = anp.dot(layer, product)
        return anp.mean((anp.dot(rows, anp.ravel(product)) - b) ** 2)

    return autograd.hessian(loss)(np.concatenate([layer.ravel() for layer in layers]))


def pair_hessian(L, R, matrices, b):
    """Dense Hessian of |A(L R^T) - b|^2, the entries of L before those of R."""
    rows = np.reshape(matrices, (len(matrices), -1))

    def loss(theta):
        left, right = unpacked(theta, [L.shape, R.shape])
        return anp.sum((anp.dot(rows, anp.ravel(anp.dot(left, right.T))) - b) ** 2)

    return autograd.hessian(loss)(np.concatenate([L.ravel(), R.ravel()]))


def trace_terms(layers, matrices):
    """(2/m) sum_i |B_{j-1} A_i^T C_j|^2 for each layer j."""
    terms = []
    for j in range(len(layers)):
        B, C = np.eye(layers[0].shape[1]), np.eye(layers[-1].shape[0])
        for layer in layers[:j]:
            B = layer @ B
        for layer in layers[:j:-1]:
            C = C @ layer
        terms.append(2 / len(matrices) * sum(np.sum((B @ A.T @ C) ** 2) for A in matrices))
    return terms


def isotropic_terms(layers):
    """|C_j|^2 |B_{j-1}|^2 for each layer j."""
    terms = []
    for j in range(len(layers)):
        B, C = np.eye(layers[0].shape[1]), np.eye(layers[-1].shape[0])
        for layer in layers[:j]:
            B = layer @ B
        for layer in layers[:j:-1]:
            C = C @ layer
        terms.append(np.sum(C**2) * np.sum(B**2))
    return terms


# Comparison of a map with its matrices.


def deviation(found, expected, size):
    """Largest deviation relative to `size`, at least the eps that rounding to float64 costs; inf where not finite."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    worst = np.max(np.abs(found - expected), initial=0.0)
    return worst / size if size > 0 else (0.0 if worst == 0 else np.inf)


def assert_computes(method, oracle, matrices, *arguments, rtol=1e-12):
    """`method(*arguments)` is the oracle's value, up to rounding errors of terms as large as the oracle adds up."""
    expected = oracle(matrices, *arguments)
    size = np.max(np.abs(oracle([abs(A) for A in matrices], *[abs(argument) for argument in arguments])))
    assert deviation(method(*arguments), expected, size) <= rtol


def assert_maps(A, matrices, rng):
    """The four methods of the map `A`, and its sizes, are those of the list `matrices`."""
    d1, d2 = matrices[0].shape
    assert (A.m, A.matrix_shape, A.shape) == (len(matrices), (d1, d2), (len(matrices), d1 * d2))
    assert_computes(A, forward, matrices, rng.standard_normal((d1, d2)))
    assert_computes(A.adjoint, adjoint, matrices, rng.standard_normal(A.m))
    assert_computes(A.left_moment, left_moment, matrices, rng.standard_normal((d2, d2)))
    assert_computes(A.right_moment, right_moment, matrices, rng.standard_normal((d1, d1)))


def assert_square_root(D, square):
    """`D` is the symmetric positive-semidefinite root of `square`."""
    np.testing.assert_array_equal(D.shape, square.shape)
    size = np.abs(square).max()
    assert deviation(D @ D, square, size) <= 1e-12
    assert deviation(D, D.T, np.sqrt(size)) <= 1e-13
    assert np.linalg.eigvalsh((D + D.T) / 2)[0] >= -1e-13 * np.sqrt(size)


def pair_curvature(matrices, L, R, y, coupled, V, W):
    """The second derivative at a pair, from its definition; columns beyond `coupled` without the part of the residual."""
    moves, back = adjoint(matrices, forward(matrices, V @ R.T + L @ W.T)), adjoint(matrices, y)
    first = np.arange(L.shape[1]) < coupled
    return moves @ R - back @ (W * first), moves.T @ L - back.T @ (V * first)


def pair_gram(matrices, L, R):
    """The sum of the squares of the derivatives by the entries of `L`, then of `R`, one by one."""
    shapes = (L.shape, R.shape)
    units = [(e[: L.size].reshape(shapes[0]), e[L.size :].reshape(shapes[1])) for e in np.eye(L.size + R.size)]
    J = np.column_stack([forward(matrices, V @ R.T) + forward(matrices, L @ W.T) for V, W in units])
    return J.T @ J


def assert_agrees(A, matrices, rng):
    """Every method of the map `A` does what its documentation says for the list `matrices`."""
    assert_maps(A, matrices, rng)
    d1, d2 = A.matrix_shape
    p, q = rng.integers(1, 4, size=2)
    L, R = rng.standard_normal((d1, p)), rng.standard_normal((d2, p))
    P, Q = rng.standard_normal((d1, p)), rng.standard_normal((d2, q))
    y = rng.standard_normal(A.m)

    assert_computes(A.forward_factored, lambda M, U, V: forward(M, U @ V.T), matrices, L, R)
    for operator in (A.adjoint_for_many(y), A.adjoint_operator(y)):
        assert_computes(lambda V: operator @ V, lambda M, V: adjoint(M, y) @ V, matrices, R)
        assert_computes(lambda U: operator.T @ U, lambda M, U: adjoint(M, y).T @ U, matrices, L[:, 0])
    assert_computes(lambda V: operator @ V, lambda M, V: adjoint(M, y) @ V, matrices, R)
    assert_computes(lambda V: operator @ V, lambda M, V: adjoint(M, y) @ V, matrices, R[:, 0])
    assert_computes(lambda U: operator.T @ U, lambda M, U: adjoint(M, y).T @ U, matrices, L)
    assert_computes(lambda U: operator.T @ U, lambda M, U: adjoint(M, y).T @ U, matrices, L[:, 0])
    V, W = rng.standard_normal((d1, p)), rng.standard_normal((d2, p))
    for z, coupled in ((None, None), (y, None), (y, 0), (y, p - 1)):
        count = 0 if z is None else p if coupled is None else coupled
        expected = pair_curvature(matrices, L, R, y, count, V, W)
        absolute = [abs(M) for M in matrices], abs(L), abs(R), -abs(y), count, abs(V), abs(W)
        for found, half, size in zip(
            A.pair_hessian(L, R, z, coupled=coupled)(V, W), expected, pair_curvature(*absolute), strict=True
        ):
            assert deviation(found, half, np.max(size)) <= 1e-12
    assert_computes(A.pair_gram, pair_gram, matrices, L, R)
    assert_computes(A.energy, energy, matrices, P, Q)
    assert_computes(A.rotated, rotated, matrices, P, Q)
    assert_maps(A.congruence(P, Q), [P.T @ M @ Q for M in matrices], rng)
    index = rng.integers(0, A.m, size=rng.integers(1, 2 * A.m + 1))
    assert_maps(A.select(index), [matrices[i] for i in index], rng)
    weights = rng.standard_normal(index.size)
    assert_maps(A.select(index, weights), [w * matrices[i] for i, w in zip(index, weights, strict=True)], rng)
    assert_computes(lambda: A.row_norms, row_norms, matrices)
    shift = np.sum(A.row_norms**2) or 1.0
    assert deviation((gram(matrices) + shift * np.eye(A.m)) @ A.gram_solver(shift)(y), y, np.abs(y).max()) <= 1e-11

    # A wide root gives an ordinary scaling, a narrow one a scaling that is singular as a whole.
    for width in (d1 + d2 + 2, max(d1, d2) + 1):
        root = rng.standard_normal((d1 + d2, width))
        W = root @ root.T
        assert_computes(A.scaled_gram, scaled_gram, matrices, W[:d1, :d1], W[:d1, d1:], W[d1:, d1:], rtol=1e-9)

    assert_square_root(A.D1, left_square(matrices))
    assert_square_root(A.D2, right_square(matrices))
    assert deviation(A.scale * A.rescale_left(L), A.D1 @ L, np.abs(A.D1).max() * np.abs(L).max()) <= 1e-12
    assert deviation(A.scale * A.rescale_right(R), A.D2 @ R, np.abs(A.D2).max() * np.abs(R).max()) <= 1e-12
    assert_whitened(A, rng)
    assert_linear_operator(A, rng)


def assert_whitened(A, rng):
    """The whitened map is `A` in the coordinates D1 X D2 / scale^2."""
    white = A.whitened()
    left, right = (T if isinstance(T, np.ndarray) else T.toarray() for T in (white.left, white.right))
    for T, D in ((left, A.D1), (right, A.D2)):
        values = np.linalg.eigvalsh(D)
        assert T.shape == (len(D), np.count_nonzero(values > 1e-9 * values[-1]) if values[-1] > 0 else 0)
        spread = np.abs(T).max(initial=0.0) * np.abs(D).max()
        assert deviation(T.T @ (D / white.scale) @ (D / white.scale) @ T, np.eye(T.shape[1]), 1.0) <= 1e-12 * max(spread, 1)
    assert white.map.matrix_shape == (left.shape[1], right.shape[1])
    assert white.map.m == A.m
    if left.shape[1] == 0:
        return
    Z = rng.standard_normal(white.map.matrix_shape)
    X = left @ Z @ right.T
    scaled = A.D1 / white.scale @ X @ (A.D2 / white.scale)
    np.testing.assert_allclose(np.linalg.norm(scaled, "nuc"), np.linalg.norm(Z, "nuc"), rtol=1e-7)
    size = np.max(np.abs(A.rotated(np.eye(len(left)), np.eye(len(right))))) * np.abs(X).max() * X.size
    assert deviation(white.scale * white.map(Z), A(X), size) <= 1e-10


def assert_linear_operator(A, rng):
    """`scipy` sees `A` as a matrix acting on row-major vectors, and its adjoint as the transpose."""
    operator = aslinearoperator(A)
    X, y = rng.standard_normal(A.matrix_shape), rng.standard_normal(A.m)
    assert operator.shape == A.shape
    assert operator.dtype == np.float64
    np.testing.assert_array_equal(operator.matvec(X.ravel()), A(X))
    np.testing.assert_array_equal(operator.rmatvec(y), A.adjoint(y).ravel())
    size = np.linalg.norm(operator.matvec(X.ravel())) * np.linalg.norm(y)
    assert deviation(y @ operator.matvec(X.ravel()), operator.rmatvec(y) @ X.ravel(), size) <= 1e-12
