"""Shards on the workers of a Dask cluster, and the tasks on them.

Every object on a worker is the result of a task, so the scheduler holds the recipe of it and of all that it was made from.
When a worker dies, what is still needed of what it held is made again elsewhere, and the tasks that need it wait for that.

All that travels is pickled here into one string of bytes. Left to Dask, arrays would arrive at whatever place in a message, and
NumPy takes other ways, which round otherwise, where an array does not lie at a multiple of eight bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._second_moment import Diagonal, SecondMoment, SymmetricFactors

# Which of all measurements a shard holds, in its own order.
Place = slice | np.ndarray


class Held:
    """An object on a worker with its size in memory, from which the scheduler knows not to move it about."""

    def __init__(self, value: Any, nbytes: int) -> None:
        self.value, self.nbytes = value, nbytes

    def __sizeof__(self) -> int:
        return self.nbytes

    def __reduce__(self) -> Any:
        return _held, (_dumps((self.value, self.nbytes)),)


def _held(packed: bytes) -> Held:
    return Held(*pickle.loads(packed))


class Shards:
    """Futures of held objects in a fixed order; results come back in that order, whoever computed them."""

    def __init__(self, client: Any, futures: Sequence[Any]) -> None:
        self.client, self.futures = client, list(futures)

    @classmethod
    def placed(cls, client: Any, function: Callable[..., Held], arguments: Iterable[tuple[Any, ...]]) -> Shards:
        """One object for each tuple of arguments.

        The scheduler spreads them, by load and by the memory that they take. They are bound to no worker: a task that is, even
        loosely, stays behind for ever when all workers die at once and others come.
        """
        with _large_arguments():
            futures = [client.submit(_begin, function, _dumps(each), pure=False) for each in arguments]
        return cls(client, futures)

    def __len__(self) -> int:
        return len(self.futures)

    def ask(self, function: Callable[..., Any], *common: Any, each: Sequence[tuple[Any, ...]] | None = None) -> list[Any]:
        """The values of ``function(object, *common, *each)`` on every shard, in one round trip."""
        return [pickle.loads(packed) for packed in self.client.gather(self._submit(_answer, function, common, each))]

    def derive(self, function: Callable[..., Held], *common: Any, each: Sequence[tuple[Any, ...]] | None = None) -> Shards:
        """Objects made from these on their workers; nothing is waited for."""
        return Shards(self.client, self._submit(_make, function, common, each))

    def _submit(
        self, task: Any, function: Callable[..., Any], common: tuple[Any, ...], each: Sequence[tuple[Any, ...]] | None
    ) -> list[Any]:
        shared, own = _dumps(common), each or [()] * len(self)
        with _large_arguments():
            return [
                self.client.submit(task, function, future, shared, _dumps(mine), pure=False)
                for future, mine in zip(self.futures, own, strict=True)
            ]


def _dumps(value: Any) -> bytes:
    import cloudpickle  # which Dask brings along; unlike pickle it takes classes and functions defined interactively

    return cloudpickle.dumps(value)


def _begin(function: Callable[..., Held], arguments: bytes) -> Held:
    return function(*pickle.loads(arguments))


def _make(function: Callable[..., Held], held: Held, common: bytes, own: bytes) -> Held:
    return function(held, *pickle.loads(common), *pickle.loads(own))


def _answer(function: Callable[..., Any], held: Held, common: bytes, own: bytes) -> bytes:
    return _dumps(function(held, *pickle.loads(common), *pickle.loads(own)))


def _large_arguments() -> Any:
    """Arguments travel with the task on purpose: they are part of its recipe. Dask would warn of them."""
    import dask  # only where a cluster is used

    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"})


# Tasks.


class Facts(NamedTuple):
    """Metadata of one shard kept by the client. `scale` is 0 for an all-zero map."""

    m: int
    matrix_shape: tuple[int, int]
    scale: float
    divided: bool
    kind: type[MeasurementMap]


def hold(A: MeasurementMap) -> Held:
    """A map in the memory layout that it has after being pickled, so that nothing changes if it is ever moved."""
    A = pickle.loads(_dumps(A))
    return Held(A, _nbytes(A))


def load(loader: bytes, name: str) -> Held:
    """The map that a pickled loader returns."""
    A = pickle.loads(loader)()
    if not isinstance(A, MeasurementMap):
        raise ValueError(f"{name} returned {type(A).__name__}; expected a measurement map such as bf.measurements.Dense")
    return hold(A)


def facts(shard: Held) -> Facts:
    A = shard.value
    unit = A.at_unit_scale()
    empty = A.scale == 1.0 and unit.energy(None, None) == 0
    return Facts(A.m, A.matrix_shape, 0.0 if empty else A.scale, unit is not A, type(A))


def divided(shard: Held, scale: float) -> Held:
    """A map divided by a scale that it shares with others."""
    A = shard.value
    unit, factor = A.at_unit_scale(), A.scale / scale
    return hold(unit if factor == 1.0 else unit.select(np.arange(A.m), np.full(A.m, factor)))


def value(shard: Held) -> Any:
    return shard.value


def row_norms(shard: Held) -> np.ndarray:
    return shard.value.row_norms


def call(shard: Held, method: str, *arguments: Any) -> Any:
    return getattr(shard.value, method)(*arguments)


def derive_map(shard: Held, method: str, *arguments: Any) -> Held:
    return hold(call(shard, method, *arguments))


def derive(shard: Held, method: str, *arguments: Any) -> Held:
    """Something that refers to the map of the shard, as large as the map."""
    return Held(call(shard, method, *arguments), shard.nbytes)


def pair_hessian(shard: Held, L: np.ndarray, R: np.ndarray, coupled: int | None, y: np.ndarray | None) -> Held:
    return Held(shard.value.pair_hessian(L, R, y, coupled=coupled), shard.nbytes)


def product(function: Held, *arguments: Any) -> Any:
    return function.value(*arguments)


def times(operator: Held, V: np.ndarray) -> np.ndarray:
    return np.asarray(operator.value @ V)


def transposed_times(operator: Held, U: np.ndarray) -> np.ndarray:
    return np.asarray(operator.value.T @ U)


def moments(moment: Held, side: str, pairs: list[SymmetricFactors]) -> list[np.ndarray]:
    """Second moments without their scale: a matrix for each pair, or the diagonal alone of one that is diagonal."""
    second: SecondMoment = moment.value
    found = second._left(pairs) if side == "left" else second._right(pairs)
    d = second.matrix_shape[side != "left"]
    return [second.scale**2 * (X.values if isinstance(X, Diagonal) else X @ np.eye(d)) for X in found]


def energies(moment: Held, factors: list[tuple[np.ndarray | None, np.ndarray | None]]) -> np.ndarray:
    second: SecondMoment = moment.value
    return second.scale**2 * np.array(second.energies(factors))


def _nbytes(A: MeasurementMap) -> int:
    parts = A.__getstate__().values()
    arrays = sum(each.nbytes for each in parts if isinstance(each, np.ndarray))
    return arrays + sum(_nbytes(each) for each in parts if isinstance(each, MeasurementMap))


def check_client(client: Any) -> None:
    """Refuse what is not a client with workers."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("sharded measurements need Dask: pip install 'balancedfact[dask]'") from error
    if not isinstance(client, Client):
        raise ValueError(f"client is {type(client).__name__}; expected a distributed.Client")
    if client.asynchronous:
        raise ValueError("client is asynchronous; expected one made with asynchronous=False")
    if client.status != "running":
        raise ValueError(f"client is {client.status}; expected one that is connected")
    if not client.nthreads():
        raise ValueError("client has no workers; expected at least one")


def pickled(loaders: Any) -> list[tuple[bytes, str]]:
    """The functions that make shards, each with a name, or refuse what is none or cannot be pickled."""
    try:
        chosen = list(loaders)
    except TypeError:
        raise ValueError(f"loaders is {type(loaders).__name__}; expected a list of functions without arguments") from None
    if not chosen:
        raise ValueError("loaders is empty; expected at least one function without arguments")
    packed = []
    for k, loader in enumerate(chosen):
        if not callable(loader):
            raise ValueError(f"loaders[{k}] is {type(loader).__name__}; expected a function without arguments")
        try:
            packed.append((_dumps(loader), f"loaders[{k}]"))
        except Exception as error:  # an object may refuse to be pickled in any way
            raise ValueError(f"loaders[{k}] cannot be pickled ({error}); expected a function that can") from error
    return packed


def tight(index: np.ndarray) -> Place:
    """A slice in place of the indices that it stands for, where there is one."""
    if index.size and np.all(np.diff(index) == 1):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
