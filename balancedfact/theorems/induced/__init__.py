"""Claims on the least trace of the Hessian over the factorizations of one matrix."""

from balancedfact.theorems.induced import _label_noise, _least_trace, _noise_balance  # noqa: F401, each enters its claims
