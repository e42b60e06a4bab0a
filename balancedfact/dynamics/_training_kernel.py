"""The compiled loop of all training rules, for networks whose weights fit into the cache.

With ``C_k = P W_L ... W_{k+1}`` (`P` the readout) and the gradient `G` of the loss in ``P E``, the gradient of a layer is
``C_k^T G B_{k-1}^T``: one sweep down for the ``C_k``, one sweep up for ``F_k = B_k G^T``, each with thin matrices only. Runs go
side by side in lanes, the innermost axis of every array, which the compiler turns into vector instructions. Arithmetic is the
same in every lane and for any number of lanes: results do not depend on which runs are computed together.

The number of lanes is the length of the tuple `lanes`, a constant to the compiler.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

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
def _end_gradient(lanes, E, G, work, problem, index, shift):  # type: ignore[no-untyped-def]
    """Write the transposed gradient in ``E = P W_L ... W_1`` into `G`."""
    kind, sigma, goal, rows, target, weight = problem
    outputs, d = E.shape[0], sigma.shape[0]
    if kind == COVARIANCE:
        for c in range(outputs):
            for i in range(d):
                for r in range(len(lanes)):
                    work[i, r] = E[c, i, r] - goal[c, i, r]
            for i in range(d):
                into = G[i, c]
                for r in range(len(lanes)):
                    into[r] = 0.0
                for j in range(d):
                    for r in range(len(lanes)):
                        into[r] += sigma[i, j, r] * work[j, r]
                for r in range(len(lanes)):
                    into[r] *= 2.0
    elif kind == ALL:
        rest = work[0]
        for i in range(d):
            for c in range(outputs):
                for r in range(len(lanes)):
                    G[i, c, r] = 0.0
        for p in range(rows.shape[0]):
            for r in range(len(lanes)):
                rest[r] = -target[p]
            for c in range(outputs):
                for i in range(d):
                    factor = rows[p, c * d + i]
                    for r in range(len(lanes)):
                        rest[r] += factor * E[c, i, r]
            for r in range(len(lanes)):
                rest[r] *= weight
            for c in range(outputs):
                for i in range(d):
                    factor = rows[p, c * d + i]
                    for r in range(len(lanes)):
                        G[i, c, r] += factor * rest[r]
    else:
        flat, carried = np.empty(outputs * d, E.dtype), np.empty(outputs * d, E.dtype)
        for r in range(len(lanes)):
            for c in range(outputs):
                for i in range(d):
                    flat[c * d + i] = E[c, i, r]
            _measured(rows, flat, index[:, r], shift[:, r], weight, carried)
            for c in range(outputs):
                for i in range(d):
                    G[i, c, r] = carried[c * d + i]


@numba.njit(**_OPTIONS)
def _gradient(lanes, weights, out, descend, shape, scratch, problem, drawn, runs, iteration):  # type: ignore[no-untyped-def]
    """Write the gradient at `weights` into `out`, or, with `descend`, take the step; returns how many runs have overflowed."""
    sizes, offsets, limit = shape
    C, F, work, total = scratch
    step, diverged = runs
    depth, d, outputs = sizes.size - 1, sizes[0], C.shape[1]
    for k in range(depth, 0, -1):  # C_{k-1} = C_k W_k
        height, width, first = sizes[k], sizes[k - 1], offsets[k - 1]
        for c in range(outputs):
            above, below = C[k, c], C[k - 1, c]
            for j in range(width):
                entry = weights[first + j]
                for r in range(len(lanes)):
                    below[j, r] = entry[r] * above[0, r]
            for i in range(1, height):
                for j in range(width):
                    entry = weights[first + i * width + j]
                    for r in range(len(lanes)):
                        below[j, r] += entry[r] * above[i, r]
    _end_gradient(lanes, C[0], F[0], work, problem, drawn[0], drawn[1])
    for r in range(len(lanes)):
        total[r] = 0.0
    for i in range(d):
        for c in range(outputs):
            for r in range(len(lanes)):
                total[r] += abs(F[0, i, c, r])
    lost = 0
    for r in range(len(lanes)):
        if not total[r] < limit:
            lost += 1
    if lost > 0:  # the weights of such a run stay where they are
        for r in range(len(lanes)):
            if not total[r] < limit:
                step[r] = 0.0
                if diverged[r] < 0:
                    diverged[r] = iteration
                for c in range(outputs):
                    for i in range(d):
                        F[0, i, c, r] = 0.0
                    for k in range(1, depth):
                        for i in range(sizes[k]):
                            C[k, c, i, r] = 0.0
    if descend:
        for i in range(d):
            for c in range(outputs):
                for r in range(len(lanes)):
                    F[0, i, c, r] *= step[r]
    for k in range(1, depth + 1):  # F_k = W_k F_{k-1}; once an entry has been used, its gradient C_k^T F_{k-1}^T
        height, width, first = sizes[k], sizes[k - 1], offsets[k - 1]
        for i in range(height):
            if descend and outputs == 1:  # the same arithmetic in one loop over the lanes
                factor = C[k, 0, i]
                for r in range(len(lanes)):
                    total[r] = 0.0
                for j in range(width):
                    entry, column = weights[first + i * width + j], F[k - 1, j, 0]
                    for r in range(len(lanes)):
                        total[r] += entry[r] * column[r]
                        entry[r] -= factor[r] * column[r]
                for r in range(len(lanes)):
                    F[k, i, 0, r] = total[r]
                continue
            for c in range(outputs):
                for r in range(len(lanes)):
                    F[k, i, c, r] = 0.0
            for j in range(width):
                entry, slot = weights[first + i * width + j], out[first + i * width + j]
                for c in range(outputs):
                    into, column = F[k, i, c], F[k - 1, j, c]
                    for r in range(len(lanes)):
                        into[r] += entry[r] * column[r]
                if descend:
                    for c in range(outputs):
                        factor, column = C[k, c, i], F[k - 1, j, c]
                        for r in range(len(lanes)):
                            slot[r] -= factor[r] * column[r]
                else:
                    factor, column = C[k, 0, i], F[k - 1, j, 0]
                    for r in range(len(lanes)):
                        slot[r] = factor[r] * column[r]
                    for c in range(1, outputs):
                        factor, column = C[k, c, i], F[k - 1, j, c]
                        for r in range(len(lanes)):
                            slot[r] += factor[r] * column[r]
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
