"""Claims on the largest eigenvalue of the Hessian, and on where training ends."""

from balancedfact.theorems.sharpness import _hessian, _least, _minimisers, _rank_one_limit, _training  # noqa: F401, each enters its claims
