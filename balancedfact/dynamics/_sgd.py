"""Mini-batch stochastic gradient descent, with and without label noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from balancedfact._validate import as_rng
from balancedfact.dynamics._draws import Draws, as_batch, as_noise
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._observables import Observe
from balancedfact.dynamics._rule import as_rule
from balancedfact.dynamics._training import StartingLayers, as_moments, as_runs, as_steps, train
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.iteration._limits import Limits


def sgd(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    batch: int | str,
    label_noise: ArrayLike = 0.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    normalised: bool = False,
    rng: int | np.random.Generator | None = None,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
    dtype: DTypeLike = np.float64,
    limits: Limits | None = None,
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
    batch : int or "all"
        The number `B` of measurements in a step; ``"all"`` takes each of them once.
    label_noise : float or array_like, shape (m,) or (m, m), optional
        The standard deviation :math:`\sigma` of the noise on the labels, the same for all or one for each, or the covariance
        of the noise on all labels.
    momentum, weight_decay, normalised : optional
        As in `gradient_descent`.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the batches and the noise.
    record : int or sequence of int, optional
        As in `gradient_descent`.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`. The recorded loss is that of all data, without noise.
    dtype : numpy.float64 or numpy.float32, optional
        The precision of the steps.
    limits : Limits, optional
        As in `gradient_descent`.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or `observe` has an unknown name.

    See Also
    --------
    gradient_descent : Steps with all measurements.
    label_noise_flow : The continuous model of label noise.
    stability_threshold : The largest stable step.

    Notes
    -----
    The stream of random numbers of a single run is ``rng.integers(0, m, batch)``, then, with label noise,
    ``rng.standard_normal(batch)``, at each step; many runs use the generators ``rng.spawn(runs)`` in order. A batch of
    ``"all"`` draws no integers, and a covariance draws ``z = rng.standard_normal(m)`` for the noise ``F z``, with `F` its
    eigenvectors times the roots of its eigenvalues. The stream depends on nothing else, so a short run is the beginning of a
    longer one.

    References
    ----------
    Gatmiry et al. 2023, Section 6.

    Chapters :doc:`/theory/sharpness_and_dynamics` and :doc:`/theory/induced_regularizer`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(60, (4, 4), rng=0)
    >>> start = bf.dynamics.gaussian_layers([4, 4, 4], 0.5, rng=1)
    >>> run = bf.dynamics.sgd(start, A, A(np.eye(4)), step=0.01, iterations=2000, batch=10, label_noise=0.1, rng=2)
    >>> bool(run.loss[-1] < 0.01 * run.loss[0])
    True
    """
    start = as_runs(layers, A)
    model, m = MapModel(A, b), A.m
    steps, moments = as_steps(step, start.lead), as_moments(record, iterations)
    size, noise, rule = as_batch(batch), as_noise(label_noise, m), as_rule(momentum, weight_decay, normalised)
    kind = as_precision(dtype)
    draws = [Draws(each, model.b, size, noise, (0, 1)) for each in generators(rng, start)]
    return train(start, model, rule, steps, moments, observe, draws, kind, limits)


def generators(rng: int | np.random.Generator | None, start: StartingLayers) -> list[np.random.Generator]:
    """The generator of each run."""
    generator = as_rng(rng)
    return generator.spawn(start.runs) if start.lead else [generator]


def as_precision(dtype: DTypeLike) -> np.dtype:
    """Single or double."""
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype is {dtype!r}; expected float64 or float32") from None
    if kind not in (np.float64, np.float32):
        raise ValueError(f"dtype is {dtype!r}; expected float64 or float32")
    return kind
