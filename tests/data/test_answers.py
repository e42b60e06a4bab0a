"""Labels on solutions, predictions for unknown labels, new rows, and the precision of the data."""

import numpy as np
import pytest

import balancedfact as bf
from balancedfact._precision import digits

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((20, 3)) @ RNG.standard_normal((3, 14)) + 2.0
MASK = RNG.random(TRUTH.shape) < 0.6
NOISY = np.where(MASK, TRUTH + 0.1 * RNG.standard_normal(TRUTH.shape), np.nan)


def fitted_row(solution, x, weight, offset):
    """The minimum in `R`, from the normal equations."""
    _, R = solution.pair
    seen = ~np.isnan(x)
    base, G, W = np.zeros(len(R)), R, weight * np.eye(R.shape[1])
    if offset is not None:
        base, G = solution.offsets.mean + solution.offsets.cols, np.column_stack([R, np.ones(len(R))])
        W = np.diag([*[weight] * R.shape[1], offset])
    return base + G @ np.linalg.solve(G[seen].T @ G[seen] + W, G[seen].T @ (x - base)[seen])


@pytest.mark.parametrize("offset", [None, 2.0])
@pytest.mark.parametrize("solve", [bf.flat_minimum, bf.norm_minimum])
def test_transform_is_the_fit_with_r_fixed(solve, offset):
    A, b = bf.measurements.Entries.from_array(NOISY)
    penalty = 30.0 if solve is bf.flat_minimum else 0.4
    solution = solve(A, b, penalty=penalty, offset_penalty=offset, tol=1e-10)
    new = np.where(RNG.random((4, 14)) < 0.5, RNG.standard_normal((4, 14)), np.nan)
    weights = [penalty * (~np.isnan(x)).sum() / (A.m * 14) if solve is bf.flat_minimum else penalty for x in new]
    expected = [fitted_row(solution, x, w, offset) for x, w in zip(new, weights, strict=True)]
    np.testing.assert_allclose(solution.transform(new), expected, rtol=1e-10, atol=1e-10)
    # The rows of the data come out as they are in the solution: there the fit with R fixed is already optimal.
    rows, cols = np.indices(TRUTH.shape).reshape(2, -1)
    np.testing.assert_allclose(solution.transform(NOISY).ravel(), solution.predict(rows, cols), atol=2e-4)


def test_transform_of_an_exact_fit_and_of_an_empty_row():
    exact = np.where(MASK, TRUTH, np.nan)
    A, b = bf.measurements.Entries.from_array(exact)
    solution = bf.flat_minimum(A, b)
    again = solution.transform(exact)
    np.testing.assert_allclose(again[MASK], TRUTH[MASK], atol=1e-7)
    np.testing.assert_array_equal(solution.transform(np.full((1, 14), np.nan)), np.zeros((1, 14)))


def test_labels_travel_from_the_frame_to_the_file(tmp_path):
    frame = {"who": ["ann", "bob", "bob", "ann"], "film": [30, 30, 9, 9], "stars": [4.0, 5.0, 3.0, 2.0]}
    A, b, labels = bf.measurements.Entries.from_frame(frame, "who", "film", "stars")
    assert labels == (["ann", "bob"], ["9", "30"])
    solution = bf.flat_minimum(A, b, penalty=1e-3, offset_penalty=1.0)
    solution.save(tmp_path / "a.npz")
    for each in (solution, bf.Solution.load(tmp_path / "a.npz")):
        assert (each.row_labels, each.col_labels) == labels
        values, known = each.predict(["bob", "eve", "bob", "eve"], ["9", "9", "new", "new"], return_known=True)
        mean, rows, cols = each.offsets
        assert known.tolist() == [True, False, False, False]
        np.testing.assert_allclose(values, [each.predict([1], [0])[0], mean + cols[0], mean + rows[1], mean])
        np.testing.assert_allclose(each.transform([[3.0, 4.0]]), solution.transform([[3.0, 4.0]]))


@pytest.mark.parametrize(
    ("rows", "match"), [(["ann", 3], "rows mixes labels"), ([2], "rows has values from 2"), (["x"], "there are no labels")]
)
def test_bad_labels(rows, match):
    A = bf.measurements.Entries([0, 1], [0, 1], (2, 2))
    solution = bf.flat_minimum(A, [1.0, 2.0])
    with pytest.raises(ValueError, match=match):
        solution.predict(rows, [0] * len(rows))
    with pytest.raises(ValueError, match="rows has 1 labels; expected 2"):
        solution.with_labels(["ann"])
    with pytest.raises(ValueError, match="label twice"):
        solution.with_labels(["ann", "ann"])


def test_digits_are_counted():
    x = RNG.standard_normal(200)
    assert digits(x) is None
    assert digits(x * 1e100) is None
    assert digits(x.astype(np.float32).astype(float)) == 7
    for places in (1, 2, 3, 5):
        assert digits(np.round(x * 10 / np.abs(x).max(), places)) == 2 + places
    assert digits(RNG.integers(0, 1000, 200).astype(float)) is None
    assert digits(RNG.integers(1, 11, 200) / 2) is None


@pytest.mark.slow
def test_short_data_are_noticed_and_the_penalty_leaves_the_rounding_out():
    A = bf.measurements.bernoulli_mask((30, 20), 0.7, 0)
    truth = np.outer(RNG.standard_normal(30), RNG.standard_normal(20))
    single = bf.flat_minimum(A, A(truth).astype(np.float32))
    assert "precision" in single.message
    assert "7 digits" in single.message
    assert single.precision == 1e-7
    exact = bf.flat_minimum(A, A(truth))
    assert "precision" not in exact.message
    assert np.linalg.norm(single.matrix - exact.matrix) < 1e-5 * np.linalg.norm(exact.matrix)
    rounded = bf.flat_minimum(A, A(truth).round(3))
    assert "4 digits" in rounded.message
    penalty = float(rounded.message.rpartition("about ")[2].split()[0])
    fitted = bf.flat_minimum(A, A(truth).round(3), penalty=penalty)
    assert fitted.layers[0].shape[0] <= 3 < rounded.layers[0].shape[0]
    assert np.linalg.norm(fitted.matrix - truth) < np.linalg.norm(rounded.matrix - truth)
