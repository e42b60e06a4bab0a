"""Gradient descent on the layers, for one network or many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_count
from balancedfact.closed_forms._regression_sharpness import as_regression, as_stack
from balancedfact.dynamics._model import MapModel, RegressionModel, regression_of
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._regression_kernel import Descent
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.measurements import MeasurementMap

OVERFLOW = 1e300


def gradient_descent(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
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
    record : int or sequence of int, optional
        Record every so many steps, or after these numbers of steps; by default about a hundred times. The start and the
        end are always recorded.
    observe : sequence of str or dict of str to callable
        Which series to record: names among ``"norms"``, ``"spectral_norms"``, ``"alignment"``, ``"imbalance"``,
        ``"nuclear_norm"``, ``"sharpness"``, ``"trace"`` and, for regression, ``"distance"``; or functions of the layers of
        one run.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite, `step` is not positive or `observe` has an unknown name.

    Notes
    -----
    Divergence is data: a run whose loss overflows is stopped, and the trajectory says at which step.

    With one output (`balancedfact.measurements.regression`) the loop is compiled and a step costs products with vectors only;
    otherwise the products of all runs are done together.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(20, (3, 3), rng=0)
    >>> start = bf.dynamics.gaussian_layers([3, 3, 3], [0.5, 0.6], rng=1)
    >>> runs = bf.dynamics.gradient_descent(start, A, A(np.eye(3)), step=0.05, iterations=1000)
    >>> bool(np.all(runs.loss[:, -1] < 1e-12))
    True
    """
    stack, lead = as_runs(layers, A)
    model = MapModel(A, b)
    steps, moments = _as_steps(step, lead), as_moments(record, iterations)
    runs = stack[0].shape[0]
    regression = regression_of(A, model.b, runs)
    if regression is not None:
        return _regression_run(stack, regression, steps, moments, observe, lead)

    recorder, diverged = Recorder(observe, model, lead), np.full(runs, -1)
    current, sizes, last = [layer.copy() for layer in stack], steps[:, None, None], 0
    final = current
    for moment in moments:
        for iteration in range(last, moment):
            loss, gradients = _gradients(current, model)
            if not np.all(loss < OVERFLOW):
                lost = ~(loss < OVERFLOW) & (diverged < 0)
                diverged[lost] = iteration
                final = _with(final, current, lost) if final is not current else [layer.copy() for layer in current]
                sizes = np.where((diverged >= 0)[:, None, None], 0.0, sizes)
                for layer in current:  # finite numbers for the lanes that no longer count
                    layer[diverged >= 0] = 0.0
                for gradient in gradients:
                    gradient[diverged >= 0] = 0.0
            for layer, gradient in zip(current, gradients, strict=True):
                layer -= sizes * gradient
        last = moment
        with np.errstate(over="ignore", invalid="ignore"):
            alive = (diverged < 0) & (model.loss(current) < OVERFLOW)
        recorder.record(current, alive)
    final = _with(final, current, diverged < 0) if final is not current else current
    return _finished(final, recorder, steps, moments, diverged, lead)


