"""Estimators for scikit-learn, which must be installed: ``pip install 'balancedfact[sklearn]'``."""

from balancedfact.estimators._imputer import FlatImputer

__all__ = ["FlatImputer"]
