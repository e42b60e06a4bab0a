"""A comparison of all ways to a factorization that fits the data, on one problem."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_depth, as_rng, as_words
from balancedfact.comparison._distance import aligned_distance
from balancedfact.comparison._table import Comparison, row_of
from balancedfact.comparison._ways import Ways
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solvers.iteration._limits import Budget, Limits, as_limits


def compare(
    A: MeasurementMap,
    b: ArrayLike,
    depth: int = 2,
    *,
    truth: ArrayLike | None = None,
    methods: Sequence[str] | None = None,
    rng: int | np.random.Generator | None = None,
    limits: Limits | None = None,
) -> Comparison:
    r"""Compare the ways to a factorization that fits the data: closed forms, solvers, flows and training, one row each.

    The rows are, in this order:

    - **analytic**: the closed-form layers for the matrix of least nuclear norm that fits; the flat pair at depth 2, the
      layers of least :math:`R(W)` beyond;
    - **certified**: `flat_minimum`, from which `excess` and `distance` are counted;
    - **Riemannian**: a search on a manifold from a random start, over rescaled-balanced pairs at depth 2 and over the layers
      of zero loss, of a rank that falls and rises, beyond;
    - **balanced**: balanced layers of the matrix of least nuclear norm, the least norm of all layers with that product;
    - **least sharpness**: the layers of least sharpness with the certified product (`minimal_sharpness`), up to its numerical
      rank and a relative 1e-4; left out where the rank makes the search long;
    - **flow, small start**, for square matrices **flow, residual start**, and **flow, balanced start**: where gradient flow
      ends; the balanced layers have the product of the start of the rules below, and stay balanced;
    - **descent**, **descent, large step**, **momentum**, **normalised**, **weight decay**, **SAM, ascent**, **SAM, worst**,
      **SAM, average**: rules of training from one start of ordinary size, each followed by half as many steps of plain descent;
    - **SGD** and **label-noise SGD**: stochastic gradient descent with the same batches from that start, without and with
      noise on the labels, followed by half as many steps without noise.

    The large step is 0.95 of the largest stable step at the analytic layers, ``2 / sharpness``.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data; some matrix should fit them exactly.
    depth : int
        Number of layers.
    truth : array_like, shape (d1, d2), optional
        The matrix that was measured, if it is known.
    methods : sequence of str, optional
        The rows to compute, by the names above; all by default. "certified" is always among them.
    rng : int or numpy.random.Generator, optional
        Seed or generator of starts, batches and noise.
    limits : Limits, optional
        The time for all rows together: searches stop once it is spent, and give their best point; what has not come to its
        end, or not begun, has no row and is named in `Comparison.skipped`. The number of iterations is that of each solver.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If an argument is malformed, no row has a name in `methods`, or the data are zero or contradict one another.

    See Also
    --------
    flat_minimum : The certified solver alone.
    balancedfact.dynamics.gradient_descent : Training alone.
    balancedfact.plots.comparison : A picture of the table.

    References
    ----------
    Guide :doc:`/guide/compare`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((6, 1)) @ rng.standard_normal((1, 6))
    >>> A = bf.measurements.gaussian(30, truth.shape, rng)
    >>> table = bf.compare(A, A(truth), truth=truth, rng=1)
    >>> [row.method for row in table.rows if row.error < 1e-3][:3]
    ['analytic', 'certified', 'Riemannian']
    """
    data, layers = as_array(b, "b", shape=(as_map(A).m,)), as_depth(depth)
    known = None if truth is None else as_array(truth, "truth", shape=A.matrix_shape)
    if not data.any():
        raise ValueError("b is zero; every way leads to the zero matrix")
    bounds = as_limits(limits)
    budget = Budget(bounds.seconds)
    ways = Ways(A, data, layers, as_rng(rng), budget, bounds.iterations)
    names = [name for name, _ in ways.all()]
    wanted = names if methods is None else _chosen(methods, names)
    rows, skipped = [], []
    for name, way in ways.all():
        if name not in wanted:
            continue
        start = time.perf_counter()
        found = None
        if name == "certified" or not budget.spent:
            found = way()
        if found is None:
            skipped.append(name)
            continue
        rows.append(row_of(name, found.layers, A, data, known, time.perf_counter() - start, found.note, found.steps))
    goal = next(row for row in rows if row.method == "certified")
    if not goal.trace > 0:
        raise ValueError(f"limits is {limits}; expected time enough for the certified row, which the others are compared with")
    rows = [replace(row, excess=row.trace / goal.trace - 1, distance=aligned_distance(row.layers, goal.layers)) for row in rows]
    return Comparison(rows, layers, skipped)


def _chosen(methods: Sequence[str], names: list[str]) -> list[str]:
    """The names that were asked for, and the one that the others are compared with."""
    asked = as_words(methods, "methods")
    for name in asked:
        if name not in names:
            raise ValueError(f"methods holds {name!r}; expected names of rows: {'; '.join(names)}")
    return [*asked, "certified"]
