"""Measurements that are spread over the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from balancedfact._validate import as_count
from balancedfact.measurements import _shards
from balancedfact.measurements._as_map import as_map
from balancedfact.measurements._base import MeasurementMap, SingleEntries
from balancedfact.measurements._careful import gamma
from balancedfact.measurements._entries import Entries
from balancedfact.measurements._rank_one import MOST_ENTRIES, RankOne
from balancedfact.measurements._rescaling import triangle
from balancedfact.measurements._second_moment import Diagonal, SecondMoment, SymmetricFactors
from balancedfact.measurements._shards import Facts, Place, Shards, tight

if TYPE_CHECKING:
    from distributed import Client


class Sharded(MeasurementMap):
    r"""Measurements whose shards, ordinary measurement maps, live on the workers of a Dask cluster.

    Made by `from_map` or `from_loaders`. The adjoint and the second moments are summed over the shards, and the measurements
    put together; only arguments and results travel. Solvers, curvature and all else take it as they take any map.

    See Also
    --------
    Dense : The same on one machine.
    balancedfact.experiments.dask_cluster : Workers for experiments.

    Notes
    -----
    Vectors with one number for each measurement (data, dual vectors) live in this process, and so do the factors. What a shard
    has to keep for many steps, such as the pair at which Hessian products are asked for, is sent to it once. The rest is one
    round trip for each product, about 15 milliseconds on one machine: a Hessian product sends ``(d1 + d2) k`` numbers to each
    shard and receives as many. Maps that are not of entries or rank-one send the whole stack of matrices to this process when
    an algorithm asks for `rotated` or `scaled_gram`, as the interior-point method for few measurements does.

    When a worker dies, its shards and all that was made of them are made again on others, from what `from_map` sent or by the
    loaders. The parts of a sum are always added in the order of the shards, so the result is the same, bit for bit, on workers
    with the same software, processor and number of threads.

    Needs Dask: ``pip install 'balancedfact[dask]'``.

    References
    ----------
    Guide :doc:`/guide/cluster`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> from distributed import Client
    >>> A = bf.measurements.bilinear(20, (3, 4), rng=0)
    >>> with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
    ...     sharded = bf.measurements.Sharded.from_map(A, client, shards=2)
    ...     print(sharded)
    ...     print(bf.measurements.check_measurements(sharded, rng=0).ok)
    <Sharded: 20 measurements of 3 x 4 matrices, in 2 shards>
    True
    """

    def __init__(self, shards: Shards, places: Sequence[Place], matrix_shape: tuple[int, int], m: int) -> None:
        self._shards, self._places = shards, list(places)
        self.matrix_shape, self.m = matrix_shape, m

    @classmethod
    def from_map(cls, A: MeasurementMap, client: Client, shards: int | None = None) -> Sharded:
        """Split a map that is in this process.

        Parameters
        ----------
        A : MeasurementMap
            The map. The order of its measurements is kept. Measurements of entries are dealt out row by row.
        client : distributed.Client
            A connected client. The scheduler keeps a copy of every shard.
        shards : int, optional
            The number of shards, at most ``A.m``; by default one for each worker.

        Returns
        -------
        Sharded

        Raises
        ------
        ValueError
            If `A` is no map of this process, `client` no client of Dask, or `shards` no number from 1 to ``A.m``.
        """
        _shards.check_client(client)
        as_map(A)
        if isinstance(A, Sharded):
            raise ValueError("A is Sharded; expected a measurement map in this process")
        count = min(len(client.nthreads()), A.m) if shards is None else as_count(shards, "shards")
        if count > A.m:
            raise ValueError(f"shards is {count}; expected at most {A.m}, the number of measurements")
        indices = np.array_split(np.arange(A.m)[A.best_order], count)
        made = Shards.placed(client, _shards.hold, ((A.select(index),) for index in indices))
        return cls(made, [tight(index) for index in indices], A.matrix_shape, A.m)

    @classmethod
    def from_loaders(cls, loaders: Iterable[Callable[[], MeasurementMap]], client: Client) -> Sharded:
        """Have every shard made where it is to live, from data that never pass through this process.

        Parameters
        ----------
        loaders : iterable of callable
            Functions without arguments that return the measurement map of one shard, all of the same ``(d1, d2)``. They are
            pickled and run on the workers, again when a worker dies: each must return the same map every time. The measurements
            are numbered loader after loader.
        client : distributed.Client
            A connected client.

        Returns
        -------
        Sharded

        Raises
        ------
        ValueError
            If `client` is no client of Dask, or `loaders` are no functions that return maps of matrices of one shape.

        Examples
        --------
        >>> from functools import partial
        >>> import balancedfact as bf
        >>> from distributed import Client
        >>> loaders = [partial(bf.measurements.gaussian, 5, (3, 4), rng=seed) for seed in range(2)]
        >>> with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        ...     print(bf.measurements.Sharded.from_loaders(loaders, client))
        <Sharded: 10 measurements of 3 x 4 matrices, in 2 shards>
        """
        _shards.check_client(client)
        made = Shards.placed(client, _shards.load, _shards.pickled(loaders))
        found: list[Facts] = made.ask(_shards.facts)
        for k, each in enumerate(found):
            if each.matrix_shape != found[0].matrix_shape:
                raise ValueError(
                    f"loaders[{k}] returned measurements of matrices of shape {each.matrix_shape}; "
                    f"expected {found[0].matrix_shape}, as loaders[0]"
                )
        ends = np.cumsum([each.m for each in found])
        places = [slice(int(end) - each.m, int(end)) for each, end in zip(found, ends, strict=True)]
        return cls(made, places, found[0].matrix_shape, int(ends[-1]))

    # Sums over shards, and numbers put in place.

    def _sum(self, method: str, *arguments: Any) -> Any:
        return reduce(add, self._shards.ask(_shards.call, method, *arguments))

    def _in_place(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        out = np.empty((self.m, *parts[0].shape[1:]))
        for place, part in zip(self._places, parts, strict=True):
            out[place] = part
        return out

    def _slices(self, y: np.ndarray) -> list[tuple[np.ndarray]]:
        return [(y[place],) for place in self._places]

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return self._in_place(self._shards.ask(_shards.call, "_forward", X))

    def forward_factored(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        return self._in_place(self._shards.ask(_shards.call, "forward_factored", L, R))

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return reduce(add, self._shards.ask(_shards.call, "_adjoint", each=self._slices(y)))

    def adjoint_operator(self, y: np.ndarray) -> ShardedOperator:
        return ShardedOperator(self._shards.derive(_shards.derive, "adjoint_operator", each=self._slices(y)), self.matrix_shape)

    def adjoint_for_many(self, y: np.ndarray) -> Any:
        # Hundreds of products would be as many round trips. Where entries are few among many, the sum is larger than they are.
        most = min(MOST_ENTRIES, 10 * self.m) if self.of_entries else MOST_ENTRIES
        return self._adjoint(y) if self.matrix_shape[0] * self.matrix_shape[1] <= most else self.adjoint_operator(y)

    def pair_hessian(
        self, L: np.ndarray, R: np.ndarray, y: np.ndarray | None = None, *, coupled: int | None = None
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        residuals: Sequence[tuple[Any, ...]] = [(None,)] * len(self._places) if y is None else self._slices(y)
        held = self._shards.derive(_shards.pair_hessian, L, R, coupled, each=residuals)

        def hessian(dL: np.ndarray, dR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            halves = held.ask(_shards.product, dL, dR)
            return reduce(add, [G for G, _ in halves]), reduce(add, [H for _, H in halves])

        return hessian

    def pair_gram(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        return self._sum("pair_gram", L, R)

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        return self._sum("_left_moment", P)

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        return self._sum("_right_moment", Q)

    def identity_factors(self) -> tuple[np.ndarray, np.ndarray]:
        left, right = zip(*self._shards.ask(_shards.call, "identity_factors"), strict=True)
        return _joint_factor(left), _joint_factor(right)

    def unfolding(self, side: int) -> tuple[np.ndarray, float]:
        parts = self._shards.ask(_shards.call, "unfolding", side)
        return np.vstack([N for N, _ in parts]), max(relative for _, relative in parts)

    def rank_bounds(self) -> tuple[int, int]:
        return self.as_entries().rank_bounds() if self.of_entries else super().rank_bounds()

    def careful_gram(self, T: np.ndarray, side: int) -> tuple[np.ndarray, float]:
        parts = self._shards.ask(_shards.call, "careful_gram", T, side)
        G = reduce(add, [each for each, _ in parts])
        return G, sum(error for _, error in parts) + gamma(len(parts)) * sum(float(np.linalg.norm(each)) for each, _ in parts)

    def careful_adjoint(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = self._shards.ask(_shards.call, "careful_adjoint", each=self._slices(y))
        S, error = (reduce(add, each) for each in zip(*parts, strict=True))
        return S, error + gamma(len(parts)) * reduce(add, [np.abs(each) for each, _ in parts])

    def careful_forward(self, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, errors = zip(*self._shards.ask(_shards.call, "careful_forward", L, R), strict=True)
        return self._in_place(values), self._in_place(errors)

    def energy(self, C: np.ndarray | None, B: np.ndarray | None) -> float:
        return self._sum("energy", C, B)

    def second_moment(self) -> SecondMoment:
        return ShardedMoment(self, "second_moment")

    def streamed_moment(self) -> SecondMoment:
        return ShardedMoment(self, "streamed_moment")

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return self._in_place(self._shards.ask(_shards.call, "rotated", P, Q))

    @cached_property
    def row_norms(self) -> np.ndarray:
        return self._in_place(self._shards.ask(_shards.row_norms))

    # Maps made of this one, shard by shard.

    def congruence(self, P: Any, Q: Any) -> Sharded:
        made = self._shards.derive(_shards.derive_map, "congruence", P, Q)
        return Sharded(made, self._places, (P.shape[1], Q.shape[1]), self.m)

    def select(self, index: np.ndarray, weights: np.ndarray | None = None) -> Sharded:
        owners, numbers = (each[index] for each in self._whereabouts)
        futures, places, chosen = [], [], []
        for k, future in enumerate(self._shards.futures):
            where = np.flatnonzero(owners == k)
            if where.size:
                futures.append(future)
                places.append(tight(where))
                chosen.append((numbers[where], None if weights is None else weights[where]))
        some = Shards(self._shards.client, futures)
        return Sharded(some.derive(_shards.derive_map, "select", each=chosen), places, self.matrix_shape, index.size)

    @cached_property
    def _whereabouts(self) -> tuple[np.ndarray, np.ndarray]:
        """The shard that holds each measurement, and its number there."""
        owners, numbers = np.empty(self.m, dtype=np.intp), np.empty(self.m, dtype=np.intp)
        for k, place in enumerate(self._places):
            owners[place] = k
            numbers[place] = np.arange(owners[place].size)
        return owners, numbers

    @property
    def best_order(self) -> np.ndarray | slice:
        """Shard by shard, so that what is selected in this order is in one piece on every shard."""
        order = tight(np.concatenate([np.arange(self.m)[place] for place in self._places]))
        return slice(None) if isinstance(order, slice) else order

    # The common scale, and what the shards are.

    @cached_property
    def _facts(self) -> list[Facts]:
        return self._shards.ask(_shards.facts)

    @property
    def scale(self) -> float:
        return max(each.scale for each in self._facts) or 1.0

    def at_unit_scale(self) -> Sharded:
        return self._unit

    @cached_property
    def _unit(self) -> Sharded:
        if self.scale == 1.0 and not any(each.divided for each in self._facts):
            return self
        return Sharded(self._shards.derive(_shards.divided, self.scale), self._places, self.matrix_shape, self.m)

    @property
    def of_entries(self) -> bool:
        return all(each.kind is Entries for each in self._facts)

    @property
    def forms_stack(self) -> bool:
        return not (self.of_entries or all(each.kind is RankOne for each in self._facts))

    def as_entries(self) -> SingleEntries:
        return self._gathered if self.of_entries else super().as_entries()

    @cached_property
    def _gathered(self) -> Any:
        """Entries, or rank-one measurements, in this process: for what needs every measurement beside every other."""
        maps = self._shards.ask(_shards.value)
        if self.of_entries:
            rows, cols, weights = (self._in_place([getattr(A, name) for A in maps]) for name in ("rows", "cols", "weights"))
            return Entries(rows.astype(np.intp), cols.astype(np.intp), self.matrix_shape, weights)
        return RankOne(*(self._in_place([getattr(A, name) for A in maps]) for name in ("left", "right")))

    def gram_solver(self, shift: float) -> Callable[[np.ndarray], np.ndarray]:
        return self.as_entries().gram_solver(shift) if self.of_entries else super().gram_solver(shift)

    def scaled_gram(self, W11: np.ndarray, W12: np.ndarray, W22: np.ndarray) -> np.ndarray:
        if self.forms_stack:
            return super().scaled_gram(W11, W12, W22)
        return self._gathered.scaled_gram(W11, W12, W22)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, in {len(self._shards)} shard{'s' * (len(self._shards) != 1)}>"


class ShardedOperator(LinearOperator):
    """A sum of operators on the workers."""

    def __init__(self, shards: Shards, shape: tuple[int, int], *, transposed: bool = False) -> None:
        super().__init__(np.dtype(float), shape)
        self._shards, self._is_transposed = shards, transposed

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return reduce(add, self._shards.ask(_shards.transposed_times if self._is_transposed else _shards.times, X))

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        return self._transpose()._matmat(X)

    def _transpose(self) -> ShardedOperator:
        return ShardedOperator(self._shards, self.shape[::-1], transposed=not self._is_transposed)

    _adjoint = _transpose


class ShardedMoment(SecondMoment):
    """Second moments that are formed on the workers, each from its own measurements, and added up."""

    def __init__(self, A: Sharded, method: str) -> None:
        super().__init__(A.matrix_shape, 2 / A.m, A.scale)
        self._shards = A.at_unit_scale()._shards.derive(_shards.derive, method)

    def energies(self, factors: list[tuple[np.ndarray | None, np.ndarray | None]]) -> list[float]:
        return reduce(add, self._shards.ask(_shards.energies, factors)).tolist()

    def _left(self, pairs: list[SymmetricFactors]) -> list[Any]:
        return self._moments("left", pairs)

    def _right(self, pairs: list[SymmetricFactors]) -> list[Any]:
        return self._moments("right", pairs)

    def _moments(self, side: str, pairs: list[SymmetricFactors]) -> list[Any]:
        found = [_sum_of_moments(parts) for parts in zip(*self._shards.ask(_shards.moments, side, pairs), strict=True)]
        return [Diagonal(each) if each.ndim == 1 else each for each in found]


def _sum_of_moments(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of matrices of which some may be given by their diagonals; a diagonal if all are."""
    if all(part.ndim == 1 for part in parts):
        return reduce(add, parts)
    return reduce(add, [np.diag(part) if part.ndim == 1 else part for part in parts])


def _joint_factor(parts: Sequence[np.ndarray]) -> np.ndarray:
    """A factor of the sum of the Gram matrices of these; a diagonal if all are."""
    if all(part.ndim == 1 for part in parts):
        return np.linalg.norm(np.stack(parts), axis=0)
    return triangle(np.diag(part) if part.ndim == 1 else part for part in parts)
