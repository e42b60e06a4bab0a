"""Networks of three and more layers that fit the data: descents across ranks, and lower bounds."""
