"""Checks at the door: every public function refuses bad input here, by one mechanism and with one kind of message."""

from __future__ import annotations

import math
import numbers
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._memory import available_memory

_Kind = TypeVar("_Kind")


def as_array(value: ArrayLike, name: str, *, ndim: int | None = None, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return `value` as a finite, non-empty float64 array, or raise a ``ValueError`` that names the argument."""
    array = as_regular(value, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; expected real numbers")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimension{'s' * (ndim != 1)}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty, of shape {array.shape}; expected at least one number")
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise ValueError(f"{name} has {bad} NaN or infinite value{'s' * (bad != 1)}; expected finite numbers")
    return array


def as_regular(value: ArrayLike, name: str) -> np.ndarray:
    """Return `value` as an array of any kind; rows of unequal length, and what lies under a mask, are refused."""
    if isinstance(value, np.ma.MaskedArray):
        hidden = int(np.count_nonzero(np.ma.getmaskarray(value)))
        if hidden:  # the numbers under a mask are not data
            raise ValueError(f"{name} has {hidden} masked value{'s' * (hidden != 1)}; expected none, leave them out")
        value = value.data
    try:
        if isinstance(value, (list, tuple)) and any(hasattr(each, "detach") for each in value):
            return np.asarray([_untracked(each) for each in value])
        return np.asarray(_untracked(value))
    except (TypeError, ValueError, OverflowError) as error:  # rows of unequal length, or an object that cannot become an array
        raise ValueError(f"{name} is not an array of numbers; expected one with rows of equal length") from error


def _untracked(value: Any) -> Any:
    """The numbers of a tensor of PyTorch, which may require a gradient or lie elsewhere; anything else as it is."""
    detach = getattr(value, "detach", None)
    return detach().cpu().numpy() if callable(detach) else value


def as_gappy(value: ArrayLike, name: str) -> np.ndarray:
    """Return `value` as a float64 matrix with ``nan`` where it is ``nan``, ``None`` or masked; infinite values are refused."""
    if isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    array = as_regular(value, name)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)  # None is nan
        except (TypeError, ValueError):
            raise ValueError(f"{name} holds things that are not numbers; expected numbers, or nan where nothing is") from None
    if array.dtype.kind not in "fiub" or array.ndim != 2:
        raise ValueError(f"{name} has dtype {array.dtype} and shape {array.shape}; expected a matrix of real numbers")
    if array.size == 0:
        raise ValueError(f"{name} is empty, of shape {array.shape}; expected at least one number")
    if np.isinf(array).any():
        raise ValueError(f"{name} has {int(np.isinf(array).sum())} infinite values; expected finite numbers or nan")
    return array.astype(np.float64, copy=False)


def as_index(value: ArrayLike, name: str, bound: int) -> np.ndarray:
    """Return `value` as a one-dimensional integer array with entries in ``[0, bound)``."""
    array = as_regular(value, name)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; expected 1 dimension")
    if array.size == 0:
        raise ValueError(f"{name} is empty; expected at least one index")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}; expected integers")
    if array.min() < 0 or array.max() >= bound:
        raise ValueError(f"{name} has values from {array.min()} to {array.max()}; expected 0 to {bound - 1}")
    return array if array.dtype in (np.int32, np.int64) else array.astype(np.intp)


_LARGEST_COUNT = 2**63 - 1  # what NumPy takes for a size
_DEEPEST = 1_000_000  # layers; a list of the layers of a much deeper network fits into no memory


def as_count(value: int, name: str, *, least: int = 1, most: int = _LARGEST_COUNT) -> int:
    """Return `value` as an ``int`` that is at least `least` and at most `most`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected an integer")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")
    if value > most:
        raise ValueError(f"{name} is {value}; expected at most {most}")
    return int(value)


