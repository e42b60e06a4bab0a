"""The slow drift of label noise along the weights that fit, as a differential equation on the zero-loss manifold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.integrate
from numpy.typing import ArrayLike

from balancedfact import curvature
from balancedfact._validate import as_count, as_layers, as_number
from balancedfact.dynamics._draws import Noise, as_batch, as_noise
from balancedfact.dynamics._edge_flow import TIGHTEST
from balancedfact.dynamics._jets import Jets
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._observables import Observe, Recorder
from balancedfact.dynamics._overflow import check_speed
from balancedfact.dynamics._trajectory import Trajectory, after
from balancedfact.measurements import MeasurementMap
from balancedfact.measurements._as_map import as_map
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import Limits, check_time
from balancedfact.solvers.iteration._log import OF_TRAINING, Log

_KERNEL_RANK = 1e-10  # eigenvalues of J J' below this, relative to the largest, count as zero
_GAUSS_NEWTON_STEPS = 20


def label_noise_flow(
    layers: Sequence[ArrayLike],
    A: MeasurementMap,
    b: ArrayLike,
    *,
    step: float,
    t_final: float,
    label_noise: ArrayLike = 1.0,
    batch: int | str = "all",
    rtol: float = 1e-6,
    max_steps: int = 10_000,
    observe: Observe = ("trace",),
    limits: Limits | None = None,
) -> Trajectory:
    r"""Follow the drift of weights that fit under label noise, in the limit of small steps.

    Let `J` be the derivative of the measurements in the weights, :math:`K = JJ^\top` and `P` the projection onto the null space
    of `J`. Noise on the labels with the covariance `S`, drawn anew at each step of size :math:`\eta`, keeps the weights at a
    distance of order :math:`\sqrt\eta` around the manifold of zero loss, with the covariance :math:`\Sigma = J^\top XJ`,
    :math:`KX + XK = \frac{2\eta}mS`. The third derivative of the loss turns that into a drift,

    .. math:: \dot W = -\tfrac12\,P\,D^3\mathcal L[\Sigma],

    in the time that counts `step` for each step of SGD. For :math:`S = \sigma^2I` it is
    :math:`\dot W = -\frac{\eta\sigma^2}{2m}P\,\nabla\operatorname{tr}\nabla^2\mathcal L`, a gradient flow of the trace of the
    Hessian. With other covariances it is in general no gradient flow, and it does not end at the flattest weights.

    Parameters
    ----------
    layers : sequence of array_like, shapes (d_k, d_{k-1})
        The start ``[W_1, ..., W_L]``; what it misses of the data is first removed by Gauss-Newton steps.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    step : float
        The step :math:`\eta` of the SGD that is modelled.
    t_final : float
        The time at which to stop: `step` times the number of steps of SGD.
    label_noise, batch : optional
        As in `sgd`. Batches, drawn with replacement, act like the full batch with
        :math:`S_B = \frac mB\operatorname{diag}(S) + \frac{B-1}BS` if the noise has a covariance, and :math:`\frac mBS` if it
        is drawn for each measurement of the batch.
    rtol : float, optional
        The accuracy, relative to the largest weight.
    max_steps : int, optional
        Give up after this many steps of the integration; the message says so.
    observe : sequence of str or dict of str to callable
        As in `gradient_descent`, at every step of the integration.
    limits : Limits, optional
        Time and number of records after which to stop; the trajectory then ends where it is, as with Ctrl-C, and its `status`
        and message say so.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or no weights near the start fit the data.

    See Also
    --------
    sgd : The noisy training that it describes.
    balancedfact.induced_regularizer : The least trace over the factorizations of one matrix.
    balancedfact.flat_network : The flattest layers that fit, where this flow leads at best.

    Notes
    -----
    Every step of the integration is followed by Gauss-Newton steps back to zero loss. Where `K` is singular, the equation for
    `X` is solved on the range of `K`.

    References
    ----------
    Blanc, Gupta, Valiant, Valiant, "Implicit regularization for deep neural networks driven by an Ornstein-Uhlenbeck like
    process", 2020; Li, Wang, Arora, "What happens after SGD reaches zero loss?", 2021, for equal noise. The formula for a
    covariance is derived here from the same stationary fluctuations.

    Chapters :doc:`/theory/induced_regularizer` and :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.regression(np.eye(2))
    >>> start = [np.diag([2.0, 2.0]), np.array([[0.5, 0.5]])]
    >>> flow = bf.dynamics.label_noise_flow(start, A, [1.0, 1.0], step=0.01, t_final=2e4)
    >>> least = bf.curvature.trace([np.array([[1.0, 1.0]]), np.array([[1.0]])], A)
    >>> bool(flow["trace"][0] > 1.5 * least), bool(abs(flow["trace"][-1] / least - 1) < 1e-3)
    (True, True)
    """
    W = as_layers(layers, as_map(A).matrix_shape)
    model, eta = MapModel(A, b), as_number(step, "step", above=0)
    end, tol = as_number(t_final, "t_final", least=0), max(as_number(rtol, "rtol", above=0, most=1e-2), TIGHTEST)
    most, noise, size = as_count(max_steps, "max_steps"), as_noise(label_noise, A.m), as_batch(batch)
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)
    drift = log.insist(_Drift, model, W, eta, noise, size)
    recorder = Recorder(observe, model, ())
    times: list[float] = []

    def note(t: float, y: np.ndarray) -> None:
        recorder.record([layer[None] for layer in drift.jets.layers(y)], np.array([True]))
        times.append(t)

    y = log.insist(drift.fit, drift.jets.flat(W))
    with np.errstate(over="ignore", invalid="ignore"):
        moving = log.insist(drift, 0.0, y)
    check_speed(moving, f"step {eta:.3g} and label_noise")
    message, h = "Reached t_final", None
    stopped: Status | None = None
    with log:
        note(0.0, y)
        log.write("", {})
        while times[-1] < end:
            check_time()
            if len(times) > most:
                message, stopped = f"Stopped{after(most)}, before t_final", Status.LIMIT
                break
            floor = 1e-2 * tol * float(np.abs(y).max())
            with np.errstate(over="ignore", invalid="ignore"):  # trial steps that are far too long overflow, and are rejected
                solver = scipy.integrate.RK45(drift, times[-1], y, end, rtol=tol, atol=floor, first_step=h)
                solver.step()
            if solver.status == "failed":
                message = "Stopped where a step fell below rounding error"
                break
            h = min(float(solver.h_abs), end - float(solver.t)) or None
            following = drift.fit(solver.y)
            note(float(solver.t), following)
            y = following
            log.write("", {})
    recorder.drop_torn(times)
    if not times:
        log.insist(note, 0.0, y)
        recorder.drop_torn(times)
    status, message = log.end(message, stopped)
    loss, series = recorder.results()
    return Trajectory(
        [layer.copy() for layer in drift.jets.layers(y)], np.array(times), loss, series, message=message, status=status
    )


class _Drift:
    """The right-hand side, for weights in flat vectors."""

    def __init__(self, model: MapModel, layers: list[np.ndarray], step: float, noise: Noise, batch: int | None) -> None:
        self.model, self.step, m = model, step, model.A.m
        self.jets = Jets(model, [layer.shape for layer in layers])
        self.equal = noise.factor is None and not noise.deviation.ndim
        spread = 1.0 if batch is None else m / batch
        self.covariance: np.ndarray | None
        if self.equal:
            self.level, self.covariance = spread * float(noise.deviation) ** 2, None
            self.moment = model.A.second_moment()
        else:
            S = np.diag(noise.deviation**2) if noise.factor is None else noise.factor @ noise.factor.T
            if batch is None:
                self.covariance = S
            elif noise.factor is None:
                self.covariance = spread * S
            else:
                self.covariance = spread * np.diag(np.diag(S)) + (batch - 1) / batch * S

    def __call__(self, _: float, y: np.ndarray) -> np.ndarray:
        m, J = self.model.A.m, self.jets.jacobian(y)
        K = J @ J.T
        if not np.all(np.isfinite(K)):  # a trial step that is far too long; it is rejected
            return np.full(y.size, np.nan)
        values, vectors = np.linalg.eigh(K)
        kept = values > _KERNEL_RANK * values[-1]
        k, U = values[kept], vectors[:, kept]
        rows = (U / np.sqrt(k)).T @ J  # an orthonormal basis of the directions that are seen
        if self.covariance is None:
            trace = curvature.trace_gradient(self.jets.layers(y), self.moment)
            way = self.step * self.level / (2 * m) * self.jets.flat(trace)
        else:
            X = (2 * self.step / m) * (U.T @ self.covariance @ U) / (k[:, None] + k)
            # Sigma = J' U X U' J in the orthonormal basis, as a sum of squares of vectors.
            spread, turn = np.linalg.eigh(np.sqrt(k)[:, None] * X * np.sqrt(k))
            directions = (turn * np.sqrt(np.maximum(spread, 0.0))).T @ rows
            way = self.jets.third(y, directions).sum(axis=0) / 2
        return -(way - rows.T @ (rows @ way))

    def fit(self, y: np.ndarray) -> np.ndarray:
        """The weights after Gauss-Newton steps to zero loss."""
        size = float(np.linalg.norm(self.model.b)) or 1.0
        missed = np.inf
        for _ in range(_GAUSS_NEWTON_STEPS):
            with np.errstate(over="ignore", invalid="ignore"):
                residual, J = self.jets.residual(y), self.jets.jacobian(y)
                now = float(np.linalg.norm(residual))
            if now <= 1e-13 * size or (now >= missed and now <= 1e-8 * size):
                return y
            missed = now
            if not (np.all(np.isfinite(residual)) and np.all(np.isfinite(J))):
                break
            y = y - np.linalg.lstsq(J, residual, rcond=np.sqrt(_KERNEL_RANK))[0]
        if not missed <= 1e-6 * size:
            raise ValueError(
                f"layers miss the data by {missed / size:.3g} of them after {_GAUSS_NEWTON_STEPS} Gauss-Newton steps"
            )
        return y
