"""Certificates for anyone's answers: ours, another package's, or one read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._linalg import product
from balancedfact._objective import Objective
from balancedfact._validate import as_array, as_depth, as_flag, as_layers, as_number, as_pair, as_regular
from balancedfact.certification._statement import certified, certified_layers, checked_data
from balancedfact.closed_forms import schatten_layers
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Certificate, Offsets
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer
from balancedfact.solvers.nuclear._certified import certified_minimum
from balancedfact.solvers.nuclear._problem import balanced_from_matrix


def certify(
    A: MeasurementMap,
    b: ArrayLike,
    candidate: ArrayLike | Sequence[ArrayLike],
    y: ArrayLike | None = None,
    *,
    flat: bool = True,
    penalty: float = 0.0,
    depth: int = 2,
    offset_penalty: float | None = None,
    rigorous: bool = False,
) -> Certificate:
    r"""Compute the certificate of a candidate factorization, whoever found it.

    Nothing is taken on trust: value, residual, lower bound and gap are computed from the numbers given, with a bound on all
    rounding. The bound holds for every `y`; a poor one only leaves a large gap.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    candidate : array_like or sequence of array_like
        A matrix of shape ``(d1, d2)``, which stands for its best factorization; at depth 2 a tuple ``(L, R)`` with product
        ``L @ R.T``; or a list of `depth` layers ``[W_1, ..., W_L]``, as in `Solution.layers`.
    y : array_like, shape (m,), optional
        A dual vector; it is scaled to satisfy its constraint. By default the problem of two layers is solved to find one; for
        the flattest at depth 3 and more it is made of the multipliers at the candidate.
    flat : bool
        Whether the objective is that of `balancedfact.flat_minimum`; otherwise that of `balancedfact.norm_minimum`.
    penalty : float
        The penalty of the objective; 0 interpolates. Must be 0 for the flattest at depth 3 and more.
    depth : int
        The number of factors `L`. For three or more the bound is the largest of those that cost little, see `flat_network`.
    offset_penalty : float, optional
        Weight of the squares of offsets; the candidate is then judged with a mean and offsets of zero, against all offsets.
        `flat_minimum` subtracts a mean from the data first: to compare with its solution, pass ``b - solution.offsets.mean``.
    rigorous : bool
        Decide in exact arithmetic, for small matrices: needs ``pip install 'balancedfact[rigorous]'``. At depth 3 and more this
        covers value, residual and the bound of the dual vector alone, so that the gap may be larger than without it.

    Returns
    -------
    Certificate
        In the units of `Solution.value`. With ``rigorous=True``, `value` and `lower_bound` are the ends of proved enclosures
        that make the gap the largest. At depth 3 and more `stationarity` and `curvature` are those at the candidate.

    Raises
    ------
    ValueError
        If an argument is malformed.

    See Also
    --------
    Solution.verify : The same for a solution.
    flat_minimum, norm_minimum : Solvers of the problems that it certifies.

    References
    ----------
    Guide :doc:`/guide/certificate`, chapter :doc:`/theory/two_factors`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
    >>> bf.certify(A, [1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 6.0]]).gap > 0.01
    True
    >>> bf.certify(A, [1.0, 2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]], flat=False).worst_datum < 1e-12
    True
    """
    data = checked_data(A, b)
    as_flag(flat, "flat"), as_flag(rigorous, "rigorous")
    depth, penalty = as_depth(depth), as_number(penalty, "penalty", least=0.0)
    if depth > 2:
        for name, value, neutral in (("penalty", penalty if flat else 0.0, 0.0), ("offset_penalty", offset_penalty, None)):
            if value != neutral:
                raise ValueError(f"{name} is {value!r} at depth {depth}; expected {neutral}, beyond two layers")
        layers = _as_network(candidate, A, flat, depth)
        vector = None if y is None else as_array(y, "y", shape=(A.m,))
        if vector is None and not flat:
            # With a penalty, of the nuclear norm with the slope that the penalty has at the candidate's.
            size = float(np.linalg.norm(product(layers), "nuc")) if penalty > 0 else 0.0
            vector = _dual(A, data, flat=False, penalty=penalty * size ** (2 / depth - 1) if size > 0 else 0.0)
        said = Objective("flat" if flat else "norm", penalty, depth=depth)
        return certified_layers(A, data, said, layers, vector, effort="quick", rigorous=bool(rigorous))
    if offset_penalty is not None:
        offset_penalty = as_number(offset_penalty, "offset_penalty", above=0.0)
        if not A.of_entries or penalty == 0:
            raise ValueError(f"offset_penalty is {offset_penalty}; expected None unless A is Entries and penalty is positive")
    pair = _as_candidate(candidate, A, flat)
    if y is None:
        dual = _dual(A, data, flat=flat, penalty=penalty, offset_penalty=offset_penalty)
    else:
        dual = as_array(y, "y", shape=(A.m,))
    offsets = None if offset_penalty is None else Offsets(0.0, *(np.zeros(size) for size in A.matrix_shape))
    objective = Objective("flat" if flat else "norm", penalty, offset_penalty)
    return certified(A, data, objective, pair, dual, offsets, rigorous=bool(rigorous))


def _dual(
    A: MeasurementMap, b: np.ndarray, *, flat: bool, penalty: float = 0.0, offset_penalty: float | None = None
) -> np.ndarray:
    """The dual vector that a solve of two layers finds."""
    return certified_minimum(
        A,
        b,
        flat=flat,
        penalty=penalty,
        max_rank=None,
        tol=1e-8,
        rng=0,
        initial=None,
        callback=None,
        progress=False,
        offset_penalty=offset_penalty,
    ).certificate.dual


def _as_network(candidate: Any, A: MeasurementMap, flat: bool, depth: int) -> list[np.ndarray]:
    """The layers that are meant: those given, or the best of a matrix."""
    if _is_matrix(candidate):
        X = as_array(candidate, "candidate", shape=A.matrix_shape)
        if flat:
            return induced_regularizer(X, A, depth).layers
        d1, d2 = X.shape
        rank = max(int(np.linalg.matrix_rank(X)), 1)
        return schatten_layers(X, [d2, *[rank] * (depth - 1), d1])
    layers = as_layers(candidate, A.matrix_shape, name="candidate")
    if len(layers) != depth:
        raise ValueError(f"candidate has {len(layers)} layers; expected {depth}, or a matrix")
    return layers


def _as_candidate(candidate: Any, A: MeasurementMap, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    if _is_matrix(candidate):
        return _best_pair(as_array(candidate, "candidate", shape=A.matrix_shape), A, flat)
    if isinstance(candidate, tuple) and len(candidate) == 2:
        return as_pair(*candidate, A.matrix_shape, names=("candidate[0]", "candidate[1]"))
    layers = as_layers(candidate, A.matrix_shape, name="candidate")
    if len(layers) != 2:
        raise ValueError(f"candidate has {len(layers)} layers; expected 2, a pair or a matrix")
    return layers[1], layers[0].T


def _is_matrix(candidate: Any) -> bool:
    try:
        return as_regular(candidate, "candidate").ndim == 2
    except ValueError:  # layers of different shapes
        return False


def _best_pair(X: np.ndarray, A: MeasurementMap, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Factors of a matrix whose objective is that of the matrix; what no measurement sees costs nothing and is left out."""
    if not flat:
        L, R, _ = balanced_from_matrix(X)
    else:
        white = A.whitened()
        seen = A.rescale_right(A.rescale_right(A.rescale_left(A.rescale_left(X)).T)).T
        inner = np.asarray(white.right.T @ (white.left.T @ seen).T).T
        L, R, _ = balanced_from_matrix(inner)
        L, R = np.asarray(white.left @ L), np.asarray(white.right @ R)
    if L.shape[1] == 0:
        return np.zeros((X.shape[0], 1)), np.zeros((X.shape[1], 1))
    return L, R
