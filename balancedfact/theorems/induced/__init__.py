"""Claims on the least trace of the Hessian over the factorizations of one matrix."""

from balancedfact.theorems.induced import _label_noise, _least_trace  # noqa: F401, each enters its claims
