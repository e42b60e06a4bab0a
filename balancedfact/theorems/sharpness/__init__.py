"""Claims on the largest eigenvalue of the Hessian, and on where training ends."""

from balancedfact.theorems.sharpness import (  # noqa: F401, each enters its claims
    _hessian,
    _least,
    _minimisers,
    _rank_one_limit,
    _several_outputs,
    _training,
)
