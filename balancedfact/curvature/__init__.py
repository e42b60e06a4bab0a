"""Exact curvature of factorizations: traces of the Hessian in closed matrix form, and their derivatives."""

from balancedfact.curvature._trace import isotropic_trace, scaled_trace, trace
from balancedfact.curvature._trace_derivatives import trace_gradient, trace_hessian_vector_product

__all__ = ["isotropic_trace", "scaled_trace", "trace", "trace_gradient", "trace_hessian_vector_product"]
