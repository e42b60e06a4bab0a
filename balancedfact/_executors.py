"""Executors for units of work: a pool of processes here, or a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Lock, Thread
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_BARREN = 3  # pools that may break one after the other without a task finished: what kills every worker must not go on for ever


class _Lasting(Executor):
    """A pool of processes that outlives its workers: when one is killed, the tasks that were in flight start again."""

    def __init__(self, workers: int) -> None:
        self.workers, self.lock, self.barren = workers, Lock(), 0
        self.pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"), initializer=_end_with_parent)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()
        self._start(outer, lambda pool: pool.submit(fn, *args, **kwargs))
        return outer

    def _start(self, outer: Future[Any], task: Callable[[ProcessPoolExecutor], Future[Any]]) -> None:
        while True:
            pool = self.pool  # no lock is held while the pool takes its own: it calls back with that in hand
            try:
                inner = task(pool)
                break
            except BrokenProcessPool as error:
                if not self._replace(pool):
                    outer.set_exception(error)
                    return

        def done(finished: Future[Any]) -> None:
            error = None if finished.cancelled() else finished.exception()
            if isinstance(error, BrokenProcessPool) and not outer.cancelled() and self._replace(pool):
                self._start(outer, task)
                return
            if finished.cancelled():
                outer.cancel()
            if not outer.set_running_or_notify_cancel():
                return
            if error is not None:
                outer.set_exception(error)
            else:
                self.barren = 0
                outer.set_result(finished.result())

        inner.add_done_callback(done)

    def _replace(self, broken: ProcessPoolExecutor) -> bool:
        """Put a fresh pool in the place of a broken one, if that may still help."""
        with self.lock:
            if self.pool is broken:
                if self.barren == _BARREN:
                    return False
                self.barren += 1
                self.pool = self._fresh()
            return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def _end_with_parent() -> None:
    """End this worker when the process that started it ends, even by a signal that it cannot answer."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def process_pool(workers: int | None = None) -> Iterator[Executor]:
    """A pool of new processes on this machine, as an executor within a ``with`` statement.

    Parameters
    ----------
    workers : int, optional
        The number of processes; by default one per core.

    Yields
    ------
    concurrent.futures.Executor
        The processes end with the statement.

    See Also
    --------
    dask_cluster : Machines of a cluster.
    reproduce : Runs an experiment on it.

    Notes
    -----
    Each process has one thread, so that rounding does not depend on the number of processes. A process that is killed is
    replaced, and what ran in it runs again. All end when their parent does.

    References
    ----------
    Guide :doc:`/guide/reproduce`.

    Examples
    --------
    >>> from balancedfact.experiments import process_pool
    >>> with process_pool(1) as pool:
    ...     pool.submit(max, 2, 3).result()
    3
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # children read these when they start, which may be late
    pool = _Lasting(workers or os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def dask_cluster(address: str) -> Iterator[Executor]:
    """The workers of a running Dask scheduler, as an executor within a ``with`` statement.

    Parameters
    ----------
    address : str
        The address of the scheduler, such as ``tcp://127.0.0.1:8786``.

    Yields
    ------
    concurrent.futures.Executor
        The connection is closed at the end of the statement.

    Raises
    ------
    ValueError
        If Dask is not installed or nobody answers at the address.

    See Also
    --------
    process_pool : Processes of this machine.
    reproduce : Runs an experiment on it.

    References
    ----------
    Guide :doc:`/guide/cluster`.

    Examples
    --------
    >>> from balancedfact.experiments import dask_cluster
    >>> with dask_cluster("tcp://127.0.0.1:8786") as executor:  # doctest: +SKIP
    ...     table = reproduce(experiment, "paper", "figures", executor)
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("a scheduler address needs Dask: pip install 'balancedfact[dask]'") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(f"scheduler is {address!r}; no Dask scheduler answers there ({error})") from error
    with client:
        yield client.get_executor(pure=False)
