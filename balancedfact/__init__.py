"""Of all the factorizations that fit the data, which one is flat, balanced or norm-minimal, and how do you know?"""

from importlib import import_module
from typing import Any

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers import (
    Limits,
    balanced_approximation,
    flat_minimum,
    flat_network,
    flattest_factorization,
    induced_regularizer,
    induced_regularizer_gradient,
    norm_minimum,
    riemannian_minimum,
)

__all__ = [
    "Certificate",
    "Limits",
    "Solution",
    "Status",
    "balanced_approximation",
    "closed_forms",
    "curvature",
    "flat_minimum",
    "flat_network",
    "flattest_factorization",
    "induced_regularizer",
    "induced_regularizer_gradient",
    "measurements",
    "norm_minimum",
    "riemannian_minimum",
    "solvers",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # numba, pymanopt and matplotlib are imported only by those who use them.
    if name in ("dynamics", "manifolds", "plots", "theorems"):
        return import_module(f"balancedfact.{name}")
    if name in ("Comparison", "ComparisonRow", "compare"):
        return getattr(import_module("balancedfact.comparison"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
