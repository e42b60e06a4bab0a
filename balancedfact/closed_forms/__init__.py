"""The analytic constructions: what is flat, balanced or norm-minimal without any search."""

from balancedfact.closed_forms._pairs import balanced_pair, flat_pair

__all__ = ["balanced_pair", "flat_pair"]