def check_room(name: str, *sizes: int) -> None:
    """Refuse arguments, named by `name`, that ask for an array of the shape `sizes` which the free memory does not hold."""
    if 8 * math.prod(sizes) > available_memory():
        shape = " x ".join(str(size) for size in sizes)
        raise ValueError(f"{name} asks for {shape} numbers; expected as many as fit into the free memory")


def as_depth(value: int, *, least: int = 2) -> int:
    """Return the number of layers `value`, at least `least`."""
    return as_count(value, "depth", least=least, most=_DEEPEST)


def as_number(value: float, name: str, *, least: float = -np.inf, above: float = -np.inf, most: float = np.inf) -> float:
    """Return `value` as a finite ``float`` with ``least <= value <= most`` and ``value > above``."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected a real number")
    try:
        value = float(value)
    except OverflowError:  # an integer beyond the range of float64
        value = np.inf
    if not np.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")
    if value <= above:
        raise ValueError(f"{name} is {value}; expected more than {above}")
    if value > most:
        raise ValueError(f"{name} is {value}; expected at most {most}")
    return value


def as_flag(value: bool, name: str) -> bool:
    """Return `value` if it is true or false."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def as_progress(value: bool | None) -> bool:
    """Tell whether to show progress: as `value` says or, without it, on a terminal."""
    return sys.stderr.isatty() if value is None else as_flag(value, "progress")


def as_choice(value: str, name: str, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the words `choices`."""
    if not isinstance(value, str) or value not in choices:
        *words, last = map(repr, choices)
        raise ValueError(f"{name} is {value!r}; expected {', '.join(words) + ' or ' if words else ''}{last}")
    return value


def as_words(value: str | Iterable[str], name: str) -> list[str]:
    """Return one word, or several, as a list."""
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [None]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"{name} is {value!r}; expected a word or a list of words")
    return [word for word in words if isinstance(word, str)]


def as_kind(value: object, name: str, kind: type[_Kind], expected: str) -> _Kind:
    """Return `value` if it is an instance of `kind`, which the words `expected` describe."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {type(value).__name__}; expected {expected}")
    return value


