"""The factorizations of one matrix: least trace of the Hessian over them, a geodesically convex problem."""
