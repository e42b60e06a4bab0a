import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.measurements import Dense, Entries, bilinear, gaussian
from balancedfact.solvers.fibre import _chain, _fibre
from balancedfact.solvers.iteration._log import Log
from tests.bad_input import bad, not_arrays
from tests.maps import BUILT_IN, DERIVED, cases, entries
from tests.oracles import trace_terms
from tests.solvers.factorizations import least_trace, random_layers, trace_of

Status = bf.Status
pytestmark = pytest.mark.filterwarnings("error")  # nothing overflows on the way


def low_rank(shape, rank, rng):
    return rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))


def measurements(kind, m, shape, rng):
    if kind == "dense":
        A = gaussian(m, shape, rng)
        return A, np.array(A.matrices)
    if kind == "rank-one":
        A = bilinear(m, shape, rng)
        return A, np.einsum("ip,iq->ipq", A.left, A.right)
    A, matrices = entries(rng, *shape, m, "none")
    return A, np.array(matrices)


# shape, rank, hidden width, depth, kind, m
PROBLEMS = [
    ((3, 3), 3, 3, 2, "dense", 5),
    ((3, 3), 2, 2, 2, "entries", 12),
    ((4, 2), 2, 4, 2, "rank-one", 5),
    ((3, 3), 3, 3, 3, "dense", 4),
    ((3, 3), 2, 2, 3, "dense", 1),
    ((4, 3), 2, 2, 3, "rank-one", 7),
    ((3, 5), 2, 2, 3, "dense", 6),
    ((4, 2), 2, 4, 3, "dense", 3),
    ((3, 3), 3, 5, 3, "rank-one", 9),
    ((4, 4), 2, 2, 3, "entries", 40),
    ((3, 3), 3, 3, 4, "dense", 2),
    ((4, 4), 2, 2, 4, "entries", 30),
    ((2, 4), 1, 1, 4, "dense", 3),
    ((5, 3), 2, 2, 4, "rank-one", 12),
    ((3, 2), 2, 3, 4, "dense", 5),
    ((3, 3), 2, 2, 4, "dense", 1),
    ((3, 3), 2, 2, 5, "dense", 8),
    ((4, 3), 3, 3, 5, "rank-one", 20),
    ((3, 4), 1, 1, 5, "entries", 25),
    ((3, 2), 2, 4, 5, "dense", 6),
    ((2, 2), 2, 2, 6, "dense", 2),
    ((3, 5), 2, 2, 6, "rank-one", 15),
    ((4, 4), 2, 2, 6, "entries", 50),
    ((2, 2), 2, 3, 6, "dense", 4),
]


@pytest.mark.few(2)
@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_agrees_with_brute_force(number):
    shape, rank, width, depth, kind, m = PROBLEMS[number]
    rng = np.random.default_rng(number)
    A, stack = measurements(kind, m, shape, rng)
    M = low_rank(shape, rank, rng)
    solution = bf.induced_regularizer(M, A, depth)
    least, layers = least_trace(M, stack, depth, width, rng)
    np.testing.assert_allclose(solution.matrix, M, atol=1e-12 * np.linalg.norm(M))
    assert np.sum(trace_terms(layers, stack)) == pytest.approx(least, rel=1e-10)  # the oracle minimises the trace itself
    assert solution.status is Status.OPTIMAL
    assert solution.value == pytest.approx(least, rel=1e-6)
    assert solution.value <= least * (1 + 1e-10)
    assert solution.value == pytest.approx(trace_of(solution.layers, stack), rel=1e-11)
    assert solution.certificate.lower_bound <= solution.value
    assert solution.certificate.gap <= 1e-12


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_two_layers_give_a_weighted_nuclear_norm(rank, rng):
    A = gaussian(9, (4, 6), rng)
    M = low_rank((4, 6), rank, rng)
    left = scipy.linalg.sqrtm(sum(a @ a.T for a in A.matrices) / 9)
    right = scipy.linalg.sqrtm(sum(a.T @ a for a in A.matrices) / 9)
    solution = bf.induced_regularizer(M, A, 2)
    assert solution.value == pytest.approx(4 * np.linalg.norm(left @ M @ right, "nuc"), rel=1e-12)
    assert solution.history["gap"].size == 1  # no iteration


