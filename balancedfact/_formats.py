"""The formats of pictures, named once for the command line and for the functions behind it; light enough for ``--help``."""

PICTURES = ("png", "svg", "pdf")  # the first is the default; the others are vector graphics
