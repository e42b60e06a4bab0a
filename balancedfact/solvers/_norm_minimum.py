"""The norm-minimal factorization that fits the data, with its certificate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution
from balancedfact.solvers._methods import as_method
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import Callback
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._certified import certified_minimum


def norm_minimum(
    A: MeasurementMap,
    b: ArrayLike,
    *,
    method: str | Algorithm | None = None,
    penalty: float = 0.0,
    offset_penalty: float | None = None,
    max_rank: int | None = None,
    tol: float = 1e-8,
    rng: int | np.random.Generator | None = None,
    initial: tuple[ArrayLike, ArrayLike] | None = None,
    limits: Limits | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    r"""Find the norm-minimal factorization that fits the data, and prove it.

    With ``penalty = 0``, among all pairs of any width that interpolate, one of least norm; its product has the least
    nuclear norm:

    .. math:: \min_{\mathcal A(LR^\top) = b} \|L\|_F^2 + \|R\|_F^2 = \min_{\mathcal A(X) = b} 2\,\|X\|_*.

    With a positive penalty, :math:`\min_X \tfrac12\|\mathcal A(X) - b\|^2 + \text{penalty}\cdot\|X\|_*`, returned as the
    balanced pair of its minimiser. The flat pair (`flat_minimum`) is the same with ``D1 X D2`` in place of `X`: the two
    agree when the rescalings are multiples of the identity.

    Parameters
    ----------
    A : MeasurementMap
        `m` measurements of ``d1 x d2`` matrices.
    b : array_like, shape (m,)
        The data.
    method : str or Algorithm, optional
        As in `flat_minimum`.
    penalty : float
        Weight of the nuclear norm; 0 interpolates.
    offset_penalty : float, optional
        Weight of the squares of row and column offsets, for `Entries` with a penalty, as in `flat_minimum`.
    max_rank : int, optional
        Largest number of columns of the factors.
    tol : float
        Relative gap between value and lower bound at which to stop.
    rng : int or numpy.random.Generator, optional
        Randomness of the starting vectors of iterative linear algebra.
    initial : tuple of array_like, optional
        A pair ``(L, R)`` to start from.
    limits : Limits, optional
        Time and iterations after which to stop, with the best point and ``Status.LIMIT``.
    callback : callable, optional
        Called once per iteration with the newest record of `Solution.history`, a dictionary of floats. Returning ``True`` or
        raising ``StopIteration`` stops the solve as a limit does.
    progress : bool, optional
        Show the gap as it closes. By default on a terminal only.

    Returns
    -------
    Solution
        A balanced pair, ``L.T @ L = R.T @ R``. The dual vector `y` of its certificate satisfies ``norm(A.adjoint(y), 2) <=
        1`` (or `penalty`), and the lower bound is ``2 b.y`` (or ``b.y - y.y / 2``).

    Raises
    ------
    ValueError
        If an argument is malformed.

    References
    ----------
    Ding et al. 2022, section on norm-minimal solutions; Recht, Fazel, Parrilo 2010 for the nuclear norm.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    >>> A = bf.measurements.gaussian(100, truth.shape, rng)
    >>> solution = bf.norm_minimum(A, A(truth))
    >>> bool(np.isclose(solution.value, 2 * np.linalg.norm(truth, "nuc")))
    True
    """
    return certified_minimum(
        A,
        b,
        flat=False,
        penalty=penalty,
        offset_penalty=offset_penalty,
        method=as_method(method),
        max_rank=max_rank,
        tol=tol,
        rng=rng,
        initial=initial,
        limits=limits,
        callback=callback,
        progress=progress,
    )
