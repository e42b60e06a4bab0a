import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from balancedfact.curvature import scaled_trace
from balancedfact.measurements import Dense, Entries, bernoulli_mask, gaussian
from balancedfact.solvers.nuclear._frame import Contradiction, Frame
from balancedfact.solvers.nuclear._problem import Point, balanced
from tests.maps import BUILT_IN, Minimal, cases, minimal, selected
from tests.oracles import adjoint, forward
from tests.solvers.conic import pseudo_inverses, rescalings, spread

pytestmark = pytest.mark.filterwarnings("error")


def array(T):
    return T if isinstance(T, np.ndarray) else T.toarray()


def visible(frame, Z):
    """The user's matrix of a matrix `Z` of the normalised problem."""
    return frame.size * array(frame.white.left) @ Z @ array(frame.white.right).T


@given(
    cases(*BUILT_IN.values(), minimal, selected, edges=("none", "sparse", "repeated", "unseen")),
    st.booleans(),
    st.sampled_from([0.0, 1e-3, 2.0]),
    st.sampled_from([1e-60, 1.0, 1e60]),
)
def test_the_normalised_problem_is_the_problem(case, flat, penalty, size):
    A, matrices, rng = case
    assume(max(abs(matrix).max() for matrix in matrices) > 1e-3)
    assume(spread(matrices) < 1e4)
    b = size * A(rng.standard_normal(A.matrix_shape))
    assume(np.any(b))
    penalty = penalty * size
    frame = Frame(A, b, penalty, flat=flat)
    problem, m = frame.problem, A.m
    Z = rng.standard_normal(problem.map.matrix_shape)
    X = visible(frame, Z)
    size_of_terms = np.abs(X).max() * max(abs(matrix).max() for matrix in matrices) * X.size
    # The measurements that were kept, in the normalised problem and in the user's.
    expected = frame.weights * forward(matrices, X)[frame.kept]
    np.testing.assert_allclose(frame.level * problem.map(Z), expected, atol=1e-9 * size_of_terms * frame.weights.max())
    np.testing.assert_allclose(frame.level * problem.b, frame.weights * b[frame.kept], atol=1e-12 * frame.level)
    assert np.abs(problem.b).max() == pytest.approx(1.0)
    # The objective.
    D1, D2 = rescalings(matrices) if flat else (np.eye(size) for size in A.matrix_shape)
    nuclear = np.linalg.norm(D1 @ X @ D2, "nuc")
    if penalty == 0:
        expected = (4 * m if flat else 2) * nuclear
        np.testing.assert_allclose(frame.units * np.linalg.norm(Z, "nuc"), expected, rtol=1e-6)
        assert problem.q == 0
        np.testing.assert_allclose(problem.map.row_norms, 1.0, rtol=1e-9)
    else:
        error = problem.map(Z) - problem.b
        value = np.linalg.norm(Z, "nuc") + error @ error / (2 * problem.q)
        expected = np.sum((forward(matrices, X) - b) ** 2) / 2 + penalty * nuclear
        np.testing.assert_allclose(frame.units * value, expected, rtol=1e-6)
    # The dual vector, its constraint and its bound.
    y = rng.standard_normal(problem.map.m)
    dual = frame.dual(y)
    E1, E2 = pseudo_inverses(matrices, flat)
    norm = np.linalg.norm(problem.map.adjoint(y), 2)
    constrained = np.linalg.norm(E1 @ adjoint(matrices, dual) @ E2, 2)
    np.testing.assert_allclose(constrained, norm * (penalty or 1.0), rtol=1e-5, atol=1e-9)
    bound = b @ dual - dual @ dual / 2 if penalty else (4 * m if flat else 2) * (b @ dual)
    expected = frame.units * (problem.b @ y - problem.q * y @ y / 2)
    np.testing.assert_allclose(bound, expected, rtol=1e-9, atol=1e-12 * frame.units * (np.abs(problem.b) @ np.abs(y)))


