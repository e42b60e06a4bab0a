import numpy as np
import pytest

import balancedfact as bf
from balancedfact import _memory, solution
from balancedfact._memory import available_memory


def thin(d1, d2):
    rng = np.random.default_rng(0)
    A = bf.measurements.Entries([0, d1 - 1], [0, d2 - 1], (d1, d2))
    layers = [rng.standard_normal((2, d2)), rng.standard_normal((d1, 2))]
    return A, bf.Solution(layers, 0.0, bf.Status.OPTIMAL, "", bf.Certificate(0.0))


def test_a_matrix_that_would_not_fit_is_refused_with_a_way_out():
    d1, d2 = 3_000_000, 2_000_000
    _, found = thin(d1, d2)
    with pytest.raises(MemoryError, match=r"the matrix is 3000000 x 2000000, 4.8e\+04 GB.*Solution.predict\(rows, cols\)"):
        _ = found.matrix
    rows, cols = [0, d1 - 1, 5], [d2 - 1, 3, 5]
    expected = np.einsum("ij,ij->i", found.layers[1][rows], found.layers[0].T[cols])
    np.testing.assert_allclose(found.predict(rows, cols), expected, atol=1e-14)


def test_a_solve_says_what_memory_it_takes_and_is_refused_where_it_would_not_fit(monkeypatch):
    from balancedfact.solvers.nuclear import _certified

    A, _ = thin(3_000, 2_000)
    assert 1e8 < A.memory_needed() < A.memory_needed(columns=100) < 1e9
    assert bf.measurements.Entries(*np.zeros((2, 10**6), int), (9, 9)).memory_needed() > 1e8 + 100 * 10**6
    assert bf.measurements.gaussian(3, (2, 2), 0).memory_needed() == 0
    monkeypatch.setattr(_certified, "available_memory", lambda: 1e8)
    with pytest.raises(MemoryError, match=r"2 measurements of 3000 x 2000 matrices take about 0\.\d+ GB to solve, and 0\.1 GB"):
        bf.flat_minimum(A, [1.0, 2.0])


def test_what_fits_is_formed(monkeypatch):
    _, found = thin(30, 20)
    monkeypatch.setattr(solution, "available_memory", lambda: 8 * 30 * 20)
    assert found.matrix.shape == (30, 20)
    monkeypatch.setattr(solution, "available_memory", lambda: 8 * 30 * 20 - 1)
    with pytest.raises(MemoryError, match="30 x 20"):
        _ = found.matrix


def test_the_memory_is_read_where_the_system_tells(monkeypatch, tmp_path):
    assert 1e6 < available_memory() <= 1e15
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 100 kB\nMemAvailable:    64 kB\n")
    monkeypatch.setattr(_memory, "Path", lambda _: info)
    assert available_memory() == 65536
    info.unlink()  # not Linux: all physical memory
    monkeypatch.setattr(_memory.os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_memory() == 40960
    monkeypatch.delattr(_memory.os, "sysconf")
    assert available_memory() == float("inf")


@pytest.mark.parametrize("depth", [2, 3])
def test_predicted_entries_are_those_of_the_matrix(depth, rng):
    widths = [5, *[3] * (depth - 1), 7]
    layers = [rng.standard_normal((widths[j + 1], widths[j])) for j in range(depth)]
    found = bf.Solution(layers, 0.0, bf.Status.OPTIMAL, "", bf.Certificate(0.0))
    rows, cols = rng.integers(0, 7, 20), rng.integers(0, 5, 20)
    np.testing.assert_allclose(found.predict(rows, cols), found.matrix[rows, cols], atol=1e-13)
    one = bf.Solution(layers[:1], 0.0, bf.Status.OPTIMAL, "", bf.Certificate(0.0))
    np.testing.assert_allclose(one.predict([2, 0], [1, 4]), layers[0][[2, 0], [1, 4]], atol=1e-13)


@pytest.mark.parametrize(
    ("rows", "cols", "message"),
    [
        ([7], [0], r"^rows has values from 7 to 7; expected 0 to 6"),
        ([0], [-1], r"^cols has values from -1"),
        ([0, 1], [1], r"^cols has 1 entries; expected 2"),
        ([0.5], [1], r"^rows has dtype float64"),
        ([], [], r"^rows is empty"),
    ],
)
def test_bad_places_are_refused(rows, cols, message, rng):
    layers = [rng.standard_normal((2, 5)), rng.standard_normal((7, 2))]
    found = bf.Solution(layers, 0.0, bf.Status.OPTIMAL, "", bf.Certificate(0.0))
    with pytest.raises(ValueError, match=message):
        found.predict(rows, cols)
