from functools import cache, partial

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, RankOne, bernoulli_mask, bilinear, gaussian
from balancedfact.solution import Status
from tests.bad_input import BAD_COUNT, BAD_RNG, bad
from tests.maps import Minimal
from tests.oracles import trace_terms, unpacked

pytestmark = pytest.mark.filterwarnings("error")

# Most tests look at the network alone: the bounds that take long have files of their own.
flattest = partial(bf.flat_network, bound="quick")


def low_rank(rng, shape, rank):
    return rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))


def matrices_of(A):
    return list(A.rotated(*(np.eye(d) for d in A.matrix_shape)))


def brute_force(matrices, b, depth, width, rng, starts, independent=None):
    """Least trace over layers of a width that fit, by sequential quadratic programming on the definition.

    `independent` is how many of the measurements, the first ones, imply the others.
    """
    d1, d2 = matrices[0].shape
    sizes = [d2, *[width] * (depth - 1), d1]
    shapes = list(zip(sizes[1:], sizes, strict=False))
    stack = np.array(matrices)
    rows, b = stack[:independent].reshape(-1, d1 * d2), b[:independent]

    def objective(theta):
        W, total = unpacked(theta, shapes), 0.0
        for j in range(depth):
            B, C = anp.eye(d2), anp.eye(d1)
            for layer in W[:j]:
                B = anp.dot(layer, B)
            for layer in W[:j:-1]:
                C = anp.dot(C, layer)
            total = total + anp.sum(anp.matmul(anp.matmul(C.T, stack), B.T) ** 2)
        return 2 / len(matrices) * total

    def residual(theta):
        product = anp.eye(d2)
        for layer in unpacked(theta, shapes):
            product = anp.dot(layer, product)
        return anp.dot(rows, anp.ravel(product)) - b

    constraint = {"type": "eq", "fun": residual, "jac": autograd.jacobian(residual)}
    found = []
    for _ in range(starts):
        theta = rng.standard_normal(sum(p * q for p, q in shapes))
        end = scipy.optimize.minimize(
            objective, theta, jac=autograd.grad(objective), constraints=[constraint], method="SLSQP",
            options={"maxiter": 400, "ftol": 1e-12},
        )  # fmt: skip
        if np.linalg.norm(residual(end.x)) <= 1e-7:
            found.append(end.fun)
    return min(found)


def assert_certified(solution, matrices, b, depth, *, tol=1e-8):
    """The numbers of a minimum are what they are called, from the definitions."""
    layers, certificate = solution.layers, solution.certificate
    assert len(layers) == depth
    E = solution.matrix
    residual = np.array([np.vdot(A, E) for A in matrices]) - b
    np.testing.assert_allclose(solution.value, sum(trace_terms(layers, matrices)), rtol=1e-11)
    assert abs(certificate.feasibility - np.linalg.norm(residual) / np.linalg.norm(b)) <= 1e-13
    assert certificate.feasibility <= 1e-11
    assert certificate.stationarity <= tol
    assert certificate.fibre_gap <= 1e-10
    assert certificate.lower_bound <= solution.value * (1 + 1e-9)
    np.testing.assert_allclose(certificate.gap, 1 - certificate.lower_bound / solution.value, atol=1e-12)
    # The trace is homogeneous of degree 2 - 2 / L in the data, and the dual vector is its derivative.
    np.testing.assert_allclose(certificate.dual @ b, (2 - 2 / depth) * solution.value, rtol=1e-7)


CASES = [(4, (3, 3), 3), (2, (3, 2), 4), (5, (3, 4), 3), (3, (2, 2), 5)]


@pytest.mark.slow
@pytest.mark.parametrize(("m", "shape", "depth"), CASES)
def test_no_layers_found_by_brute_force_are_flatter(m, shape, depth, rng):
    A, b = gaussian(m, shape, rng), rng.standard_normal(m)
    solution = flattest(A, b, depth, rng=0)
    assert solution.status is Status.STATIONARY
    assert_certified(solution, matrices_of(A), b, depth)
    assert solution.certificate.curvature > 0
    expected = brute_force(matrices_of(A), b, depth, min(shape), rng, 2)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-6)


@pytest.mark.slow
def test_recovers_a_matrix_of_low_rank(rng):
    A, truth = gaussian(75, (12, 10), rng), low_rank(rng, (12, 10), 2)
    solution = bf.flat_minimum(A, A(truth), 3, rng=0)
    assert solution.status is Status.STATIONARY
    assert_certified(solution, matrices_of(A), A(truth), 3)
    np.testing.assert_allclose(solution.matrix, truth, atol=1e-12 * np.abs(truth).max())
    np.testing.assert_allclose(solution.value, bf.induced_regularizer(truth, A, 3).value, rtol=1e-12)
    assert [layer.shape for layer in solution.layers] == [(2, 10), (2, 2), (12, 2)]


