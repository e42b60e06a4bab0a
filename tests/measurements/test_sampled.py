"""The compiled loops of entry sampling: against sparse arrays, in any order, with any number of threads, after a fork."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.measurements import Entries, _sampled
from balancedfact.measurements._sampled import Layout, sampled_product


def many(rng, shape=(300, 200), m=40_000):
    return rng.integers(0, shape[0], m), rng.integers(0, shape[1], m), rng.standard_normal(m)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_layout_sorts_by_row_and_then_by_column(d1, d2, m, presorted, seed):
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, d1, m), rng.integers(0, d2, m)
    if presorted:
        order = np.lexsort((cols, rows))
        rows, cols = rows[order], cols[order]
    layout = Layout.of(rows, cols, (d1, d2))
    assert isinstance(layout.order, slice) == bool(np.all(np.diff(rows * d2 + cols) >= 0))
    expected = np.lexsort((cols, rows))  # stable, as the counting sort is
    np.testing.assert_array_equal(np.arange(m)[layout.order], expected)
    np.testing.assert_array_equal(layout.indices, cols[expected])
    np.testing.assert_array_equal(np.diff(layout.pointers), np.bincount(rows, minlength=d1))
    other = layout.transposed(d2)
    np.testing.assert_array_equal(np.arange(m)[layout.order][other.order], np.lexsort((rows, cols)))
    np.testing.assert_array_equal(other.indices, rows[np.lexsort((rows, cols))])


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_an_entry_out_of_order_is_seen_wherever_parts_meet(monkeypatch, at_once):
    monkeypatch.setattr(_sampled, "NUMBERS_AT_ONCE", at_once)
    rows, cols = np.array([0, 0, 1, 1, 1, 4, 4]), np.array([1, 3, 0, 2, 2, 0, 5])
    assert isinstance(Layout.of(rows, cols, (5, 6)).order, slice)
    for k in range(rows.size - 1):
        order = np.arange(rows.size)
        order[[k, k + 1]] = k + 1, k
        assert isinstance(Layout.of(rows[order], cols[order], (5, 6)).order, slice) == (k == 3)  # two equal entries


def test_products_are_those_of_a_sparse_array_on_all_cores(rng, monkeypatch):
    monkeypatch.setattr(_sampled, "cores", lambda: 3)
    monkeypatch.setattr(_sampled, "_WORTH_TWO_CORES", 1)
    rows, cols, data = many(rng)
    A = Entries(rows, cols, (300, 200), rng.standard_normal(rows.size))
    S = sp.coo_array((A.weights * data, (rows, cols)), shape=(300, 200)).tocsr()
    L, R = rng.standard_normal((300, 7)), rng.standard_normal((200, 7))
    operator = A.adjoint_operator(data)
    np.testing.assert_allclose(operator @ R, S @ R, atol=1e-11)
    np.testing.assert_allclose(operator.T @ L, S.T @ L, atol=1e-11)
    np.testing.assert_allclose(operator.T.T @ R[:, 0], S @ R[:, 0], atol=1e-11)
    np.testing.assert_allclose(operator.rmatvec(L[:, 0]), S.T @ L[:, 0], atol=1e-11)
    np.testing.assert_allclose(operator.adjoint() @ L, S.T @ L, atol=1e-11)
    np.testing.assert_allclose(A.forward_factored(L, R), A.weights * np.einsum("ij,ij->i", L[rows], R[cols]), atol=1e-12)


def test_the_number_of_threads_does_not_change_a_digit(rng, monkeypatch):
    rows, cols, data = many(rng)
    A = Entries(rows, cols, (300, 200), data)
    L, R, dL, dR = (rng.standard_normal((size, 5)) for size in (300, 200, 300, 200))
    found = []
    for threads, least in ((1, 1), (2, 1), (5, 1), (2, 10**12)):
        monkeypatch.setattr(_sampled, "cores", lambda threads=threads: threads)
        monkeypatch.setattr(_sampled, "_WORTH_TWO_CORES", least)
        _sampled._threads.cache_clear()
        G, H = A.pair_hessian(L, R, data)(dL, dR)
        found.append((G, H, A.forward_factored(L, R), A.adjoint_operator(data) @ R))
    _sampled._threads.cache_clear()
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_rows_without_entries_and_few_rows_with_many(rng, monkeypatch):
    monkeypatch.setattr(_sampled, "_WORTH_TWO_CORES", 1)
    rows, cols = np.full(1000, 3), rng.integers(0, 50, 1000)
    A = Entries(rows, cols, (8, 50))
    V = rng.standard_normal((50, 2))
    expected = np.zeros((8, 2))
    expected[3] = V[cols].sum(axis=0)
    np.testing.assert_allclose(A.adjoint_operator(np.ones(1000)) @ V, expected, atol=1e-12)


def test_matrices_in_column_order_and_of_integers_are_understood(rng):
    rows, cols, data = many(rng, (20, 10), 60)
    A = Entries(rows, cols, (20, 10))
    V = np.asfortranarray(rng.integers(0, 5, (10, 3)))
    np.testing.assert_allclose(A.adjoint_operator(data) @ V, A.adjoint(data) @ V, atol=1e-12)
    with pytest.raises(ValueError, match="expected matrices with as many columns"):
        sampled_product(np.ones((3, 2)), np.ones((3, 1)), rows[:1] % 3, cols[:1] % 3)


_FORK = """
import multiprocessing, numpy as np
from balancedfact.measurements import Entries, _sampled
_sampled.cores, _sampled._WORTH_TWO_CORES = lambda: 2, 1
rng = np.random.default_rng(0)
A = Entries(rng.integers(0, 300, 40_000), rng.integers(0, 200, 40_000), (300, 200))
L, R = rng.standard_normal((300, 2)), rng.standard_normal((200, 2))
expected = A.forward_factored(L, R)  # the pool of this process exists now
assert _sampled._threads.cache_info().currsize
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=lambda: queue.put(A.forward_factored(L, R)), daemon=True)
process.start()
np.testing.assert_array_equal(queue.get(timeout=20), expected)
process.join()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_are_started_anew_after_a_fork():
    # In an interpreter of its own: others that were imported here may not survive a fork.
    subprocess.run([sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", _FORK], check=True)


def test_importing_the_package_does_not_import_numba():
    code = "import sys, balancedfact; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
