"""NumPy's global random state, from which pymanopt draws, under the control of a generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_seed(generator: np.random.Generator) -> Iterator[None]:
    """Seed the global state from `generator`, and put it back afterwards."""
    state = np.random.get_state()  # noqa: NPY002, pymanopt draws from the global state
    np.random.seed(int(generator.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
