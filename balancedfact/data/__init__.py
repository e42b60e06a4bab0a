"""From the data that people hold to a problem, and from a solution to answers that they can use."""

from balancedfact.data._complete import complete

__all__ = ["complete"]
