"""The names of the algorithms, and the public choice among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from balancedfact._validate import as_number
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._dual_newton import DualNewton
from balancedfact.solvers.nuclear._factored import Factored
from balancedfact.solvers.nuclear._interior_point import InteriorPoint
from balancedfact.solvers.nuclear._problem import NuclearProblem, OffsetTerms
from balancedfact.solvers.nuclear._selection import suitable
from balancedfact.solvers.nuclear._splitting import Splitting
from balancedfact.solvers.riemannian._augmented_lagrangian import RiemannianSearch

_ALL: tuple[type[Algorithm], ...] = (InteriorPoint, Splitting, Factored, DualNewton, RiemannianSearch)
_BY_NAME = {each.name: each for each in _ALL}


def as_method(value: str | Algorithm | None) -> Algorithm | None:
    """Return an algorithm from its name or itself; ``None`` stays."""
    if value is None or isinstance(value, Algorithm):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]()
    names = ", ".join(repr(name) for name in _BY_NAME)
    raise ValueError(f"method is {value!r}; expected None, one of {names}, or a bf.solvers.Algorithm such as Splitting()")


def select_method(A: MeasurementMap, penalty: float = 0.0, *, offset_penalty: float | None = None) -> Algorithm:
    """Choose the algorithm that `flat_minimum` and `norm_minimum` begin with when ``method=None``.

    Parameters
    ----------
    A : MeasurementMap
        The measurements.
    penalty : float
        Weight of the flatness; 0 interpolates, and all positive penalties lead to the same choice.
    offset_penalty : float, optional
        Given if there are row and column offsets.

    Returns
    -------
    Algorithm
        `InteriorPoint` within its limits, unless there are more than a thousand entries to interpolate, else `Factored`. Where
        the first algorithm leaves the gap open, `flat_minimum` goes on with the next that suits: after `Factored`,
        `DualNewton` for so many entries of a matrix of moderate size, `Splitting` otherwise.

    Raises
    ------
    ValueError
        If an argument is malformed.

    See Also
    --------
    Algorithm : The base of all methods.
    InteriorPoint, Splitting, Factored, DualNewton, RiemannianSearch : The methods.

    Notes
    -----
    A solve first leaves out measurements that depend on others, and rows and columns that no measurement sees. It chooses for
    the problem that remains, which may be smaller than `A`. `RiemannianSearch` is never chosen; it has to be named. The
    limits of each algorithm are its fields, and are explained there.

    References
    ----------
    Guide :doc:`/guide/own_algorithm`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.solvers.select_method(bf.measurements.gaussian(30, (8, 6), rng=0)).name
    'interior-point'
    >>> mask = bf.measurements.bernoulli_mask((2000, 1500), 0.01, rng=0)
    >>> bf.solvers.select_method(mask, penalty=1.0)
    Factored(give_up=None, same_fit=False, complete=False)
    """
    q = as_number(penalty, "penalty", least=0.0)
    terms = None
    if offset_penalty is not None:
        as_number(offset_penalty, "offset_penalty", above=0.0)
        terms = OffsetTerms(*(np.zeros(0),) * 4)
    chosen = suitable(NuclearProblem(as_map(A), np.zeros(0), q, terms))[0]
    return replace(chosen, give_up=None, same_fit=False) if isinstance(chosen, Factored) else chosen
