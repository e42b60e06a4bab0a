"""The result of a training run: the final layers and what was recorded on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from balancedfact._linalg import product
from balancedfact.solution import Status


def after(steps: int) -> str:
    """The number of steps, for a message."""
    return f" after {steps} step" + ("s" if steps != 1 else "")


@dataclass(frozen=True, repr=False)
class Trajectory:
    """A run of training, or many at once.

    For many runs the arrays below have the leading axes of the layers in front of the shape given here.

    Attributes
    ----------
    layers : list of numpy.ndarray
        The final ``[W_1, ..., W_L]``; those of a run that diverged are the last before its loss overflowed.
    times : numpy.ndarray, shape (records,)
        The times of the records: the flow's own time, or the number of steps times the step size.
    loss : numpy.ndarray, shape (records,)
        The loss ``(1/m) |A(W_L ... W_1) - b|^2`` at these times; infinite after a run diverged.
    series : dict of str to numpy.ndarray
        What else was recorded, each of shape ``(records, ...)``; ``nan`` after a run diverged. ``trajectory["norms"]`` is
        short for ``trajectory.series["norms"]``.
    iterations : numpy.ndarray, shape (records,)
        The number of steps before each record, one array for all runs of a training rule. For `gradient_flow` these are the
        steps of the integration; the other flows leave it empty.
    diverged : numpy.ndarray of int
        The step at which the loss overflowed, -1 for a run that stayed finite. A scalar array for one run.
    message : str
        How the run ended.
    status : Status or None
        `LIMIT` where `limits` or the ``max_steps`` of a flow stopped the run, `INTERRUPTED` where Ctrl-C did, else ``None``.

    See Also
    --------
    gradient_descent, gradient_flow, sgd : Functions that return one.

    References
    ----------
    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(12, (3, 3), rng=0)
    >>> start = bf.dynamics.gaussian_layers([3, 3, 3], 0.5, rng=0)
    >>> trajectory = bf.dynamics.gradient_descent(start, A, A(np.eye(3)), step=0.05, iterations=2000)
    >>> bool(trajectory.loss[-1] < 1e-6), int(trajectory.diverged)
    (True, -1)
    """

    layers: list[np.ndarray]
    times: np.ndarray
    loss: np.ndarray
    series: dict[str, np.ndarray] = field(default_factory=dict)
    iterations: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    diverged: np.ndarray = field(default_factory=lambda: np.array(-1))
    message: str = ""
    status: Status | None = None

    @property
    def matrix(self) -> np.ndarray:
        """The final end-to-end matrix ``W_L @ ... @ W_1``, one per run."""
        return product(self.layers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.series[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.series)

    def __repr__(self) -> str:
        lead = self.layers[0].shape[:-2]
        widths = " x ".join(str(w.shape[-2]) for w in self.layers[::-1]) + f" x {self.layers[0].shape[-1]}"
        runs = f"{int(np.prod(lead))} runs" if lead else "1 run"
        lost = int(np.count_nonzero(self.diverged >= 0))
        end = f"loss {self.loss[..., -1]:.4g} at time {self.times[..., -1]:.4g}" if not lead else f"{lost} diverged"
        return f"<Trajectory: {runs}, widths {widths}, {self.loss.shape[-1]} records, {end}. {self.message}>"