@pytest.mark.parametrize("depth", [2, 3, 4, 7, 12])
@pytest.mark.parametrize("rank", [2, 4])
def test_single_measurement_attains_the_hoelder_bound(depth, rank, rng):
    A1, M = (np.eye(4, 5) + 0.3 * rng.standard_normal((4, 5)) for _ in range(2))  # the oracle takes powers
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    M = (U[:, :rank] * s[:rank]) @ Vt[:rank]
    values = np.linalg.svd(np.linalg.matrix_power(A1.T @ M, depth - 1) @ A1.T, compute_uv=False)[:rank]
    expected = 2 * depth * np.sum(values ** (2 / depth))
    solution = bf.induced_regularizer(M, Dense(A1[None]), depth)
    assert solution.value == pytest.approx(expected, rel=1e-8)
    assert solution.certificate.lower_bound <= expected * (1 + 1e-8)


@pytest.mark.parametrize("depth", [2, 3, 5, 10])
@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 6)])
def test_orthonormal_measurements_give_the_isotropic_value(depth, shape, rng):
    basis = np.linalg.qr(rng.standard_normal((shape[0] * shape[1],) * 2))[0].reshape(-1, *shape)
    M = low_rank(shape, 2, rng)
    solution = bf.induced_regularizer(M, Dense(basis), depth)
    expected = 2 / len(basis) * depth * np.prod(shape) ** (1 / depth) * np.linalg.norm(M, "nuc") ** (2 - 2 / depth)
    assert solution.value == pytest.approx(expected, rel=1e-12)
    assert 2 / len(basis) * bf.curvature.isotropic_trace(solution.layers) == pytest.approx(expected, rel=1e-12)


def test_widths_do_not_matter_but_shape_the_layers(rng):
    A = gaussian(7, (4, 5), rng)
    M = low_rank((4, 5), 2, rng)
    tight, wide = bf.induced_regularizer(M, A, 4), bf.induced_regularizer(M, A, 4, widths=[5, 3, 9, 2, 4])
    assert [W.shape for W in tight.layers] == [(2, 5), (2, 2), (2, 2), (4, 2)]
    assert [W.shape for W in wide.layers] == [(3, 5), (9, 3), (2, 9), (4, 2)]
    assert tight.value == wide.value
    np.testing.assert_allclose(wide.matrix, tight.matrix, atol=1e-13)
    assert bf.curvature.trace(wide.layers, A) == pytest.approx(wide.value, rel=1e-12)


@given(case=cases(*BUILT_IN.values(), *DERIVED.values(), largest=4), depth=st.integers(2, 6), data=st.data())
def test_certificate_is_right_for_any_map(case, depth, data):
    A, matrices, rng = case
    rank = data.draw(st.integers(0, min(A.matrix_shape)), label="rank")
    M = low_rank(A.matrix_shape, rank, rng) if rank else np.zeros(A.matrix_shape)
    solution = bf.induced_regularizer(M, A, depth)
    certificate = solution.certificate
    assert solution.status in (Status.OPTIMAL, Status.UNATTAINED)
    assert certificate.feasibility <= 1e-9
    assert 0 <= certificate.lower_bound <= solution.value < np.inf
    assert (certificate.direction.size > 0) == (solution.status is Status.UNATTAINED)
    if solution.status is Status.OPTIMAL:
        assert certificate.gap <= 1e-12
        assert np.sum(trace_terms(solution.layers, matrices)) == pytest.approx(solution.value, rel=1e-9, abs=1e-300)
    if rank:
        others = [random_layers(M, depth, rank + k, rng, spread) for k, spread in [(0, 0.01), (0, 1.0), (2, 0.3)]]
        assert certificate.lower_bound <= min(np.sum(trace_terms(layers, matrices)) for layers in others) * (1 + 1e-9)


@given(case=cases(*BUILT_IN.values(), largest=4, edges=("none",)), depth=st.integers(2, 5))
def test_transposing_everything_changes_nothing(case, depth):
    A, matrices, rng = case
    M = low_rank(A.matrix_shape, 2, rng)
    one = bf.induced_regularizer(M, A, depth)
    other = bf.induced_regularizer(M.T, Dense(np.array([a.T for a in matrices])), depth)
    if one.status is other.status is Status.OPTIMAL:
        assert other.value == pytest.approx(one.value, rel=1e-10)