@given(cases(*BUILT_IN.values(), minimal, selected, edges=("none", "repeated", "unseen")), st.booleans())
def test_a_pair_and_back(case, flat):
    A, matrices, rng = case
    assume(max(abs(matrix).max() for matrix in matrices) > 1e-3)
    assume(spread(matrices) < 1e4)
    d1, d2 = A.matrix_shape
    b = A(rng.standard_normal((d1, d2)))
    assume(np.any(b))
    frame = Frame(A, b, 0.0, flat=flat)
    # What the measurements see of a matrix of the size of the data.
    D1, D2 = rescalings(matrices)
    E1, E2 = pseudo_inverses(matrices, flat=True)
    L, R = rng.standard_normal((d1, 2)), rng.standard_normal((d2, 2))
    if flat:
        L, R = E1 @ D1 @ L, E2 @ D2 @ R
    measured = frame.weights * A(L @ R.T)[frame.kept]
    scale = frame.level * np.linalg.norm(frame.problem.b) / np.linalg.norm(measured)
    assume(scale < 1e3)
    L = L * scale
    inner = frame.normalised(L, R)
    np.testing.assert_allclose(visible(frame, inner[0] @ inner[1].T), L @ R.T, atol=1e-6 * np.abs(L @ R.T).max())
    assert inner[0].shape[1] <= 2


def test_a_start_is_brought_to_the_size_of_the_data_only_where_it_is_far_from_it(rng):
    A = gaussian(12, (5, 4), rng)
    b = A(rng.standard_normal((5, 4)))
    frame = Frame(A, b, 0.0, flat=True)
    L, R = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    L *= np.linalg.norm(b) / np.linalg.norm(A(L @ R.T))

    def fit(pair):
        return np.linalg.norm(frame.problem.map(pair[0] @ pair[1].T)) / np.linalg.norm(frame.problem.b)

    exact = fit(frame.normalised(L, R))
    for factor in (0.5, 2.0):
        np.testing.assert_allclose(fit(frame.normalised(factor * L, R)), factor * exact, rtol=1e-12)
    for a, c in ((1e3, 1.0), (1e-3, 1.0), (1e200, 1e150), (1e-200, 1e-150), (1e200, 1e-200), (1e155, 1e155)):
        pair = frame.normalised(a * L, c * R)
        assert 0.5 < fit(pair) < 2
        np.testing.assert_allclose(np.linalg.norm(pair[0]), np.linalg.norm(pair[1]), rtol=1e-10)


def test_a_start_that_no_measurement_sees_is_none(rng):
    A = Entries([0, 1, 1], [0, 0, 1], (4, 3))
    frame = Frame(A, np.ones(3), 0.0, flat=True)
    assert frame.normalised(np.zeros((4, 2)), np.zeros((3, 2))) is None
    assert frame.normalised(np.eye(4)[:, 3:], np.eye(3)[:, 2:]) is None
    assert frame.normalised(np.ones((4, 1)), np.zeros((3, 1))) is None
    pair = frame.normalised(np.ones((4, 3)), np.ones((3, 3)))
    assert [factor.shape for factor in pair] == [(2, 1), (2, 1)]  # of rank one, where it is seen


def test_the_certificate_is_computed_from_what_is_returned(rng):
    A = bernoulli_mask((5, 4), 0.7, rng)
    b = A(rng.standard_normal((5, 4)))
    for penalty in (0.0, 0.2):
        frame = Frame(A, b, penalty, flat=True)
        L, R, s = balanced(rng.standard_normal((5, 2)), rng.standard_normal((4, 2)))
        y = rng.standard_normal(frame.problem.map.m)
        y *= 0.9 / np.linalg.norm(frame.problem.map.adjoint(y), 2)
        layers, value, certificate = frame.certified(Point(L, R, s, y), y, "a sentence")
        W1, W2 = layers
        error = b - A(W2 @ W1)
        np.testing.assert_allclose(certificate.feasibility, np.linalg.norm(error) / np.linalg.norm(b), rtol=1e-12)
        trace = scaled_trace(W2, W1.T, A)
        expected = trace if penalty == 0 else error @ error / 2 + penalty * trace / (4 * A.m)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
        np.testing.assert_array_equal(certificate.dual, frame.dual(y))
        assert certificate.proof == "a sentence"
        assert np.isnan(certificate.gap) == (penalty == 0)  # it does not fit: its value is no upper bound
        assert certificate.balance <= 1e-13
        S = frame.problem.map.adjoint(y)
        expected = max(np.linalg.norm(S @ R - L), np.linalg.norm(S.T @ L - R)) / np.linalg.norm(L)
        np.testing.assert_allclose(certificate.stationarity, expected, rtol=1e-9)
        lopsided = frame.certified(Point(2 * L, R / 2, s, y), y, "")[2]
        np.testing.assert_allclose(lopsided.balance, (4 - 1 / 4) / (1 / 4), rtol=1e-9)


