import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.closed_forms import (
    balanced_pair,
    kronecker_layers,
    kronecker_minimum,
    min_isotropic_layers,
    min_isotropic_trace,
)
from balancedfact.curvature import isotropic_trace, trace
from balancedfact.measurements import Dense, RankOne
from tests import bad_input
from tests.closed_forms import brute_force


def low_rank(rng, rows, columns, rank):
    rank = min(rank, rows, columns)
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


def nuclear(X):
    return np.linalg.svd(X, compute_uv=False).sum()


def product(layers):
    total = layers[0]
    for layer in layers[1:]:
        total = layer @ total
    return total


def assert_factorizes(layers, M, widths, tolerance=1e-13):
    assert [layer.shape for layer in layers] == list(zip(widths[1:], widths[:-1], strict=True))
    assert np.linalg.norm(product(layers) - M) <= tolerance * np.linalg.norm(M)


def separated_cost(layers, X, Y):
    return float(brute_force.separated(X, Y)(layers))


@st.composite
def problems(draw):
    """``(M, widths, rng)``, hidden widths from the rank of M up."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    rows, columns = draw(st.integers(1, 6), label="d_L"), draw(st.integers(1, 6), label="d_0")
    rank = min(rows, columns, draw(st.integers(0, 6), label="rank"))
    hidden = draw(st.lists(st.integers(max(rank, 1), 7), min_size=1, max_size=6), label="hidden widths")
    return low_rank(rng, rows, columns, rank), [columns, *hidden, rows], rng


# The isotropic case.


@given(problems())
def test_the_layers_multiply_to_the_matrix_and_attain_the_least_value(problem):
    M, widths, _ = problem
    layers = min_isotropic_layers(M, widths)
    assert_factorizes(layers, M, widths)
    depth = len(widths) - 1
    least = depth * (widths[0] * widths[-1]) ** (1 / depth) * nuclear(M) ** (2 - 2 / depth)
    assert min_isotropic_trace(M, depth) == pytest.approx(least, rel=1e-13)
    assert isotropic_trace(layers) == pytest.approx(least, rel=1e-12)


@given(problems())
def test_no_factorization_is_below_the_least_value(problem):
    M, widths, rng = problem
    widths = [widths[0], *[max(width, *M.shape) for width in widths[1:-1]], widths[-1]]
    layers = [rng.standard_normal((rows, columns)) for rows, columns in zip(widths[1:-1], widths[:-2], strict=True)]
    layers.append(M @ np.linalg.pinv(product(layers)))
    assert isotropic_trace(layers) >= min_isotropic_trace(M, len(widths) - 1) * (1 - 1e-12)
    optimal = min_isotropic_layers(M, widths)
    moved = [layer.copy() for layer in optimal]
    G = np.eye(widths[1]) + 0.3 / widths[1] * rng.standard_normal((widths[1], widths[1]))
    moved[0], moved[1] = G @ moved[0], moved[1] @ np.linalg.inv(G)
    assert isotropic_trace(moved) >= isotropic_trace(optimal) * (1 - 1e-12)


@pytest.mark.few(2)
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize(("shape", "rank"), [((3, 4), 2), ((3, 2), 2)])
def test_the_least_isotropic_value_is_what_brute_force_finds(depth, shape, rank, rng):
    M = low_rank(rng, *shape, rank)
    cost = brute_force.separated(np.eye(shape[0]), np.eye(shape[1]))
    found = brute_force.least(cost, brute_force.narrow_chart(M, rank, depth), seed=depth)
    assert found == pytest.approx(min_isotropic_trace(M, depth), rel=1e-9)


@pytest.mark.parametrize("widths", [[2, 3, 3], [2, 4, 3, 3], [2, 3, 2, 3, 4]])
def test_wider_hidden_layers_do_not_help(widths, rng):
    M = rng.standard_normal((widths[-1], 2))
    cost = brute_force.separated(np.eye(widths[-1]), np.eye(2))
    found = brute_force.least(cost, brute_force.wide_chart(M, widths), seed=1)
    assert found == pytest.approx(min_isotropic_trace(M, len(widths) - 1), rel=1e-8)


def printed_layers(M, depth):
    """The construction with the constants printed in Lemma 4 of Gatmiry et al."""
    rows, columns = M.shape
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    alpha = (s.sum() / (columns * rows)) ** (1 / depth)
    other = (rows / columns) ** 0.5
    first = alpha ** (-(depth - 2) / 2) / other * np.sqrt(s)[:, None] * Vt
    last = other * alpha ** (-(depth - 2) / 2) * U * np.sqrt(s)
    return [first, *[alpha * np.eye(s.size)] * (depth - 2), last]


def test_the_printed_constants_miss_the_bound():
    M = np.zeros((6, 4))
    np.fill_diagonal(M, [4.0, 3.0, 2.0, 0.9])
    layers = printed_layers(M, 3)
    assert_factorizes(layers, M, [4, 4, 4, 6])
    assert isotropic_trace(layers) == pytest.approx(250.6, abs=0.05)
    assert min_isotropic_trace(M, 3) == pytest.approx(184.0, abs=0.05)
    assert isotropic_trace(min_isotropic_layers(M, [4, 4, 4, 6])) == pytest.approx(184.0, abs=0.05)


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_the_printed_constants_miss_the_bound_at_every_depth(depth, rng):
    M = rng.standard_normal((5, 3))
    assert isotropic_trace(printed_layers(M, depth)) > 1.02 * min_isotropic_trace(M, depth)


@pytest.mark.parametrize("depth", [2, 3, 7])
def test_all_terms_are_equal_and_inner_layers_are_multiples_of_the_identity(depth, rng):
    M = low_rank(rng, 5, 3, 2)
    layers = min_isotropic_layers(M, [3, *[2] * (depth - 1), 5])
    terms = [np.sum(C**2) * np.sum(B**2) for B, C in brute_force.outer_products(layers)]
    np.testing.assert_allclose(terms, terms[0], rtol=1e-12)
    alpha = (nuclear(M) / np.sqrt(15)) ** (1 / depth)
    for layer in layers[1:-1]:
        np.testing.assert_allclose(layer, alpha * np.eye(2), rtol=1e-13)


def test_an_orthonormal_basis_of_matrices_has_the_isotropic_trace(rng):
    A = Dense(np.linalg.qr(rng.standard_normal((12, 12)))[0].reshape(12, 3, 4))
    M = low_rank(rng, 3, 4, 2)
    for depth in (2, 3, 5):
        layers = min_isotropic_layers(M, [4, *[2] * (depth - 1), 3])
        assert trace(layers, A) == pytest.approx(2 / A.m * min_isotropic_trace(M, depth), rel=1e-12)


def test_two_layers_of_a_square_matrix_are_balanced(rng):
    M = rng.standard_normal((4, 4))
    first, last = min_isotropic_layers(M, [4, 5, 4])
    L, R = balanced_pair(M, 5)
    np.testing.assert_allclose(last, L, atol=1e-13)
    np.testing.assert_allclose(first.T, R, atol=1e-13)


# The Kronecker case.


def kronecker_map(X, Y):
    """Every row of X with every column of Y."""
    p, q = X.shape[0], Y.shape[1]
    return RankOne(np.repeat(X, q, axis=0), np.tile(Y.T, (p, 1)))


@given(problems(), st.integers(0, 4), st.integers(0, 4))
def test_kronecker_layers_attain_the_trace_of_the_map(problem, more_rows, more_columns):
    M, widths, rng = problem
    X = rng.standard_normal((M.shape[0] + more_rows, M.shape[0]))
    Y = rng.standard_normal((M.shape[1], M.shape[1] + more_columns))
    # Neither is so nearly singular that rounding errors are magnified beyond the tolerances.
    X[: M.shape[0]] += 5 * np.eye(M.shape[0])
    Y[:, : M.shape[1]] += 5 * np.eye(M.shape[1])
    layers, depth = kronecker_layers(M, X, Y, widths), len(widths) - 1
    assert_factorizes(layers, M, widths)
    norms = np.linalg.norm(X) * np.linalg.norm(Y)
    least = depth * norms ** (2 / depth) * nuclear(X @ M @ Y) ** (2 - 2 / depth)
    assert kronecker_minimum(M, X, Y, depth) == pytest.approx(least, rel=1e-12)
    assert separated_cost(layers, X, Y) == pytest.approx(least, rel=1e-12)
    A = kronecker_map(X, Y)
    assert trace(layers, A) == pytest.approx(2 / A.m * least, rel=1e-11)


@pytest.mark.few(2)
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("rank", [1, 2])
def test_the_kronecker_minimum_is_what_brute_force_finds(depth, rank, rng):
    M, X, Y = low_rank(rng, 3, 2, rank), rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    found = brute_force.least(brute_force.separated(X, Y), brute_force.narrow_chart(M, rank, depth), seed=depth)
    assert found == pytest.approx(kronecker_minimum(M, X, Y, depth), rel=1e-9)


@pytest.mark.slow
def test_the_kronecker_minimum_is_that_of_the_hessian_by_brute_force(rng):
    M, X, Y = rng.standard_normal((3, 2)), rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    matrices = [np.outer(x, y) for x in X for y in Y.T]
    found = brute_force.least(brute_force.hessian_trace(matrices), brute_force.wide_chart(M, [2, 3, 2, 3]), seed=0)
    assert found == pytest.approx(2 / 6 * kronecker_minimum(M, X, Y, 3), rel=1e-8)


def test_only_the_second_moments_of_the_map_count(rng):
    """A map that is no product of vectors, with the same Kronecker second moment."""
    M, X, Y = rng.standard_normal((3, 2)), rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    mixing = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    A = Dense((mixing @ np.kron(X, Y.T)).reshape(6, 3, 2))
    layers = kronecker_layers(M, X, Y, [2, 2, 4, 3])
    assert trace(layers, A) == pytest.approx(2 / 6 * kronecker_minimum(M, X, Y, 3), rel=1e-12)


def test_identities_give_the_isotropic_case(rng):
    M = low_rank(rng, 4, 3, 2)
    assert kronecker_minimum(M, np.eye(4), np.eye(3), 5) == pytest.approx(min_isotropic_trace(M, 5), rel=1e-13)
    widths = [3, 2, 4, 2, 3, 4]
    ours, theirs = kronecker_layers(M, np.eye(4), np.eye(3), widths), min_isotropic_layers(M, widths)
    assert isotropic_trace(ours) == pytest.approx(isotropic_trace(theirs), rel=1e-13)


def test_both_orientations_of_the_source(rng):
    M, X, Y = rng.standard_normal((3, 2)), rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    widths = [2, 4, 2, 5, 3]
    layers, depth = kronecker_layers(M, X, Y, widths), 4
    W = layers[::-1]  # the source's numbering: M = W[0] W[1] ... W[L - 1]
    np.testing.assert_allclose(np.linalg.multi_dot(W), M, atol=1e-13)
    cost = 0.0
    for index in range(depth):
        left, right = X, Y
        for layer in W[:index]:
            left = left @ layer
        for layer in W[:index:-1]:
            right = layer @ right
        cost += np.sum(left**2) * np.sum(right**2)
    assert cost == pytest.approx(kronecker_minimum(M, X, Y, depth), rel=1e-12)
    transposed = kronecker_layers(M.T, Y.T, X.T, widths[::-1])
    assert_factorizes(transposed, M.T, widths[::-1])
    assert separated_cost([layer.T for layer in transposed[::-1]], X, Y) == pytest.approx(cost, rel=1e-12)


SINGULAR = {
    "invisible on the left": (np.diag([1.0, 0, 2]), np.eye(2)),
    "invisible on the right": (np.eye(3), np.diag([0.0, 1])),
    "invisible on both sides": (np.diag([0.0, 0, 2]), np.diag([0.0, 1])),
    "a row": (np.array([[1.0, 2, 3]]), np.eye(2)),
    "a column": (np.eye(3), np.array([[1.0], [-1]])),
    "zero on the left": (np.zeros((3, 3)), np.eye(2)),
    "zero on the right": (np.eye(3), np.zeros((2, 1))),
    "zeros": (np.zeros((1, 3)), np.zeros((2, 2))),
}


@pytest.mark.parametrize(("X", "Y"), SINGULAR.values(), ids=SINGULAR)
@pytest.mark.parametrize("depth", [2, 3, 6, 100])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_singular_sides_keep_the_product_and_the_infimum(X, Y, depth, rank, rng):
    M = low_rank(rng, 3, 2, rank)
    layers = kronecker_layers(M, X, Y, [2, *[2] * (depth - 1), 3])
    assert_factorizes(layers, M, [2, *[2] * (depth - 1), 3])
    norms = np.linalg.norm(X) * np.linalg.norm(Y)
    least = depth * norms ** (2 / depth) * nuclear(X @ M @ Y) ** (2 - 2 / depth)
    ceiling = depth * norms**2 * nuclear(M) ** (2 - 2 / depth)
    assert kronecker_minimum(M, X, Y, depth) == pytest.approx(least, rel=1e-12)
    # Where no factorization attains the infimum, this one exceeds it by 1e-8 of what the parts seen on one side would cost.
    found, A = separated_cost(layers, X, Y), kronecker_map(X, Y)
    assert least * (1 - 1e-12) - 1e-14 * ceiling <= found <= least * (1 + 1e-12) + 1e-7 * ceiling
    assert trace(layers, A) == pytest.approx(2 / A.m * found, rel=1e-9, abs=1e-7 * ceiling)


def test_ill_conditioned_sides_keep_the_product():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, Y = (np.linalg.qr(rng.standard_normal((d, d)))[0] * 10.0 ** -rng.uniform(0, 7, d) for d in (4, 3))
        M = rng.standard_normal((4, 3))
        layers = kronecker_layers(M, X, Y, [3, 3, 3, 4])
        assert_factorizes(layers, M, [3, 3, 3, 4], 1e-8)
        assert separated_cost(layers, X, Y) == pytest.approx(kronecker_minimum(M, X, Y, 3), rel=1e-9)


# Both.

FORMS = {
    "isotropic": (min_isotropic_layers, min_isotropic_trace),
    "kronecker": (
        lambda M, widths: kronecker_layers(M, np.diag([1.0, 2, 3]) + 0.5, np.diag([3.0, 1]) - 0.5, widths),
        lambda M, depth: kronecker_minimum(M, np.diag([1.0, 2, 3]) + 0.5, np.diag([3.0, 1]) - 0.5, depth),
    ),
}
both = pytest.mark.parametrize(("construct", "value"), FORMS.values(), ids=FORMS)


@both
@pytest.mark.parametrize("depth", [2, 3, 10, 100])
@pytest.mark.parametrize("c", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_matrices_have_layers_of_equal_share(construct, value, depth, c, rng):
    M, widths = low_rank(rng, 3, 2, 1), [2, *[3] * (depth - 1), 3]
    ordinary, extreme = construct(M, widths), construct(c * M, widths)
    for ours, theirs in zip(extreme, ordinary, strict=True):
        np.testing.assert_allclose(np.abs(ours), np.abs(c ** (1 / depth) * theirs), rtol=1e-11, atol=0)
    np.testing.assert_allclose(product([layer / c ** (1 / depth) for layer in extreme]), M, rtol=1e-11)
    with np.errstate(over="ignore"):
        expected = np.square(np.float64(c) ** (1 - 1 / depth)) * value(M, depth)
    assert value(c * M, depth) == pytest.approx(expected, rel=1e-12, abs=0)
    if 1e-150 <= c <= 1e150:
        assert isotropic_trace(extreme) == pytest.approx(c ** (2 - 2 / depth) * isotropic_trace(ordinary), rel=1e-11)


@pytest.mark.parametrize(("x", "y"), [(1e150, 1e-150), (1e-150, 1e150), (1e150, 1e-300), (1e-300, 1e300), (1e100, 1e50)])
def test_extreme_sides_do_not_change_the_layers(x, y, rng):
    M, X, Y = rng.standard_normal((3, 2)), rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    ordinary = kronecker_layers(M, X, Y, [2, 2, 2, 3])
    for ours, theirs in zip(kronecker_layers(M, x * X, y * Y, [2, 2, 2, 3]), ordinary, strict=True):
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-11)  # singular vectors are unique up to sign
    expected = kronecker_minimum(M, X, Y, 3)
    assert kronecker_minimum(M, x * X, y * Y, 3) == pytest.approx((x * y) * (x * y) * expected, rel=1e-12, abs=0)
    assert kronecker_minimum(M / x, x * X, Y, 3) == pytest.approx(x ** (2 / 3) * expected, rel=1e-12)


@both
@pytest.mark.parametrize("depth", [2, 3, 100])
def test_the_zero_matrix_has_zero_layers(construct, value, depth):
    for layer in construct(np.zeros((3, 2)), [2, *[1] * (depth - 1), 3]):
        assert not layer.any()
    assert value(np.zeros((3, 2)), depth) == 0


@both
def test_layers_are_deterministic_and_the_matrix_is_left_unchanged(construct, value, rng):
    M = rng.standard_normal((3, 2))
    kept = M.copy()
    for ours, theirs in zip(construct(M, (2, 5, 3)), construct(M.tolist(), np.array([2, 5, 3])), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(M, kept)


@both
def test_small_singular_values_are_kept_where_there_is_room(construct, value, rng):
    exact = np.outer(rng.standard_normal(3), rng.standard_normal(2))
    M = exact + 1e-9 * rng.standard_normal((3, 2))
    assert_factorizes(construct(M, [2, 2, 3, 3]), M, [2, 2, 3, 3])
    assert_factorizes(construct(M, [2, 1, 3, 3]), M, [2, 1, 3, 3], 1e-8)
    np.testing.assert_allclose(np.linalg.svd(product(construct(M, [2, 1, 3, 3])))[1][1], 0, atol=1e-15)


@both
@pytest.mark.parametrize("M", bad_input.not_numbers((3, 2)) + bad_input.not_arrays(2))
def test_a_bad_matrix_is_refused(construct, value, M):
    with pytest.raises(ValueError, match=r"^M "):
        construct(M, [2, 2, 3])
    with pytest.raises(ValueError, match=r"^M "):
        value(M, 2)


@both
@pytest.mark.parametrize("depth", [1, *bad_input.BAD_COUNT], ids=repr)
def test_a_bad_depth_is_refused(construct, value, depth):
    with pytest.raises(ValueError, match=r"^depth is "):
        value(np.ones((3, 2)), depth)


@both
@pytest.mark.parametrize("widths", [[2, 1, 3], [2, 2, 1, 3], [2, 3, 2, 1, 4, 3]])
def test_widths_below_the_rank_are_refused(construct, value, widths):
    narrow = widths.index(1)
    with pytest.raises(ValueError, match=rf"^widths\[{narrow}\] is 1; expected at least 2, the number of singular values of M"):
        construct(np.eye(3, 2), widths)


@both
@pytest.mark.parametrize("widths", [[3, 3, 2], [2, 3], [2, 3, 4], [3, 3, 3], [2, 2.0, 3], [2, 0, 3], None, 4, "233"], ids=repr)
def test_bad_widths_are_refused(construct, value, widths):
    with pytest.raises(ValueError, match=r"^widths"):
        construct(np.eye(3, 2), widths)


@pytest.mark.parametrize("call", [lambda X, Y: kronecker_minimum(np.eye(3, 2), X, Y, 3),
                                  lambda X, Y: kronecker_layers(np.eye(3, 2), X, Y, [2, 2, 3])])  # fmt: skip
def test_bad_sides_are_refused(call):
    for bad in bad_input.not_numbers((3, 3)) + bad_input.not_arrays(2):
        with pytest.raises(ValueError, match=r"^X "):
            call(bad.values[0], np.eye(2))
    for bad in bad_input.not_numbers((2, 2)) + bad_input.not_arrays(2):
        with pytest.raises(ValueError, match=r"^Y "):
            call(np.eye(3), bad.values[0])
    with pytest.raises(ValueError, match=r"^X has 2 columns; expected 3, the number of rows of M$"):
        call(np.ones((3, 2)), np.eye(2))
    with pytest.raises(ValueError, match=r"^Y has 3 rows; expected 2, the number of columns of M$"):
        call(np.eye(3), np.ones((3, 2)))
