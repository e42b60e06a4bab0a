"""Claims on the sets of balanced pairs and layers, of factorizations and of zero loss."""

from balancedfact.theorems.geometry import _balanced_approximation, _balanced_layers, _balanced_pairs, _zero_loss  # noqa: F401, each enters its claims