def regression_descent(
    layers: Sequence[ArrayLike],
    covariance: ArrayLike,
    w: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    readout: ArrayLike | None = None,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
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
    record : int or sequence of int, optional
        As in `gradient_descent`.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`.

    Returns
    -------
    Trajectory
        Its loss is the excess risk.

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite, `step` is not positive or `observe` has an unknown name.

    Notes
    -----
    Runs do not influence one another: the result of each is the same, bit for bit, alone or among others.

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
    lead = np.broadcast_shapes(stack[0].shape[:-2], sigma.shape[:-2], target.shape[:-1], p.shape[:-1], np.shape(step))
    runs = int(np.prod(lead))

    def per_run(array: np.ndarray, axes: int) -> np.ndarray:
        tail = array.shape[array.ndim - axes :]
        return np.broadcast_to(array, lead + tail).reshape(runs, *tail)

    model = RegressionModel(per_run(sigma, 2), per_run(target, 1), per_run(p, 1))
    steps, moments = _as_steps(step, lead), as_moments(record, iterations)
    return _regression_run([per_run(layer, 2) for layer in stack], model, steps, moments, observe, lead)


def _regression_run(
    stack: list[np.ndarray],
    model: RegressionModel,
    steps: np.ndarray,
    moments: np.ndarray,
    observe: Observe,
    lead: tuple[int, ...],
) -> Trajectory:
    recorder = Recorder(observe, model, lead)
    descent, last = Descent(stack, model.covariance, model.w, model.readout, steps), 0
    for moment in moments:
        descent.advance(last, moment)
        last = moment
        current = descent.layers
        with np.errstate(over="ignore", invalid="ignore"):
            alive = (descent.diverged < 0) & (model.loss(current) < OVERFLOW)
        recorder.record(current, alive)
    return _finished(descent.layers, recorder, steps, moments, descent.diverged, lead)


def _gradients(layers: list[np.ndarray], model: MapModel) -> tuple[np.ndarray, list[np.ndarray]]:
    """The losses and the gradients in each layer."""
    before = [layers[0]]
    gradients = []
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in layers[1:]:
            before.append(layer @ before[-1])
        loss, carried = model.loss_and_gradient(before[-1])
        for k in range(len(layers) - 1, 0, -1):
            gradients.append(carried @ np.swapaxes(before[k - 1], -1, -2))
            carried = np.swapaxes(layers[k], -1, -2) @ carried
    return loss, [carried, *gradients[::-1]]


def _with(kept: list[np.ndarray], new: list[np.ndarray], where: np.ndarray) -> list[np.ndarray]:
    return [np.where(where[:, None, None], b, a) for a, b in zip(kept, new, strict=True)]


def _finished(
    layers: list[np.ndarray],
    recorder: Recorder,
    steps: np.ndarray,
    moments: np.ndarray,
    diverged: np.ndarray,
    lead: tuple[int, ...],
) -> Trajectory:
    loss, series = recorder.results()
    times = np.multiply.outer(steps, moments) if np.unique(steps).size > 1 else steps[0] * moments
    times = times.reshape(*lead, -1) if times.ndim > 1 else times
    lost = int(np.count_nonzero(diverged >= 0))
    message = f"Ran {moments[-1]} steps; {lost} of {diverged.size} diverged" if lost else f"Ran {moments[-1]} steps"
    folded = [layer.reshape(lead + layer.shape[1:]) for layer in layers]
    return Trajectory(folded, times, loss, series, moments, diverged.reshape(lead), message)


def as_runs(layers: Sequence[ArrayLike], A: MeasurementMap) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Checked layers with one leading axis for the runs, and the leading axes that they came with."""
    stack = as_stack(layers)
    found = (stack[-1].shape[-2], stack[0].shape[-1])
    if isinstance(A, MeasurementMap) and found != tuple(A.matrix_shape):
        raise ValueError(f"layers multiply to shape {found}; expected {tuple(A.matrix_shape)}")
    return [layer.reshape(-1, *layer.shape[-2:]) for layer in stack], stack[0].shape[:-2]


def _as_steps(step: ArrayLike, lead: tuple[int, ...]) -> np.ndarray:
    array = as_array(step, "step")
    if array.min() <= 0:
        raise ValueError(f"step is {array.min()}; expected more than 0")
    try:
        return np.broadcast_to(array, lead).ravel()
    except ValueError:
        raise ValueError(f"step has shape {array.shape}; expected one that broadcasts to {lead}") from None


def as_moments(record: int | Sequence[int] | None, iterations: int) -> np.ndarray:
    """The numbers of steps after which to record, from 0 to `iterations`."""
    last = as_count(iterations, "iterations", least=0)
    if record is None:
        every = max(1, last // 100)
    elif np.ndim(record) == 0:
        every = as_count(record, "record")  # type: ignore[arg-type]
    else:
        chosen = np.asarray(record)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or np.any(chosen < 0) or np.any(chosen > last):
            raise ValueError(f"record is {record!r}; expected numbers of steps from 0 to {last}")
        return np.union1d(chosen, [0, last])
    return np.union1d(np.arange(0, last + 1, every), [0, last])
