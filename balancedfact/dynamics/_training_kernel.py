"""The compiled loop of all training rules, for networks whose weights fit into the cache.

With ``C_k = P W_L ... W_{k+1}`` (`P` the readout) and the gradient `G` of the loss in ``P E``, the gradient of a layer is
``C_k^T G B_{k-1}^T``: one sweep down for the ``C_k``, one sweep up for ``F_k = B_k G^T``, each with thin matrices only. Runs go
side by side in lanes, the innermost axis of every array, and the sweeps take all lanes at once, as vectors. Arithmetic is the
same in every lane and for any number of lanes: results do not depend on which runs are computed together.

The number of lanes is the length of the tuple `lanes`, a constant to the compiler.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from balancedfact.dynamics._vectors import absolute, fill, fma, load, store, zero

# What the loss is made of: a covariance and a minimiser of each run, all measurements at once, or a batch of them.
COVARIANCE, ALL, BATCH = 0, 1, 2
# How the gradient is taken: at the weights, after ascent within a ball, or at random points of a sphere.
HERE, ASCENT, AVERAGE = 0, 1, 2

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}


@numba.njit(cache=True, fastmath=True, nogil=True)
def _measured(rows, E, index, shift, weight, out):  # type: ignore[no-untyped-def]
    """The gradient of a batch in the end-to-end matrix; each row is read from memory once."""
    out[:] = 0
    for q in range(index.size):
        row = rows[index[q]]
        inner = -shift[q]
        for j in range(E.size):
            inner += row[j] * E[j]
        inner *= weight
        for j in range(E.size):
            out[j] += inner * row[j]


@numba.njit(**_OPTIONS)
def _end_gradient(lanes, C, F, work, problem, index, shift):  # type: ignore[no-untyped-def]
    """Write the transposed gradient in ``C_0 = P W_L ... W_1`` into ``F_0``."""
    kind, sigma, goal, rows, target, weight = problem
    outputs, widest, d = C.shape[1], C.shape[2], sigma.shape[0]
    if kind == COVARIANCE:
        for c in range(outputs):
            for i in range(d):
                store(work, i, load(C, c * widest + i, lanes) - load(goal, c * d + i, lanes))
            for i in range(d):
                total = load(sigma, i * d, lanes) * load(work, 0, lanes)
                for j in range(1, d):
                    total = fma(load(sigma, i * d + j, lanes), load(work, j, lanes), total)
                store(F, i * outputs + c, total + total)
    elif kind == ALL:
        for q in range(d * outputs):
            store(F, q, zero(F, lanes))
        for p in range(rows.shape[0]):
            rest = fill(-target[p], lanes)
            for c in range(outputs):
                for i in range(d):
                    rest = fma(fill(rows[p, c * d + i], lanes), load(C, c * widest + i, lanes), rest)
            rest = rest * fill(weight, lanes)
            for c in range(outputs):
                for i in range(d):
                    place = i * outputs + c
                    store(F, place, fma(fill(rows[p, c * d + i], lanes), rest, load(F, place, lanes)))
    else:
        flat, carried = np.empty(outputs * d, C.dtype), np.empty(outputs * d, C.dtype)
        for r in range(len(lanes)):
            for c in range(outputs):
                for i in range(d):
                    flat[c * d + i] = C[0, c, i, r]
            _measured(rows, flat, index[:, r], shift[:, r], weight, carried)
            for c in range(outputs):
                for i in range(d):
                    F[0, i, c, r] = carried[c * d + i]


@numba.njit(**_OPTIONS)
def _sweep_down(lanes, weights, C, sizes, offsets):  # type: ignore[no-untyped-def]
    """Write ``C_{k-1} = C_k W_k`` for every layer: columns in pairs, which share what is loaded."""
    outputs, widest = C.shape[1], C.shape[2]
    for k in range(sizes.size - 1, 0, -1):
        height, width, at = sizes[k], sizes[k - 1], offsets[k - 1]
        for c in range(outputs):
            above = (k * outputs + c) * widest
            below = above - outputs * widest
            for j in range(0, width - 1, 2):
                shared = load(C, above, lanes)
                one, two = load(weights, at + j, lanes) * shared, load(weights, at + j + 1, lanes) * shared
                for i in range(1, height):
                    place, shared = at + i * width + j, load(C, above + i, lanes)
                    one, two = fma(load(weights, place, lanes), shared, one), fma(load(weights, place + 1, lanes), shared, two)
                store(C, below + j, one)
                store(C, below + j + 1, two)
            if width % 2:
                j = width - 1
                one = load(weights, at + j, lanes) * load(C, above, lanes)
                for i in range(1, height):
                    one = fma(load(weights, at + i * width + j, lanes), load(C, above + i, lanes), one)
                store(C, below + j, one)


@numba.njit(**_OPTIONS)
def _step_up(lanes, weights, C, F, sizes, offsets):  # type: ignore[no-untyped-def]
    """Write ``F_k = W_k F_{k-1}`` and take the step in `W_k` for every layer, for one output: rows in pairs."""
    widest = C.shape[2]
    for k in range(1, sizes.size):
        height, width = sizes[k], sizes[k - 1]
        here, before = k * widest, (k - 1) * widest
        for i in range(0, height - 1, 2):
            up, down = -load(C, here + i, lanes), -load(C, here + i + 1, lanes)
            place, shared = offsets[k - 1] + i * width, load(F, before, lanes)
            entry, below = load(weights, place, lanes), load(weights, place + width, lanes)
            one, two = entry * shared, below * shared
            store(weights, place, fma(up, shared, entry))
            store(weights, place + width, fma(down, shared, below))
            for j in range(1, width):
                place, shared = place + 1, load(F, before + j, lanes)
                entry, below = load(weights, place, lanes), load(weights, place + width, lanes)
                one, two = fma(entry, shared, one), fma(below, shared, two)
                store(weights, place, fma(up, shared, entry))
                store(weights, place + width, fma(down, shared, below))
            store(F, here + i, one)
            store(F, here + i + 1, two)
        if height % 2:
            i = height - 1
            up, place, shared = -load(C, here + i, lanes), offsets[k - 1] + i * width, load(F, before, lanes)
            entry = load(weights, place, lanes)
            one = entry * shared
            store(weights, place, fma(up, shared, entry))
            for j in range(1, width):
                place, shared = place + 1, load(F, before + j, lanes)
                entry = load(weights, place, lanes)
                one = fma(entry, shared, one)
                store(weights, place, fma(up, shared, entry))
            store(F, here + i, one)


@numba.njit(**_OPTIONS)
def _sweep_up(lanes, weights, out, descend, C, F, sizes, offsets):  # type: ignore[no-untyped-def]
    """Write ``F_k = W_k F_{k-1}`` and, once an entry of `W_k` has been used, its gradient ``C_k^T F_{k-1}^T`` or the step."""
    outputs, widest = C.shape[1], C.shape[2]
    for k in range(1, sizes.size):
        height, width, first = sizes[k], sizes[k - 1], offsets[k - 1]
        here, before = k * widest * outputs, (k - 1) * widest * outputs
        for i in range(height):
            for c in range(outputs):
                store(F, here + i * outputs + c, zero(F, lanes))
            for j in range(width):
                place = first + i * width + j
                entry, slope = load(weights, place, lanes), zero(F, lanes)
                for c in range(outputs):
                    column, into = load(F, before + j * outputs + c, lanes), here + i * outputs + c
                    store(F, into, fma(entry, column, load(F, into, lanes)))
                    slope = fma(load(C, here + c * widest + i, lanes), column, slope)
                store(out, place, entry - slope if descend else slope)


@numba.njit(**_OPTIONS)
def _stop_lost(lanes, C, F, total, limit, step, diverged, iteration):  # type: ignore[no-untyped-def]
    """Let the runs whose gradient overflows stay where they are."""
    for r in range(len(lanes)):
        if not total[r] < limit:
            step[r] = 0.0
            if diverged[r] < 0:
                diverged[r] = iteration
            C[1:-1, :, :, r] = 0.0
            F[0, :, :, r] = 0.0


@numba.njit(**_OPTIONS)
def _gradient(lanes, weights, out, descend, shape, scratch, problem, drawn, runs, iteration):  # type: ignore[no-untyped-def]
    """Write the gradient at `weights` into `out`, or, with `descend`, take the step; returns how many runs have overflowed."""
    sizes, offsets, limit = shape
    C, F, work, total = scratch
    step, diverged = runs
    outputs, entries = C.shape[1], sizes[0] * C.shape[1]
    _sweep_down(lanes, weights, C, sizes, offsets)
    _end_gradient(lanes, C, F, work, problem, drawn[0], drawn[1])
    size = absolute(load(F, 0, lanes))
    for q in range(1, entries):
        size = size + absolute(load(F, q, lanes))
    store(total, 0, size)
    lost = 0
    for r in range(len(lanes)):
        lost += not total[r] < limit
    if lost > 0:
        _stop_lost(lanes, C, F, total, limit, step, diverged, iteration)
    if descend:
        for q in range(entries):
            store(F, q, load(F, q, lanes) * load(step, 0, lanes))
    if descend and outputs == 1:
        _step_up(lanes, weights, C, F, sizes, offsets)
    else:
        _sweep_up(lanes, weights, out, descend, C, F, sizes, offsets)
    return lost


@numba.njit(**_OPTIONS)
def _length(array, r):  # type: ignore[no-untyped-def]
    """The norm of one lane, safe against under- and overflow of squares."""
    largest = 0.0
    for q in range(array.shape[0]):
        largest = max(largest, abs(array[q, r]))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    total = 0.0
    for q in range(array.shape[0]):
        scaled = array[q, r] / largest
        total += scaled * scaled
    return largest * np.sqrt(total)


@numba.njit(**_OPTIONS)
def advance(lanes, state, shape, scratch, problem, draws, runs, rule, start, stop):  # type: ignore[no-untyped-def]
    """Take the steps `start` to `stop`; `draws` holds the batches, targets and random directions of these steps."""
    weights, velocity, slope, shifted, point = state
    momentum, decay, normalised, where, radius, inner, fresh = rule
    indices, shifts, spheres = draws
    plain = momentum == 0 and decay == 0 and not normalised and where == HERE
    n, step = weights.shape[0], runs[0]
    samples = spheres.shape[1]
    gradients = samples if where == AVERAGE else inner + 1 if where == ASCENT else 1
    at, into = (weights if where == HERE else point), (weights if plain else shifted if where == AVERAGE else slope)
    for iteration in range(start, stop):
        t, lost = iteration - start, 0
        drawn = indices[min(t, indices.shape[0] - 1)], shifts[min(t, shifts.shape[0] - 1)]
        if where == ASCENT and fresh:
            shifted[:] = 0.0
        if where == AVERAGE:
            slope[:] = 0.0
        for once in range(gradients):
            if where == ASCENT:  # shifted is the way from the weights to the point of ascent
                for q in range(n):
                    for r in range(len(lanes)):
                        point[q, r] = weights[q, r] + shifted[q, r]
            if where == AVERAGE:
                way = spheres[t, once]
                for r in range(len(lanes)):
                    length = _length(way, r)
                    for q in range(n):
                        point[q, r] = weights[q, r] + radius * (way[q, r] / length)
            lost = _gradient(lanes, at, into, plain, shape, scratch, problem, drawn, runs, iteration)
            if where == AVERAGE:
                for q in range(n):
                    for r in range(len(lanes)):
                        slope[q, r] += shifted[q, r] / samples
            if where == ASCENT and once + 1 < gradients:
                for r in range(len(lanes)):
                    length = _length(slope, r)
                    if length > 0:
                        for q in range(n):
                            shifted[q, r] = radius * (slope[q, r] / length)
        if lost == len(lanes):
            return
        if plain:
            continue
        if decay != 0:
            for q in range(n):
                for r in range(len(lanes)):
                    slope[q, r] += decay * weights[q, r]
        if normalised:
            for r in range(len(lanes)):
                length = _length(slope, r)
                if length > 0:
                    for q in range(n):
                        slope[q, r] /= length
        if momentum != 0:
            for q in range(n):
                for r in range(len(lanes)):
                    velocity[q, r] = momentum * velocity[q, r] + slope[q, r]
                    weights[q, r] -= step[r] * velocity[q, r]
        else:
            for q in range(n):
                for r in range(len(lanes)):
                    weights[q, r] -= step[r] * slope[q, r]
