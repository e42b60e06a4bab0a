"""Sharpness-aware minimisation in its three forms: the gradient is taken within a ball around the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from balancedfact.dynamics._draws import Draws, as_batch, as_noise
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._observables import Observe
from balancedfact.dynamics._rule import as_aware_rule, as_rule
from balancedfact.dynamics._sgd import as_precision, generators
from balancedfact.dynamics._training import as_moments, as_runs, as_steps, train
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.iteration._limits import Limits


def sharpness_aware(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    radius: float,
    direction: str = "ascent",
    inner: int = 10,
    samples: int = 1,
    batch: int | str = "all",
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
    r"""Sharpness-aware minimisation of :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, for one network or many.

    With all layers as one vector `W` and the radius :math:`\rho`, a step descends :math:`g = \nabla\mathcal L(W + e)` with

    - ``"ascent"``: :math:`e = \rho\,\nabla\mathcal L(W)/\|\nabla\mathcal L(W)\|`;
    - ``"worst"``: `inner` times :math:`e \leftarrow \rho\,\nabla\mathcal L(W+e)/\|\nabla\mathcal L(W+e)\|`, from the `e` of the
      last step (zero at the start). Its fixed points are where the loss on the ball is stationary;
      at the highest, by Danskin's theorem, `g` is the gradient of :math:`\max_{\|e\|\le\rho}\mathcal L(W+e)`;
    - ``"average"``: the mean over `samples` directions :math:`e = \rho z/\|z\|` with standard normal `z`.

    Where the gradient is zero, `e` is left as it is.

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
    radius : float
        The radius :math:`\rho` of the ball in the space of all weights.
    direction : {"ascent", "worst", "average"}, optional
        Where in the ball the gradient is taken.
    inner : int, optional
        Ascent steps within one step, for ``"worst"``.
    samples : int, optional
        Directions of one step, for ``"average"``.
    batch, label_noise : optional
        As in `sgd`; by default all measurements without noise. The gradients of one step share its batch and noise.
    momentum, weight_decay, normalised : optional
        As in `gradient_descent`.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the directions, the batches and the noise.
    record, observe, dtype, limits : optional
        As in `sgd`.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or `direction` or `observe` has an unknown name.

    See Also
    --------
    gradient_descent : The same without the move to ``W + e``.
    balancedfact.curvature.worst_direction_sharpness : The sharpness that it lowers.

    Notes
    -----
    The stream of random numbers is that of `sgd`, followed at each step by ``rng.standard_normal((samples, n))`` for
    ``"average"``, with the `n` weights in the order ``W_1, ..., W_L``, row by row.

    References
    ----------
    Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving generalization", 2021; the three
    forms after Wen, Ma, Li, "How does sharpness-aware minimization minimize sharpness?", 2022.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.regression(np.eye(2) * np.sqrt(2))
    >>> start = [np.diag([3.0, 2.0]), np.array([[0.25, 0.25]])]
    >>> plain = bf.dynamics.gradient_descent(start, A, [1.0, 1.0], step=0.02, iterations=9000)
    >>> aware = bf.dynamics.sharpness_aware(start, A, [1.0, 1.0], step=0.02, iterations=9000, radius=0.1)
    >>> sharpness = [bf.curvature.sharpness(run.layers, A, [1.0, 1.0]) for run in (plain, aware)]
    >>> bool(sharpness[1] < sharpness[0])
    True
    """
    start = as_runs(layers, A)
    model = MapModel(A, b)
    steps, moments = as_steps(step, start.lead), as_moments(record, iterations)
    rule = as_aware_rule(as_rule(momentum, weight_decay, normalised), radius, direction, inner, samples)
    size, noise, kind = as_batch(batch), as_noise(label_noise, A.m), as_precision(dtype)
    weights = sum(layer[0].size for layer in start.layers)
    draws = [Draws(each, model.b, size, noise, (rule.samples, weights)) for each in generators(rng, start)]
    return train(start, model, rule, steps, moments, observe, draws, kind, limits)
