"""The number of threads of dense linear algebra, and of compiled loops."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

# Up to so many unknowns and equations, dense linear algebra is done before threads have met.
_SMALL_UNKNOWNS, _SMALL_EQUATIONS = 100_000, 1500


def threads_for(unknowns: int, equations: int) -> AbstractContextManager[Any]:
    """The context in which dense linear algebra of this size is quickest: one thread for small problems, else all as they are.

    Beside other jobs, threads that wait for each other at every small product take many times as long as one does alone. The
    setting is that of the process while the context lasts.
    """
    if unknowns <= _SMALL_UNKNOWNS and equations <= _SMALL_EQUATIONS:
        return _ONE_THREAD
    return nullcontext()


class _OneThread(AbstractContextManager[None]):
    """One thread of linear algebra while anybody is within: the first sets it, the last puts back what was.

    Were each to put back what it found, the first of two solves to end would unleash the other, and the second would leave the
    limit behind.
    """

    def __init__(self) -> None:
        self._lock, self._within = Lock(), 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._within == 0:
                self._limit = _controller().limit(limits=1, user_api="blas")
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                self._limit.restore_original_limits()


_ONE_THREAD = _OneThread()


def cores() -> int:
    """The number of threads of compiled loops: ``NUMBA_NUM_THREADS``, by default the cores that this process may use."""
    from numba import config

    return vars(config)["NUMBA_NUM_THREADS"]  # which the types of some versions do not name


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries, once

    return ThreadpoolController()
