"""Mini-batch stochastic gradient descent, with and without label noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from balancedfact._validate import as_count, as_number, as_rng
from balancedfact.dynamics._descent import _as_steps, _finished, as_moments, as_runs
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._sampling import BatchGradient, batch_gradient
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.measurements import MeasurementMap


def sgd(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    batch: int,
    label_noise: float = 0.0,
    rng: int | np.random.Generator | None = None,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
    dtype: DTypeLike = np.float64,
) -> Trajectory:
    r"""Stochastic gradient descent on :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, optionally with label noise.

    Each step descends :math:`\frac1B\sum_{i\in\text{batch}}(\langle A_i,E\rangle - b_i + \sigma\xi_i)^2` for a batch drawn with
    replacement and fresh :math:`\xi_i\sim N(0,1)`. With label noise and a small step the weights, once they fit the data,
    drift along the minimisers towards the least trace of the Hessian.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        The start ``[W_1, ..., W_L]``; leading axes are independent runs.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    step : float or array_like
        The step size, one for all runs or one per run.
    iterations : int
        The number of steps.
    batch : int
        The number `B` of measurements in a step.
    label_noise : float, optional
        The standard deviation :math:`\sigma` of the noise on the labels.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the batches and the noise.
    record : int or sequence of int, optional
        As in `gradient_descent`.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`. The recorded loss is that of all data, without noise.
    dtype : numpy.float64 or numpy.float32, optional
        The precision of the steps.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite, `step` is not positive or `observe` has an unknown name.

    Notes
    -----
    The stream of random numbers of a single run is ``rng.integers(0, m, batch)``, then, with label noise,
    ``rng.standard_normal(batch)``, at each step; many runs use the generators ``rng.spawn(runs)`` in order. It depends on
    nothing else, so a run is the prefix of a longer one.

    References
    ----------
    Gatmiry et al. 2023, Section 6.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(60, (4, 4), rng=0)
    >>> start = bf.dynamics.gaussian_layers([4, 4, 4], 0.5, rng=1)
    >>> run = bf.dynamics.sgd(start, A, A(np.eye(4)), step=0.01, iterations=2000, batch=10, label_noise=0.1, rng=2)
    >>> bool(run.loss[-1] < 0.01 * run.loss[0])
    True
    """
    stack, lead = as_runs(layers, A)
    model, runs = MapModel(A, b), stack[0].shape[0]
    steps, moments = _as_steps(step, lead), as_moments(record, iterations)
    size, noise = as_count(batch, "batch"), as_number(label_noise, "label_noise", least=0)
    if np.dtype(dtype) not in (np.float64, np.float32):
        raise ValueError(f"dtype is {dtype!r}; expected float64 or float32")
    generator = as_rng(rng)
    generators = generator.spawn(runs) if lead else [generator]
    gradient = batch_gradient(A, dtype)
    walkers = [
        _Walker([layer[r].astype(dtype) for layer in stack], gradient, model.b, steps[r], size, noise, generators[r])
        for r in range(runs)
    ]
    recorder, last = Recorder(observe, model, lead), 0
    for moment in moments:
        for walker in walkers:
            walker.advance(last, moment)
        last = moment
        current = _stacked(walkers)
        diverged = np.array([walker.diverged for walker in walkers])
        with np.errstate(over="ignore", invalid="ignore"):
            alive = (diverged < 0) & np.isfinite(model.loss(current))
        recorder.record(current, alive)
    return _finished(_stacked(walkers), recorder, steps, moments, diverged, lead)


class _Walker:
    """One run: its layers, its random numbers and its work space."""

    def __init__(
        self,
        layers: list[np.ndarray],
        gradient: BatchGradient,
        b: np.ndarray,
        step: float,
        batch: int,
        noise: float,
        rng: np.random.Generator,
    ) -> None:
        self.layers, self.gradient, self.b, self.rng = layers, gradient, b, rng
        self.batch, self.noise, self.weight = batch, noise, 2 * step / batch
        self.diverged = -1
        self._overflow = float(np.sqrt(np.finfo(layers[0].dtype).max))
        self._before = [layers[0], *(np.empty((w.shape[0], layers[0].shape[1]), w.dtype) for w in layers[1:])]
        self._carried = [np.empty((w.shape[0], layers[0].shape[1]), w.dtype) for w in layers]
        self._updates = [np.empty_like(w) for w in layers[1:]]

    def advance(self, start: int, stop: int) -> None:
        """Take the steps `start` to `stop`, fewer if the loss overflows."""
        layers, before, carried, updates = self.layers, self._before, self._carried, self._updates
        integers, normal, matmul, dtype = self.rng.integers, self.rng.standard_normal, np.matmul, layers[0].dtype
        for iteration in range(start if self.diverged < 0 else stop, stop):
            for k in range(1, len(layers)):
                matmul(layers[k], before[k - 1], out=before[k])
            index = integers(0, self.b.size, self.batch)
            shift = self.b[index]
            if self.noise:
                shift -= self.noise * normal(self.batch)
            # The step size is part of the weight, so that what is carried back is already the update.
            total = self.gradient(before[-1], index, shift.astype(dtype, copy=False), self.weight, carried[-1])
            if not total < self._overflow:
                self.diverged = iteration
                return
            for k in range(len(layers) - 1, 0, -1):
                matmul(carried[k], before[k - 1].T, out=updates[k - 1])
                matmul(layers[k].T, carried[k], out=carried[k - 1])
                layers[k] -= updates[k - 1]
            layers[0] -= carried[0]


def _stacked(walkers: list[_Walker]) -> list[np.ndarray]:
    return [np.stack(layers).astype(np.float64) for layers in zip(*(walker.layers for walker in walkers), strict=True)]
