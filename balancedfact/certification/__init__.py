"""Proofs: lower bounds, residuals and contradictions with their rounding, and the verdict that follows from them."""
