import autograd.numpy as anp
import numpy as np
import pymanopt
import pytest
from pymanopt.manifolds import Euclidean, Product, Sphere, Stiefel
from pymanopt.optimizers import ConjugateGradient, SteepestDescent, TrustRegions

import balancedfact as bf
from balancedfact.manifolds import BalancedPairs, RescaledBalancedPairs
from balancedfact.solution import Status
from balancedfact.solvers.riemannian._search import _gradient_differences
from tests.bad_input import BAD_COUNT, BAD_RNG


def matrix(d1=8, d2=6, seed=0):
    return np.random.default_rng(seed).standard_normal((d1, d2))


def least(M, k):
    return np.sum(np.linalg.svd(M, compute_uv=False)[k:] ** 2)


def distance(M, manifold, scale=1.0):
    @pymanopt.function.autograd(manifold)
    def cost(L, R):
        return scale * anp.sum((L @ R.T - M) ** 2)

    return pymanopt.Problem(manifold, cost)


def without_hessian(M, manifold):
    @pymanopt.function.numpy(manifold)
    def cost(L, R):
        return np.sum((L @ R.T - M) ** 2)

    @pymanopt.function.numpy(manifold)
    def gradient(L, R):
        E = L @ R.T - M
        return 2 * E @ R, 2 * E.T @ L

    return pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)


def singular_pair(M, places):
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    return [U[:, places] * np.sqrt(s[places]), Vt[places].T * np.sqrt(s[places])]


def dense_hessian(problem, point):
    """Eigenvalues of the Riemannian Hessian in an orthonormal basis of the tangent space, by brute force."""
    manifold = problem.manifold
    shapes = [part.shape for part in point]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def pair(x):
        return [part.reshape(shape) for part, shape in zip(np.split(x, np.cumsum(sizes)[:-1]), shapes, strict=True)]

    def flat(v):
        return np.concatenate([np.ravel(part) for part in v])

    P = np.array([flat(manifold.projection(point, pair(unit))) for unit in np.eye(sum(sizes))])
    U, s, _ = np.linalg.svd(P)
    basis = U[:, s > 0.5]
    H = np.array([flat(problem.riemannian_hessian(point, manifold.projection(point, pair(b)))) for b in basis.T]) @ basis
    np.testing.assert_allclose(H, H.T, atol=1e-9 * np.abs(H).max())
    return np.linalg.eigvalsh(H)


@pytest.mark.parametrize("seed", range(5))
def test_random_starts_arrive(seed):
    M = matrix()
    manifold = BalancedPairs(8, 6, 2)
    solution = bf.riemannian_minimum(distance(M, manifold), rng=seed, progress=False)
    assert solution.status is Status.STATIONARY
    assert solution.value == pytest.approx(least(M, 2), rel=1e-12)
    L, R = solution.pair
    assert np.sum((L @ R.T - M) ** 2) == pytest.approx(solution.value, rel=1e-13)
    assert solution.certificate.balance < 1e-14
    assert np.isnan(solution.certificate.lower_bound)


def test_the_certificate_has_the_extreme_eigenvalues_and_the_gradient():
    M = matrix()
    problem = distance(M, BalancedPairs(8, 6, 2))
    point = singular_pair(M, np.array([0, 3]))  # a saddle; few points are allowed, so that it is where the search ends
    solution = bf.riemannian_minimum(problem, initial=point, max_iterations=1, rng=0, progress=False)
    values = dense_hessian(problem, point)
    assert solution.status is Status.LIMIT
    assert "saddle" in solution.message
    assert "limit on iterations" in solution.message
    assert solution.certificate.curvature == pytest.approx(values[0] / np.abs(values).max(), rel=1e-3)
    moved = [part + 0.1 for part in point]
    moved = problem.manifold.nearest(*moved)
    solution = bf.riemannian_minimum(problem, initial=moved, max_iterations=1, rng=0, progress=False)
    norm = np.sqrt(sum(np.sum(np.square(part)) for part in problem.riemannian_gradient(moved)))
    size = np.sqrt(sum(np.sum(np.square(part)) for part in moved))
    largest = np.abs(dense_hessian(problem, moved)).max()
    assert solution.certificate.stationarity == pytest.approx(norm / (largest * size), rel=1e-3)
    assert solution.status is Status.LIMIT


