"""Tables that people hold read as problems, and solutions turned into answers that they can use."""

from balancedfact.data._complete import complete

__all__ = ["complete"]
