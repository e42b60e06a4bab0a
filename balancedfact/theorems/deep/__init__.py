"""Claims on the trace of the Hessian of deep networks: formulas, closed forms, bounds, measurements."""

from balancedfact.theorems.deep import _bounds, _closed_forms, _isometry, _samples, _trace  # noqa: F401, each enters its claims
