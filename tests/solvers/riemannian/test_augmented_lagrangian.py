import numpy as np
import pytest

import balancedfact as bf
from balancedfact.solution import Status
from balancedfact.solvers.nuclear._frame import Frame
from balancedfact.solvers.nuclear._rank_rounds import settled
from balancedfact.solvers.riemannian._augmented_lagrangian import augmented_lagrangian

SHAPE = (9, 8)
MAPS = {
    "dense": bf.measurements.gaussian(50, SHAPE, rng=1),
    "rank one": bf.measurements.bilinear(50, SHAPE, rng=1),
    "entries": bf.measurements.bernoulli_mask(SHAPE, 0.75, rng=1),
}


def data_of(A, rank=1, seed=0):
    rng = np.random.default_rng(seed)
    d1, d2 = A.matrix_shape
    return A(rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2)))


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("rank", [1, 3])
def test_the_certified_value_is_reached(kind, rank):
    A = MAPS[kind]
    b = data_of(A, rank)
    expected = bf.flat_minimum(A, b)
    found = bf.flat_minimum(A, b, method="riemannian", rng=0, progress=False, tol=1e-6)
    assert expected.status is Status.OPTIMAL
    assert found.status is Status.OPTIMAL
    assert found.method == "riemannian"
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    assert found.certificate.feasibility <= 1e-9
    assert found.certificate.lower_bound <= expected.value * (1 + 1e-9)
    L, R = found.pair
    low = L.T @ A.D1 @ A.D1 @ L
    np.testing.assert_allclose(low, R.T @ A.D2 @ A.D2 @ R, atol=1e-10 * np.abs(low).max())


@pytest.mark.parametrize("kind", ["dense", "rank one"])
def test_a_penalty(kind):
    A = MAPS[kind]
    b = data_of(A) + 0.1 * np.random.default_rng(3).standard_normal(A.m)
    expected = bf.flat_minimum(A, b, penalty=2.0)
    found = bf.flat_minimum(A, b, penalty=2.0, method="riemannian", rng=0, progress=False, tol=1e-6)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(expected.value, rel=1e-6)


def test_a_pair_that_is_too_narrow_is_widened():
    """From one column, which cannot fit: saddles of the wider pair lead on."""
    A = bf.measurements.gaussian(12, (5, 4), rng=2)
    b = data_of(A, 2)
    rng = np.random.default_rng(0)
    start = rng.standard_normal((5, 1)), rng.standard_normal((4, 1))
    found = bf.flat_minimum(A, b, method="riemannian", initial=start, rng=0, progress=False, tol=1e-6)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(bf.flat_minimum(A, b).value, rel=1e-6)
    assert found.pair[0].shape[1] > 1


def test_a_rank_limit_is_kept():
    A = MAPS["dense"]
    problem = Frame(A, data_of(A, 3), 0.0, flat=True).problem
    points = list(augmented_lagrangian(problem, np.random.default_rng(0), max_rank=2))
    assert points
    assert all(point.s.size <= 2 for point in points)


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("penalty", [0.0, 0.05, pytest.param(0.3, marks=pytest.mark.slow)])
def test_every_start_arrives(kind, penalty):
    A = MAPS[kind]
    b = data_of(A) + (0.1 * np.random.default_rng(3).standard_normal(A.m) if penalty else 0)
    expected = bf.flat_minimum(A, b, penalty=penalty)
    for seed in range(2):
        found = bf.flat_minimum(A, b, penalty=penalty, method="riemannian", rng=seed)
        assert found.status is Status.OPTIMAL
        assert found.value == pytest.approx(expected.value, rel=2e-8)


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", [43, 160])
def test_few_entries_where_the_minimiser_is_nearly_not_unique(seed):
    """Columns of small singular values come and go there, and the Hessian is nearly singular."""
    rng = np.random.default_rng(77 + seed)
    shape = tuple(rng.integers(12, 24, 2))
    places = rng.choice(shape[0] * shape[1], 3 * sum(shape) // 2, replace=False)
    A = bf.measurements.Entries(*np.unravel_index(places, shape), shape)
    b = data_of(A, 1, seed) + 0.3 * rng.standard_normal(A.m)
    found = bf.flat_minimum(A, b, penalty=0.03, method="riemannian", rng=0, tol=1e-6)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(bf.flat_minimum(A, b, penalty=0.03).value, rel=1e-6)


@pytest.mark.slow
def test_columns_that_only_come_and_go_end_a_search(monkeypatch):
    """Five singular values of the dual matrix are close to the largest: rounding opens columns, and the data close them."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40))
    A = bf.measurements.Entries(*np.unravel_index(rng.choice(2400, 980, replace=False), truth.shape), truth.shape)
    searches = []

    def counted(*args, **options):
        searches.append(1)
        return settled(*args, **options)

    monkeypatch.setattr("balancedfact.solvers.nuclear._rank_rounds.settled", counted)
    found = bf.flat_minimum(A, A(truth), method="riemannian", rng=2)
    assert found.status is Status.OPTIMAL
    assert len(searches) <= 60


def test_seed_callback_and_interrupt():
    A = MAPS["dense"]
    b, seen = data_of(A), []
    one, two = (bf.flat_minimum(A, b, method="riemannian", rng=4, callback=seen.append, tol=1e-3) for _ in range(2))
    np.testing.assert_array_equal(one.layers[0], two.layers[0])
    assert len(seen) == 2 * len(one.history["gap"])

    def callback(record):
        if record["iteration"] == 1:
            raise KeyboardInterrupt

    solution = bf.flat_minimum(A, b, method="riemannian", rng=4, callback=callback)
    assert solution.status is Status.INTERRUPTED


def test_methods_that_do_not_exist():
    with pytest.raises(ValueError, match="method is 'simplex'; expected None, one of"):
        bf.flat_minimum(MAPS["dense"], data_of(MAPS["dense"]), method="simplex")


@pytest.mark.slow
def test_a_sharded_map():
    """The search, and the core that ends it, from shards on a worker."""
    distributed = pytest.importorskip("distributed")
    A = MAPS["dense"]
    b = data_of(A) + 0.1 * np.random.default_rng(3).standard_normal(A.m)
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        found = bf.flat_minimum(bf.measurements.Sharded.from_map(A, client, 2), b, penalty=0.3, method="riemannian", rng=0)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(bf.flat_minimum(A, b, penalty=0.3).value, rel=2e-8)