@pytest.mark.parametrize("depth", [3, 4, 10])
def test_orthonormal_measurements_give_the_closed_form(depth, rng):
    shape = (4, 6)
    basis = np.linalg.qr(rng.standard_normal((24, 24)))[0].reshape(24, *shape)
    A, M = Dense(basis), low_rank(rng, shape, 3)
    solution = bf.flat_minimum(A, A(M), depth)
    assert solution.status is Status.OPTIMAL
    assert abs(solution.certificate.gap) <= 1e-10
    np.testing.assert_allclose(solution.matrix, M, atol=1e-12 * np.abs(M).max())
    nuclear = np.linalg.norm(M, "nuc")
    np.testing.assert_allclose(solution.value, 2 / 24 * depth * 24 ** (1 / depth) * nuclear ** (2 - 2 / depth), rtol=1e-10)
    np.testing.assert_allclose(solution.value, 2 / 24 * bf.curvature.isotropic_trace(solution.layers), rtol=1e-10)


@pytest.mark.few(1)
@pytest.mark.parametrize("depth", [3, pytest.param(4, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (2, 1)])
def test_one_measurement_is_solved_with_proof(shape, depth, rng):
    A, b = gaussian(1, shape, rng), np.array([-1.7])
    solution = flattest(A, b, depth, rng=0)
    s = np.linalg.svd(matrices_of(A)[0], compute_uv=False)
    p = 2 / (depth - 2)
    expected = 2 * depth * np.abs(b[0]) ** (2 - 2 / depth) / np.sum(s**-p) ** (1 - 2 / depth)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-10)
    np.testing.assert_allclose(solution.certificate.lower_bound, expected, rtol=1e-8)
    assert solution.status is Status.OPTIMAL


def equal_maps(rng):
    yield bernoulli_mask((5, 5), 0.6, rng), 3
    yield bilinear(9, (4, 5), rng), 3
    yield Minimal(rng.standard_normal((7, 3, 4))), 4


@pytest.mark.slow
@pytest.mark.parametrize("which", range(3))
def test_the_structure_of_the_map_does_not_matter(which, rng):
    A, depth = list(equal_maps(rng))[which]
    dense = Dense(matrices_of(A))
    b = A(low_rank(rng, A.matrix_shape, 2))
    one, two = flattest(A, b, depth, rng=0), flattest(dense, b, depth, rng=0)
    assert one.status is Status.STATIONARY
    assert_certified(one, matrices_of(A), b, depth)
    np.testing.assert_allclose(one.value, two.value, rtol=1e-10)
    np.testing.assert_allclose(one.matrix, two.matrix, atol=1e-5 * np.abs(two.matrix).max())


