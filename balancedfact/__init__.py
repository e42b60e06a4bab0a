"""Of all the factorizations that fit the data, which one is flat, balanced or norm-minimal, and how do you know?"""

from balancedfact import closed_forms, curvature, measurements

__all__ = ["closed_forms", "curvature", "measurements"]
__version__ = "0.1.0"
