"""The time average of gradient descent at the edge of stability: a flow that keeps the sharpness at what the step allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_count, as_layers, as_number
from balancedfact.dynamics._edge_flow import top_of_hessian
from balancedfact.dynamics._jets import Jets
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._overflow import Overflowed, finite
from balancedfact.dynamics._training import OVERFLOW
from balancedfact.dynamics._trajectory import Trajectory
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solvers.iteration._limits import Limits, check_time
from balancedfact.solvers.iteration._log import OF_TRAINING, Log

_LEAST, _COUNTABLE_STEPS = 1e-300, 1e15  # of a step size, whose inverse is then a number; steps that can be counted exactly
_COMPLEMENTARITY_ROUNDS, _GOAL = 500, 1e-12  # of the small complementarity problem


def central_flow(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: float,
    t_final: float,
    directions: int = 3,
    substeps: int = 4,
    record: int = 200,
    observe: Observe = ("norms",),
    limits: Limits | None = None,
) -> Trajectory:
    r"""Central flow: a continuous model of where gradient descent is on average when it oscillates.

    With the covariance :math:`\Sigma` of the oscillation, a positive semidefinite matrix on the directions `U` of the largest
    curvatures,

    .. math:: \dot W = -\nabla\mathcal L(W) - \tfrac12\nabla\langle\nabla^2\mathcal L(W),\Sigma\rangle, \quad \Sigma = UXU^\top,

    where :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2` and `X` keeps the curvatures from passing
    :math:`2/\eta`: with :math:`G = \frac2\eta I - U^\top\nabla^2\mathcal LU`,

    .. math:: X\succeq0, \quad \tfrac G\tau - \tfrac{d}{dt}U^\top\nabla^2\mathcal LU\succeq0, \quad
              \big\langle X, \tfrac G\tau - \tfrac d{dt}U^\top\nabla^2\mathcal LU\big\rangle = 0 .

    As :math:`\tau\to0` this becomes gradient flow where the sharpness is below :math:`2/\eta`, confined to the weights whose
    sharpness is at most :math:`2/\eta`. Here :math:`\tau = \eta`, which also brings a start that is too sharp back to that set.

    Parameters
    ----------
    layers : sequence of array_like, shapes (d_k, d_{k-1})
        The start ``[W_1, ..., W_L]``.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    step : float
        The step :math:`\eta` of the descent that is modelled.
    t_final : float
        The time at which to stop: `step` times the number of steps of descent.
    directions : int, optional
        How many of the largest curvatures are kept in check.
    substeps : int, optional
        Steps of the integration, a method of order two, for each step of descent.
    record : int, optional
        The number of records, at equal distances in time, beside the start.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`.
    limits : Limits, optional
        Time and number of records after which to stop; the trajectory then ends where it is, as with Ctrl-C, and its `status`
        and message say so.

    Returns
    -------
    Trajectory
        The series ``"variance"`` has the trace of :math:`\Sigma` and ``"top"`` the largest curvature. A flow whose loss or
        derivatives overflow ends at the last weights before that; its message says so, and `Trajectory.diverged` is the number
        of the step of the integration.

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or the loss or its derivatives overflow at the start.

    See Also
    --------
    edge_flow : The model with one unstable direction and the size of its oscillation.
    gradient_descent : The training that it describes.

    Notes
    -----
    The derivatives are exact: products with the Hessian and third derivatives come from power series along lines.

    References
    ----------
    Cohen, Damian, Talwalkar, Kolter, Lee, "Understanding optimization in deep learning with central flows", 2024
    (arXiv 2410.24206): the idea of the model. Its equations were written without the paper at hand, and the relaxation by
    :math:`\tau` was added here.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.regression(np.eye(2))
    >>> start = [np.diag([2.0, 2.0]), np.array([[0.6, 0.7]])]
    >>> flow = bf.dynamics.central_flow(start, A, [1.0, 1.0], step=0.55, t_final=100.0)
    >>> bool(flow["top"][0] > 2 / 0.55), bool(flow["top"][-1] <= 2 / 0.55 * (1 + 1e-6))
    (True, True)
    """
    W = as_layers(layers, as_map(A).matrix_shape)
    model, eta = MapModel(A, b), as_number(step, "step", least=_LEAST)
    end, count, parts = as_number(t_final, "t_final", least=0), as_count(record, "record"), as_count(substeps, "substeps")
    jets = Jets(model, [layer.shape for layer in W])
    field = _CentralField(jets, eta, as_count(directions, "directions"))
    y = jets.flat(W)
    recorder, times, variances, tops = Recorder(observe, model, ()), [], [], []

    def note(t: float, y: np.ndarray, variance: float, top: float) -> None:
        recorder.record([layer[None] for layer in jets.layers(y)], np.array([True]))
        times.append(t)
        variances.append(variance)
        tops.append(top)

    with np.errstate(over="ignore"):
        wanted = np.float64(end) / eta * parts
    if not wanted <= _COUNTABLE_STEPS:
        raise ValueError(
            f"t_final is {end} with step {eta} and substeps {parts}; expected at most {_COUNTABLE_STEPS:.0e} steps"
        )
    steps = max(1, int(np.ceil(wanted - 1e-9)))
    h, count = end / steps, min(count, steps)
    moments = set(np.unique(np.round(np.linspace(0, steps, count + 1)[1:]).astype(int)))
    message = "Reached t_final"
    now, diverged = 0.0, -1
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)
    slope, *seen = log.insist(field, y)
    with log:
        note(0.0, y, *seen)
        log.write("", {})
        for taken in range(1, steps + 1 if end > 0 else 1):
            check_time()
            try:
                middle, _, _ = field(y + h / 2 * slope)
                following = y + h * middle
                reached = field(following)
            except Overflowed:
                message, diverged = f"Diverged at time {taken * h:.4g}", taken
                break
            now, y, (slope, *seen) = taken * h, following, reached
            if taken in moments:
                note(now, y, *seen)
                log.write("", {})
    if log.ended or diverged >= 0:
        recorder.drop_torn(times, variances, tops)
        if not times or now > times[-1]:
            log.insist(note, now, y, *seen)
            recorder.drop_torn(times, variances, tops)
    status, message = log.end(message)
    loss, series = recorder.results()
    series |= {"variance": np.array(variances), "top": np.array(tops)}
    final, when = [layer.copy() for layer in jets.layers(y)], np.array(diverged)
    return Trajectory(final, np.array(times), loss, series, diverged=when, message=message, status=status)


class _CentralField:
    """The right-hand side, the trace of the covariance, and the largest curvature; `Overflowed` where one overflows."""

    def __init__(self, jets: Jets, step: float, directions: int) -> None:
        self.jets, self.step, self.directions = jets, step, directions
        self.last: np.ndarray | None = None

    def __call__(self, y: np.ndarray) -> tuple[np.ndarray, float, float]:
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.jets.loss(y) < OVERFLOW:
                raise Overflowed
            slope, variance, top = self._parts(y)
            return finite(slope), variance, top

    def _parts(self, y: np.ndarray) -> tuple[np.ndarray, float, float]:
        jets, gradient = self.jets, finite(self.jets.gradient(y))
        values, U = top_of_hessian(jets, y, self.directions, self.last)
        self.last = U[:, 0]
        room = 2 / self.step - values
        # Curvatures that could not pass the limit within a step at this speed need no watch.
        near = room < 0.5 / self.step
        if not near.any():
            return -gradient, 0.0, float(values[0])
        U, room, k = U[:, near], room[near], int(near.sum())
        pairs = [(i, j) for i in range(k) for j in range(i, k)]
        # The gradients of u_i' H u_j for fixed vectors, by polarisation, exactly.
        ahead = jets.third(y, np.stack([U[:, i] + U[:, j] for i, j in pairs]))
        behind = jets.third(y, np.stack([U[:, i] - U[:, j] for i, j in pairs]))
        bends = (ahead - behind) / 4  # one row for each pair
        weights = np.array([1.0 if i == j else np.sqrt(2.0) for i, j in pairs])
        bends = bends * weights[:, None]  # coordinates in which the inner product of symmetric matrices is that of vectors
        speed = -bends @ gradient  # d/dt of U' H U without oscillation
        slack = np.array([room[i] if i == j else 0.0 for i, j in pairs]) / self.step
        quadratic = bends @ bends.T / 2
        x = _complementary(finite(quadratic), finite(speed - slack), pairs, k)
        variance = float(sum(value for value, (i, j) in zip(x, pairs, strict=True) if i == j))
        return -gradient - x @ bends / 2, variance, float(values[0])


def _complementary(Q: np.ndarray, q: np.ndarray, pairs: list[tuple[int, int]], k: int) -> np.ndarray:
    """The positive semidefinite `x` of least ``x'Qx/2 - q'x``: ``Q x - q`` is positive semidefinite and orthogonal to it."""
    if k == 1:
        return np.maximum(q / Q[0], 0.0) if Q[0, 0] > 0 else np.zeros(1)
    largest = float(np.linalg.eigvalsh(Q)[-1])
    if largest == 0:
        return np.zeros(len(pairs))
    x = z = np.zeros(len(pairs))
    momentum = 1.0
    for _ in range(_COMPLEMENTARITY_ROUNDS):
        new = _positive(finite(z - (Q @ z - q) / largest), pairs, k)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        if (z - new) @ (new - x) > 0:  # the acceleration overshot
            following = momentum = 1.0
        moved, z = new - x, new + (momentum - 1) / following * (new - x)
        x, momentum = new, following
        if np.linalg.norm(moved) <= _GOAL * np.linalg.norm(x):
            break
    return x


def _positive(x: np.ndarray, pairs: list[tuple[int, int]], k: int) -> np.ndarray:
    X = np.zeros((k, k))
    for value, (i, j) in zip(x, pairs, strict=True):
        X[i, j] = X[j, i] = value if i == j else value / np.sqrt(2.0)
    values, vectors = np.linalg.eigh(X)
    X = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return np.array([X[i, j] if i == j else np.sqrt(2.0) * X[i, j] for i, j in pairs])
