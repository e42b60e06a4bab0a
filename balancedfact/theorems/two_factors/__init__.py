"""Claims on pairs of factors: flat, balanced, norm-minimal, and what proves them so."""

from balancedfact.theorems.two_factors import _certificates, _pairs  # noqa: F401, each enters its claims
