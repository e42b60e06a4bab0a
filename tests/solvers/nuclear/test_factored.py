import numpy as np
import pytest

from balancedfact import Status, flat_minimum
from balancedfact.measurements import Entries, bernoulli_mask, bilinear, gaussian
from balancedfact.solvers import Factored, Splitting
from balancedfact.solvers.nuclear import _factored
from balancedfact.solvers.nuclear._factored import factored
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._least_norm import least_norm_certificate
from tests.oracles import adjoint
from tests.solvers.conic import ENSEMBLES, explicit
from tests.solvers.points import assert_reaches_the_optimum, best, frame_of, gap_of

pytestmark = pytest.mark.filterwarnings("error")


def low_rank(rng, shape, rank):
    return rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))


@pytest.mark.few(2)
@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_path_ends_at_the_optimum(name, flat, penalty, rng):
    points = factored(frame_of(name, flat, penalty).problem, rng)
    assert_reaches_the_optimum(name, flat, penalty, points, matrix_tol=1e-3 if penalty == 0 else 1e-6, gap=1e-7)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ENSEMBLES)
def test_points_are_balanced_pairs_and_fit_data_that_are_to_be_interpolated(name, rng):
    problem = frame_of(name, True, 0.0).problem
    points = list(factored(problem, rng))
    for L, R, s, *_ in points:
        np.testing.assert_allclose(L.T @ L, np.diag(s), atol=1e-12 * s[0])
        np.testing.assert_allclose(R.T @ R, np.diag(s), atol=1e-12 * s[0])
        assert (np.diff(s) <= 0).all()
    for L, R, *_ in points[-4:]:
        np.testing.assert_allclose(problem.map(L @ R.T), problem.b, atol=1e-10)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_last_point_is_stationary_and_its_dual_vector_the_residual(name, rng, monkeypatch):
    """Of the descent, whose finest accuracy rounding does not allow; the cores that would follow have better dual vectors."""
    monkeypatch.setattr(_factored, "active_core", lambda *args: iter(()))
    problem = frame_of(name, True, 0.3).problem
    *_, (L, R, s, y, _) = factored(problem, rng)
    residual = problem.b - problem.map(L @ R.T)
    np.testing.assert_allclose(problem.q * y, residual, atol=1e-12)
    S = problem.map.adjoint(y)
    assert np.linalg.norm(S @ R - L) <= 1e-9 * np.linalg.norm(L)
    assert np.linalg.norm(S.T @ L - R) <= 1e-9 * np.linalg.norm(R)
    # Not a saddle: the rest of the dual matrix is at most 1.
    assert np.linalg.norm(S, 2) <= 1 + 1e-9


LARGER = {
    "mask": bernoulli_mask((40, 30), 0.6, rng=0),
    "bilinear": bilinear(350, (30, 25), rng=0),
    "gaussian": gaussian(300, (30, 25), rng=0),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("penalty", [0.0, 1e-2])
@pytest.mark.parametrize("name", LARGER)
def test_low_rank_data_are_recovered_and_proved(name, penalty, rng):
    A = LARGER[name]
    truth = low_rank(rng, A.matrix_shape, 2)
    frame = Frame(A, A(truth), penalty, flat=True)
    point, verdict = best(frame.problem, factored(frame.problem, rng))
    assert gap_of(verdict) <= 1e-8
    assert np.count_nonzero(point.s > 1e-6 * point.s[0]) == 2
    found = frame.size * (frame.white.left @ point.L) @ (frame.white.right @ point.R).T
    assert np.linalg.norm(found - truth) <= (1e-2 if penalty else 1e-9) * np.linalg.norm(truth)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_the_limit_on_the_rank_is_kept(limit, penalty, rng):
    A = bernoulli_mask((9, 8), 0.6, rng)
    problem = Frame(A, A(low_rank(rng, (9, 8), 5)), penalty, flat=True).problem
    points = list(factored(problem, rng, max_rank=limit))
    assert points
    assert max(point.L.shape[1] for point in points) <= min(limit, 8)
    if limit >= 8:  # which limits nothing
        assert gap_of(best(problem, points)[1]) <= 1e-8
    elif penalty:  # stationary among pairs of as many columns
        L, R, _, y, _ = points[-1]
        S = problem.map.adjoint(y)
        assert max(np.linalg.norm(S @ R - L), np.linalg.norm(S.T @ L - R)) <= 1e-8 * np.linalg.norm(L)


def test_a_start_is_used(rng):
    problem = frame_of("bernoulli_mask", True, 0.3).problem
    *_, last = factored(problem, np.random.default_rng(0))
    first, *_ = factored(problem, np.random.default_rng(0), initial=(last.L, last.R))
    assert gap_of(problem.judge(first, rng)) <= 1e-8
    for start in ((rng.standard_normal((6, 2)), rng.standard_normal((5, 2))), (np.ones((6, 8)), np.ones((5, 8)))):
        _, verdict = best(problem, factored(problem, np.random.default_rng(0), initial=start))
        assert gap_of(verdict) <= 1e-8


def test_the_same_generator_gives_the_same_points():
    problem = frame_of("bilinear", True, 0.3).problem
    one, two = (list(factored(problem, np.random.default_rng(4))) for _ in range(2))
    for point, other in zip(one, two, strict=True):
        for array, copy in zip(point[:4], other[:4], strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("penalty", [0.0, 1e-3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 3)])
def test_few_measurements_and_thin_matrices(shape, penalty, rng):
    for m in {1, min(2, shape[0] * shape[1])}:
        problem = Frame(gaussian(m, shape, rng), rng.standard_normal(m), penalty, flat=True).problem
        _, verdict = best(problem, factored(problem, rng))
        assert gap_of(verdict) <= 1e-7


@pytest.mark.few(1)
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 2)])
def test_long_matrices(shape, rng):
    A = bernoulli_mask(shape, 0.5, rng)
    data = A.forward_factored(rng.standard_normal((shape[0], 1)), rng.standard_normal((shape[1], 1)))
    problem = Frame(A, data, 0.05 * np.linalg.norm(data), flat=False).problem
    assert gap_of(best(problem, factored(problem, rng))[1]) <= 1e-8


