"""Maps sharded over Dask workers are the maps they were made from, also where a worker dies."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

distributed = pytest.importorskip("distributed")

import balancedfact as bf  # noqa: E402
from balancedfact.curvature import scaled_trace, trace  # noqa: E402
from balancedfact.measurements import Dense, Entries, Sharded, check_measurements  # noqa: E402
from balancedfact.measurements._shards import Shards, hold  # noqa: E402
from balancedfact.solution import Status  # noqa: E402
from balancedfact.solvers.nuclear._frame import Frame  # noqa: E402
from balancedfact.solvers.nuclear._problem import Point, balanced  # noqa: E402
from tests import bad_input, maps, oracles  # noqa: E402

BUILDERS = maps.BUILT_IN | {"minimal": maps.minimal}
# Edges are those of the maps that are sharded, which have fast tests of their own.
EDGES = [pytest.param(edge, marks=() if edge in ("none", "zero") else pytest.mark.slow) for edge in maps.EDGES]


@pytest.fixture(scope="module")
def client():
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as found:
        yield found


@contextlib.contextmanager
def cluster_of_two():
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster) as found:
        yield found


@pytest.fixture(scope="module")
def two_processes():
    with cluster_of_two() as found:
        yield found


@pytest.fixture
def mortal_processes():
    """Two processes of a test of its own, which may kill them."""
    with cluster_of_two() as found:
        yield found


@pytest.mark.few(1)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", BUILDERS)
def test_every_method_agrees_with_the_matrices(kind, edge, client, rng):
    A, matrices = BUILDERS[kind](rng, 4, 3, 7, edge)
    sharded = Sharded.from_map(A, client, shards=3 if edge == "none" else 2)
    oracles.assert_agrees(sharded, matrices, rng)


def test_the_conformance_check_passes(client):
    report = check_measurements(Sharded.from_map(maps.dense(np.random.default_rng(0), 4, 3, 7, "none")[0], client, 2), rng=0)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDERS)
def test_shapes_at_the_edge(kind, client, rng):
    for d1, d2, m, shards in [(1, 5, 2, 2), (5, 1, 4, 1), (2, 3, 1, 1)]:
        A, matrices = BUILDERS[kind](rng, d1, d2, m, "none")
        oracles.assert_agrees(Sharded.from_map(A, client, shards), matrices, rng)


@pytest.mark.slow
def test_shards_are_spread_over_the_workers(two_processes, rng):
    sharded = Sharded.from_map(maps.dense(rng, 50, 40, 60, "none")[0], two_processes, shards=4)
    sharded.row_norms  # noqa: B018 - waits for the shards
    owners = [owner for (owner,) in two_processes.who_has(sharded._shards.futures).values()]
    assert len(set(owners)) == 2


@pytest.mark.slow
def test_every_method_agrees_on_worker_processes(two_processes, rng):
    for build in maps.BUILT_IN.values():
        A, matrices = build(rng, 5, 4, 9, "none")
        sharded = Sharded.from_map(A, two_processes)
        assert repr(sharded).endswith("9 measurements of 5 x 4 matrices, in 2 shards>")
        oracles.assert_agrees(sharded, matrices, rng)


@pytest.mark.slow
def test_shards_of_different_kinds_are_one_map(client, rng):
    made = [build(rng, 4, 3, 3, "none") for build in maps.BUILT_IN.values()]
    sharded = Sharded.from_loaders([partial(pickle.loads, pickle.dumps(A)) for A, _ in made], client)
    oracles.assert_agrees(sharded, [matrix for _, matrices in made for matrix in matrices], rng)


def test_the_order_of_the_measurements_is_kept(client, rng):
    A, _ = maps.entries(rng, 6, 5, 20, "none")
    X = rng.standard_normal((6, 5))
    sharded = Sharded.from_map(A, client, shards=4)
    np.testing.assert_array_equal(sharded(X), A(X))
    np.testing.assert_array_equal(sharded.row_norms, A.row_norms)
    parts = sharded._shards.ask(_map_of)
    rows = np.concatenate([part.rows for part in parts])
    assert np.all(np.diff(rows) >= 0)
    chosen = sharded.select(np.arange(20)[sharded.best_order])
    assert chosen.best_order == slice(None)


def _map_of(held):
    return held.value


@pytest.mark.slow
def test_repeated_entries_across_shards(client, rng):
    loaders = [partial(Entries, [0, 1, 1], [1, 0, 1], (3, 2), weights) for weights in ([1.0, 2.0, 3.0], [2.0, -1.0, 0.5])]
    sharded = Sharded.from_loaders(loaders, client)
    whole = Entries([0, 1, 1] * 2, [1, 0, 1] * 2, (3, 2), [1.0, 2.0, 3.0, 2.0, -1.0, 0.5])
    y = rng.standard_normal(6)
    np.testing.assert_allclose(sharded.gram_solver(0.3)(y), whole.gram_solver(0.3)(y), rtol=1e-13)
    with pytest.raises(np.linalg.LinAlgError):
        sharded.gram_solver(0.0)
    consistent = whole(rng.standard_normal((3, 2)))
    assert bf.flat_minimum(sharded, consistent).status is Status.OPTIMAL
    contradictory = consistent + np.eye(6)[0]
    found, expected = (bf.flat_minimum(A, contradictory) for A in (sharded, whole))
    assert found.status == expected.status is Status.INFEASIBLE
    y = found.certificate.dual
    assert y @ contradictory > 0
    np.testing.assert_allclose(whole.adjoint(y), 0, atol=1e-15)


def test_rows_and_columns_that_no_shard_sees(client):
    A = Entries([4, 1, 4], [2, 2, 0], (6, 5), weights=[1.0, 2.0, 0.0])
    white = Sharded.from_map(A, client, shards=2).whitened()
    assert white.map.matrix_shape == (2, 1)
    assert white.map.of_entries
    found, expected = (bf.flat_minimum(each, [1.0, 2.0, 0.0]) for each in (Sharded.from_map(A, client, 2), A))
    assert "No measurement sees 4 rows and 4 columns" in found.message
    assert found.message.partition(" No")[2] == expected.message.partition(" No")[2]
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("kind", maps.BUILT_IN)
@pytest.mark.parametrize("c", [1e-150, 1e-60, 1e60, 1e150])
def test_extreme_weights_change_nothing_but_the_magnitude(kind, c, client, rng):
    A, _ = maps.BUILT_IN[kind](rng, 4, 3, 9, "none", scale=c)
    sharded = Sharded.from_map(A, client, shards=2)
    np.testing.assert_allclose(sharded.D1, A.D1, atol=1e-12 * np.abs(A.D1).max())
    np.testing.assert_allclose(sharded.D2, A.D2, atol=1e-12 * np.abs(A.D2).max())
    assert check_measurements(sharded, rng).ok
    oracles.assert_whitened(sharded, rng)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "c"), [(0.0, 1e-150), (0.0, 1e150), (1.0, 1e-150), (1.0, 1e150), (1e-20, 1e60)])
def test_shards_agree_on_a_scale(a, c, client, rng):
    """It is that of the largest weight of all, whichever shard holds it."""
    for order in ([a, c], [c, a]):
        weights = np.concatenate([each * rng.standard_normal(4) for each in order])
        A = Entries([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 0, 2, 1, 2], (4, 3), weights)
        sharded = Sharded.from_map(A, client, shards=2)
        np.testing.assert_allclose(sharded.D1, A.D1, atol=1e-12 * A.D1.max())
        assert check_measurements(sharded, rng).ok
        L, R = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
        np.testing.assert_allclose(scaled_trace(L, R, sharded), scaled_trace(L, R, A), rtol=1e-12)
        np.testing.assert_allclose(trace([R.T, L], sharded), trace([R.T, L], A), rtol=1e-12)


@pytest.mark.parametrize("kind", BUILDERS)
def test_curvature_of_a_sharded_map(kind, client, rng):
    A, _ = BUILDERS[kind](rng, 4, 3, 8, "none")
    sharded = Sharded.from_map(A, client, shards=2)
    layers = [rng.standard_normal(shape) for shape in ((2, 3), (2, 2), (4, 2))]
    for moment in (sharded, sharded.second_moment()):
        np.testing.assert_allclose(trace(layers, moment), trace(layers, A), rtol=1e-12)
        for found, expected in zip(
            bf.curvature.trace_gradient(layers, moment), bf.curvature.trace_gradient(layers, A), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-11 * np.abs(expected).max())


def test_large_sparse_problems_never_form_a_matrix(client, rng):
    d1, d2, m = 100_000, 50_000, 1000
    A = Entries(rng.integers(0, d1, m), rng.integers(0, d2, m), (d1, d2), rng.standard_normal(m))
    L, R, y = rng.standard_normal((d1, 2)), rng.standard_normal((d2, 2)), rng.standard_normal(m)
    A.forward_factored(L, R)  # compiles
    tracemalloc.start()  # the worker is a thread of this process
    try:
        sharded = Sharded.from_map(A, client, shards=2)
        measured, operator = sharded.forward_factored(L, R), sharded.adjoint_operator(y)
        products = operator @ R, operator.T @ L, *sharded.pair_hessian(L, R, y)(L, R)
        value = scaled_trace(L, R, sharded)
        curvature = trace([R.T, L], sharded)
        white = sharded.whitened()
        assert white.map.of_entries
        white.map.forward_factored(*(np.ones((size, 1)) for size in white.map.matrix_shape))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    np.testing.assert_allclose(measured, A.forward_factored(L, R), rtol=1e-12)
    expected = A.adjoint_operator(y)
    for found, whole in zip(products, (expected @ R, expected.T @ L, *A.pair_hessian(L, R, y)(L, R)), strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-11 * np.abs(whole).max())
    np.testing.assert_allclose(value, scaled_trace(L, R, A), rtol=1e-12)
    np.testing.assert_allclose(curvature, trace([R.T, L], A), rtol=1e-12)


@pytest.mark.parametrize("kind", BUILDERS)
def test_maps_are_pickled_without_what_they_have_computed(kind, rng):
    A, matrices = BUILDERS[kind](rng, 4, 3, 8, "none")
    before = len(pickle.dumps(A))
    oracles.assert_agrees(A, matrices, rng)
    again = pickle.dumps(A)
    assert len(again) == before
    oracles.assert_agrees(pickle.loads(again), matrices, rng)


@pytest.mark.slow
@pytest.mark.parametrize("kind", maps.BUILT_IN)
def test_a_shard_that_moves_to_another_worker_rounds_as_before(kind, rng):
    A, _ = maps.BUILT_IN[kind](rng, 30, 40, 50, "none")
    held = hold(A.select(np.arange(5, 45), rng.standard_normal(40)))
    moved = pickle.loads(pickle.dumps(held))
    X, y = rng.standard_normal((30, 40)), rng.standard_normal(40)
    L, R = np.asfortranarray(rng.standard_normal((30, 6))), rng.standard_normal((40, 6))
    results = [
        [B(X), B.adjoint(y), B.forward_factored(L, R), B.rotated(L, R), *B.pair_hessian(L, R, y)(L, R)]
        for B in (held.value, moved.value)
    ]
    for before, after in zip(*results, strict=True):
        np.testing.assert_array_equal(before, after)
    assert sys.getsizeof(held) >= sys.getsizeof(moved) >= 3 * 40 * 8


@pytest.mark.slow
def test_dask_is_imported_only_where_it_is_used():
    code = "import sys, balancedfact; assert not {'dask', 'distributed', 'cloudpickle'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_code_of_the_guide_runs(client, tmp_path, rng):
    """With the client of this test, and its paths."""
    (d1, d2), whole = (8, 7), np.arange(56)
    rows, cols = np.divmod(rng.permutation(whole)[:45], d2)
    L, R = rng.standard_normal((d1, 1)), rng.standard_normal((d2, 1))
    b = (L @ R.T)[rows, cols]
    for k, part in enumerate(np.array_split(np.arange(45), 3)):
        np.savez(tmp_path / f"part{k}.npz", rows=rows[part], cols=cols[part], values=b[part])
    text = (Path(bf.__file__).parents[1] / "docs" / "guide" / "cluster.md").read_text(encoding="utf-8")
    text = text.replace('client = Client("tcp://ADDRESS:8786")', "").replace("/data/", f"{tmp_path}/")
    first, second = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    names = {"__name__": "__main__", "client": client, "rows": rows, "cols": cols, "d1": d1, "d2": d2, "b": b, "penalty": 1e-3}
    exec(first, names)
    np.testing.assert_allclose(names["solution"].matrix, L @ R.T, atol=1e-6)
    exec(second, names)
    np.testing.assert_array_equal(names["b"], b)
    assert names["solution"].status is Status.OPTIMAL


# Bad input.

A = Dense(np.ones((4, 2, 3)))


@pytest.mark.parametrize("name", ["X", "y", "P", "Q"])
def test_arrays_are_checked_before_anything_is_sent(name, client):
    sharded = Sharded.from_map(A, client, 2)
    methods = {"X": (sharded, (2, 3)), "y": (sharded.adjoint, (4,))}
    methods |= {"P": (sharded.left_moment, (3, 3)), "Q": (sharded.right_moment, (2, 2))}
    method, shape = methods[name]
    for case in bad_input.bad(shape):
        with pytest.raises(ValueError, match=rf"^{name} "):
            method(case.values[0])


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        (0, r"^shards is 0; expected at least 1$"),
        (5, r"^shards is 5; expected at most 4, the number of measurements$"),
        (1.5, r"^shards is 1\.5; expected an integer$"),
    ],
)
def test_bad_numbers_of_shards_are_refused(shards, message, client):
    with pytest.raises(ValueError, match=message):
        Sharded.from_map(A, client, shards)


def test_there_are_no_more_shards_than_measurements_by_default():
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as two_workers:
        for m, shards in [(1, "in 1 shard>"), (3, "in 2 shards>")]:
            assert repr(Sharded.from_map(Dense(np.ones((m, 2, 3))), two_workers)).endswith(shards)


def test_what_is_not_a_map_is_refused(client):
    with pytest.raises(ValueError, match=r"^A is ndarray; expected a measurement map"):
        Sharded.from_map(np.ones((4, 2, 3)), client)
    with pytest.raises(ValueError, match=r"^A is Sharded; expected a measurement map in this process"):
        Sharded.from_map(Sharded.from_map(A, client), client)


def test_what_is_not_a_connected_client_is_refused():
    with pytest.raises(ValueError, match=r"^client is str; expected a distributed\.Client$"):
        Sharded.from_map(A, "tcp://127.0.0.1:8786")
    empty = distributed.Client(processes=False, n_workers=0, dashboard_address=None)
    with empty, pytest.raises(ValueError, match=r"^client has no workers; expected at least one$"):
        Sharded.from_loaders([], empty)
    with pytest.raises(ValueError, match=r"^client is closed; expected one that is connected$"):
        Sharded.from_map(A, empty)


def nothing():
    return None


def missing():
    raise FileNotFoundError("shard-3.npz")


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ([], r"^loaders is empty; expected at least one function without arguments$"),
        (3, r"^loaders is int; expected a list of functions without arguments$"),
        ([nothing, A.matrices], r"^loaders\[1\] is ndarray; expected a function without arguments$"),
        ([partial(print, threading.Lock())], r"^loaders\[0\] cannot be pickled \(.*\); expected a function that can$"),
        ([nothing], r"^loaders\[0\] returned NoneType; expected a measurement map"),
        (
            [partial(bf.measurements.gaussian, 2, shape, rng=0) for shape in ((2, 3), (3, 2))],
            r"^loaders\[1\] returned measurements of matrices of shape \(3, 2\); expected \(2, 3\), as loaders\[0\]$",
        ),
    ],
)
def test_bad_loaders_are_refused(loaders, message, client):
    with pytest.raises(ValueError, match=message):
        Sharded.from_loaders(loaders, client)


def test_what_a_loader_raises_is_raised(client):
    with pytest.raises(FileNotFoundError, match=r"shard-3\.npz"):
        Sharded.from_loaders([missing], client)


# Solving.


def noisy_completion(rng):
    A = bf.measurements.bernoulli_mask((300, 275), 0.3, rng)
    L, R = rng.standard_normal((300, 4)), rng.standard_normal((275, 4))
    return A, A.forward_factored(L, R) + 0.1 * rng.standard_normal(A.m), 1e6


def exact_completion(rng):
    A = bf.measurements.bernoulli_mask((300, 275), 0.3, rng)
    return A, A.forward_factored(rng.standard_normal((300, 4)), rng.standard_normal((275, 4))), 0.0


def bilinear_sensing(rng):
    A = bf.measurements.bilinear(400, (25, 30), rng)
    return A, A.forward_factored(rng.standard_normal((25, 2)), rng.standard_normal((30, 2))), 0.0


def gaussian_sensing(rng):
    A = bf.measurements.gaussian(300, (20, 25), rng)
    return A, A.forward_factored(rng.standard_normal((20, 2)), rng.standard_normal((25, 2))), 0.0


PROBLEMS = [noisy_completion, exact_completion, bilinear_sensing, gaussian_sensing]


@pytest.fixture(scope="module")
def undisturbed(two_processes):
    """The answer to a problem on two processes of which none dies, found once."""

    @cache
    def answer(problem):
        A, b, penalty = problem(np.random.default_rng(0))
        return bf.flat_minimum(Sharded.from_map(A, two_processes), b, penalty=penalty, rng=0)

    return answer


@pytest.mark.slow
def test_the_answer_is_that_found_in_process(undisturbed):
    for problem in PROBLEMS:
        A, b, penalty = problem(np.random.default_rng(0))
        expected = bf.flat_minimum(A, b, penalty=penalty, rng=0)
        found = undisturbed(problem)
        assert found.status is expected.status is Status.OPTIMAL
        assert found.method == expected.method
        assert np.linalg.norm(found.matrix - expected.matrix) <= 1e-10 * np.linalg.norm(expected.matrix)
        assert abs(found.value - expected.value) <= 1e-10 * expected.value
        assert found.certificate.gap <= 1e-8


@pytest.mark.slow
def test_the_norm_minimum_and_shards_that_are_loaded(two_processes):
    A, b, _ = exact_completion(np.random.default_rng(1))
    halves = [partial(Entries, A.rows[half], A.cols[half], A.matrix_shape) for half in np.array_split(np.arange(A.m), 3)]
    expected = bf.norm_minimum(A, b, rng=0)
    found = bf.norm_minimum(Sharded.from_loaders(halves, two_processes), b, rng=0)
    assert np.linalg.norm(found.matrix - expected.matrix) <= 1e-10 * np.linalg.norm(expected.matrix)
    assert abs(found.value - expected.value) <= 1e-10 * expected.value


def kill_a_worker(client):
    pid = next(iter(client.run(os.getpid).values()))
    os.kill(pid, signal.SIGKILL)
    return pid


def assert_same_bits(found, expected):
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.value == expected.value
    np.testing.assert_array_equal(found.certificate.dual, expected.certificate.dual)


@pytest.mark.slow
@pytest.mark.parametrize("problem", [noisy_completion, bilinear_sensing], ids=lambda each: each.__name__)
def test_a_worker_that_dies_at_a_callback_changes_no_bit(problem, undisturbed, mortal_processes):
    A, b, penalty = problem(np.random.default_rng(0))
    calls, killed = [], []

    def callback(record):
        calls.append(record)
        if len(calls) in (2, 3):
            killed.append(kill_a_worker(mortal_processes))

    sharded = Sharded.from_map(A, mortal_processes)
    found = bf.flat_minimum(sharded, b, penalty=penalty, rng=0, callback=callback)
    assert len(set(killed)) == 2
    assert_same_bits(found, undisturbed(problem))


@pytest.mark.slow
@pytest.mark.parametrize("problem", [exact_completion, gaussian_sensing], ids=lambda each: each.__name__)
def test_a_worker_that_dies_in_the_middle_of_tasks_changes_no_bit(problem, undisturbed, mortal_processes, monkeypatch):
    A, b, penalty = problem(np.random.default_rng(0))
    expected = undisturbed(problem)
    pids = list(mortal_processes.run(os.getpid).values())
    submit, submitted = Shards._submit, []
    for call, pid in zip((60, 110), pids, strict=True):
        submitted.clear()

        def counting(self, *arguments, call=call, pid=pid):
            submitted.append(0)
            if len(submitted) == call:  # while this thread waits for what it is about to submit
                threading.Timer(0.005, os.kill, (pid, signal.SIGKILL)).start()
            return submit(self, *arguments)

        monkeypatch.setattr(Shards, "_submit", counting)
        assert_same_bits(bf.flat_minimum(Sharded.from_map(A, mortal_processes), b, penalty=penalty, rng=0), expected)
        assert len(submitted) > call
        assert pid not in mortal_processes.run(os.getpid).values()


def test_offsets_are_judged_alike_on_sharded_entries(client, rng):
    A = bf.measurements.bernoulli_mask((30, 20), 0.5, rng)
    b = A(3 + rng.standard_normal(30)[:, None] + rng.standard_normal(20))
    maps_ = A, Sharded.from_map(A, client, 3)
    one, other = (Frame(each, b, 50.0, flat=True, offset_penalty=1.0).problem for each in maps_)
    L, R, s = balanced(rng.standard_normal((30, 2)), rng.standard_normal((20, 2)))
    point = Point(L, R, s, rng.standard_normal(A.m), (rng.standard_normal(30), rng.standard_normal(20)))
    for found, expected in zip(other.judge(point, rng)[:3], one.judge(point, rng)[:3], strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
