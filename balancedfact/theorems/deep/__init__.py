"""Claims on the trace of the Hessian of deep networks: formulas, closed forms, bounds, measurements."""

from balancedfact.theorems.deep import (  # noqa: F401, each enters its claims
    _bounds,
    _closed_forms,
    _global_certificate,
    _isometry,
    _samples,
    _trace,
    _weight_decay,
)
