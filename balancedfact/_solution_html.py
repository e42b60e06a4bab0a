"""A solution in a notebook: the verdict, the numbers that matter, and its singular values as a picture."""

from __future__ import annotations

from html import escape

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._status import Status

_WIDTH, _HEIGHT, _MOST_BARS = 240, 60, 40  # of the picture in pixels, and the singular values shown
_COLOURS = {True: "#1b7837", False: "#b35806"}
_FOOT = 1e-17  # relative singular value at the foot of the picture


def html(status: Status, about: str, message: str, value: float, c: Certificate, singular_values: np.ndarray) -> str:
    """One self-contained element; all texts are escaped."""
    rows = [("value", value), ("lower bound", c.lower_bound), ("gap", c.gap), ("feasibility", c.feasibility)]
    cells = "".join(f"<tr><td>{name}</td><td>{number:.6g}</td></tr>" for name, number in rows if not np.isnan(number))
    mark = "proved" if status.proved else "evidence" if status.ok else "not proved"
    return (
        f'<div><strong style="color:{_COLOURS[status.proved]}">{escape(status.value)}</strong> ({mark}; '
        f"{escape(about)})<br>{escape(message)}<table>{cells}</table>{_picture(singular_values)}</div>"
    )


def _picture(s: np.ndarray) -> str:
    """Singular values relative to the first, on a logarithmic scale; nothing where there are none."""
    s = s[:_MOST_BARS]
    if not s.size or not s[0] > 0:
        return ""
    heights = _HEIGHT * (1 - np.log10(np.maximum(s / s[0], _FOOT)) / np.log10(_FOOT))
    step = _WIDTH / max(s.size, 8)
    bars = "".join(
        f'<rect x="{k * step:.1f}" y="{_HEIGHT - height:.1f}" width="{0.7 * step:.1f}" height="{height:.1f}" fill="#4575b4"/>'
        for k, height in enumerate(heights)
    )
    title = f"<title>singular values relative to the first, from 1 down to {_FOOT:.0e}, logarithmic</title>"
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img">{title}{bars}</svg>'
