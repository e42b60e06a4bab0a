"""Draw the pictures of the documentation again, from the tables in ``docs/tables``: vector graphics, with small thumbnails.

Run from the root of the repository, after a change to how a figure is drawn, or after
``balancedfact reproduce NAME ... --scale paper --out docs/tables``::

    python docs/draw_pictures.py [NAME ...]
"""

import sys
from pathlib import Path

import gallery

from balancedfact.experiments import redraw
from balancedfact.experiments.figures import FIGURES

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"

for name in sys.argv[1:] or sorted(path.stem for path in (DOCS / "tables").glob("*.csv")):
    for kind in ("svg", "png"):
        redraw(FIGURES[name], DOCS / "tables", pictures=kind)
    (DOCS / "tables" / f"{name}.svg").replace(IMAGES / f"{name}.svg")
    (DOCS / "tables" / f"{name}.png").replace(IMAGES / "thumbnails" / f"{name}.png")
    gallery.shrink(IMAGES / "thumbnails" / f"{name}.png")
    print(f"{name}.svg: {(IMAGES / f'{name}.svg').stat().st_size / 1000:.0f} kB")