def as_path(value: str | os.PathLike[str], name: str = "path") -> Path:
    """Return `value` as a ``pathlib.Path`` that names a file."""
    try:
        path = Path(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; expected the name of a file") from None
    if not path.name or "\0" in str(path):
        raise ValueError(f"{name} is {os.fspath(value)!r}; expected the name of a file")
    return path


def _in_order(value: Iterable[int]) -> list[int]:
    """The members of something that has an order."""
    if isinstance(value, (AbstractSet, Mapping)):
        raise TypeError
    return list(value)


def as_shape(value: tuple[int, int], name: str = "shape") -> tuple[int, int]:
    """Return `value` as a pair of positive integers."""
    try:
        sizes = _in_order(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; expected a pair (d1, d2)") from None
    if len(sizes) != 2:
        raise ValueError(f"{name} is {value!r}; expected a pair (d1, d2)")
    return as_count(sizes[0], f"{name}[0]"), as_count(sizes[1], f"{name}[1]")


def as_widths(value: Iterable[int], matrix_shape: tuple[int, ...] | None = None, *, least: int = 3) -> list[int]:
    """Return `value` as the widths ``[d_0, ..., d_L]``, of layers that multiply to shape `matrix_shape` if it is given."""
    try:
        entries = _in_order(value)
    except TypeError:
        raise ValueError(f"widths is {value!r}; expected a list [d_0, ..., d_L]") from None
    if len(entries) < least:
        layers = "two layers" if least == 3 else "one layer"
        raise ValueError(f"widths has {len(entries)} entries; expected at least {least}, for {layers}")
    widths = [as_count(width, f"widths[{j}]") for j, width in enumerate(entries)]
    if matrix_shape is not None and (widths[-1], widths[0]) != tuple(matrix_shape):
        rows, columns = matrix_shape
        raise ValueError(f"widths is {widths}; expected it to start with {columns} and to end with {rows}")
    return widths


def as_rng(value: int | np.random.Generator | None, name: str = "rng") -> np.random.Generator:
    """Return a ``numpy.random.Generator`` from a seed, a generator or ``None``."""
    if value is None or isinstance(value, (numbers.Integral, np.random.Generator, np.random.SeedSequence)):
        if isinstance(value, numbers.Integral) and (isinstance(value, bool) or value < 0):
            raise ValueError(f"{name} is {value!r}; expected a non-negative seed or a numpy.random.Generator")
        return np.random.default_rng(value)
    raise ValueError(f"{name} is {value!r}; expected a seed or a numpy.random.Generator")


def as_layers(
    layers: Sequence[ArrayLike], matrix_shape: tuple[int, int] | None = None, *, name: str = "layers"
) -> list[np.ndarray]:
    """Return `layers` as float64 matrices whose product ``W_L ... W_1`` exists and has shape `matrix_shape`."""
    try:
        checked = [as_array(_weight(layer, f"{name}[{k}]"), f"{name}[{k}]", ndim=2) for k, layer in enumerate(layers)]
    except TypeError:
        raise ValueError(f"{name} is {layers!r}; expected a list of matrices [W_1, ..., W_L]") from None
    if not checked:
        raise ValueError(f"{name} is empty; expected a list of matrices [W_1, ..., W_L]")
    for k in range(1, len(checked)):
        if checked[k].shape[1] != checked[k - 1].shape[0]:
            raise ValueError(
                f"{name}[{k}] has shape {checked[k].shape} after {name}[{k - 1}] of shape {checked[k - 1].shape}; "
                f"expected {checked[k - 1].shape[0]} columns"
            )
    found = (checked[-1].shape[0], checked[0].shape[1])
    if matrix_shape is not None and found != tuple(matrix_shape):
        raise ValueError(f"{name} multiply to shape {found}; expected {tuple(matrix_shape)}")
    return checked


def _weight(layer: Any, name: str) -> ArrayLike:
    """The matrix of a linear module of PyTorch; anything else as it is."""
    if not hasattr(layer, "named_parameters"):
        return layer
    parameters = dict(layer.named_parameters())
    if parameters.get("bias") is not None:
        raise ValueError(f"{name} has a bias; expected a linear layer without one")
    if set(parameters) != {"weight"}:
        raise ValueError(f"{name} is {type(layer).__name__}; expected a linear layer, with a weight and nothing else")
    return parameters["weight"]


def as_pair(
    L: ArrayLike, R: ArrayLike, matrix_shape: tuple[int, int] | None = None, *, names: tuple[str, str] = ("L", "R")
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(L, R)`` as float64 matrices with equal numbers of columns and ``L @ R.T`` of shape `matrix_shape`."""
    left, right = as_array(L, names[0], ndim=2), as_array(R, names[1], ndim=2)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"{names[1]} has {right.shape[1]} columns; expected {left.shape[1]}, as {names[0]} has")
    if matrix_shape is not None and (left.shape[0], right.shape[0]) != tuple(matrix_shape):
        found = f"{left.shape[0]} and {right.shape[0]} rows"
        raise ValueError(f"{names[0]} and {names[1]} have {found}; expected {tuple(matrix_shape)}")
    return left, right


def as_directions(directions: Sequence[ArrayLike], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Return `directions` as float64 matrices, one of each of `shapes`."""
    try:
        count = len(directions)
    except TypeError:
        raise ValueError(f"directions is {directions!r}; expected a list of matrices, one for each layer") from None
    if count != len(shapes):
        raise ValueError(f"directions has {count} matrices; expected {len(shapes)}, one for each layer")
    return [as_array(each, f"directions[{k}]", shape=shapes[k]) for k, each in enumerate(directions)]


def as_callback(value: object, name: str = "callback") -> Callable[..., object] | None:
    """Return `value` if it can be called, or ``None``."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} is {value!r}; expected a function of one record, or None")
    return value
