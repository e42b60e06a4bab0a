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
    for j in range(E.size):
        out[j] = 0
    for q in range(index.size):
        row = rows[index[q]]
        inner = -shift[q]
        for j in range(E.size):
            inner += row[j] * E[j]
        inner *= weight
        for j in range(E.size):
            out[j] += inner * row[j]


@numba.njit(**_OPTIONS)
def _end_covariance(lanes, C, F, work, sigma, goal):  # type: ignore[no-untyped-def]
    """Write the transposed gradient in ``C_0 = P W_L ... W_1`` into ``F_0``: ``2 sigma (C_0 - goal)^T``."""
    outputs, widest, d = C.shape[1], C.shape[2], sigma.shape[0]
    for c in range(outputs):
        for i in range(d):
            store(work, i, load(C, c * widest + i, lanes) - load(goal, c * d + i, lanes))
        for i in range(d):
            total = load(sigma, i * d, lanes) * load(work, 0, lanes)
            for j in range(1, d):
                total = fma(load(sigma, i * d + j, lanes), load(work, j, lanes), total)
            store(F, i * outputs + c, total + total)


@numba.njit(**_OPTIONS)
def _end_measured(lanes, C, F, rows, target, weight, d):  # type: ignore[no-untyped-def]
    """The same for measurements, all at once."""
    outputs, widest = C.shape[1], C.shape[2]
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


@numba.njit(**_OPTIONS)
def _end_batch(lanes, C, F, rows, weight, indices, shifts, t, flat, carried):  # type: ignore[no-untyped-def]
    """The same for the batches of measurements drawn for step `t`, one in every lane."""
    outputs = C.shape[1]
    d = flat.size // outputs
    index, shift = indices[t], shifts[t]
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
    """Write ``F_k = W_k F_{k-1}`` and, once a row of `W_k` has been used, its gradient ``C_k^T F_{k-1}^T`` or the step."""
    outputs, widest = C.shape[1], C.shape[2]
    for k in range(1, sizes.size):
        height, width, first = sizes[k], sizes[k - 1], offsets[k - 1]
        here, before = k * widest * outputs, (k - 1) * widest * outputs
        for i in range(height):
            for c in range(outputs):
                total = zero(F, lanes)
                for j in range(width):
                    total = fma(load(weights, first + i * width + j, lanes), load(F, before + j * outputs + c, lanes), total)
                store(F, here + i * outputs + c, total)
            for j in range(width):
                place, slope = first + i * width + j, zero(F, lanes)
                for c in range(outputs):
                    slope = fma(load(C, here + c * widest + i, lanes), load(F, before + j * outputs + c, lanes), slope)
                store(out, place, load(weights, place, lanes) - slope if descend else slope)


@numba.njit(**_OPTIONS)
def _lost(lanes, F, entries, total, limit):  # type: ignore[no-untyped-def]
    """Count the runs whose gradient overflows; `total` is left with the sizes of the gradients."""
    size = absolute(load(F, 0, lanes))
    for q in range(1, entries):
        size = size + absolute(load(F, q, lanes))
    store(total, 0, size)
    lost = 0
    for r in range(len(lanes)):
        lost += not total[r] < limit
    return lost


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
def _scale(lanes, F, entries, step):  # type: ignore[no-untyped-def]
    """Multiply the gradient in ``C_0`` by the step sizes."""
    for q in range(entries):
        store(F, q, load(F, q, lanes) * load(step, 0, lanes))


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
def _of_length(lanes, way, radius, out):  # type: ignore[no-untyped-def]
    """Write ``radius way / |way|``; where a way has no direction, `out` stays as it is."""
    for r in range(len(lanes)):
        length = _length(way, r)
        if length > 0:
            for q in range(way.shape[0]):
                out[q, r] = radius * (way[q, r] / length)


@numba.njit(**_OPTIONS)
def _add(lanes, one, other, out):  # type: ignore[no-untyped-def]
    """Write ``one + other``."""
    for q in range(one.shape[0]):
        for r in range(len(lanes)):
            out[q, r] = one[q, r] + other[q, r]


@numba.njit(**_OPTIONS)
def _add_share(lanes, sample, samples, mean):  # type: ignore[no-untyped-def]
    """Add the share of one sample to a mean of several."""
    for q in range(mean.shape[0]):
        for r in range(len(lanes)):
            mean[q, r] += sample[q, r] / samples


@numba.njit(**_OPTIONS)
def _descend(lanes, weights, velocity, slope, step, momentum, decay, normalised):  # type: ignore[no-untyped-def]
    """Take the step along a gradient, with what a rule adds to it."""
    n = weights.shape[0]
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


@numba.njit(**_OPTIONS)
def advance(lanes, state, shape, scratch, problem, draws, runs, rule, start, stop):  # type: ignore[no-untyped-def]
    """Take the steps `start` to `stop`; `draws` holds the batches, targets and random directions of these steps.

    A compiled function that calls others, unpacks tuples or may raise counts references to all its arrays at each call, which
    takes longer than a small gradient: that is done here, once for all steps, and the functions above are only loops.
    """
    weights, velocity, slope, shifted, point = state
    sizes, offsets, limit = shape
    C, F, work, total = scratch
    kind, sigma, goal, rows, target, weight = problem
    indices, shifts, spheres = draws
    step, diverged = runs
    momentum, decay, normalised, where, radius, inner, fresh = rule
    plain = momentum == 0 and decay == 0 and not normalised and where == HERE
    outputs, entries, samples = C.shape[1], sizes[0] * C.shape[1], spheres.shape[1]
    flat, carried = np.empty(entries, C.dtype), np.empty(entries, C.dtype)
    gradients = samples if where == AVERAGE else inner + 1 if where == ASCENT else 1
    at, into = (weights if where == HERE else point), (weights if plain else shifted if where == AVERAGE else slope)
    for iteration in range(start, stop):
        lost = 0
        if where == ASCENT and fresh:
            shifted[:] = 0.0
        if where == AVERAGE:
            slope[:] = 0.0
        for once in range(gradients):
            if where == AVERAGE:
                _of_length(lanes, spheres[iteration - start, once], radius, point)
                _add(lanes, weights, point, point)
            elif where == ASCENT:  # shifted is the way from the weights to the point of ascent
                _add(lanes, weights, shifted, point)
            _sweep_down(lanes, at, C, sizes, offsets)
            if kind == COVARIANCE:
                _end_covariance(lanes, C, F, work, sigma, goal)
            elif kind == ALL:
                _end_measured(lanes, C, F, rows, target, weight, sizes[0])
            else:
                _end_batch(lanes, C, F, rows, weight, indices, shifts, iteration - start, flat, carried)
            lost = _lost(lanes, F, entries, total, limit)
            if lost > 0:
                _stop_lost(lanes, C, F, total, limit, step, diverged, iteration)
            if plain:
                _scale(lanes, F, entries, step)
            if plain and outputs == 1:
                _step_up(lanes, weights, C, F, sizes, offsets)
            else:
                _sweep_up(lanes, at, into, plain, C, F, sizes, offsets)
            if where == AVERAGE:
                _add_share(lanes, shifted, samples, slope)
            if where == ASCENT and once + 1 < gradients:
                _of_length(lanes, slope, radius, shifted)
        if lost == len(lanes):
            return
        if not plain:
            _descend(lanes, weights, velocity, slope, step, momentum, decay, normalised)
