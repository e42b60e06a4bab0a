"""The number of threads of dense linear algebra, and of compiled loops."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

# Up to so many unknowns and equations, dense linear algebra is done before threads have met.
_SMALL_UNKNOWNS, _SMALL_EQUATIONS = 100_000, 1500


def threads_for(unknowns: int, equations: int) -> AbstractContextManager[Any]:
    """The context in which dense linear algebra of this size is quickest: one thread for small problems, else all as they are.

    Beside other jobs, threads that wait for each other at every small product take many times as long as one does alone. The
    setting is that of the process while the context lasts.
    """
    if unknowns <= _SMALL_UNKNOWNS and equations <= _SMALL_EQUATIONS:
        return _controller().limit(limits=1, user_api="blas")
    return nullcontext()


def cores() -> int:
    """The number of threads of compiled loops: ``NUMBA_NUM_THREADS``, by default the cores that this process may use."""
    from numba import config

    return vars(config)["NUMBA_NUM_THREADS"]  # which the types of some versions do not name


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries, once

    return ThreadpoolController()
