"""Exact curvature of factorizations: traces of the Hessian in closed matrix form."""

from balancedfact.curvature._trace import isotropic_trace, scaled_trace, trace

__all__ = ["isotropic_trace", "scaled_trace", "trace"]
