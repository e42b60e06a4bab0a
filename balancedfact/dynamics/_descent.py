"""Gradient descent on the layers, for one network or many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_regular
from balancedfact.closed_forms._regression_sharpness import as_regression
from balancedfact.dynamics._model import MapModel, RegressionModel
from balancedfact.dynamics._observables import Observe
from balancedfact.dynamics._rule import as_rule
from balancedfact.dynamics._training import StartingLayers, as_moments, as_runs, as_steps, train
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.measurements import MeasurementMap
from balancedfact.solvers.iteration._limits import Limits


def gradient_descent(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    normalised: bool = False,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
    limits: Limits | None = None,
) -> Trajectory:
    r"""Gradient descent on :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`, for one network or many.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        The start ``[W_1, ..., W_L]``; leading axes are independent runs.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    step : float or array_like
        The step size, one for all runs or one per run (its shape broadcasts to the leading axes).
    iterations : int
        The number of steps.
    momentum : float, optional
        :math:`\mu` of the heavy ball, at least 0 and less than 1.
    weight_decay : float, optional
        :math:`\lambda`: the gradient is that of :math:`\mathcal L(W) + \frac\lambda2\sum_k\|W_k\|_F^2`.
    normalised : bool, optional
        Divide the gradient by its norm over all layers; a zero gradient stays zero.
    record : int or sequence of int, optional
        Record every so many steps, or after these numbers of steps; by default about a hundred times. The start and the
        end are always recorded.
    observe : sequence of str or dict of str to callable
        Which series to record, by name or as functions of the layers of one run. The names are ``"norms"`` and
        ``"spectral_norms"`` of each layer; ``"alignment"``, the squared cosines between the leading left singular vector of a
        layer and the leading right one of the next; ``"imbalance"``, the largest
        :math:`\|W_{k+1}^\top W_{k+1} - W_kW_k^\top\|_F`; ``"nuclear_norm"`` of the product; ``"sharpness"`` and ``"trace"`` of
        the Hessian of the loss; and, for regression with one output, ``"distance"``, the squared distance of
        :math:`w_{\rm prod}` from the minimiser of least norm.
    limits : Limits, optional
        Time and number of records after which to stop; the trajectory then ends at its last record, and its message says so.
        Ctrl-C ends it the same way.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or `observe` has an unknown name.

    See Also
    --------
    gradient_flow : The limit of small steps.
    sgd : Steps with batches and noise.
    regression_descent : Many regressions at once.
    stability_threshold : The largest stable step.

    Notes
    -----
    A step, with :math:`g` the gradient of the loss plus :math:`\lambda W`, divided by its norm if `normalised`, is

    .. math:: V \leftarrow \mu V + g, \qquad W \leftarrow W - \eta V.

    Divergence is no error: a run whose gradient overflows is stopped, and `Trajectory.diverged` says at which step.

    Small networks run side by side in a compiled loop, on all cores; a step costs products with as many vectors as there are
    outputs or inputs, whichever are fewer. Networks of more than a few thousand weights run one by one in NumPy.

    References
    ----------
    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (3, 3), rng=0)
    >>> start = bf.dynamics.gaussian_layers([3, 3, 3], [0.5, 0.6], rng=1)
    >>> runs = bf.dynamics.gradient_descent(start, A, A(np.eye(3)), step=0.05, iterations=1000)
    >>> bool(np.all(runs.loss[:, -1] < 1e-12))
    True
    """
    start = as_runs(layers, A)
    rule = as_rule(momentum, weight_decay, normalised)
    return train(
        start, MapModel(A, b), rule, as_steps(step, start.lead), as_moments(record, iterations), observe, limits=limits
    )


def regression_descent(
    layers: Sequence[ArrayLike],
    covariance: ArrayLike,
    w: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    readout: ArrayLike | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    normalised: bool = False,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
    limits: Limits | None = None,
) -> Trajectory:
    r"""Gradient descent for univariate regression, many runs at once, each with data of its own.

    The loss is the excess risk :math:`(w_{\rm prod}-w)^\top\hat\Sigma(w_{\rm prod}-w)` with
    :math:`w_{\rm prod}^\top = p^\top W_L\cdots W_1`.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        The start ``[W_1, ..., W_L]``; leading axes are independent runs.
    covariance : array_like, shape (d, d) or (..., d, d)
        :math:`\hat\Sigma`, one for all runs or one per run.
    w : array_like, shape (d,) or (..., d)
        The minimiser of the risk.
    step : float or array_like
        The step size, one for all runs or one per run.
    iterations : int
        The number of steps.
    readout : array_like, shape (d_L,) or (..., d_L), optional
        The fixed vector `p` of a residual network; not needed if ``d_L == 1``, where it is 1.
    momentum, weight_decay, normalised : optional
        As in `gradient_descent`.
    record : int or sequence of int, optional
        As in `gradient_descent`.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`; ``"distance"`` is the squared distance from `w`.
    limits : Limits, optional
        As in `gradient_descent`.

    Returns
    -------
    Trajectory
        Its loss is the excess risk.

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or `observe` has an unknown name.

    See Also
    --------
    gradient_descent : The same for measurements of any kind.
    gaussian_layers, residual_layers : Usual starts.
    balancedfact.closed_forms.minimal_sharpness : The least sharpness at which it can end.

    Notes
    -----
    Runs do not influence one another: the result of each is the same, bit for bit, alone or among others.

    References
    ----------
    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> start = bf.dynamics.gaussian_layers([2] * 5 + [1], np.full(100, 0.5), rng=0)
    >>> steps = np.linspace(0.01, 1.0, 100)
    >>> runs = bf.dynamics.regression_descent(start, np.eye(2), [1.0, 0.0], step=steps, iterations=2000)
    >>> bool(0 < np.count_nonzero(runs.diverged >= 0) < 100)
    True
    """
    stack, sigma, target, p = as_regression(layers, covariance, w, readout)
    lead = np.broadcast_shapes(
        stack[0].shape[:-2], sigma.shape[:-2], target.shape[:-1], p.shape[:-1], as_regular(step, "step").shape
    )
    runs = int(np.prod(lead))

    def per_run(array: np.ndarray, axes: int) -> np.ndarray:
        tail = array.shape[array.ndim - axes :]
        return np.broadcast_to(array, lead + tail).reshape(runs, *tail)

    model = RegressionModel(per_run(sigma, 2), per_run(target, 1), per_run(p, 1))
    start, rule = StartingLayers([per_run(layer, 2) for layer in stack], lead), as_rule(momentum, weight_decay, normalised)
    return train(start, model, rule, as_steps(step, lead), as_moments(record, iterations), observe, limits=limits)
