"""Gradient flow on the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.integrate
from numpy.typing import ArrayLike

from balancedfact._validate import as_count, as_number
from balancedfact.dynamics._exponential import exponential_step
from balancedfact.dynamics._model import MapModel, Model, regression_of, unstacked
from balancedfact.dynamics._observables import Observe, Recorder, balances
from balancedfact.dynamics._overflow import LARGEST, check_speed
from balancedfact.dynamics._training import as_runs
from balancedfact.dynamics._trajectory import Trajectory, after
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import Budget, Limits, as_limits, check_time
from balancedfact.solvers.iteration._log import OF_TRAINING, Log

# Local errors are kept this much below the accuracy asked for, since they add up along the way.
_LOCAL_MARGIN = 1 / 100
# The explicit method is stable up to a product of step and curvature of about six: half of that means that stability, not
# accuracy, begins to limit the steps.
_STIFF, _CHECK_EVERY, _PROBES = 3.0, 20, 12


def gradient_flow(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    t_final: float | None = None,
    rtol: float = 1e-8,
    stationarity: float = 1e-12,
    observe: Observe = ("norms", "spectral_norms", "alignment"),
    record: float = 0.05,
    max_steps: int = 100_000,
    limits: Limits | None = None,
) -> Trajectory:
    r"""Gradient flow :math:`\dot W_k = -\partial\mathcal L/\partial W_k` of :math:`\frac1m\|\mathcal A(W_L\cdots W_1) - b\|^2`.

    One start, or many in one call.

    Parameters
    ----------
    layers : sequence of array_like, shapes (..., d_k, d_{k-1})
        The start ``[W_1, ..., W_L]``; leading axes are independent runs.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    t_final : float, optional
        The time at which to stop; without it the flow runs until it is stationary.
    rtol : float, optional
        The accuracy of the weights, relative to the largest of them.
    stationarity : float, optional
        Without `t_final`, stop once the gradient of the loss in the end-to-end matrix is this much smaller than at the zero
        matrix, or every layer's gradient this much smaller than the product of the norms of its factors.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`.
    record : float, optional
        Record whenever the time or the loss has changed by this fraction.
    max_steps : int, optional
        Give up after this many steps; the message says so.
    limits : Limits, optional
        Time of the whole call and number of records of each run after which to stop; the trajectory then ends where it is, and
        its `status` and message say so. Ctrl-C ends it the same way.

    Returns
    -------
    Trajectory
        Beside the series of `observe` it has ``"drift"``: the change of the conserved matrices
        :math:`W_{k+1}^\top W_{k+1} - W_kW_k^\top` since the start, relative to the largest squared norm of a layer. The drift
        tells the accuracy of the whole run. Of many starts each has times of its own; a run that ended with fewer records
        repeats its last one.

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, the flow is too fast at the start for numbers of double
        precision, or `observe` has an unknown name.

    See Also
    --------
    gradient_descent : Gradient flow in steps of a given size.
    balanced_flow : The flow of the product alone, from balanced layers.

    Notes
    -----
    The flow starts with an explicit method of order eight. When the curvature, measured every so often, shows that
    stability limits its steps, an exponential Rosenbrock method with Krylov spaces takes over. It is exact on linear problems,
    needs only products with the Hessian and reaches stationarity in few steps however ill-conditioned the data are.

    References
    ----------
    Marion, Chizat 2024, Lemma 1 (conservation); Hochbruck, Ostermann, Schweitzer, "Exponential Rosenbrock-type methods", 2009.

    Chapter :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.regression(np.diag([1.0, 2.0, 3.0]))
    >>> start = bf.dynamics.gaussian_layers([3, 3, 3, 1], 0.01, rng=0)
    >>> flow = bf.dynamics.gradient_flow(start, A, [1.0, 2.0, 3.0])
    >>> print(flow.matrix.round(6), bool(flow["drift"].max() < 1e-8))
    [[1. 1. 1.]] True
    >>> print(flow["norms"][-1].round(3), round(3 ** (1 / 6), 3))  # the rank-one limit
    [1.201 1.201 1.201] 1.201
    """
    given = as_runs(layers, A)
    model = MapModel(A, b)
    end = np.inf if t_final is None else as_number(t_final, "t_final", least=0)
    tol, goal = as_number(rtol, "rtol", above=0, most=1e-2), as_number(stationarity, "stationarity", least=0)
    fraction, most = as_number(record, "record", least=0), as_count(max_steps, "max_steps")
    allowed = as_limits(limits)
    budget = Budget(allowed.seconds)
    ends: list[Trajectory] = []
    for start in unstacked(given.layers):
        # After Ctrl-C the runs that are left keep their starts.
        interrupted = any(run.status is Status.INTERRUPTED for run in ends)
        rest = Limits(1e-9 if interrupted else budget.rest().seconds, allowed.iterations)
        ends.append(_one(start, model, end, tol, goal, observe, fraction, most, rest))
    return _together(ends, given.lead) if given.lead else ends[0]


def _together(runs: list[Trajectory], lead: tuple[int, ...]) -> Trajectory:
    """Many runs as one trajectory; the last record of a shorter one is repeated."""
    longest = max(run.loss.size for run in runs)

    def folded(arrays: list[np.ndarray]) -> np.ndarray:
        padded = [np.concatenate([each, np.repeat(each[-1:], longest - len(each), axis=0)]) for each in arrays]
        return np.stack(padded).reshape(*lead, *padded[0].shape)

    layers = [np.stack(each).reshape(*lead, *each[0].shape) for each in zip(*(run.layers for run in runs), strict=True)]
    series = {name: folded([run.series[name] for run in runs]) for name in runs[0].series}
    counts: dict[str, int] = {}
    for run in runs:
        kind = run.message.partition(". ")[0].replace(after(run.iterations[-1]), "")
        counts[kind] = counts.get(kind, 0) + 1
    message = "; ".join(f"{kind}: {count} of {len(runs)}" for kind, count in counts.items())
    times, loss = folded([run.times for run in runs]), folded([run.loss for run in runs])
    taken = folded([run.iterations for run in runs])
    stops = {run.status for run in runs}
    status = next((each for each in (Status.INTERRUPTED, Status.LIMIT) if each in stops), None)
    return Trajectory(layers, times, loss, series, taken, diverged=np.full(lead, -1), message=message, status=status)


def _one(
    start: list[np.ndarray],
    model: MapModel,
    end: float,
    tol: float,
    goal: float,
    observe: Observe,
    fraction: float,
    most: int,
    limits: Limits,
) -> Trajectory:
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)
    y = np.concatenate([layer.ravel() for layer in start])
    with np.errstate(over="ignore", invalid="ignore"):
        field = log.insist(_GradientField, model, [layer.shape for layer in start])
        check_speed(log.insist(field.moving, y), "layers, A and b", LARGEST)
    watched: Model = log.insist(regression_of, model.A, model.b, 1) or model
    recorder = Recorder(observe, watched, ())
    times: list[float] = []
    drifts: list[float] = []
    taken: list[int] = []
    conserved, whole = balances(start), end == np.inf

    def note(t: float, y: np.ndarray) -> None:
        current = field.layers(y)
        recorder.record([layer[None] for layer in current], np.array([True]))
        times.append(t)
        taken.append(steps)
        size = max(float(np.sum(layer**2)) for layer in current) or 1.0
        changes = [np.linalg.norm((now - then) / size) for now, then in zip(balances(current), conserved, strict=True)]
        drifts.append(float(max(changes, default=0.0)))

    t, steps, ending, why = 0.0, 0, "Reached t_final", ""
    status: Status | None = None
    method: _Explicit | _Exponential | None = None
    with log:
        loss = field.loss(y)
        note(t, y)
        log.write("", {})
        while t < end:
            check_time()
            if whole and field.gap(y, goal) <= goal:
                ending = "Stationary"
                break
            if steps == most:
                status, ending, why = Status.LIMIT, "Stopped", f", before {'stationarity' if whole else 't_final'}"
                break
            if method is None:
                method = _Explicit(field, y, end, tol * _LOCAL_MARGIN)
            elif isinstance(method, _Explicit) and steps % _CHECK_EVERY == 0 and method.is_stiff():
                method = _Exponential(field, t, y, end, tol * _LOCAL_MARGIN, method.h)
            with np.errstate(over="ignore", invalid="ignore"):  # trial steps that are far too long overflow, and are rejected
                found = method.step()
            if found is None:
                ending, why = "Stopped", ", where a step fell below rounding error"
                break
            t, y = found
            steps += 1
            value = field.loss(y)
            if t - times[-1] > fraction * t or abs(value - loss) > fraction * loss:
                loss = value
                note(t, y)
                log.write("", {})
    if log.ended:
        recorder.drop_torn(times, taken, drifts)
    if not times or times[-1] < t:
        log.insist(note, t, y)
        recorder.drop_torn(times, taken, drifts)
    values, series = recorder.results()
    series["drift"] = np.array(drifts)
    final = [layer.copy() for layer in field.layers(y)]
    if log.ended:
        status, ending, why = log.ended[0], "Stopped", f". {log.ended[1]}"
    message = f"{ending}{after(steps)}{why}"
    return Trajectory(final, np.array(times), values, series, np.array(taken), message=message, status=status)


class _GradientField:
    """The negative gradient and its derivative for layers packed into one vector."""

    def __init__(self, model: MapModel, shapes: list[tuple[int, ...]]) -> None:
        self.A, self.b = model.A, model.b
        self.shapes = shapes
        self.ends = np.cumsum([rows * cols for rows, cols in shapes])[:-1]
        self.reference = float(np.linalg.norm(self._pull(self.b)))

    def layers(self, y: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(y, self.ends), self.shapes, strict=True)]

    def _pull(self, residual: np.ndarray) -> np.ndarray:
        return self.A.adjoint_matrix((2 / self.A.m) * residual)

    def loss(self, y: np.ndarray) -> float:
        return float(np.mean((self.A.forward(_products(self.layers(y))[-1]) - self.b) ** 2))

    def _sides(self, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """The layers, the products ``B_1, ..., B_L`` and the gradients in ``E`` carried back to each layer."""
        W = self.layers(y)
        before = _products(W)
        carried = [self._pull(self.A.forward(before[-1]) - self.b)]
        for layer in W[:0:-1]:
            carried.append(layer.T @ carried[-1])
        return W, before, carried[::-1]

    def slope(self, y: np.ndarray) -> np.ndarray:
        W, before, carried = self._sides(y)
        gradients = [carried[0], *(c @ B.T for c, B in zip(carried[1:], before, strict=False))]
        return -np.concatenate([gradient.ravel() for gradient in gradients])

    def moving(self, y: np.ndarray) -> np.ndarray:
        """The slope and all that it, the loss and the gap are computed from, in one vector."""
        _, before, carried = self._sides(y)
        residual = self.A.forward(before[-1]) - self.b
        return np.concatenate([self.slope(y), residual, [self.reference], *(part.ravel() for part in (*before, *carried))])

    def jacobian(self, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The product with the negative Hessian at `y`."""
        W, before, carried = self._sides(y)

        def product(v: np.ndarray) -> np.ndarray:
            V = self.layers(v)
            moved = [V[0]]
            for k in range(1, len(W)):
                moved.append(V[k] @ before[k - 1] + W[k] @ moved[-1])
            back = self._pull(self.A.forward(moved[-1]))
            parts = []
            for k in range(len(W) - 1, 0, -1):
                parts.append(back @ before[k - 1].T + carried[k] @ moved[k - 1].T)
                back = V[k].T @ carried[k] + W[k].T @ back
            return -np.concatenate([part.ravel() for part in (back, *parts[::-1])])

        return product

    def gap(self, y: np.ndarray, goal: float) -> float:
        """Relative gradient norm in [0, ~1]; 0 at stationary points."""
        W, before, carried = self._sides(y)
        error = float(np.linalg.norm(carried[-1]))
        if error <= goal * self.reference:
            return goal
        after, worst = np.eye(W[-1].shape[0]), 0.0
        for k in range(len(W) - 1, -1, -1):
            factor = before[k - 1] if k else np.eye(W[0].shape[1])
            gradient = float(np.linalg.norm(carried[k] @ factor.T))
            if gradient > 0:
                worst = max(worst, gradient / error / float(np.linalg.norm(after)) / float(np.linalg.norm(factor)))
            after = after @ W[k]
        return worst


