"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
