"""Searches on manifolds with pymanopt's optimizers: escapes from saddles, augmented Lagrangian."""
