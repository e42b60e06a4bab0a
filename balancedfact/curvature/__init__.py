"""Exact curvature of factorizations in closed matrix form: traces of the Hessian and their derivatives, sharpness."""

from balancedfact.curvature._diagonal import diagonal
from balancedfact.curvature._hessian import hessian_norm, spectrum, top_eigenpairs, worst_direction_sharpness
from balancedfact.curvature._loss import hessian_vector_product, loss_gradient
from balancedfact.curvature._sharpness import sharpest_direction, sharpness
from balancedfact.curvature._trace import isotropic_trace, layer_traces, scaled_trace, trace
from balancedfact.curvature._trace_derivatives import trace_gradient, trace_hessian_vector_product

__all__ = [
    "diagonal",
    "hessian_norm",
    "hessian_vector_product",
    "isotropic_trace",
    "layer_traces",
    "loss_gradient",
    "scaled_trace",
    "sharpest_direction",
    "sharpness",
    "spectrum",
    "top_eigenpairs",
    "trace",
    "trace_gradient",
    "trace_hessian_vector_product",
    "worst_direction_sharpness",
]
