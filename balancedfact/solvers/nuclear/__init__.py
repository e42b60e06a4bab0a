"""The convex problem behind two factors: least nuclear norm of a rescaled matrix, with a rigorous dual bound."""