@pytest.mark.parametrize("start", ["second vectors", "lowest vectors", "one missing", "zero"])
def test_saddles_are_left(start):
    M, k = matrix(9, 7, seed=3), 3
    places = {"second vectors": [1, 2, 3], "lowest vectors": [4, 5, 6], "one missing": [0, 1], "zero": []}[start]
    point = [np.pad(part, ((0, 0), (0, k - len(places)))) for part in singular_pair(M, np.array(places, dtype=int))]
    problem = distance(M, BalancedPairs(9, 7, k))
    gradient = problem.riemannian_gradient(point)
    assert max(np.abs(part).max() for part in gradient) < 1e-12  # a gradient sees nothing
    solution = bf.riemannian_minimum(problem, initial=point, rng=0, progress=False)
    assert solution.status is Status.STATIONARY
    assert solution.value == pytest.approx(least(M, k), rel=1e-10)
    assert solution.history["escapes"][-1] >= 1


def test_the_wrong_sheet_of_square_pairs_is_left():
    """Square pairs of full rank fall into two sheets by the sign of the determinant; one of them has no minimum of its own."""
    M = np.diag([3.0, 2.0, 1.0])
    manifold = BalancedPairs(3, 3, 3)
    wrong = [np.eye(3), np.diag([1.0, 1.0, -1.0])]
    solution = bf.riemannian_minimum(distance(M, manifold), initial=wrong, rng=0, progress=False)
    assert solution.status.ok
    assert solution.value < 1e-12
    for seed in range(6):
        assert bf.riemannian_minimum(distance(np.eye(1), BalancedPairs(1, 1, 1)), rng=seed, progress=False).value < 1e-12


def test_success_at_a_saddle_is_never_reported_on_the_stiefel_product():
    """Where `C` has lost a row the gradient of the parametrisation used today vanishes; pymanopt calls that converged."""
    M, k = matrix(10, 8, seed=1), 2
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    manifold = Product([Stiefel(10, k), Euclidean(k, k), Stiefel(8, k)])

    @pymanopt.function.autograd(manifold)
    def cost(B, C, D):
        return anp.sum((B @ C @ C.T @ D.T - M) ** 2)

    problem = pymanopt.Problem(manifold, cost)
    saddle = [U[:, [0, 4]], np.diag([np.sqrt(s[0]), 1e-9]), Vt[[0, 4]].T]
    theirs = TrustRegions(verbosity=0).run(problem, initial_point=saddle)
    assert "min grad norm" in theirs.stopping_criterion
    assert theirs.cost > 1.05 * least(M, k)
    ours = bf.riemannian_minimum(problem, initial=saddle, rng=0, progress=False)
    assert ours.status is Status.STATIONARY
    assert ours.value == pytest.approx(least(M, k), rel=1e-9)
    B, C, D = ours.layers
    assert np.sum((B @ C @ C.T @ D.T - M) ** 2) == pytest.approx(ours.value, rel=1e-12)


@pytest.mark.parametrize("optimizer", [ConjugateGradient, SteepestDescent, TrustRegions])
def test_other_optimizers(optimizer):
    M = matrix(5, 4)
    problem = distance(M, BalancedPairs(5, 4, 1))
    arguments = {"verbosity": 0, "min_gradient_norm": 1e-9, "min_step_size": 0.0, "max_iterations": 300}
    solution = bf.riemannian_minimum(problem, optimizer=optimizer(**arguments), rng=0, tol=1e-6, progress=False)
    assert solution.value == pytest.approx(least(M, 1), rel=1e-9)
    assert solution.status is Status.STATIONARY


def test_limits_of_an_optimizer_are_kept():
    M = matrix()
    problem = distance(M, BalancedPairs(8, 6, 2))
    solution = bf.riemannian_minimum(problem, optimizer=ConjugateGradient(verbosity=0, max_iterations=2), rng=0, progress=False)
    assert solution.status is Status.GAP_OPEN
    assert "max iterations" in solution.message
    limited = bf.riemannian_minimum(problem, max_iterations=3, rng=0, progress=False)
    assert limited.status is Status.LIMIT
    assert limited.message.endswith(": the limit on iterations was reached.")
    assert len(limited.history["value"]) == 3


