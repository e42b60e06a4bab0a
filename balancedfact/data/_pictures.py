"""Pictures as matrices of grey levels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
_LARGEST_PICTURE = 100_000_000  # pixels


def read_picture(path: Path) -> np.ndarray:
    """The grey levels of a picture, from 0 to 1, ``nan`` where it is transparent."""
    from PIL import Image, UnidentifiedImageError  # which comes with matplotlib

    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = picture.size
            if width * height > _LARGEST_PICTURE:
                raise ValueError(f"the picture has {width} x {height} pixels; expected at most {_LARGEST_PICTURE}")
            if picture.mode.startswith("I") or picture.mode == "F":
                levels = np.asarray(picture, dtype=np.float64)
                return levels / 65535.0 if picture.mode != "F" else levels
            pixels = np.asarray(picture.convert("RGBA"), dtype=np.float64) / 255.0
    except UnidentifiedImageError:
        raise ValueError("not a picture that can be read") from None
    except (SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture that can be read ({error})") from None
    grey = pixels[..., :3] @ np.array(_LUMINANCE)
    grey[pixels[..., 3] == 0] = np.nan
    return grey
