"""The loops of matrix completion that NumPy cannot vectorise, compiled, and run on all cores.

Every kernel works on a range of rows and writes only there, so that threads need no locks and the result does not depend on
how many there are. They are compiled once, for one thread, and release the interpreter's lock: this compiles in a fraction of
the time that numba's own parallel loops take.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np

from balancedfact._memory import NUMBERS_AT_ONCE
from balancedfact._threads import cores

# Below this many multiplications one core is done before a second could be woken, which competes with the BLAS for it.
_WORTH_TWO_CORES = 1_000_000
# Multiplications that take as long as reading the row that an entry points to.
_READING = 4
# More pieces than threads, so that one that is held up does not keep the others waiting.
_PIECES_PER_THREAD = 4

compiled = numba.njit(fastmath=True, nogil=True, cache=True)


@compiled
def _inner_products(lo, hi, rows, cols, L, R, out):  # type: ignore[no-untyped-def]
    for e in range(lo, hi):
        left, right = L[rows[e]], R[cols[e]]
        total = 0.0
        for j in range(left.size):
            total += left[j] * right[j]
        out[e] = total


@compiled
def _sparse_times(lo, hi, pointers, indices, data, V, out):  # type: ignore[no-untyped-def]
    k = out.shape[1]
    total = np.empty(k)
    for i in range(lo, hi):
        total[:] = 0.0
        for e in range(pointers[i], pointers[i + 1]):
            v, x = V[indices[e]], data[e]
            for j in range(k):
                total[j] += x * v[j]
        out[i] = total


@compiled
def _sparse_times_vector(lo, hi, pointers, indices, data, v, out):  # type: ignore[no-untyped-def]
    for i in range(lo, hi):
        total = 0.0
        for e in range(pointers[i], pointers[i + 1]):
            total += data[e] * v[indices[e]]
        out[i] = total


@compiled
def _half_hessian(lo, hi, pointers, indices, weights, back, coupled, ours, theirs, out):  # type: ignore[no-untyped-def]
    # ours = [dL, L], theirs = [R, dR]: the product of two rows is the change of the entry.
    k = out.shape[1]
    total = np.empty(k)  # which the compiler knows to overlap nothing, so that it uses vector instructions
    for i in range(lo, hi):
        left = ours[i]
        total[:] = 0.0
        for e in range(pointers[i], pointers[i + 1]):
            right = theirs[indices[e]]
            change = 0.0
            for j in range(2 * k):
                change += left[j] * right[j]
            change *= weights[e] * weights[e]
            y = back[e]
            for j in range(coupled):
                total[j] += change * right[j] - y * right[k + j]
            for j in range(coupled, k):
                total[j] += change * right[j]
        out[i] = total


@compiled
def _gather(lo, hi, values, order, out):  # type: ignore[no-untyped-def]
    for e in range(lo, hi):
        out[e] = values[order[e]]


@numba.njit(nogil=True, cache=True)
def _bucket(keys, previous, pointers, order):  # type: ignore[no-untyped-def]
    """A stable counting sort of `previous` by ``keys[previous]``; `pointers` has the first place of each key."""
    place = pointers.copy()
    for t in range(previous.size):
        e = previous[t]
        order[place[keys[e]]] = e
        place[keys[e]] += 1


def sampled_product(L: np.ndarray, R: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return ``(L @ R.T)[rows, cols]`` in ``O(len(rows) * k)`` operations for factors of ``k`` columns."""
    if L.ndim != 2 or R.ndim != 2 or L.shape[1] != R.shape[1]:
        raise ValueError(f"L and R have shapes {L.shape} and {R.shape}; expected matrices with as many columns as each other")
    out = np.empty(rows.size)
    L, R = np.ascontiguousarray(L), np.ascontiguousarray(R)
    pieces = _pieces(rows.size, rows.size * L.shape[1])
    _run(lambda lo, hi: _inner_products(lo, hi, rows, cols, L, R, out), pieces)
    return out


