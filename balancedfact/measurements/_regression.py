"""Measurements of univariate regression: linear functions of the inputs, read out along one vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_count, check_room
from balancedfact.measurements._rank_one import RankOne


def regression(inputs: ArrayLike, readout: ArrayLike | None = None, *, outputs: int | None = None) -> RankOne:
    r"""The predictions :math:`\mathcal A(E)_i = p^\top E\,x_i` of a linear network at `n` inputs, as measurements.

    With them, :math:`\frac1n\|\mathcal A(W_L\cdots W_1) - y\|^2` is the risk of univariate regression. With `outputs` the
    predictions are all entries of :math:`E\,x_i`, and the loss, with ``1 / m = 1 / (n q)``, is the risk divided by `q`.

    Parameters
    ----------
    inputs : array_like, shape (n, d)
        The inputs :math:`x_i`.
    readout : array_like, shape (q,), optional
        The fixed vector `p` that reads the output of the last layer; without it the last layer has one row.
    outputs : int, optional
        The number `q` of outputs, each of which is measured: measurement ``i q + j`` is output `j` at input `i`, so that the
        data are ``Y.ravel()`` for targets `Y` of shape ``(n, q)``.

    Returns
    -------
    RankOne
        ``n`` measurements of ``q x d`` matrices, or of ``1 x d`` matrices without a readout; ``n q`` of ``q x d`` with
        `outputs`.

    Raises
    ------
    ValueError
        If an argument is not a finite real array of the right shape, or both `readout` and `outputs` are given.

    See Also
    --------
    RankOne : The kind of map that it returns.
    balancedfact.closed_forms.minimal_sharpness : The least sharpness of a regression.

    References
    ----------
    Chapter :doc:`/theory/several_outputs`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.regression([[1.0, 2.0], [3.0, 4.0]])
    >>> A(np.array([[1.0, -1.0]]))
    array([-1., -1.])
    """
    X = as_array(inputs, "inputs", ndim=2)
    if outputs is not None:
        if readout is not None:
            raise ValueError("outputs and readout are both given; expected one of them")
        q = as_count(outputs, "outputs")
        check_room("outputs", len(X), q, q)
        return RankOne(np.tile(np.eye(q), (len(X), 1)), np.repeat(X, q, axis=0))
    p = np.ones(1) if readout is None else as_array(readout, "readout", ndim=1)
    return RankOne(np.broadcast_to(p, (X.shape[0], p.size)), X)
