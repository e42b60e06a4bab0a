"""Copy the pictures that ``balancedfact reproduce`` left in a folder to ``docs/images``, small enough for a page.

Run from the root of the repository: ``python docs/shrink_pictures.py figures``.
"""

import sys
from pathlib import Path

from PIL import Image

WIDTH = 1100
TARGET = Path(__file__).resolve().parent / "images"

for path in sorted(Path(sys.argv[1]).glob("*.png")):
    picture = Image.open(path).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS).quantize(256)
    small.save(TARGET / path.name, optimize=True)
    print(f"{path.name}: {(TARGET / path.name).stat().st_size / 1000:.0f} kB")