@pytest.mark.slow
def test_the_dual_vector_is_the_derivative_with_respect_to_the_data(rng):
    A, b = gaussian(5, (3, 4), rng), rng.standard_normal(5)
    dual = flattest(A, b, 3, rng=0).certificate.dual
    for direction in np.eye(5)[:2]:
        ahead, behind = (flattest(A, b + h * direction, 3, rng=0).value for h in (1e-4, -1e-4))
        np.testing.assert_allclose((ahead - behind) / 2e-4, dual @ direction, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_scales_of_data_and_measurements(rng):
    A, b = gaussian(6, (3, 4), rng), rng.standard_normal(6)
    plain = flattest(A, b, 3, rng=0)
    for a, c in ((1e100, 1.0), (1e-120, 1e-120), (1.0, 1e150), (1.0, 1e-150)):
        scaled = bf.flat_minimum(Dense(a * np.array(matrices_of(A))), c * b, 3, rng=0)
        assert scaled.status is Status.STATIONARY
        np.testing.assert_allclose(scaled.matrix * (a / c), plain.matrix, atol=1e-10)
        np.testing.assert_allclose(scaled.value, plain.value * (a ** (1 / 3) * c ** (2 / 3)) ** 2, rtol=1e-10)
        # The bound is proved, but where its search ends depends on rounding.
        np.testing.assert_allclose(scaled.certificate.gap, plain.certificate.gap, rtol=0.02)
        np.testing.assert_allclose(scaled.history["value"][-1], scaled.value, rtol=1e-6)


@pytest.mark.slow
def test_repeated_and_dependent_measurements_weigh_in_the_trace(rng):
    base, b = rng.standard_normal((5, 3, 3)), rng.standard_normal(5)
    repeated = np.concatenate([base, 2 * base[:2], base[:1] + base[1:2]])
    data = np.concatenate([b, 2 * b[:2], b[:1] + b[1:2]])
    solution = bf.flat_minimum(Dense(repeated), data, 3, rng=0)
    assert solution.status is Status.STATIONARY
    np.testing.assert_allclose(solution.value, brute_force(list(repeated), data, 3, 3, rng, 3, independent=5), rtol=1e-6)
    assert_certified(solution, list(repeated), data, 3)


def test_rows_and_columns_that_nothing_sees_are_zero(rng):
    A = Entries([0, 0, 1], [0, 1, 0], (3, 4))
    solution = flattest(A, [1.0, 2.0, 3.0], 3, rng=0)
    assert solution.status is Status.STATIONARY
    assert "1 row and 2 columns" in solution.message
    assert not solution.matrix[2].any()
    assert not solution.matrix[:, 2:].any()
    seen = bf.flat_minimum(Entries([0, 0, 1], [0, 1, 0], (2, 2)), [1.0, 2.0, 3.0], 3, rng=0)
    np.testing.assert_allclose(solution.value, seen.value, rtol=1e-10)


@pytest.mark.slow
def test_data_that_determine_the_matrix_are_solved_with_proof(rng):
    A, M = gaussian(15, (3, 4), rng), rng.standard_normal((3, 4))
    solution = bf.flat_minimum(A, A(M), 4)
    assert solution.status is Status.OPTIMAL
    assert_certified(solution, matrices_of(A), A(M), 4)
    np.testing.assert_allclose(solution.value, bf.induced_regularizer(M, A, 4).value, rtol=1e-11)
    limited = bf.flat_minimum(A, A(M), 4, max_rank=2)
    assert limited.status is Status.RANK_EXCLUDED


def test_contradictions_and_zero_data():
    A = Dense(np.ones((2, 2, 3)))
    solution = flattest(A, [1.0, 2.0], 4)
    assert solution.status is Status.INFEASIBLE
    assert solution.value == np.inf
    assert [layer.shape for layer in solution.layers] == [(1, 3), (1, 1), (1, 1), (2, 1)]
    assert np.array([1.0, 2.0]) @ solution.certificate.dual > 0
    zero = flattest(A, [0.0, 0.0], 3)
    assert zero.status is Status.OPTIMAL
    assert zero.value == 0
    assert not zero.matrix.any()


@pytest.mark.slow
def test_rank_limits(rng):
    A = gaussian(3, (4, 4), 3)
    b = np.random.default_rng(3).standard_normal(3)
    free = flattest(A, b, 3, rng=0)
    rank = free.layers[0].shape[0]
    assert rank == 2
    limited = flattest(A, b, 3, max_rank=1, rng=0)
    assert limited.status is Status.RANK_LIMITED
    assert limited.layers[0].shape[0] == 1
    assert limited.value > free.value * (1 + 1e-3)
    assert limited.certificate.stationarity > 1e-3
    np.testing.assert_allclose(limited.value, brute_force(matrices_of(A), b, 3, 1, rng, 4), rtol=1e-6)
    assert flattest(A, b, 3, max_rank=rank, rng=0).status is Status.STATIONARY
    excluded = bf.flat_minimum(gaussian(12, (4, 4), rng), rng.standard_normal(12), 3, max_rank=1, rng=0)
    assert excluded.status is Status.RANK_EXCLUDED


@pytest.mark.slow
def test_starts_of_too_low_a_rank_are_raised(rng, monkeypatch):
    from balancedfact.solvers.deep import _network_search as module

    A, b = gaussian(2, (4, 4), 2), np.random.default_rng(2).standard_normal(2)
    expected = flattest(A, b, 3, rng=0)
    start = flattest(A, b, 3, max_rank=1, rng=0)
    monkeypatch.setattr(module.NetworkSearch, "_starts", lambda self, given: iter([module.Start(self._fitted(given, 1), None)]))
    raised = flattest(A, b, 3, initial=start.layers, rng=0)
    assert raised.status is Status.STATIONARY
    assert start.layers[0].shape[0] < raised.layers[0].shape[0]
    np.testing.assert_allclose(raised.value, expected.value, rtol=1e-9)


def test_what_looks_like_a_saddle_is_tried(rng, monkeypatch):
    from balancedfact.solvers.deep import _network_search as module

    found = []
    original = module.NetworkSearch._escaped

    def escaped(self, point, direction):
        found.append(original(self, point, direction))
        return found[-1]

    A, b = gaussian(5, (4, 4), 7), np.random.default_rng(7).standard_normal(5)
    expected = flattest(A, b, 3, rng=0)
    fake = lambda self, rng: (-1.0, self.projected(rng.standard_normal(self.x.size)))  # noqa: E731
    monkeypatch.setattr(module.ZeroLossPoint, "curvature", fake)
    monkeypatch.setattr(module.NetworkSearch, "_escaped", escaped)
    solution = flattest(A, b, 3, rng=0)
    assert found == [None]  # at a minimum there is no way down, whatever the curvature is said to be
    assert solution.status is Status.GAP_OPEN
    np.testing.assert_allclose(solution.value, expected.value, rtol=1e-9)


def test_initial_layers_are_a_start(rng):
    A, b = gaussian(6, (4, 4), rng), rng.standard_normal(6)
    initial = [rng.standard_normal((3, 4)), rng.standard_normal((4, 3)), rng.standard_normal((4, 4))]
    solution = flattest(A, b, 3, initial=initial, rng=0)
    assert solution.status is Status.STATIONARY
    last = solution.history["start"] == 4
    assert solution.history["rank"][last][0] == 3
    assert last.sum() > 1
    np.testing.assert_allclose(solution.value, flattest(A, b, 3, rng=0).value, rtol=1e-9)


def test_the_same_seed_gives_the_same_answer(rng):
    A, b = gaussian(6, (4, 4), rng), rng.standard_normal(6)
    one, two = (flattest(A, b, 3, rng=5) for _ in range(2))
    for first, second in zip(one.layers, two.layers, strict=True):
        np.testing.assert_array_equal(first, second)


def test_history_and_callback(rng, capsys):
    A, b = gaussian(6, (4, 4), rng), rng.standard_normal(6)
    seen = []
    solution = flattest(A, b, 3, rng=0, callback=seen.append, progress=True)
    assert len(seen) == len(solution.history["value"])
    assert set(seen[0]) == {"iteration", "seconds", "start", "value", "stationarity", "feasibility", "rank"}
    assert solution.history["feasibility"].max() <= 1e-12
    assert "4 starts led to 1 minimum" in solution.message


@pytest.mark.few(1)
@pytest.mark.parametrize("after", [1, 8])
def test_interruption_returns_the_best_so_far(after, rng):
    A, b = gaussian(20, (6, 6), rng), rng.standard_normal(20)

    def stop(record):
        if record["iteration"] >= after:
            raise KeyboardInterrupt

    solution = flattest(A, b, 3, rng=0, callback=stop)
    assert solution.status is Status.INTERRUPTED
    assert solution.certificate.feasibility <= 1e-11
    np.testing.assert_allclose(solution.value, bf.curvature.trace(solution.layers, A), rtol=1e-12)


def test_saved_solutions_are_read_back(tmp_path, rng):
    A, b = gaussian(4, (3, 3), rng), rng.standard_normal(4)
    solution = flattest(A, b, 3, rng=0)
    solution.save(tmp_path / "flat.npz")
    loaded = bf.Solution.load(tmp_path / "flat.npz")
    assert loaded.value == solution.value
    assert loaded.certificate.curvature == solution.certificate.curvature


def test_problems_too_large_for_newton_steps_say_so(rng, monkeypatch):
    from balancedfact.curvature import _zero_loss as module

    A, b = gaussian(6, (4, 4), rng), rng.standard_normal(6)
    best = flattest(A, b, 3, rng=0)
    monkeypatch.setattr(module, "_MOST_JACOBIAN", 1)
    solution = flattest(A, b, 3, rng=0)
    assert solution.status is Status.GAP_OPEN
    assert "Too large" in solution.message
    assert solution.certificate.feasibility <= 1e-11
    assert best.value * (1 - 1e-12) <= solution.value <= best.value * 1.01
    assert np.isnan(solution.certificate.stationarity)


@pytest.mark.parametrize("b", bad((6,)))
def test_bad_data_are_refused(b, rng):
    with pytest.raises(ValueError, match=r"^b(\[\d+\])? "):
        bf.flat_minimum(gaussian(6, (3, 3), rng), b, 3)


@pytest.mark.parametrize("count", BAD_COUNT)
def test_bad_rank_limits_are_refused(count, rng):
    if count is None:
        return
    with pytest.raises(ValueError, match=r"^max_rank is "):
        bf.flat_minimum(gaussian(2, (2, 2), rng), [1.0, 2.0], 3, max_rank=count)


@pytest.mark.parametrize("seed", BAD_RNG)
def test_bad_generators_are_refused(seed, rng):
    with pytest.raises(ValueError, match=r"^rng is "):
        bf.flat_minimum(gaussian(2, (2, 2), rng), [1.0, 2.0], 3, rng=seed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": 0.1}, "penalty is 0.1; expected 0 for depth 3"),
        ({"tol": 0.0}, "tol is 0"),
        ({"initial": [np.ones((2, 2)), np.ones((2, 2))]}, "initial has 2 layers; expected 3"),
        ({"initial": [np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 2))]}, "initial multiply to shape"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, rng):
    with pytest.raises(ValueError, match=message):
        bf.flat_minimum(gaussian(2, (2, 2), rng), [1.0, 2.0], 3, **arguments)


