"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from balancedfact._validate import as_path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A name of its own (no two writers share it), never through a link, never over a file that is there.
_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
PARTIAL = ".partial"


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give an open file that takes the name `path` when the block succeeds and is removed when it fails.

    The content lies under a name of its own in the same folder and reaches the disk before the name changes, so that a reader
    sees the old file or the new one, whole, whatever is interrupted and however many write at once: the last one wins. A link
    at `path` is replaced, and what it points to is left alone.

    Examples
    --------
    >>> import tempfile
    >>> from balancedfact._files import writing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with writing(f"{folder}/note.txt") as file:
    ...         _ = file.write(b"all of it")
    ...     print([entry.name for entry in Path(folder).iterdir()])
    ['note.txt']
    """
    target = as_path(path)
    partial = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}{PARTIAL}")
    descriptor = os.open(partial, _CREATE, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder durable, where the system can do that."""
    with suppress(OSError):  # Windows opens no folders; some network file systems sync none. The file itself is whole.
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody writes to now."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder, made if need be, while the block runs; the system frees it when the process ends, however it ends.

    What is locked is the folder itself, or on Windows, which locks no folders, a file ``.NAME.lock`` beside it.

    Raises
    ------
    ValueError
        If another process or thread holds it; the message begins with `refusal`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.lock")
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else os.open(beside, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if not (_flocked(descriptor, folder) if fcntl else _locked(descriptor)):
            raise ValueError(f"{refusal}; expected it to be finished, or another folder")
        yield
    finally:
        os.close(descriptor)
        if not fcntl:
            with suppress(OSError):  # another process has opened it meanwhile, and removes it
                beside.unlink()


def _flocked(descriptor: int, folder: Path) -> bool:
    """Tell whether the open folder is now ours, and still there: its owner may have removed it just now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except (BlockingIOError, FileNotFoundError):
        return False


def _locked(descriptor: int) -> bool:
    """Tell whether the first byte of the open file is now ours."""
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8."""
    with writing(path) as file:
        file.write(text.encode("utf-8"))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to a compressed ``.npz`` file, without pickles."""
    for name, array in arrays.items():
        if array.dtype.hasobject:  # NumPy would pickle it
            raise ValueError(f"{name} has dtype {array.dtype}; expected numbers")
    with writing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def write_picture(path: str | os.PathLike[str], figure: Figure, *, title: str = "", source: str = "") -> None:
    """Write a figure in the format that the name ends in: PNG, or SVG or PDF with nothing of the time or place in it.

    The title, and the source that the picture comes from, go into the metadata of the file.
    """
    from matplotlib import rc_context

    kind = as_path(path).suffix[1:] or "png"
    places = {"svg": ("Title", "Source"), "pdf": ("Title", "Subject")}.get(kind, ("Title", "Source"))
    about: dict[str, str | None] = {name: text for name, text in zip(places, (title, source), strict=True) if text}
    about |= {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with writing(path) as file, rc_context({"svg.hashsalt": "balancedfact"}):
        figure.savefig(file, format=kind, metadata=about)


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
    write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        return None if np.isnan(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value
