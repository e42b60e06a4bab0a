"""A multilayer perceptron with GELU activations and no biases: the deep linear network for regression, made non-linear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from balancedfact._validate import as_array
from balancedfact.closed_forms._regression_sharpness import as_stack
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._perceptron_kernel import advance
from balancedfact.dynamics._training import alive, as_moments, as_steps, finished, stretches
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.iteration._log import OF_TRAINING, Log

_LANES = 8  # samples are padded to a multiple of this


def perceptron(layers: Sequence[ArrayLike], inputs: ArrayLike) -> np.ndarray:
    r"""The outputs :math:`f(x) = W_L\,\sigma(W_{L-1}\,\sigma(\cdots\sigma(W_1x)))` with :math:`\sigma(z) = z\,\Phi(z)` (GELU).

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        ``[W_1, ..., W_L]`` with ``d_L == 1``; leading axes are independent networks.
    inputs : array_like, shape (n, d_0) or (..., n, d_0)
        One sample per row.

    Returns
    -------
    numpy.ndarray, shape (..., n)

    Raises
    ------
    ValueError
        If shapes do not fit or an argument is not finite.

    See Also
    --------
    perceptron_descent : Its training.
    perceptron_sharpness : Its sharpness.

    References
    ----------
    Guide :doc:`/guide/reproduce`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(bf.dynamics.perceptron([np.eye(1), np.eye(1)], [[0.0], [10.0]]))
    [ 0. 10.]
    """
    stack = as_stack(layers)
    return _outputs(stack, _as_inputs(inputs, stack))


def perceptron_sharpness(layers: Sequence[ArrayLike], inputs: ArrayLike, targets: ArrayLike) -> np.ndarray | float:
    r"""The largest eigenvalue of the Hessian of :math:`\frac1n\sum_i(f(x_i)-y_i)^2`, from the whole Hessian.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        ``[W_1, ..., W_L]`` with ``d_L == 1``; leading axes are independent networks.
    inputs : array_like, shape (n, d_0) or (..., n, d_0)
        One sample per row.
    targets : array_like, shape (n,) or (..., n)
        The numbers :math:`y_i`.

    Returns
    -------
    float, or numpy.ndarray of the leading shape

    Raises
    ------
    ValueError
        If shapes do not fit or an argument is not finite.

    See Also
    --------
    perceptron : The outputs of the network.
    balancedfact.curvature.sharpness : The same for linear networks.

    Notes
    -----
    The Hessian is built by differentiating backpropagation along all coordinates at once, so its cost grows with the
    square of the number of weights: it is meant for small networks.

    References
    ----------
    Guide :doc:`/guide/reproduce`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> print(round(bf.dynamics.perceptron_sharpness([np.eye(1), np.eye(1)], [[20.0]], [20.0]), 6))
    1600.0
    """
    stack = as_stack(layers)
    lead, X, y = _as_data(stack, inputs, targets)
    values = _Perceptron(X, y).sharpness(_flat_runs(stack, lead))
    return values.reshape(lead) if lead else float(values[0])


def perceptron_descent(
    layers: Sequence[ArrayLike],
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    step: ArrayLike,
    iterations: int,
    record: int | Sequence[int] | None = None,
    observe: Observe = ("norms",),
    limits: Limits | None = None,
) -> Trajectory:
    r"""Gradient descent on :math:`\frac1n\sum_i(f(x_i)-y_i)^2` for GELU perceptrons, one or many.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        The start ``[W_1, ..., W_L]`` with ``d_L == 1``; leading axes are independent runs.
    inputs : array_like, shape (n, d_0) or (..., n, d_0)
        One sample per row, the same for all runs or not.
    targets : array_like, shape (n,) or (..., n)
        The numbers :math:`y_i`.
    step : float or array_like
        The step size, one for all runs or one per run.
    iterations : int
        The number of steps.
    record : int or sequence of int, optional
        As in `gradient_descent`.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`, without the names ``"trace"`` and ``"distance"``.
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
    perceptron : The outputs of the network.
    regression_descent : The same for linear networks.

    References
    ----------
    Marion, Chizat 2024, Figure 7; Hendrycks, Gimpel, "Gaussian error linear units", 2016.

    Guide :doc:`/guide/reproduce`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> X = np.random.default_rng(0).standard_normal((30, 3))
    >>> start = bf.dynamics.gaussian_layers([3, 3, 3, 1], [0.6, 0.7], rng=1)
    >>> runs = bf.dynamics.perceptron_descent(start, X, X[:, 0], step=0.05, iterations=5000)
    >>> bool(np.all(runs.loss[:, -1] < 0.3 * runs.loss[:, 0]))
    True
    """
    stack = as_stack(layers)
    lead, X, y = _as_data(stack, inputs, targets)
    steps, moments = as_steps(step, lead), as_moments(record, iterations)
    current = _flat_runs(stack, lead)
    runs, n = y.shape
    sizes = np.array([stack[0].shape[-1], *(layer.shape[-2] for layer in stack)])
    offsets = np.cumsum(sizes[1:] * sizes[:-1])
    weights = np.concatenate([layer.reshape(runs, -1) for layer in current], axis=1)
    padded, widest = -(-n // _LANES) * _LANES, sizes.max()
    h, slopes, z = np.zeros((len(stack), widest, padded)), np.zeros((len(stack), widest, padded)), np.zeros(widest * padded)
    back, carried, target = np.zeros((widest, padded)), np.zeros((widest, padded)), np.zeros(padded)
    diverged, reached, starts = np.full(runs, -1), [0], np.concatenate([[0], offsets])
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)

    def begun() -> Recorder:
        recorder = Recorder(observe, _Perceptron(X, y), lead)
        recorder.record(current, alive(recorder, current, diverged))
        return recorder

    recorder = log.insist(begun)
    with log:
        log.write("", {})
        for moment in moments[1:]:
            for first, stop in stretches(reached[-1], int(moment), log):
                for r in np.flatnonzero(diverged < 0):
                    h[0, : sizes[0], :n], target[:n] = X[r].T, y[r]
                    work = h, slopes, z, back, carried, target
                    diverged[r] = advance(weights[r], sizes, starts, *work, n, steps[r], first, stop)
            parts = np.split(weights, offsets[:-1], axis=1)
            layers_now = [part.reshape(runs, *layer.shape[-2:]) for part, layer in zip(parts, stack, strict=True)]
            recorder.record(layers_now, alive(recorder, layers_now, diverged))
            current = [layer.copy() for layer in layers_now]
            reached.append(stop)
            log.write("", {})
    recorder.drop_torn(reached)
    return finished(current, recorder, steps, np.array(reached), diverged, lead, log.ended)


class _Perceptron:
    """The loss of perceptrons on data of their own, for recording."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.X, self.y = X, y

    def loss(self, layers: list[np.ndarray]) -> np.ndarray:
        return np.mean((_outputs(layers, self.X) - self.y) ** 2, axis=-1)

    def sharpness(self, layers: list[np.ndarray]) -> np.ndarray:
        runs = [[layer[r] for layer in layers] for r in range(self.y.shape[0])]
        return np.array([np.linalg.eigvalsh(_hessian(one, X, y))[-1] for one, X, y in zip(runs, self.X, self.y, strict=True)])


def _hessian(layers: list[np.ndarray], X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The Hessian of one network: backpropagation and its derivative along all coordinates."""
    h, density, z = [X.T], [], X.T
    for layer in layers:
        z = layer @ h[-1]
        density.append(np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
        h.append(z * scipy.special.ndtr(z))
    zs = [layer @ below for layer, below in zip(layers, h, strict=False)]
    slopes = [scipy.special.ndtr(z) + z * phi for z, phi in zip(zs, density, strict=True)]
    bends = [phi * (2 - z**2) for z, phi in zip(zs, density, strict=True)]
    ends = np.cumsum([0, *(layer.size for layer in layers)])
    count, n = int(ends[-1]), y.size

    # Forward: dz[c] is the derivative of a layer's input to the activation along coordinate c.
    moved = np.zeros((count, *X.T.shape))
    dzs, dhs = [], [moved]
    for k, layer in enumerate(layers):
        dz = layer @ dhs[-1]
        rows, cols = layer.shape
        here = dz[ends[k] : ends[k + 1]].reshape(rows, cols, rows, n)
        here[np.arange(rows), :, np.arange(rows)] += h[k]
        dzs.append(dz)
        dhs.append(slopes[k] * dz)
    # Backward, the same: `back` is the gradient in z.
    back, dback = 2 / n * (zs[-1] - y), 2 / n * dzs[-1]
    hessian = np.empty((count, count))
    for k in range(len(layers) - 1, -1, -1):
        rows, cols = layers[k].shape
        columns = dback @ h[k].T + back @ np.swapaxes(dhs[k], -1, -2)
        hessian[:, ends[k] : ends[k + 1]] = columns.reshape(count, -1)
        if k:
            carried, dcarried = layers[k].T @ back, layers[k].T @ dback
            inner = np.zeros((rows, cols, cols, n))
            inner[:, np.arange(cols), np.arange(cols)] = back[:, None, :]
            dcarried[ends[k] : ends[k + 1]] += inner.reshape(rows * cols, cols, n)
            dback = slopes[k - 1] * dcarried + bends[k - 1] * dzs[k - 1] * carried
            back = slopes[k - 1] * carried
    return (hessian + hessian.T) / 2


def _outputs(layers: list[np.ndarray], X: np.ndarray) -> np.ndarray:
    h = np.swapaxes(X, -1, -2)
    for layer in layers[:-1]:
        z = layer @ h
        h = z * scipy.special.ndtr(z)
    return (layers[-1] @ h)[..., 0, :]


def _as_inputs(inputs: ArrayLike, stack: list[np.ndarray]) -> np.ndarray:
    if stack[-1].shape[-2] != 1:
        raise ValueError(f"layers end with {stack[-1].shape[-2]} outputs; expected 1")
    X = as_array(inputs, "inputs")
    if X.ndim < 2 or X.shape[-1] != stack[0].shape[-1]:
        raise ValueError(f"inputs has shape {X.shape}; expected {stack[0].shape[-1]} columns, as layers take")
    return X


def _as_data(stack: list[np.ndarray], inputs: ArrayLike, targets: ArrayLike) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """The leading axes, and the data of each run."""
    X, y = _as_inputs(inputs, stack), as_array(targets, "targets")
    if y.ndim < 1 or y.shape[-1] != X.shape[-2]:
        raise ValueError(f"targets has shape {y.shape}; expected {X.shape[-2]} numbers, one per row of inputs")
    try:
        lead = np.broadcast_shapes(stack[0].shape[:-2], X.shape[:-2], y.shape[:-1])
    except ValueError:
        found = {"layers": stack[0].shape[:-2], "inputs": X.shape[:-2], "targets": y.shape[:-1]}
        raise ValueError(f"layers and data have the leading axes {found}; expected equal ones") from None
    runs, shape = int(np.prod(lead)), X.shape[-2:]
    return lead, np.broadcast_to(X, lead + shape).reshape(runs, *shape), np.broadcast_to(y, lead + shape[:1]).reshape(runs, -1)


def _flat_runs(stack: list[np.ndarray], lead: tuple[int, ...]) -> list[np.ndarray]:
    runs = int(np.prod(lead))
    return [np.broadcast_to(layer, lead + layer.shape[-2:]).reshape(runs, *layer.shape[-2:]).copy() for layer in stack]