def test_a_map_is_needed():
    with pytest.raises(ValueError, match=r"^A is list"):
        bf.flat_minimum([np.eye(2)], [1.0], 3)


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(3, 5), st.integers(1, 4), st.integers(1, 4))
def test_small_problems_of_any_shape(seed, depth, d1, d2):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, d1 * d2 + 1))
    A, b = gaussian(m, (d1, d2), rng), rng.standard_normal(m)
    solution = flattest(A, b, depth, rng=seed)
    assert solution.status.ok
    assert_certified(solution, matrices_of(A), b, depth, tol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 5])
def test_the_published_ensemble(depth):
    rng = np.random.default_rng(0)
    A = gaussian(200, (30, 30), rng)
    truth = low_rank(rng, (30, 30), 3) / 30
    solution = bf.flat_minimum(A, A(truth), depth, rng=0)
    assert solution.status is Status.STATIONARY
    assert_certified(solution, matrices_of(A), A(truth), depth)
    nuclear = bf.norm_minimum(A, A(truth)).matrix
    assert solution.value < 0.999 * bf.induced_regularizer(nuclear, A, depth).value
    assert np.linalg.norm(solution.matrix, "nuc") > 1.001 * np.linalg.norm(nuclear, "nuc")


@pytest.mark.slow
def test_rank_one_maps_keep_their_structure(rng):
    A = RankOne(rng.standard_normal((60, 9)), rng.standard_normal((60, 8)))
    truth = low_rank(rng, (9, 8), 1)
    solution = bf.flat_minimum(A, A(truth), 3, rng=0)
    assert solution.status is Status.STATIONARY
    np.testing.assert_allclose(solution.matrix, truth, atol=1e-10 * np.abs(truth).max())


