"""NumPy files of plain arrays, read so that no file can take the memory or stop the interpreter."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy

from balancedfact._memory import available_memory

_PORTION = 0.5  # of the free memory that the arrays of one file may take
_HEADER = 10_000  # bytes; that of an ordinary array has about a hundred


def read_array(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file; every refusal is a ``ValueError`` or an ``OSError``."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("the content is an .npz archive; expected one .npy array")
        file.seek(0)
        return _parse(file, path.stat().st_size, available_memory())


def read_arrays(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name, without those that are not `wanted`; refusals as in `read_array`."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as stream:
            if stream.read(6) == npy.MAGIC_PREFIX:
                raise ValueError("the content is one .npy array; expected an .npz archive")
        with zipfile.ZipFile(path) as archive:
            free = available_memory()
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    raise ValueError(f"the member {name!r} is no .npy array; expected an archive of arrays")
                if name in arrays:
                    raise ValueError(f"the array {name!r} occurs twice")
                if wanted(name):
                    with archive.open(member) as file:
                        try:
                            arrays[name] = _parse(file, member.file_size, free)
                        except ValueError as error:
                            raise ValueError(f"the array {name!r}: {error}") from None
                    free -= 2 * arrays[name].nbytes
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"not a NumPy file of plain arrays ({error})") from error
    return arrays


def _parse(file: IO[bytes], size: int, free: float) -> np.ndarray:
    """One array whose header and data take `size` bytes, as the file says, and no more than a portion of the `free` memory."""
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of the format; expected (1, 0) or (2, 0)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the header was written by Python 2, or looks like it
            shape, fortran, dtype = read(file, max_header_size=_HEADER)
    except (ValueError, TypeError, SyntaxError, TokenError, EOFError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"not a NumPy file of plain arrays ({' '.join(str(error).split())[:200]})") from None
    if dtype.hasobject:
        raise ValueError("not a NumPy file of plain arrays (it holds Python objects, which are never loaded)")
    if dtype.kind not in "fiubcUS" or not all(isinstance(each, int) and each >= 0 for each in shape):
        raise ValueError(f"dtype {dtype} and shape {shape}; expected numbers")
    count = 1
    for each in shape:
        count *= each
    expected = count * dtype.itemsize
    if expected > size:
        raise ValueError(f"not a NumPy file of plain arrays (shape {shape} takes {expected} bytes, the file has {size})")
    if expected > _PORTION * free:
        raise MemoryError(f"an array of {expected / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free")
    if dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    data = np.empty(count, dtype)
    if count:
        _fill(file, memoryview(data.view(np.uint8)))  # type: ignore[arg-type]
    return data.reshape(shape, order="F" if fortran else "C")


def _fill(file: IO[bytes], target: memoryview) -> None:
    """Read in pieces: what a compressed file promises is not allocated twice."""
    at = 0
    while at < len(target):
        piece = file.read(min(1 << 20, len(target) - at))
        if not piece:
            raise ValueError(f"not a NumPy file of plain arrays (the data end after {at} of {len(target)} bytes)")
        target[at : at + len(piece)] = piece
        at += len(piece)