class _Explicit:
    """The method of Dormand and Prince of order eight."""

    def __init__(self, field: _GradientField, y: np.ndarray, end: float, tol: float) -> None:
        self.field = field
        floor = tol * 1e-2 * (float(np.abs(y).max()) or 1.0)
        self.solver = scipy.integrate.DOP853(lambda t, y: field.slope(y), 0.0, y, end, rtol=max(tol, 3e-14), atol=floor)

    @property
    def h(self) -> float:
        return float(self.solver.step_size)

    def step(self) -> tuple[float, np.ndarray] | None:
        self.solver.step()
        return None if self.solver.status == "failed" else (float(self.solver.t), self.solver.y)

    def is_stiff(self) -> bool:
        """Tell whether the curvature times the step is near the limit of stability; a few Lanczos steps tell."""
        product, v = self.field.jacobian(self.solver.y), self.field.slope(self.solver.y)
        # The slope may have lost its part along the stiff directions, so a fixed generic vector is mixed in.
        v = v / (np.linalg.norm(v) or 1.0) + np.cos(np.arange(1.0, v.size + 1)) / np.sqrt(v.size)
        largest = 0.0
        for _ in range(_PROBES):
            v = v / np.linalg.norm(v)
            v = product(v)
            largest = max(largest, float(np.linalg.norm(v)))
            if largest * self.h > _STIFF:
                return True
            if not v.any():
                break
        return False