# Dependent measurements


def test_measurements_that_follow_from_others_are_left_out(rng):
    base = rng.standard_normal((6, 4, 3))
    matrices = [*base, 2 * base[0], base[1] - base[2], np.zeros((4, 3))]
    X = rng.standard_normal((4, 3))
    b = forward(matrices, X)
    for A in (Dense(matrices), Minimal(matrices)):
        frame = Frame(A, b, 0.0, flat=True)
        assert frame.kept.size == 6
        kept = np.reshape(np.array(matrices)[frame.kept], (6, -1))
        assert np.linalg.matrix_rank(kept) == 6
        assert frame.dual(np.ones(6)).shape == (9,)
        assert Frame(A, b, 1.0, flat=True).kept.size == 9  # with a penalty they count
    entries = Entries([0, 1, 0, 1, 2], [0, 1, 0, 1, 0], (3, 2), [1.0, 1.0, -2.0, 0.5, 0.0])
    frame = Frame(entries, entries(rng.standard_normal((3, 2))), 0.0, flat=False)
    np.testing.assert_array_equal(frame.kept, [0, 1])


@pytest.mark.parametrize("level", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("size", [1e-7, 1.0, 1e7])
def test_small_and_large_contradictions(size, level, rng):
    base = rng.standard_normal((6, 4, 3))
    matrices = [*base, 2 * base[0] + base[3]]
    b = forward(matrices, rng.standard_normal((4, 3)))
    b[-1] += size
    b *= level
    with pytest.raises(Contradiction) as caught:
        Frame(Dense(matrices), b, 0.0, flat=True)
    y = caught.value.y
    assert b @ y > 0
    np.testing.assert_array_equal(np.abs(y) > 1e-9 * np.abs(y).max(), [True, False, False, True, False, False, True])
    assert np.linalg.norm(adjoint(matrices, y)) <= 1e-12 * np.linalg.norm(y)
    Frame(Dense(matrices), b, 1.0, flat=True)


def test_rounding_errors_are_no_contradiction(rng):
    base = rng.standard_normal((6, 4, 3))
    mixing = rng.standard_normal((40, 6))
    matrices = np.tensordot(mixing, base, axes=1)
    b = mixing @ forward(base, rng.standard_normal((4, 3)))
    frame = Frame(Dense(matrices), b * (1 + 1e-15 * rng.standard_normal(40)), 0.0, flat=True)
    assert frame.kept.size == 6


def test_the_sentence_on_what_is_not_seen(rng):
    def sentence(A):
        return Frame(A, np.zeros(A.m), 0.0, flat=True).unseen

    assert sentence(Entries([0, 1], [0, 1], (2, 2))) == ""
    assert "No measurement sees 1 row:" in sentence(Entries([0, 1], [0, 1], (3, 2)))
    assert "No measurement sees 2 columns:" in sentence(Entries([0, 1], [0, 1], (2, 4)))
    assert "1 row and 2 columns:" in sentence(Entries([0, 1], [0, 1], (3, 4)))
    one = np.zeros((2, 3, 3))
    one[:, :2, :2] = rng.standard_normal((2, 2, 2))
    assert "1 left direction and 1 right direction:" in sentence(Dense(one))
    assert Frame(Entries([0, 1], [0, 1], (3, 4)), np.zeros(2), 0.0, flat=False).unseen == ""
