"""Limited-memory BFGS for smooth functions with a domain, such as logarithmic barriers: steps out of it are halved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np

_SUFFICIENT = 1e-4  # of the decrease that the slope promises
_HALVINGS = 40


def descend_in_domain(
    function: Callable[[np.ndarray], tuple[float, np.ndarray] | None],
    x: np.ndarray,
    steps: int,
    *,
    memory: int = 8,
    precondition: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    tol: float = 1e-7,
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Descend from `x`; `function` returns the value and the gradient, or ``None`` outside its domain.

    `precondition` multiplies a vector by an approximate inverse of the Hessian at a point, up to a factor, which is found from
    the last step. It ends after `steps` steps, when a step gains less than `tol` (absolute; barriers are logarithms), or when
    `stop` says so.
    """
    here = function(x)
    if here is None:
        raise ValueError("the start is outside of the domain of the function")
    value, gradient = here
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=memory)
    length = 0.1 / max(float(np.linalg.norm(gradient)), np.finfo(float).tiny)
    for _ in range(steps):
        direction = _two_loop(-gradient, pairs, None if precondition is None else partial(precondition, x))
        slope = float(gradient @ direction)
        if not slope < 0:
            pairs.clear()
            direction = -gradient if precondition is None else -precondition(x, gradient)
            slope = float(gradient @ direction)
            if slope == 0:
                break
        t = 1.0 if pairs or precondition is not None else length
        for _ in range(_HALVINGS):
            moved = x + t * direction
            there = function(moved)
            if there is not None and there[0] <= value + _SUFFICIENT * t * slope:
                break
            t /= 2
            if stop():
                return x
        else:
            if not pairs:
                break
            pairs.clear()
            continue
        change, turn = moved - x, there[1] - gradient
        along = float(change @ turn)
        if along > 1e-12 * float(np.linalg.norm(change)) * float(np.linalg.norm(turn)):
            pairs.append((change, turn, 1 / along))
        gain = value - there[0]
        x, (value, gradient) = moved, there
        if gain < tol or stop():
            break
    return x


def _two_loop(
    q: np.ndarray,
    pairs: deque[tuple[np.ndarray, np.ndarray, float]],
    precondition: Callable[[np.ndarray], np.ndarray] | None,
) -> np.ndarray:
    """The product of the approximate inverse Hessian with `q`."""
    q = q.copy()
    factors = []
    for change, turn, inverse in reversed(pairs):
        factors.append(inverse * float(change @ q))
        q -= factors[-1] * turn
    if precondition is not None:
        q = precondition(q)
    if pairs:
        _, turn, inverse = pairs[-1]
        q /= inverse * float(turn @ (turn if precondition is None else precondition(turn)))
    for (change, turn, inverse), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - inverse * float(turn @ q)) * change
    return q
