"""Gradient descent at the edge of stability as three coupled flows: centre, direction and size of an oscillation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.integrate
import scipy.sparse.linalg
from numpy.typing import ArrayLike

from balancedfact._validate import as_count, as_layers, as_number, check_room
from balancedfact.dynamics._jets import Jets
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._overflow import check_speed, finite
from balancedfact.dynamics._trajectory import Trajectory, after
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import Limits, check_time
from balancedfact.solvers.iteration._log import OF_TRAINING, Log

_NOTHING = -1e3  # the logarithm of a size that is zero
TIGHTEST = 3e-14  # the relative accuracy below which the integrator only repeats rounding errors
_DECOMPOSED_WEIGHTS = 200  # weights up to which eigenvectors come from the whole Hessian


def edge_flow(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: float,
    t_final: float,
    amplitude: float | None = None,
    record: int = 200,
    rtol: float = 1e-6,
    max_steps: int = 100_000,
    observe: Observe = ("norms",),
    limits: Limits | None = None,
) -> Trajectory:
    r"""Edge flow: a continuous model of gradient descent that oscillates.

    At even and odd steps, descent with the step :math:`\eta` is near :math:`c + av` and :math:`c - av`: a centre, a unit
    direction and a size, which follow

    .. math:: \dot c = -\tfrac12\big(\nabla\mathcal L(c+av)+\nabla\mathcal L(c-av)\big), \qquad
              \dot v = (I - vv^\top)Hv, \qquad \dot a = \big(v^\top Hv - \tfrac2\eta\big)a, \qquad H = \nabla^2\mathcal L(c),

    in the time that counts :math:`\eta` for each step, with :math:`\mathcal L(W) = \frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`.
    When the sharpness passes :math:`2/\eta` the oscillation grows and bends the path of the centre towards flatter weights; it
    dies out once the sharpness is below :math:`2/\eta`.

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
    amplitude : float, optional
        The size `a` at the start. By default :math:`|v^\top\nabla\mathcal L|/v^\top Hv`, the distance of the start from the
        bottom of the valley in the direction `v`, the eigenvector of the largest eigenvalue.
    record : int, optional
        The number of records, at equal distances in time, beside the start.
    rtol : float, optional
        The accuracy of the integration.
    max_steps : int, optional
        Give up after this many steps of the integration; the message says so.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`, of the centre.
    limits : Limits, optional
        Time and number of records after which to stop; the trajectory then ends where it is, as with Ctrl-C, and its `status`
        and message say so.

    Returns
    -------
    Trajectory
        Its layers and its loss are those of the centre; the series ``"amplitude"`` has `a`, ``"rayleigh"`` has
        :math:`v^\top Hv` and ``"direction"`` has `v`, the entries of all layers one after another.

    Raises
    ------
    ValueError
        If shapes do not fit, or an argument is not finite or out of range.

    See Also
    --------
    central_flow : The model of the average, with several unstable directions.
    stability_threshold : The largest stable step.

    References
    ----------
    Marion, "Edge Flow: a tractable and predictive continuous-time model for gradient descent at the edge of stability", 2026
    (arXiv 2606.18080): the model. The equations are derived here from the two-step map of descent.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.regression(np.eye(2))
    >>> start = [np.diag([2.0, 2.0]), np.array([[0.6, 0.7]])]
    >>> flow = bf.dynamics.edge_flow(start, A, [1.0, 1.0], step=0.55, t_final=200.0)
    >>> bool(bf.curvature.sharpness(start, A, [1.0, 1.0]) > 2 / 0.55 > flow["rayleigh"][-1])
    True
    """
    W = as_layers(layers, as_map(A).matrix_shape)
    model, eta = MapModel(A, b), as_number(step, "step", above=0)
    end, tol = as_number(t_final, "t_final", least=0), max(as_number(rtol, "rtol", above=0, most=1e-2), TIGHTEST)
    count, most = as_count(record, "record"), as_count(max_steps, "max_steps")
    check_room("record", count, sum(layer.size for layer in W))
    jets = Jets(model, [layer.shape for layer in W])
    y, n = jets.flat(W), jets.size
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)
    with np.errstate(over="ignore", invalid="ignore"):
        values, vectors = log.insist(top_of_hessian, jets, y, 1)
        gradient = log.insist(jets.gradient, y)
    v, curved = vectors[:, 0], float(values[0])
    if amplitude is None:
        a = abs(float(v @ finite(gradient))) / curved if curved > 0 else 0.0
    else:
        a = as_number(amplitude, "amplitude", least=0)

    with np.errstate(over="ignore"):
        rate = float(2 / np.float64(eta))

    # The logarithm of the size is what grows evenly; a size of zero stays zero.
    def slope(_: float, state: np.ndarray) -> np.ndarray:
        centre, way, size = state[:n], state[n : 2 * n], np.exp(state[-1])
        way = way / np.linalg.norm(way)
        pushed = size * way
        drift = -(jets.gradient(centre + pushed) + jets.gradient(centre - pushed)) / 2
        turned = jets.product(centre, way)
        rayleigh = way @ turned
        return np.concatenate([drift, turned - rayleigh * way, [rayleigh - rate if size > 0 else 0.0]])

    state = np.concatenate([y, v, [np.log(a) if a > 0 else _NOTHING]])
    floor = tol * np.concatenate([np.full(n, max(float(np.abs(y).max()), 1e-300)), np.full(n, 1.0), [1.0]])
    with np.errstate(over="ignore", invalid="ignore"):
        moving = log.insist(slope, 0.0, state)
    check_speed(moving, f"layers, amplitude {a:.3g} and step {eta:.3g}")
    with np.errstate(over="ignore"):
        solver = log.insist(lambda: scipy.integrate.RK45(slope, 0.0, state, end, rtol=tol, atol=floor)) if end > 0 else None
    recorder, times = Recorder(observe, model, ()), []
    extra: dict[str, list[np.ndarray]] = {"amplitude": [], "rayleigh": [], "direction": []}

    def note(t: float, state: np.ndarray) -> None:
        centre, way = state[:n], state[n : 2 * n] / np.linalg.norm(state[n : 2 * n])
        recorder.record([layer[None] for layer in jets.layers(centre)], np.array([True]))
        times.append(t)
        extra["amplitude"].append(np.exp(state[-1]))
        extra["rayleigh"].append(way @ jets.product(centre, way))
        extra["direction"].append(way)

    now = 0.0
    targets, message, steps = np.linspace(0.0, end, count + 1)[1:], "Reached t_final", 0
    stopped: Status | None = None
    with log:
        note(0.0, state)
        log.write("", {})
        while solver is not None and solver.status == "running":
            check_time()
            if steps == most:
                message, stopped = f"Stopped{after(steps)}, before t_final", Status.LIMIT
                break
            with np.errstate(over="ignore", invalid="ignore"):  # trial steps that are far too long overflow, and are rejected
                solver.step()
            steps += 1
            if solver.status == "failed":
                message = "Stopped where a step fell below rounding error"
                break
            passed = targets[(targets > times[-1]) & (targets <= solver.t)]
            if passed.size:
                between = solver.dense_output()
                for t in passed:
                    note(float(t), solver.y if t == solver.t else between(t))
                    log.write("", {})
            now, state = float(solver.t), solver.y
    if log.ended or stopped:
        recorder.drop_torn(times, *extra.values())
        if not times or now > times[-1]:
            log.insist(note, now, state)
            recorder.drop_torn(times, *extra.values())
    status, message = log.end(message, stopped)
    loss, series = recorder.results()
    series |= {name: np.array(values) for name, values in extra.items()}
    final = [layer.copy() for layer in jets.layers(state[:n])]
    return Trajectory(final, np.array(times), loss, series, message=message, status=status)


def top_of_hessian(jets: Jets, y: np.ndarray, count: int, start: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of the Hessian, in falling order, and their eigenvectors; `Overflowed` where it overflows."""
    n = y.size
    count = min(count, n)
    if n <= _DECOMPOSED_WEIGHTS:
        values, vectors = np.linalg.eigh(finite(jets.hessian(y)))
    else:
        operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=lambda v: finite(jets.product(y, v.ravel())), dtype=float)
        first = np.cos(np.arange(1.0, n + 1)) if start is None else start
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=count, which="LA", v0=first)
    order = np.argsort(values)[::-1][:count]
    return values[order], vectors[:, order]