@pytest.mark.slow
def test_a_proved_isometry_gives_a_better_bound(rng):
    A, b = gaussian(13, (4, 4), rng), rng.standard_normal(13)
    solution = flattest(A, b, 3, rng=0)
    assert_certified(solution, matrices_of(A), b, 3)
    assert "isometr" in solution.certificate.proof
    assert solution.certificate.lower_bound > 0.3 * solution.value
    scaled = bf.flat_minimum(Dense(1e100 * A.matrices), 1e-100 * b, 3, rng=0)
    np.testing.assert_allclose(scaled.certificate.gap, solution.certificate.gap, atol=0.1)  # where a search ends


@cache
def at_scale(scale):
    """Measurements and a matrix at scale one, and the flattest network where the measurements are larger by a factor."""
    rng = np.random.default_rng(3)
    stack, truth = rng.standard_normal((14, 4, 5)), rng.standard_normal((4, 1)) @ rng.standard_normal((1, 5))
    b = np.tensordot(stack * scale, truth, 2)
    return stack, truth, bf.flat_network(bf.measurements.Dense(stack * scale), b, 3, rng=0, bound="quick")


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale", [1e-90, *(pytest.param(each, marks=pytest.mark.slow) for each in (1e-40, 1e-16, 1e-3, 1e3, 1e40))]
)
def test_bounds_and_verdict_do_not_depend_on_the_scale_of_the_map(scale):
    """Weighted isometries were lost for maps of about 1e-16, and the rank test failed for those of 1e40."""
    stack, truth, plain = at_scale(1.0)
    *_, other = at_scale(scale)
    assert plain.status is other.status is Status.STATIONARY
    assert other.value / scale / scale == pytest.approx(plain.value, rel=1e-12)
    assert "weighted isometries" in other.certificate.proof
    assert other.certificate.lower_bound / scale / scale == pytest.approx(plain.certificate.lower_bound, rel=0.01)
    slope = other.certificate.dual * np.tensordot(stack, truth, 2) / scale  # the trace is of degree 2 - 2 / L in the data
    assert np.sum(slope) == pytest.approx(4 / 3 * plain.value, rel=1e-6)