def gathered(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return ``values[order]``, whose indices NumPy would copy to its own type first."""
    out = np.empty(order.size)
    _run(lambda lo, hi: _gather(lo, hi, values, order, out), _pieces(order.size, _READING * order.size))
    return out


class Layout:
    """The places of sparse entries, sorted by row and within a row by column, in an order that is found once.

    Attributes
    ----------
    order : numpy.ndarray or slice
        Where the sorted entries stand in the order in which they were given.
    pointers, indices : numpy.ndarray
        The first sorted entry of each row, and the column of each entry.
    """

    def __init__(self, pointers: np.ndarray, indices: np.ndarray, order: np.ndarray | slice) -> None:
        self.pointers, self.indices, self.order = pointers, indices, order

    @classmethod
    def of(cls, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Layout:
        pointers = _starts(rows, shape[0])
        level = slice(None)
        if _is_level(rows, cols):
            return cls(pointers, cols.astype(_kind(shape[1]), copy=False), level)
        order = _sorted(cols, _sorted_range(rows.size), shape[1])
        order = _sorted(rows, order, shape[0])
        return cls(pointers, cols[order].astype(_kind(shape[1])), order)

    def transposed(self, columns: int) -> Layout:
        """The layout of the transpose; its `order` refers to the sorted entries of this one."""
        rows = np.repeat(np.arange(self.pointers.size - 1, dtype=_kind(self.pointers.size)), np.diff(self.pointers))
        order = _sorted(self.indices, _sorted_range(rows.size), columns)
        return Layout(_starts(self.indices, columns), rows[order], order)

    def times(self, data: np.ndarray, V: np.ndarray) -> np.ndarray:
        """The product of the sparse matrix with these sorted `data` and a vector or matrix `V`."""
        out = np.empty((self.pointers.size - 1, *V.shape[1:]))
        V = np.ascontiguousarray(V, dtype=float)
        kernel = _sparse_times_vector if V.ndim == 1 else _sparse_times
        work = max(_READING, V.size // len(V))
        self.by_rows(lambda lo, hi: kernel(lo, hi, self.pointers, self.indices, data, V, out), work)
        return out

    def half_hessian(
        self, weights: np.ndarray, back: np.ndarray, coupled: int, ours: np.ndarray, theirs: np.ndarray
    ) -> np.ndarray:
        """The rows' half of a Hessian product, see `Entries.pair_hessian`; ``ours = [dL, L]``, ``theirs = [R, dR]``."""
        out = np.empty((self.pointers.size - 1, ours.shape[1] // 2))
        pointers, indices = self.pointers, self.indices
        self.by_rows(
            lambda lo, hi: _half_hessian(lo, hi, pointers, indices, weights, back, coupled, ours, theirs, out),
            2 * ours.shape[1],
        )
        return out

    def by_rows(self, kernel: Callable[[int, int], None], work: int) -> None:
        """Run a kernel over all rows in pieces with about as many entries each."""
        total = int(self.pointers[-1])
        inner = np.searchsorted(self.pointers, _pieces(total, total * work)[1:-1]).tolist()
        _run(kernel, [0, *inner, self.pointers.size - 1])


def _is_level(rows: np.ndarray, cols: np.ndarray) -> bool:
    """Tell whether entries come row by row and column by column within a row."""
    for start in range(0, rows.size, NUMBERS_AT_ONCE):  # in parts, which need no copies of all
        some = slice(start, start + NUMBERS_AT_ONCE + 1)
        ahead = np.diff(rows[some])
        if not np.all((ahead > 0) | ((ahead == 0) & (np.diff(cols[some]) >= 0))):
            return False
    return True


def _kind(bound: int) -> Any:
    return np.int32 if bound < 2**31 else np.int64


def _starts(keys: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)


def _sorted_range(count: int) -> np.ndarray:
    return np.arange(count, dtype=_kind(count))


def _sorted(keys: np.ndarray, previous: np.ndarray, count: int) -> np.ndarray:
    order = np.empty_like(previous)
    _bucket(keys, previous, _starts(keys, count), order)
    return order


def _pieces(total: int, work: int) -> list[int]:
    """The bounds of equal pieces of so many numbers: several for every thread, or one where there is little work."""
    threads = cores()
    count = _PIECES_PER_THREAD * threads if threads > 1 and work > _WORTH_TWO_CORES else 1
    return [total * piece // count for piece in range(count + 1)]


def _run(kernel: Callable[[int, int], None], bounds: list[int]) -> None:
    if len(bounds) == 2:
        kernel(bounds[0], bounds[1])
    else:
        for _ in _threads().map(kernel, bounds[:-1], bounds[1:]):
            pass


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="balancedfact")


if hasattr(os, "register_at_fork"):  # the threads of a parent do not exist in its child
    os.register_at_fork(after_in_child=_threads.cache_clear)
