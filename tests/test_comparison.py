"""The comparison: every number of every row from its definition, and what the theory says of the rows."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.comparison import _ways, aligned_distance
from tests import oracles


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ways, "_STEPS", 2000)
        patch.setattr(_ways, "_DESCENTS", 600)
        yield


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def problem(request):
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((4, 1)) @ rng.standard_normal((1, 4))
    A = bf.measurements.gaussian(13, truth.shape, rng)
    return A, A(truth), truth, bf.compare(A, A(truth), request.param, truth=truth, rng=5)


METHODS = [
    "analytic",
    "certified",
    "Riemannian",
    "balanced",
    "least sharpness",
    "flow, small start",
    "flow, residual start",
    "flow, balanced start",
    "descent",
    "descent, large step",
    "momentum",
    "normalised",
    "weight decay",
    "SAM, ascent",
    "SAM, worst",
    "SAM, average",
    "SGD",
    "label-noise SGD",
]


def test_numbers_are_those_of_the_definitions(problem):
    A, b, truth, table = problem
    assert [row.method for row in table.rows] == METHODS
    for row in table.rows:
        W = row.layers
        E = W[0]
        for layer in W[1:]:
            E = layer @ E
        hessian = oracles.hessian(W, A.matrices, b)
        assert row.fit == pytest.approx(np.linalg.norm(A(E) - b) / np.linalg.norm(b), rel=1e-6, abs=1e-14)
        assert row.sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-6)
        sizes = [layer.size for layer in W]
        if len(W) == 2:  # the squared error is m times the mean; the trace of each block over the rows of its factor
            first, second = np.trace(hessian[: sizes[0], : sizes[0]]), np.trace(hessian[sizes[0] :, sizes[0] :])
            assert row.trace == pytest.approx(A.m * (first / 4 + second / 4), rel=1e-9)
        else:
            assert row.trace == pytest.approx(np.trace(hessian), rel=1e-9)
        assert row.nuclear_norm == pytest.approx(np.linalg.norm(E, "nuc"), rel=1e-9)
        assert row.error == pytest.approx(np.linalg.norm(E - truth) / np.linalg.norm(truth), rel=1e-6, abs=1e-14)
        norms = [np.linalg.norm(layer) ** 2 for layer in W]
        gaps = [np.linalg.norm(up.T @ up - low @ low.T) for low, up in pairwise(W)]
        assert row.imbalance == pytest.approx(max(gaps) / max(norms), rel=1e-6, abs=1e-14)
        assert row.rank_one == pytest.approx(min(np.linalg.norm(w, 2) ** 2 / n for w, n in zip(W, norms, strict=True)))
        values = np.linalg.svd(E)[1][: row.rank] ** (2 / len(W))
        assert row.rank_one_limit == pytest.approx(values[0] / values.sum(), rel=1e-6)
        assert 0 <= row.alignment <= 1 + 1e-12
        assert row.seconds >= 0
        assert row.excess == pytest.approx(row.trace / table["certified"].trace - 1)
        assert row.distance == pytest.approx(aligned_distance(W, table["certified"].layers), rel=1e-9)
        assert (row.steps > 0) == (row.method not in ("analytic", "balanced", "certified", "Riemannian", "least sharpness"))


def test_no_row_with_the_same_product_is_less_sharp(problem):
    table = problem[-1]
    least = table["least sharpness"]
    assert all(least.sharpness <= table[name].sharpness * (1 + 1e-4) for name in ("analytic", "balanced", "certified"))
    assert least.fit < 1e-5


def test_limits_of_rank_one_ness_and_alignment(problem):
    """Balanced layers have them exactly; flow conserves the imbalance, and from a small start comes close."""
    table = problem[-1]
    for name, off in (("balanced", 1e-12), ("flow, small start", 1e-2), ("flow, balanced start", 1e-4)):
        row = table[name]
        assert row.rank_one == pytest.approx(row.rank_one_limit, abs=off)
        assert row.alignment == pytest.approx(1, abs=off)
    far = table["flow, residual start"]
    assert abs(far.rank_one - far.rank_one_limit) > 1e-2
    assert table["flow, balanced start"].imbalance < 1e-4  # the accuracy of the flow
    assert table["flow, balanced start"].distance > 0.1  # of ordinary size, and not where a vanishing start leads


@pytest.mark.slow
def test_least_sharpness_where_the_least_nuclear_norm_has_a_high_rank():
    """The row is that of the certified matrix, of rank 3, not of the one of least nuclear norm, of rank 21."""
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40))
    A = bf.measurements.Entries(*np.unravel_index(rng.choice(2400, 980, replace=False), truth.shape), truth.shape)
    table = bf.compare(A, A(truth), methods=["analytic", "least sharpness"], rng=0)
    assert table["analytic"].rank > 10
    assert table["least sharpness"].rank == table["certified"].rank == 3
    assert table["least sharpness"].sharpness < table["certified"].sharpness


def test_a_search_that_would_be_long_is_left_out(monkeypatch):
    monkeypatch.setattr("balancedfact.comparison._ways._MOST_FLOPS", 0.0)
    A = bf.measurements.gaussian(30, (4, 3), rng=0)
    table = bf.compare(A, A(np.ones((4, 3))), methods=["balanced", "least sharpness"], rng=0)
    assert table.skipped == ["least sharpness"]
    assert [row.method for row in table.rows] == ["certified", "balanced"]


def test_theory_says_which_rows_agree(problem):
    _, _, _, table = problem
    certified = table["certified"]
    assert table["Riemannian"].trace == pytest.approx(certified.trace, rel=1e-5)
    for row in table.rows:
        if row.fit < 1e-8:
            assert row.trace >= certified.trace * (1 - 1e-6)
    assert table["flow, small start"].imbalance < table["flow, residual start"].imbalance
    assert certified.rank < 4
    assert table["flow, residual start"].fit < 1e-8


def test_prints_a_row_for_every_method_and_is_plain_data(problem):
    _, _, _, table = problem
    lines = str(table).splitlines()
    assert len(lines) == 1 + len(METHODS)
    assert all(line.startswith(method) for line, method in zip(lines[1:], METHODS, strict=True))
    assert "error" in lines[0]
    content = table.to_dict()
    assert content["depth"] == table.depth
    assert [row["method"] for row in content["rows"]] == METHODS
    assert all(isinstance(value, (float, int, str)) for row in content["rows"] for value in row.values())
    with pytest.raises(KeyError):
        table["nothing"]


@pytest.mark.slow
def test_rectangular_problems_without_a_truth_and_determinism():
    A = bf.measurements.gaussian(9, (4, 3), rng=0)
    b = A(np.outer(np.arange(4.0), np.ones(3)))
    table, again = bf.compare(A, b, rng=2), bf.compare(A, b, rng=2)
    assert "flow, residual start" not in [row.method for row in table.rows]
    assert "error" not in str(table).splitlines()[0]
    for one, other in zip(table.rows, again.rows, strict=True):
        assert one.trace == other.trace
        assert np.isnan(one.error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": "map"}, "A is str"),
        ({"b": np.ones(4)}, r"b has shape \(4,\); expected \(9,\)"),
        ({"b": np.zeros(9)}, "b is zero"),
        ({"depth": 1}, "depth is 1"),
        ({"methods": ["certified", "sgd"]}, "methods holds 'sgd'; expected names of rows: analytic; certified"),
        ({"limits": 60}, "limits is 60; expected bf.Limits"),
        ({"truth": np.ones((3, 4))}, r"truth has shape \(3, 4\); expected \(4, 3\)"),
    ],
)
def test_bad_input(change, message):
    A = bf.measurements.gaussian(9, (4, 3), rng=0)
    arguments = {"A": A, "b": A(np.ones((4, 3))), "depth": 2, "truth": None} | change
    with pytest.raises(ValueError, match=message):
        bf.compare(**arguments)


def test_contradictory_data():
    A = bf.measurements.Entries([0, 0], [1, 1], (2, 2))
    with pytest.raises(ValueError, match="b contradicts itself"):
        bf.compare(A, [1.0, 2.0])


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_distance_does_not_see_the_basis_of_hidden_spaces(depth, rng):
    widths = [3, *rng.integers(2, 5, depth - 1), 2]
    V = bf.dynamics.gaussian_layers(widths, 1.0, rng)
    turns = [np.eye(widths[0]), *(np.linalg.qr(rng.standard_normal((k, k)))[0] for k in widths[1:-1]), np.eye(widths[-1])]
    W = [turns[k + 1] @ v @ turns[k].T for k, v in enumerate(V)]
    wide = [np.pad(w, ((0, 2 * (k + 1 < depth)), (0, 2 * (k > 0)))) for k, w in enumerate(W)]
    assert aligned_distance(W, V) < 1e-6
    assert aligned_distance(wide, V) < 1e-6
    assert aligned_distance(V, wide) < 1e-6
    assert aligned_distance([1e150 * w for w in W], [1e150 * v for v in V]) < 1e-6
    shift = [0.1 * rng.standard_normal(w.shape) for w in W]
    moved = [w + s for w, s in zip(W, shift, strict=True)]
    size = np.sqrt(sum(np.sum(v**2) for v in V))
    assert 0 < aligned_distance(moved, V) <= np.sqrt(sum(np.sum(s**2) for s in shift)) / size * (1 + 1e-9)


def test_distance_is_the_least_over_all_turns(rng):
    W, V = ([rng.standard_normal((2, 3)), rng.standard_normal((2, 2))] for _ in range(2))
    best = np.inf
    for flip in (1.0, -1.0):
        for angle in np.linspace(0, 2 * np.pi, 20_001):
            Q = np.array([[np.cos(angle), -np.sin(angle) * flip], [np.sin(angle), np.cos(angle) * flip]])
            best = min(best, np.sum((W[0] - Q @ V[0]) ** 2) + np.sum((W[1] - V[1] @ Q.T) ** 2))
    size = np.sum(V[0] ** 2) + np.sum(V[1] ** 2)
    assert aligned_distance(W, V) == pytest.approx(np.sqrt(best / size), rel=1e-6)
    zero = [np.zeros((2, 3)), np.zeros((2, 2))]
    assert aligned_distance(zero, zero) == 0
    assert aligned_distance(W, zero) == np.inf
    with pytest.raises(ValueError, match="reference has shapes"):
        aligned_distance(W, [np.ones((2, 3))])


def test_limit_on_time_leaves_the_certified_row_and_names_what_is_missing(monkeypatch):
    from balancedfact.solvers.iteration._limits import Budget

    A = bf.measurements.gaussian(20, (5, 4), rng=0)
    methods = ["analytic", "certified", "flow, small start", "SGD"]
    monkeypatch.setattr(Budget, "spent", True)
    table = bf.compare(A, A(np.ones((5, 4))), 2, methods=methods, rng=0, limits=bf.Limits(seconds=600))
    assert [row.method for row in table.rows] == ["certified"]
    assert table.skipped == ["analytic", "flow, small start", "SGD"]
    assert "left out, for want of time or for its size: analytic" in str(table)
    assert table.to_dict()["skipped"] == table.skipped


def test_a_flow_that_ends_at_its_last_step_has_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(bf.dynamics, "gradient_flow", partial(bf.dynamics.gradient_flow, max_steps=5))
    A = bf.measurements.gaussian(20, (5, 4), rng=0)
    table = bf.compare(A, A(np.ones((5, 4))), 2, methods=["flow, small start"], rng=0)
    assert table["flow, small start"].note == "Stopped after 5 steps, before stationarity"
    assert table["flow, small start"].steps == 5
    assert table.skipped == []


def test_limits_too_short_for_any_comparison_are_refused():
    A = bf.measurements.gaussian(300, (25, 20), rng=0)
    b = A(bf.measurements.gaussian(1, (25, 20), rng=1).adjoint([1.0]))
    with pytest.raises(ValueError, match=r"^limits end before a matrix that fits is found"):
        bf.compare(A, b, limits=bf.Limits(seconds=1e-9))


def test_some_rows_as_a_data_frame():
    pandas = pytest.importorskip("pandas")
    A = bf.measurements.gaussian(9, (4, 3), rng=0)
    table = bf.compare(A, A(np.ones((4, 3))), methods=["balanced"], rng=0)
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index) == ["certified", "balanced"]
    assert frame.loc["balanced", "trace"] == table["balanced"].trace
    assert "layers" not in frame
