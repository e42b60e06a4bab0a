"""Of all the factorizations that fit the data, which one is flat, balanced or norm-minimal, and how do you know?"""

from importlib import import_module
from typing import TYPE_CHECKING

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact._version import __version__
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers import (
    Limits,
    balanced_approximation,
    balanced_factorization,
    certify,
    flat_minimum,
    flat_network,
    flattest_factorization,
    flattest_sharpness,
    induced_regularizer,
    induced_regularizer_gradient,
    minimal_sharpness,
    norm_minimum,
    riemannian_minimum,
)

__all__ = [
    "Certificate",
    "Comparison",
    "ComparisonRow",
    "Limits",
    "PanelEffect",
    "Solution",
    "Status",
    "__version__",
    "balanced_approximation",
    "balanced_factorization",
    "certify",
    "closed_forms",
    "compare",
    "complete",
    "curvature",
    "dynamics",
    "estimators",
    "experiments",
    "flat_minimum",
    "flat_network",
    "flattest_factorization",
    "flattest_sharpness",
    "induced_regularizer",
    "induced_regularizer_gradient",
    "io",
    "manifolds",
    "measurements",
    "minimal_sharpness",
    "norm_minimum",
    "panel_effect",
    "panel_path",
    "plots",
    "riemannian_minimum",
    "solvers",
    "theorems",
]


# What is imported only by those who use it: numba, pymanopt, matplotlib and SciPy's optimizers stand behind these doors.
_ROOMS = ("dynamics", "estimators", "experiments", "io", "manifolds", "plots", "theorems")
_ELSEWHERE = {
    **dict.fromkeys(("Comparison", "ComparisonRow", "compare"), "comparison"),
    **dict.fromkeys(("PanelEffect", "complete", "panel_effect", "panel_path"), "data"),
}

if TYPE_CHECKING:
    from balancedfact import dynamics, estimators, experiments, io, manifolds, plots, theorems
    from balancedfact.comparison import Comparison, ComparisonRow, compare
    from balancedfact.data import PanelEffect, complete, panel_effect, panel_path
else:  # hidden from type checkers, which would take it to have every name

    def __getattr__(name):
        if name in _ROOMS:
            return import_module(f"balancedfact.{name}")
        if name in _ELSEWHERE:
            return getattr(import_module(f"balancedfact.{_ELSEWHERE[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *(name for name in globals() if name.startswith("__"))})