@pytest.mark.parametrize("start", [None, "saddle"])
def test_gradients_are_enough(start):
    M = matrix(6, 5)
    problem = without_hessian(M, BalancedPairs(6, 5, 2))
    initial = None if start is None else singular_pair(M, np.array([1, 2]))
    solution = bf.riemannian_minimum(problem, initial=initial, rng=1, tol=1e-6, progress=False)
    assert solution.status is Status.STATIONARY
    assert solution.value == pytest.approx(least(M, 2), rel=1e-9)


def test_differences_of_gradients_are_the_hessian():
    manifold = RescaledBalancedPairs(np.diag([1.0, 2.0, 3.0]), np.diag([5.0, 1.0]), 2, rng=0)
    problem = distance(matrix(3, 2), manifold)
    point = manifold.random_point()
    direction = manifold.random_tangent_vector(point)
    found = _gradient_differences(problem)(point, direction)
    expected = problem.riemannian_hessian(point, direction)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7 * max(np.abs(part).max() for part in expected))


def test_manifolds_of_pymanopt():
    S = np.diag([3.0, 2.0, -5.0, 1.0])
    manifold = Sphere(4)

    @pymanopt.function.autograd(manifold)
    def cost(x):
        return x @ S @ x

    problem = pymanopt.Problem(manifold, cost)
    solution = bf.riemannian_minimum(problem, initial=np.eye(4)[1], rng=0, progress=False)
    assert solution.status is Status.STATIONARY
    assert solution.value == pytest.approx(-5)
    (x,) = solution.layers
    assert abs(x[2]) == pytest.approx(1)


def test_rescaled_pairs():
    rng = np.random.default_rng(4)
    D1, D2 = rng.standard_normal((5, 5)) + 3 * np.eye(5), rng.standard_normal((4, 4)) + 3 * np.eye(4)
    M = matrix(5, 4)
    solution = bf.riemannian_minimum(distance(M, RescaledBalancedPairs(D1, D2, 2)), rng=0, progress=False)
    assert solution.status is Status.STATIONARY
    assert solution.value == pytest.approx(least(M, 2), rel=1e-11)
    L, R = solution.pair
    np.testing.assert_allclose(L.T @ D1.T @ D1 @ L, R.T @ D2.T @ D2 @ R, atol=1e-12 * np.abs(D1 @ L).max() ** 2)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_of_the_cost_do_not_matter(scale):
    M = matrix()
    manifold = BalancedPairs(8, 6, 2)
    start = manifold.nearest(np.ones((8, 2)) + np.eye(8, 2), np.ones((6, 2)) - np.eye(6, 2))
    one = bf.riemannian_minimum(distance(M, manifold), initial=start, rng=0, progress=False)
    other = bf.riemannian_minimum(distance(M, manifold, scale), initial=start, rng=0, progress=False)
    assert other.status is Status.STATIONARY
    assert other.value / scale == pytest.approx(one.value, rel=1e-12)


@pytest.mark.parametrize("size", [1e-8, 1e4])
def test_starts_of_any_size(size):
    M = matrix()
    start = [size * part for part in BalancedPairs(8, 6, 2, rng=0).random_point()]
    solution = bf.riemannian_minimum(distance(M, BalancedPairs(8, 6, 2)), initial=start, rng=0, progress=False)
    assert solution.status is Status.STATIONARY
    assert solution.value == pytest.approx(least(M, 2), rel=1e-10)
    assert solution.history["escapes"][-1] == 0
    assert solution.history["hessian_products"][-1] < 200  # the scale of the gradient follows the point


def test_the_same_seed_gives_the_same_answer_and_leaves_the_global_state_alone():
    problem = distance(matrix(), BalancedPairs(8, 6, 2))
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two, other = (bf.riemannian_minimum(problem, rng=seed, progress=False) for seed in (5, 5, 6))
    np.testing.assert_array_equal(np.random.get_state()[1], expected)  # noqa: NPY002
    np.testing.assert_array_equal(one.layers[0], two.layers[0])
    np.testing.assert_array_equal(one.history["value"], two.history["value"])
    assert not np.array_equal(one.layers[0], other.layers[0])


