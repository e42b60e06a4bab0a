"""The log of a search: records, history, callback, progress on the terminal, and why it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.status import Status as Spinner

from balancedfact._validate import as_callback, as_progress
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import _DEADLINE, Limits, Stopped, as_limits, check_time

Callback = Callable[[dict[str, float]], object]
T = TypeVar("T")

# Whether a search is running in this thread: those that it starts in turn leave interruptions to it.
_WITHIN: ContextVar[bool] = ContextVar("within", default=False)
OF_TRAINING = "the run ends at its last record"


def _inside(compute: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    _WITHIN.set(True)
    return compute(*arguments)


@contextmanager
def interrupts_pass() -> Iterator[None]:
    """Let Ctrl-C through the searches inside, for callers who would not look at the status of what these return."""
    within = _WITHIN.get()
    try:
        _WITHIN.set(True)
        yield
    finally:
        _WITHIN.set(within)


class Log:
    """Everything that a search does besides searching; a context in which it can be stopped.

    Leaving the context by Ctrl-C, by a limit or at the wish of the callback is no error: `ended` then holds the status and
    its sentence. Inside another search the exception passes on to that one, which has the better point to return. A part of a
    search that has a point of its own to keep may enter the context again, within it.

    Parameters
    ----------
    callback : callable, optional
        Called with a copy of every record. A search ends when it returns ``True`` or raises ``StopIteration``.
    progress : bool, optional
        Whether to show a line on the terminal; by default if there is one.
    limits : Limits, optional
        Time and number of records after which to stop.
    so_far : str, optional
        What is returned when it is stopped, for the sentence in `ended`.
    """

    def __init__(
        self,
        callback: Callback | None = None,
        progress: bool | None = None,
        limits: Limits | None = None,
        so_far: str = "this is the best point so far",
    ) -> None:
        self._so_far = so_far
        self.callback, self.limits = as_callback(callback), as_limits(limits)
        self.records: list[dict[str, float]] = []
        self.started = time.perf_counter()
        self.ended: tuple[Status, str] | None = None
        self._entered: list[tuple[bool, float]] = []  # what was in force outside
        self._spinner = Spinner("solving", console=Console(stderr=True)) if as_progress(progress) else None

    def __enter__(self) -> Log:
        outside = _WITHIN.get(), _DEADLINE.get()
        deadline = self.started + (np.inf if self.limits.seconds is None else self.limits.seconds)
        try:
            if not self._entered:
                self._outermost = not outside[0]
                if self._spinner is not None:
                    self._spinner.start()
            self._entered.append(outside)
            _WITHIN.set(True)
            _DEADLINE.set(min(deadline, outside[1]))
            return self
        except BaseException:  # Ctrl-C before the context is entered: nobody would leave it
            self._leave(outside)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._leave(self._entered[-1])
        if isinstance(error, KeyboardInterrupt):
            self.interrupt()
        elif isinstance(error, Stopped):
            self.ended = self.ended or (Status.LIMIT, f"{error}; {self._so_far}.")
        else:
            return False
        return self._outermost

    def _leave(self, outside: tuple[bool, float]) -> None:
        _WITHIN.set(outside[0])
        _DEADLINE.set(outside[1])
        self._entered = [kept for kept in self._entered if kept is not outside]
        if self._spinner is not None and not self._entered:
            self._spinner.stop()

    def insist(self, compute: Callable[..., T], *arguments: Any) -> T:
        """The result of what has to be computed, stopped or not: Ctrl-C ends the search, and the computation starts again."""
        if _WITHIN.get():
            return compute(*arguments)
        try:
            return copy_context().run(_inside, compute, arguments)
        except KeyboardInterrupt:
            self.interrupt()
            return compute(*arguments)

    def interrupt(self) -> None:
        """Note that the user stopped the search."""
        self.ended = Status.INTERRUPTED, f"Interrupted; {self._so_far}."

    def end(self, message: str, status: Status | None = None) -> tuple[Status | None, str]:
        """The status and the sentence of the end: those given where the search was not stopped."""
        return self.ended or (status, message)

    @property
    def timed(self) -> bool:
        """True where this search, or one around it, has a limit on time."""
        return _DEADLINE.get() < np.inf

    @property
    def late(self) -> bool:
        """True once the time of this search, or of one around it, is spent."""
        return time.perf_counter() >= _DEADLINE.get()

    def _clock(self) -> str:
        """The time left where a limit makes it known, which is the most that it can be; else the time spent."""
        left = _DEADLINE.get() - time.perf_counter()
        return f"at most {max(left, 0.0):.0f} s left" if left < np.inf else f"{time.perf_counter() - self.started:.0f} s"

    def write(self, line: str, record: dict[str, float]) -> None:
        """Keep a record, numbered and timed, show `line`, call the callback, and raise `Stopped` if it is time to end."""
        if self.ended is not None:
            raise Stopped(self.ended[1])
        record = {"iteration": float(len(self.records)), "seconds": time.perf_counter() - self.started, **record}
        self.records.append(record)
        if self._spinner is not None:
            self._spinner.update(f"iteration {len(self.records)}  {line}  {self._clock()}")
        if self.callback is not None:
            try:
                enough = self.callback(dict(record))
            except StopIteration:
                enough = True
            if enough is True:
                raise Stopped("Stopped by the callback")
        if self.limits.iterations is not None and len(self.records) >= self.limits.iterations:
            raise Stopped("The limit on iterations was reached")
        check_time()

    @property
    def history(self) -> dict[str, np.ndarray]:
        """The records as one array per column."""
        return {name: np.array([record[name] for record in self.records]) for name in self.records[0]} if self.records else {}
