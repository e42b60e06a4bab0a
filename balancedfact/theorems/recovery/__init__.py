"""Claims on recovery from few measurements, and on isometry constants."""

from balancedfact.theorems.recovery import _ensembles, _isometry  # noqa: F401, each enters its claims