class _Exponential:
    """The exponential Rosenbrock method with control of the step."""

    def __init__(self, field: _GradientField, t: float, y: np.ndarray, end: float, tol: float, h: float) -> None:
        self.field, self.t, self.y, self.end, self.tol, self.h = field, t, y, end, tol, h
        self.slope = field.slope(y)

    def step(self) -> tuple[float, np.ndarray] | None:
        product, largest = self.field.jacobian(self.y), float(np.abs(self.y).max())
        scale = self.tol * (np.abs(self.y) + 1e-2 * largest)
        while self.t + self.h > self.t:
            h = min(self.h, self.end - self.t)
            krylov_tol = min(0.01 * self.tol * largest, 0.01 * h * float(np.linalg.norm(self.slope)))
            found = exponential_step(self.y, self.slope, self.field.slope, product, h, krylov_tol)
            if found is None:
                self.h = h / 2
                continue
            error = float(np.sqrt(np.mean((found[1] / scale) ** 2)))
            self.h = h * min(5.0, max(0.2, 0.9 * max(error, 1e-12) ** -0.25))
            if error <= 1:
                self.t, self.y = (self.end if h == self.end - self.t else self.t + h), found[0]
                self.slope = self.field.slope(self.y)
                return self.t, self.y
        return None


def _products(layers: list[np.ndarray]) -> list[np.ndarray]:
    products = [layers[0]]
    for layer in layers[1:]:
        products.append(layer @ products[-1])
    return products
