"""Limits on time and iterations, and how a search learns that one has been reached."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from balancedfact._validate import as_count, as_number

# The moment at which the innermost limited search of this thread has to stop.
_DEADLINE: ContextVar[float] = ContextVar("deadline", default=np.inf)


@dataclass(frozen=True)
class Limits:
    """A budget for a solve: when it is spent, the best point so far is returned with a true certificate.

    Parameters
    ----------
    seconds : float, optional
        Wall-clock time from the call on, looked at between inner steps: a single linear-algebra operation is not cut short,
        and the certificate of the best point is computed after that.
    iterations : int, optional
        Number of records in `Solution.history`.

    Raises
    ------
    ValueError
        If `seconds` is not a positive number or `iterations` no positive integer.

    See Also
    --------
    flat_minimum, norm_minimum, flat_network : Functions that take ``limits=``.

    References
    ----------
    Guide :doc:`/guide/large`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> A = bf.measurements.gaussian(60, (12, 10), rng=0)
    >>> b = A(bf.measurements.gaussian(1, (12, 10), rng=1).adjoint([1.0]))
    >>> solution = bf.flat_minimum(A, b, limits=bf.Limits(seconds=60, iterations=2))
    >>> solution.status.name, len(solution.history["gap"]), solution.certificate.lower_bound <= solution.value
    ('LIMIT', 2, True)
    """

    seconds: float | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None:
            as_number(self.seconds, "seconds", above=0.0)
        if self.iterations is not None:
            as_count(self.iterations, "iterations")


class Budget:
    """The time that several searches share, one after another; it runs from its making on.

    Parameters
    ----------
    seconds : float, optional
        Without it there is no end.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = np.inf if seconds is None else time.perf_counter() + seconds

    @property
    def spent(self) -> bool:
        """True once nothing is left."""
        return time.perf_counter() >= self._end

    def rest(self, share: float = 1.0) -> Limits:
        """A share of what is left, for the next search; a millisecond if nothing is, which buys the first point."""
        if self._end == np.inf:
            return Limits()
        return Limits(seconds=max(share * (self._end - time.perf_counter()), 1e-3))


class Stopped(Exception):
    """A limit was reached, or the callback asked to stop; the sentence says which."""


def as_limits(value: Limits | None) -> Limits:
    """Return `value`, or no limits for ``None``."""
    if value is None:
        return Limits()
    if not isinstance(value, Limits):
        raise ValueError(f"limits is {value!r}; expected bf.Limits(seconds=..., iterations=...)")
    return value


def check_time() -> None:
    """Raise `Stopped` once the time of the running search is spent; called in every inner loop, at a cost of 0.1 µs."""
    deadline = _DEADLINE.get()
    if deadline < np.inf and time.perf_counter() >= deadline:
        raise Stopped("The limit on seconds was reached")