@pytest.mark.slow
def test_nothing_dense_is_formed(monkeypatch, rng):
    A = bernoulli_mask((800, 700), 0.05, rng)
    truth = rng.standard_normal((800, 2)), rng.standard_normal((700, 2))
    problem = Frame(A, A.forward_factored(*truth), 0.0, flat=True).problem

    def refuse(*_):
        raise AssertionError("a dense matrix was formed")

    monkeypatch.setattr(Entries, "_adjoint", refuse)
    monkeypatch.setattr(Entries, "_forward", refuse)
    _, verdict = best(problem, factored(problem, rng))
    assert gap_of(verdict) <= 1e-8


@pytest.mark.parametrize("fraction", [0.999, 0.8, 0.55, 0.3])
def test_a_penalty_near_its_largest_useful_value(fraction, rng):
    A = bernoulli_mask((9, 8), 0.6, rng)
    b = A(low_rank(rng, (9, 8), 4))
    white = A.whitened()
    largest = np.linalg.norm(white.map.adjoint(b), 2) / white.scale
    problem = Frame(A, b, fraction * largest, flat=True).problem
    points = list(factored(problem, rng))
    assert gap_of(best(problem, points)[1]) <= 1e-8
    assert points[-1].s.size >= 1


# The dual vector of least norm


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "bilinear", "mask"])
def test_the_certificate_of_least_norm(name, rng):
    A = {
        "gaussian": lambda: gaussian(40, (8, 7), rng),
        "bernoulli": lambda: gaussian(40, (8, 7), rng),
        "bilinear": lambda: bilinear(45, (8, 7), rng),
        "mask": lambda: bernoulli_mask((8, 7), 0.9, rng),
    }[name]()
    U, V = (np.linalg.qr(rng.standard_normal((size, 2)))[0] for size in (8, 7))
    y = least_norm_certificate(A, U, V)
    matrices = explicit(A)
    S = adjoint(matrices, y)
    np.testing.assert_allclose(S @ V, U, atol=1e-9)
    np.testing.assert_allclose(S.T @ U, V, atol=1e-9)
    # The conditions are linear in y: the least-norm solution is that of the pseudo-inverse.
    rows = np.array([np.concatenate([(M @ V).ravel(), (M.T @ U).ravel()]) for M in matrices]).T
    expected = np.linalg.pinv(rows, rcond=1e-10) @ np.concatenate([U.ravel(), V.ravel()])
    np.testing.assert_allclose(y, expected, atol=1e-8 * np.abs(expected).max())


def few_and_uneven(seed):
    """Hardly more entries than unknowns, noise only, the first columns seen most, some entries twice."""
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, 100, 900), (rng.integers(0, 80, 900) * rng.random(900)).astype(int)
    return Entries(rows, cols, (100, 80)), rng.standard_normal(900)


@pytest.mark.few(1)
@pytest.mark.parametrize("offset_penalty", [None, 1.0])
@pytest.mark.parametrize("seed", [3])
def test_few_uneven_entries(seed, offset_penalty):
    A, b = few_and_uneven(seed)
    solution = flat_minimum(A, b, penalty=500.0, offset_penalty=offset_penalty, tol=1e-3, rng=0, method=Factored())
    assert solution.status is Status.OPTIMAL
    ranks = solution.history["rank"]
    assert len(ranks) < 150
    if offset_penalty is None:  # another algorithm, which knows neither columns nor factors
        other = flat_minimum(A, b, penalty=500.0, tol=1e-4, rng=0, method=Splitting())
        assert solution.value == pytest.approx(other.value, rel=1e-3)


def test_where_lapack_does_not_converge():
    A, b = few_and_uneven(0)  # a deflated dual matrix on the way, which the driver gesdd gives up
    assert flat_minimum(A, b, penalty=50.0, tol=1e-2, rng=0, method=Factored()).status is Status.OPTIMAL


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(11, 4), pytest.param((8, 9), marks=pytest.mark.slow)])
def test_penalties_beyond_rounding_end_without_an_error(shape, rng):
    m = int(0.6 * np.prod(shape))
    places = rng.choice(shape[0] * shape[1], m, replace=False)
    A = Entries(*np.divmod(places, shape[1]), shape, 1e-100 * np.exp(rng.uniform(-9, 0, m)))
    b = A(rng.standard_normal((shape[0], 2)) @ rng.standard_normal((2, shape[1]))) * (1 + 0.1 * rng.standard_normal(m))
    solution = flat_minimum(A, b, penalty=1e-203, method="factored", rng=0)
    assert solution.certificate.lower_bound <= solution.value
