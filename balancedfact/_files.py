"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes the name `path` when the block succeeds and is removed when it fails.

    Examples
    --------
    >>> import tempfile
    >>> from balancedfact._files import replacing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/note.txt") as partial:
    ...         _ = partial.write_text("all of it")
    ...     print([entry.name for entry in Path(folder).iterdir()])
    ['note.txt']
    """
    target = Path(path)
    # The process id keeps two runs that write to one folder from sharing a temporary name.
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a report. What JSON has no number for becomes ``null`` (not a number) or a string (infinite).

    Examples
    --------
    >>> import tempfile
    >>> from balancedfact._files import write_json
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(f"{folder}/report.json", {"gap": float("nan"), "bound": float("inf")})
    ...     print(Path(folder, "report.json").read_text())
    {
      "gap": null,
      "bound": "inf"
    }
    <BLANKLINE>
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        return None if np.isnan(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value