@pytest.mark.parametrize(("size", "weight"), [(1e-150, 1.0), (1e150, 1.0), (1e-120, 1e100), (1e100, 1e-140)])
@pytest.mark.parametrize("depth", [2, 3, 9])
def test_scales(size, weight, depth, rng):
    matrices = rng.standard_normal((6, 3, 4))
    M = low_rank((3, 4), 2, rng)
    plain = bf.induced_regularizer(M, Dense(matrices), depth)
    scaled = bf.induced_regularizer(size * M, Dense(weight * matrices), depth)
    factor = (weight * size ** (1 - 1 / depth)) ** 2
    assert scaled.value == pytest.approx(factor * plain.value, rel=1e-10)
    np.testing.assert_allclose(scaled.matrix / size, M, atol=1e-11)
    value, gradient = bf.induced_regularizer_gradient(M, Dense(matrices), depth)
    scaled_value, scaled_gradient = bf.induced_regularizer_gradient(size * M, Dense(weight * matrices), depth)
    assert scaled_value == scaled.value
    unit = factor / size
    np.testing.assert_allclose(scaled_gradient / unit, gradient, atol=1e-9 * np.abs(gradient).max())


def test_is_deterministic_and_leaves_its_input_alone(rng):
    A, M = gaussian(6, (4, 4), rng), rng.standard_normal((4, 4))
    kept = M.copy()
    one, two = bf.induced_regularizer(M, A, 5), bf.induced_regularizer(M, A, 5)
    np.testing.assert_array_equal(M, kept)
    assert one.value == two.value
    for a, b in zip(one.layers, two.layers, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_zero_matrix_and_what_is_never_seen(depth):
    A = Entries([0, 0, 1], [0, 1, 1], (3, 3))
    for M in (np.zeros((3, 3)), np.diag([0.0, 0.0, 2.0])):
        solution = bf.induced_regularizer(M, A, depth)
        assert (solution.value, solution.certificate.lower_bound, solution.certificate.gap) == (0.0, 0.0, 0.0)
        assert solution.status is Status.OPTIMAL
        np.testing.assert_allclose(solution.matrix, M, atol=1e-15)
        np.testing.assert_array_equal(bf.induced_regularizer_gradient(M, A, depth)[1], np.zeros((3, 3)))
    solution = bf.induced_regularizer(np.eye(3), Dense(np.zeros((2, 3, 3))), depth)
    assert solution.value == 0.0
    assert solution.status is Status.OPTIMAL


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_what_is_unseen_from_both_sides_is_free(depth, rng):
    matrices = np.zeros((9, 4, 4))
    matrices[:, :3, :2] = rng.standard_normal((9, 3, 2))
    M = np.zeros((4, 4))
    M[:3, :2], M[3, 3] = rng.standard_normal((3, 2)), 5.0
    solution = bf.induced_regularizer(M, Dense(matrices), depth)
    part = bf.induced_regularizer(M[:3, :2], Dense(matrices[:, :3, :2]), depth)
    assert solution.status is Status.OPTIMAL
    assert solution.value == pytest.approx(part.value, rel=1e-11)
    assert trace_of(solution.layers, matrices) == pytest.approx(part.value, rel=1e-10)
    np.testing.assert_allclose(solution.matrix, M, atol=1e-13)


def assert_direction_leads_to_the_infimum(solution, stack):
    """The layers moved along the direction still multiply to the matrix, and their trace falls."""
    H = solution.certificate.direction
    assert H.shape[0] == len(solution.layers) - 1
    assert np.linalg.norm(H) == pytest.approx(1)
    np.testing.assert_allclose(H, H.transpose(0, 2, 1), atol=1e-14)
    size = 1 / np.abs(H).max()
    values = []
    for t in (-9.0, -6.0, -3.0):
        out, back = [scipy.linalg.expm(t * size * h) for h in H], [scipy.linalg.expm(-t * size * h) for h in H]
        layers = [out[0] @ solution.layers[0]]
        layers += [out[j] @ solution.layers[j] @ back[j - 1] for j in range(1, len(H))]
        layers += [solution.layers[-1] @ back[-1]]
        moved = bf.Solution(layers, 0.0, solution.status, "", solution.certificate)
        np.testing.assert_allclose(moved.matrix, solution.matrix, atol=1e-8 * np.linalg.norm(solution.matrix))
        values.append(trace_of(layers, stack))
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("rank", [3, 4])
def test_what_is_seen_from_one_side_only_is_unattained(depth, rank, rng):
    matrices = np.zeros((12, 4, 4))
    matrices[:, :2, :3] = rng.standard_normal((12, 2, 3))
    M = low_rank((4, 4), rank, rng)
    solution = bf.induced_regularizer(M, Dense(matrices), depth)
    seen = np.zeros((4, 4))
    seen[:2, :3] = M[:2, :3]
    infimum = bf.induced_regularizer(seen, Dense(matrices), depth)
    assert infimum.status is Status.OPTIMAL
    assert solution.status is Status.UNATTAINED
    assert solution.value == pytest.approx(infimum.value, rel=1e-9)
    assert solution.certificate.lower_bound == pytest.approx(infimum.value, rel=1e-11)
    assert solution.certificate.feasibility <= 1e-10
    assert_direction_leads_to_the_infimum(solution, matrices)


@pytest.mark.few(3)
@pytest.mark.parametrize("depth", [3, 5, 20])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("fast_form_is_coarse", [False, True])  # then the problem is solved again with more care
def test_partly_nilpotent_measurement_is_unattained_but_bounded(depth, turned, fast_form_is_coarse, monkeypatch, rng):
    if fast_form_is_coarse:
        monkeypatch.setattr(_fibre, "compress", lambda map, depth: _chain.one_operator(map))
    B, M = np.zeros((4, 4)), np.diag([1.0, 1.0, 0.0, 0.0])
    B[0, 2], B[3, 0], B[1, 1] = 1.0, 1.5, 2.0
    if turned:
        X, Y = (np.eye(4) + 0.4 * rng.standard_normal((4, 4)) for _ in range(2))
        B, M = np.linalg.inv(X).T @ B @ np.linalg.inv(Y).T, X @ M @ Y
    values = np.linalg.svd(np.linalg.matrix_power(B.T @ M, depth - 1) @ B.T, compute_uv=False)
    hoelder = 2 * depth * values[0] ** (2 / depth)  # the other singular values vanish
    solution = bf.induced_regularizer(M, Dense(B[None]), depth)
    assert solution.status is Status.UNATTAINED
    assert solution.value == pytest.approx(hoelder, rel=1e-4)
    assert solution.certificate.lower_bound == pytest.approx(hoelder, rel=1e-8)
    assert solution.value == pytest.approx(trace_of(solution.layers, B[None]), rel=1e-8)
    assert solution.value == pytest.approx(bf.curvature.trace(solution.layers, Dense(B[None])), rel=1e-3)
    assert bf.induced_regularizer_gradient(M, Dense(B[None]), depth)[0] == pytest.approx(hoelder, rel=1e-8)
    assert_direction_leads_to_the_infimum(solution, B[None])


@pytest.mark.parametrize("depth", [2, 3, 5, 12])
@pytest.mark.parametrize("turned", [False, True])
def test_nilpotent_measurement_has_infimum_zero(depth, turned, rng):
    frame = np.eye(3) + 0.4 * turned * rng.standard_normal((3, 3))
    B = (frame @ np.diag(np.ones(2), 1) @ np.linalg.inv(frame)).T
    solution = bf.induced_regularizer(np.eye(3), Dense(B[None]), depth)
    if depth == 2:
        assert solution.status is Status.UNATTAINED  # the kernel is seen from one side only
        return
    start = trace_of(random_layers(np.eye(3), depth, 3, rng, 0.0), B[None])
    assert solution.status is Status.UNATTAINED
    assert 0 <= solution.value < 0.05 * start
    assert solution.certificate.lower_bound == 0.0
    assert solution.certificate.feasibility <= 1e-10
    assert solution.certificate.direction.shape == (depth - 1, 3, 3)


@pytest.mark.parametrize("seed", range(12))
def test_nilpotent_in_an_ill_conditioned_frame(seed):
    frame = np.random.default_rng(seed).standard_normal((3, 3))
    B = (frame @ np.diag(np.ones(2), 1) @ np.linalg.inv(frame)).T
    solution = bf.induced_regularizer(np.eye(3), Dense(B[None]), 4)
    assert solution.status is Status.UNATTAINED
    assert solution.certificate.feasibility <= 1e-9
    assert 0 <= solution.value < trace_of(random_layers(np.eye(3), 4, 3, np.random.default_rng(0), 0.0), B[None])


@pytest.mark.parametrize("weight", [1e-4, 1e-9])
def test_entries_of_small_weight_are_seen(weight):
    A = Entries([0, 1], [0, 1], (2, 2), [1.0, weight])
    solution = bf.induced_regularizer(np.array([[0.0, 1.0], [1.0, 0.0]]), A, 2)
    assert solution.status is Status.OPTIMAL
    assert solution.value == pytest.approx(4 * weight, rel=1e-12)


@pytest.mark.parametrize("careful", [False, True])
def test_several_nilpotent_measurements_of_large_rank(careful, monkeypatch, rng):
    monkeypatch.setattr(_chain, "_AFFORDABLE", np.inf if careful else 0)
    rank, d = 14, 20
    K = np.triu(rng.standard_normal((2, rank, rank)), 1)
    stack = np.zeros((2, d, d))
    stack[:, :rank, :rank] = K.transpose(0, 2, 1)
    stack[:, rank:, :rank], stack[:, :rank, rank:] = rng.standard_normal((2, 6, rank)), rng.standard_normal((2, rank, 6))
    M = np.diag(np.append(np.ones(rank), np.zeros(d - rank)))
    solution = bf.induced_regularizer(M, Dense(stack), 20)
    assert isinstance(_chain.compress(Dense(stack), 20), _chain.ManyMatrices)
    assert solution.status is Status.UNATTAINED
    assert np.isfinite(solution.value)
    assert solution.certificate.feasibility <= 1e-9
    assert solution.value < trace_of(random_layers(M, 20, rank, rng, 0.0), stack)


@pytest.mark.parametrize(
    ("shape", "rank", "kind", "m", "depth"),
    [((4, 4), 4, "dense", 9, 3), ((3, 5), 2, "dense", 8, 4), ((5, 3), 3, "rank-one", 30, 2), ((4, 4), 2, "entries", 30, 5)],
)
def test_gradient_is_the_derivative(shape, rank, kind, m, depth, rng):
    A, _ = measurements(kind, m, shape, rng)
    H, K, dH, dK = (rng.standard_normal((d, rank)) for d in (*shape, *shape))

    def value(t):
        return bf.induced_regularizer((H + t * dH) @ (K + t * dK).T, A, depth).value

    found, gradient = bf.induced_regularizer_gradient(H @ K.T, A, depth)
    h = 1e-3
    slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert found == value(0)
    assert np.vdot(gradient, dH @ K.T + H @ dK.T) == pytest.approx(slope, rel=1e-6)
    assert np.vdot(gradient, H @ K.T) == pytest.approx((2 - 2 / depth) * found, rel=1e-11)
    beyond = (np.eye(shape[0]) - H @ np.linalg.pinv(H)) @ gradient @ (np.eye(shape[1]) - K @ np.linalg.pinv(K))
    assert np.abs(beyond).max() <= 1e-10 * np.abs(gradient).max()  # it lies in the tangent space


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_gradient_where_something_is_unseen(rank, rng):
    A = Entries([0, 0, 1, 1, 2], [0, 1, 0, 1, 1], (4, 4))
    H, K, dH, dK = rng.standard_normal((4, 4, rank))
    found, gradient = bf.induced_regularizer_gradient(H @ K.T, A, 3)
    h = 1e-3
    moved = [bf.induced_regularizer_gradient((H + t * dH) @ (K + t * dK).T, A, 3)[0] for t in (-2 * h, -h, h, 2 * h)]
    slope = (8 * (moved[2] - moved[1]) - (moved[3] - moved[0])) / (12 * h)
    assert np.vdot(gradient, dH @ K.T + H @ dK.T) == pytest.approx(slope, rel=1e-6)


def test_callback_sees_the_history_and_may_interrupt():
    rng = np.random.default_rng(0)
    A, M = gaussian(3, (5, 5), rng), rng.standard_normal((5, 5))
    records = []
    solution = bf.induced_regularizer(M, A, 6, callback=records.append)
    assert [record["gap"] for record in records] == list(solution.history["gap"])
    assert set(solution.history) == {"iteration", "seconds", "value", "lower_bound", "gap", "stationarity", "inner"}
    assert np.all(np.diff(solution.history["value"]) <= 1e-12 * solution.value)
    assert np.all(solution.history["lower_bound"] <= solution.value * (1 + 1e-12))
    assert solution.history["value"][-1] == solution.value

    def stop(record):
        if record["iteration"] == 2:
            raise KeyboardInterrupt

    stopped = bf.induced_regularizer(M, A, 6, callback=stop)
    assert stopped.status is Status.INTERRUPTED
    assert stopped.value == pytest.approx(records[2]["value"]) or stopped.value == pytest.approx(records[1]["value"])
    np.testing.assert_allclose(stopped.matrix, M, atol=1e-12)
    assert bf.curvature.trace(stopped.layers, A) == pytest.approx(stopped.value, rel=1e-10)
    at_once = bf.induced_regularizer(M, A, 6, callback=lambda record: stop({"iteration": 2}))
    assert at_once.status is Status.INTERRUPTED
    assert at_once.value > solution.value


def test_tolerance_ends_the_iteration(rng):
    A, M = gaussian(3, (5, 5), rng), rng.standard_normal((5, 5))
    loose = bf.induced_regularizer(M, A, 6, tol=1e-2)
    assert 1e-12 < loose.certificate.gap <= 1e-2
    assert loose.status is Status.OPTIMAL


def test_solution_survives_a_file(tmp_path, rng):
    solution = bf.induced_regularizer(np.diag([1.0, 2.0, 0.0]), Entries([0, 1], [0, 1], (3, 3)), 4)
    solution.save(tmp_path / "s.npz")
    loaded = bf.Solution.load(tmp_path / "s.npz")
    assert loaded.value == solution.value
    np.testing.assert_array_equal(loaded.matrix, solution.matrix)


MAP = Dense(np.ones((1, 3, 2)))


@pytest.mark.parametrize("function", [bf.induced_regularizer, bf.induced_regularizer_gradient])
class TestBadInput:
    @pytest.mark.parametrize("M", [*bad((3, 2)), *not_arrays(2)])
    def test_matrix(self, function, M):
        with pytest.raises(ValueError, match=r"\bM\b"):
            function(M, MAP, 3)

    @pytest.mark.parametrize("depth", [1, 0, 2.0, True, None])
    def test_depth(self, function, depth):
        with pytest.raises(ValueError, match="depth"):
            function(np.ones((3, 2)), MAP, depth)

    @pytest.mark.parametrize("tol", [0.0, -1.0, np.nan, "small"])
    def test_tolerance(self, function, tol):
        with pytest.raises(ValueError, match="tol"):
            function(np.ones((3, 2)), MAP, 3, tol=tol)

    def test_map(self, function):
        with pytest.raises(ValueError, match="measurement map"):
            function(np.ones((3, 2)), np.ones((1, 3, 2)), 3)


@pytest.mark.parametrize("widths", [[2, 2, 3], [2, 1, 1, 3], [3, 2, 2, 2], [2, 2.0, 2, 3], 5])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="widths"):
        bf.induced_regularizer(np.array([[1.0, 0], [0, 1], [0, 0]]), MAP, 3, widths=widths)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_value_where_a_skew_direction_is_not_seen(depth, seed):
    """Layers far out have large parts that no measurement sees: they must not cost, nor lower, anything."""
    rng = np.random.default_rng(seed)
    M, v = rng.standard_normal((2, 3)), rng.standard_normal(2)
    seen = np.eye(2) - np.outer(v, v) / (v @ v)
    A = bf.measurements.Dense(seen @ rng.standard_normal((9, 2, 3)))
    whole, part = bf.induced_regularizer(M, A, depth), bf.induced_regularizer(seen @ M, A, depth)
    assert whole.status is bf.Status.UNATTAINED
    assert whole.value == pytest.approx(part.value, rel=1e-6)
    assert whole.certificate.lower_bound == pytest.approx(part.value, rel=1e-6)


def test_a_search_that_never_left_its_start_has_no_direction():
    A = bf.measurements.gaussian(3, (2, 2), rng=0)
    fibre = _fibre.Fibre(np.eye(2), A, 3)
    found = fibre.minimum(1e-8, Log(None, False))._replace(direction=np.zeros((2, 2, 2)))
    assert fibre.direction(found).size == 0
