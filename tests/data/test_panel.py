"""Effects of treatments on panels, against a conic solver on the definition and against least squares."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import balancedfact as bf


def panel(seed, shape=(9, 7), holes=0.1, noise=0.3):
    """Outcomes with effects, two factors, gaps, and the last units treated at the end; the effect is 3."""
    rng = np.random.default_rng(seed)
    n, t = shape
    Y = 10 + rng.standard_normal((n, 1)) + np.linspace(0, 2, t) + rng.standard_normal((n, 2)) @ rng.standard_normal((2, t))
    Y += noise * rng.standard_normal(shape)
    treated = np.zeros(shape, bool)
    treated[-2:, t - 2 :] = True
    Y[treated] += 3.0
    Y[(rng.random(shape) < holes) & ~treated] = np.nan
    return Y, treated


def by_definition(Y, treated, penalty):
    """The problem as it is written, by a conic solver: its value and its answer, up to what the effects can exchange."""
    seen = ~np.isnan(Y) & ~treated
    X, a, b = cp.Variable(Y.shape), cp.Variable((len(Y), 1)), cp.Variable((1, Y.shape[1]))
    fit = X + a @ np.ones((1, Y.shape[1])) + np.ones((len(Y), 1)) @ b
    loss = cp.sum_squares(cp.multiply(seen, fit - np.where(seen, Y, 0.0)))
    problem = cp.Problem(cp.Minimize(0.5 * loss + penalty * cp.normNuc(X)))
    problem.solve(solver="CLARABEL")
    return problem.value, fit.value


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("penalty", [0.3, 2.0])
def test_it_is_the_optimum_of_the_definition(seed, penalty):
    Y, treated = panel(seed)
    found = bf.panel_effect(Y, treated, penalty)
    value, fit = by_definition(Y, treated, penalty)
    assert found.solution.status is bf.Status.OPTIMAL
    assert found.solution.value == pytest.approx(value, rel=1e-6)
    assert found.solution.certificate.lower_bound == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(found.counterfactual, fit, atol=2e-3)
    assert found.effect == pytest.approx(np.mean((Y - fit)[treated]), abs=2e-3)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 8), st.integers(3, 8), st.floats(0.0, 0.4), st.floats(0.05, 5.0))
def test_value_and_bound_hold_by_the_definition_on_ragged_panels(seed, n, t, holes, penalty):
    Y, treated = panel(seed, (n, t), holes)
    try:
        found = bf.panel_effect(Y, treated, penalty)
    except ValueError as error:
        if "no chain of untreated entries" not in str(error):
            raise
        return
    seen = ~np.isnan(Y) & ~treated
    X = found.solution.matrix
    value = 0.5 * np.sum((Y - found.counterfactual)[seen] ** 2) + penalty * np.linalg.norm(X, "nuc")
    assert value == pytest.approx(found.solution.value, rel=1e-7)
    # The bound from its dual vector, whose matrix has norm at most the penalty and sums of zero, so that no effect is gained.
    G = np.zeros(Y.shape)
    G[seen] = found.solution.certificate.dual
    y = G[seen]
    scale = max(1.0, np.abs(y).max())
    assert np.linalg.norm(G, 2) <= penalty * (1 + 1e-7)
    assert max(np.abs(G.sum(axis=0)).max(), np.abs(G.sum(axis=1)).max()) <= 1e-9 * scale
    bound = float(Y[seen] @ y) - 0.5 * float(y @ y)
    assert bound <= value * (1 + 1e-9) + 1e-9
    assert bound == pytest.approx(value, rel=1e-5, abs=1e-9 * scale)


def test_beyond_the_largest_penalty_it_is_two_way_least_squares():
    Y, treated = panel(5)
    seen = ~np.isnan(Y) & ~treated
    rows, cols = np.nonzero(seen)
    T = np.hstack([np.eye(len(Y))[rows], np.eye(Y.shape[1])[cols]])
    both = np.linalg.lstsq(T, Y[seen], rcond=None)[0]
    fit = both[: len(Y), None] + both[len(Y) :]
    found = bf.panel_effect(Y, treated, 1e4)
    assert not found.solution.matrix.any()
    np.testing.assert_allclose(found.counterfactual, fit, atol=1e-10)
    assert found.effect == pytest.approx(np.mean((Y - fit)[treated]), abs=1e-10)
    # A balanced panel with one treated block: the difference in differences.
    Y, treated = panel(6, holes=0.0)
    control = ~treated.any(axis=1), ~treated.any(axis=0)
    means = [[Y[np.ix_(r, c)].mean() for c in (~control[1], control[1])] for r in (~control[0], control[0])]
    double = means[0][0] - means[0][1] - means[1][0] + means[1][1]
    assert bf.panel_effect(Y, treated, 1e4).effect == pytest.approx(double, abs=1e-10)


@pytest.mark.slow
def test_cross_validation_chooses_the_least_error():
    Y, treated = panel(7, (10, 8))
    found, again = (bf.panel_effect(Y, treated, folds=2, rng=0) for _ in range(2))
    assert found.penalty == found.penalties[np.argmin(found.errors)]
    assert found.errors.min() < found.errors[0]
    assert again.effect == found.effect
    np.testing.assert_array_equal(again.errors, found.errors)


@pytest.mark.slow
def test_with_little_noise_cross_validation_finds_the_factors_and_the_effect():
    Y, treated = panel(7, (24, 18), noise=0.1)
    found = bf.panel_effect(Y, treated, rng=0)
    assert found.errors.min() < 0.5 * found.errors[0]
    assert found.effect == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scales(scale):
    Y, treated = panel(8)
    plain, scaled = bf.panel_effect(Y, treated, 1.0), bf.panel_effect(scale * Y, treated, scale)
    assert scaled.effect == pytest.approx(scale * plain.effect, rel=1e-6)


def test_path_frames_and_tables():
    pandas = pytest.importorskip("pandas")
    Y, treated = panel(9)
    frame = pandas.DataFrame(Y, index=[f"u{k}" for k in range(len(Y))], columns=range(1990, 1990 + Y.shape[1]))
    path = bf.panel_path(frame, treated, [3.0, 1.0])
    assert [each.penalty for each in path] == [3.0, 1.0]
    assert path[1].effect == pytest.approx(bf.panel_effect(Y, treated, 1.0).effect, rel=1e-5)
    table = path[1].to_pandas()
    assert list(table.columns) == ["unit", "period", "observed", "expected", "effect"]
    assert table["effect"].mean() == pytest.approx(path[1].effect)
    assert table.loc[0, ["unit", "period"]].tolist() == ["u7", "1995"]
    assert table.loc[0, "observed"] == pytest.approx(Y[7, 5])
    assert path[1].solution.predict(["u0"], ["1990"])[0] == pytest.approx(path[1].counterfactual[0, 0])


def test_a_panel_of_effects_alone_has_no_effect_at_any_penalty():
    Y = np.add.outer([1.0, 2.0, 4.0], np.arange(5.0))
    treated = np.zeros(Y.shape, bool)
    treated[2, 4] = True
    assert bf.panel_effect(Y, treated).effect == pytest.approx(0.0, abs=1e-12)


def test_bad_input_is_refused():
    Y, treated = panel(0)
    for arguments, message in [
        ((Y, treated[:2]), "treated has shape"),
        ((Y, 2 * treated), "treated holds other things"),
        ((Y, np.zeros_like(treated)), "treated holds no entry that was observed"),
        ((Y, treated, "cv"), "penalty is 'cv'"),
        ((Y, treated, 0.0), "penalty is 0.0"),
        (("x", treated), "Y has dtype"),
    ]:
        with pytest.raises(ValueError, match=message):
            bf.panel_effect(*arguments)
    for vanishing in (1e-300, 1e-25):
        with pytest.raises(ValueError, match=r"penalty is .*, below which rounding decides"):
            bf.panel_effect(Y, treated, penalty=vanishing)
    with pytest.raises(ValueError, match="folds is 1000"):
        bf.panel_effect(Y, treated, folds=1000)
    with pytest.raises(ValueError, match="penalties is -1"):
        bf.panel_path(Y, treated, [-1.0])
    # Two blocks that nothing links, and a treated entry between them.
    Y = np.full((4, 4), np.nan)
    Y[:2, :2], Y[2:, 2:], Y[0, 3] = 1.0, 2.0, 5.0
    treated = np.zeros((4, 4), bool)
    treated[0, 3] = True
    with pytest.raises(ValueError, match=r"entry \(0, 3\), whose row and column no chain"):
        bf.panel_effect(Y, treated, 1.0)