def test_history_and_callback():
    seen = []
    problem = distance(matrix(), BalancedPairs(8, 6, 2))
    solution = bf.riemannian_minimum(problem, rng=0, callback=seen.append, progress=False)
    assert [record["value"] for record in seen] == list(solution.history["value"])
    assert set(seen[0]) == {"iteration", "seconds", "value", "stationarity", "hessian_products", "escapes"}
    assert list(solution.history["iteration"]) == list(range(len(seen)))
    assert np.all(np.diff(solution.history["value"]) <= 1e-12 * solution.value)
    assert np.all(np.diff(solution.history["hessian_products"]) >= 0)


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupt_returns_the_best_point_so_far(after):
    def callback(record):
        if record["iteration"] + 1 == after:
            raise KeyboardInterrupt

    problem = distance(matrix(), BalancedPairs(8, 6, 2))
    solution = bf.riemannian_minimum(problem, rng=0, callback=callback, progress=False)
    assert solution.status is Status.INTERRUPTED
    assert len(solution.history["value"]) == after
    L, R = solution.pair
    assert np.sum((L @ R.T - matrix()) ** 2) == pytest.approx(solution.history["value"].min())


def test_other_errors_of_the_callback_are_the_users():
    def callback(record):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        bf.riemannian_minimum(distance(matrix(), BalancedPairs(8, 6, 2)), callback=callback, progress=False)


def test_problems_that_one_inner_iteration_solves():
    """The residual of the inner iteration is then exactly zero, by which pymanopt divides if it is let to."""
    manifold = Euclidean(2)

    @pymanopt.function.autograd(manifold)
    def cost(x):
        return anp.sum(x**2) / 2

    problem = pymanopt.Problem(manifold, cost)
    for optimizer in (None, TrustRegions(verbosity=0)):
        with np.errstate(all="raise"):
            solution = bf.riemannian_minimum(problem, optimizer=optimizer, initial=[1.0, 0.0], rng=0, progress=False)
        assert solution.value == 0
        assert solution.status is Status.STATIONARY


def test_costs_that_are_not_finite_end_the_search():
    manifold = Euclidean(2, 2)

    @pymanopt.function.numpy(manifold)
    def cost(x):
        return np.nan

    @pymanopt.function.numpy(manifold)
    def gradient(x):
        return np.full((2, 2), np.nan)

    solution = bf.riemannian_minimum(pymanopt.Problem(manifold, cost, euclidean_gradient=gradient), rng=0, progress=False)
    assert solution.status is Status.GAP_OPEN
    assert "not finite" in solution.message


def test_progress_is_shown_when_asked_for(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("balancedfact.solvers.iteration._log.Spinner.update", lambda self, text: shown.append(text))
    problem = distance(matrix(), BalancedPairs(8, 6, 2))
    solution = bf.riemannian_minimum(problem, rng=0, progress=True)
    assert len(shown) == len(solution.history["value"])
    assert f"value {solution.value:.6g}" in shown[-1]
    bf.riemannian_minimum(problem, rng=0, progress=False)
    bf.riemannian_minimum(problem, rng=0)  # stderr is no terminal here
    assert len(shown) == len(solution.history["value"])
    assert capsys.readouterr().out == ""


def test_bad_arguments():
    problem = distance(matrix(), BalancedPairs(8, 6, 2))
    with pytest.raises(ValueError, match="problem is str"):
        bf.riemannian_minimum("problem")
    with pytest.raises(ValueError, match="optimizer is str"):
        bf.riemannian_minimum(problem, optimizer="TrustRegions")
    with pytest.raises(ValueError, match="tol"):
        bf.riemannian_minimum(problem, tol=0.0)
    for value in BAD_COUNT:
        with pytest.raises(ValueError, match="max_iterations"):
            bf.riemannian_minimum(problem, max_iterations=value)
    for value in BAD_RNG:
        with pytest.raises(ValueError, match="rng"):
            bf.riemannian_minimum(problem, rng=value)
    ones = [np.ones((8, 2)), np.ones((6, 2))]
    for value in ["pair", ones[:1], ones[::-1], [ones[0], np.full((6, 2), np.nan)], 3.0]:
        with pytest.raises(ValueError, match="initial"):
            bf.riemannian_minimum(problem, initial=value)
