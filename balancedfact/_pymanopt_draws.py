"""The randomness of pymanopt, which draws from NumPy's global state, from a generator instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

# Of each thread its own, so that searches at the same time neither wait for nor disturb one another.
_SOURCE: ContextVar[np.random.RandomState | None] = ContextVar("_SOURCE", default=None)


class _Random(ModuleType):
    """``numpy.random``, but within `pymanopt_draws` its functions draw from the source of the thread."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_SOURCE.get() or np.random, name)


_NUMPY = ModuleType("numpy")
_NUMPY.__dict__.update(vars(np), random=_Random("numpy.random"))


@contextmanager
def pymanopt_draws(generator: np.random.Generator) -> Iterator[None]:
    """Make pymanopt's manifolds and optimizers draw from `generator` in this thread; the global state is not touched.

    A manifold or optimizer from elsewhere that calls ``numpy.random`` itself still draws from the global state.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(("pymanopt.manifolds.", "pymanopt.optimizers.")) and getattr(module, "np", None) is np:
            module.__dict__["np"] = _NUMPY
    token = _SOURCE.set(np.random.RandomState(int(generator.integers(2**32))))
    try:
        yield
    finally:
        _SOURCE.reset(token)


def new_generator() -> np.random.Generator:
    """A generator that follows the source of the thread, or the global state as pymanopt's own manifolds do."""
    return np.random.default_rng((_SOURCE.get() or np.random).randint(2**31, size=4))
