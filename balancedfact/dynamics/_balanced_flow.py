"""Gradient flow from a balanced start, which closes on the end-to-end matrix."""

from __future__ import annotations

import numpy as np
import scipy.integrate
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_count, as_depth, as_number
from balancedfact.dynamics._initialisations import balanced_layers
from balancedfact.dynamics._model import MapModel
from balancedfact.dynamics._overflow import LARGEST, check_speed
from balancedfact.dynamics._trajectory import Trajectory, after
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Status
from balancedfact.solvers.iteration._limits import Limits, check_time
from balancedfact.solvers.iteration._log import OF_TRAINING, Log


def balanced_flow(
    M: ArrayLike,
    A: MeasurementMap,
    b: ArrayLike,
    depth: int,
    *,
    t_final: float,
    rtol: float = 1e-8,
    max_steps: int = 10_000,
    limits: Limits | None = None,
) -> Trajectory:
    r"""Gradient flow from balanced layers with a given product, integrated for the end-to-end matrix alone.

    Balance is conserved, so with hidden widths of at least :math:`\min(d_0, d_L)`

    .. math:: \dot E = -\sum_{j=1}^L (EE^\top)^{(L-j)/L}\,\nabla\ell(E)\,(E^\top E)^{(j-1)/L}, \qquad
              \ell(E) = \tfrac1m\|\mathcal A(E) - b\|^2,

    a flow in ``d_L d_0`` variables whatever the depth and the widths.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The product of the layers at the start.
    A : MeasurementMap
        Measurements of ``d_L x d_0`` matrices.
    b : array_like, shape (m,)
        The data.
    depth : int
        The number of layers `L`, at least 2.
    t_final : float
        The time at which to stop.
    rtol : float, optional
        The accuracy, relative to the largest entry.
    max_steps : int, optional
        Give up after this many steps; the message says so, and the last time is where it stopped.
    limits : Limits, optional
        Time and number of records after which to stop; the trajectory then ends where it is, as with Ctrl-C, and its `status`
        and message say so.

    Returns
    -------
    Trajectory
        Its layers are balanced and multiply to the final product; the series ``"matrix"``, of shape ``(records, d_L, d_0)``,
        has the product at every step.

    Raises
    ------
    ValueError
        If shapes do not fit, an argument is not finite or out of range, or the flow is too fast at the start for numbers of
        double precision.

    See Also
    --------
    balanced_layers : Balanced layers with a given product.
    gradient_flow : The flow of the layers, from any start.

    References
    ----------
    Arora, Cohen, Hazan, "On the optimization of deep networks: implicit acceleration by overparameterization", 2018, Theorem 1.

    Chapters :doc:`/theory/deep_manifolds` and :doc:`/theory/sharpness_and_dynamics`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
    >>> flow = bf.dynamics.balanced_flow(0.1 * np.eye(2), A, [1.0, 2.0, 3.0], depth=3, t_final=100.0)
    >>> bool(np.allclose(A(flow.matrix), [1.0, 2.0, 3.0]))
    True
    """
    model = MapModel(A, b)
    start = as_array(M, "M", shape=A.matrix_shape)
    L, end = as_depth(depth), as_number(t_final, "t_final", least=0)
    tol, most = as_number(rtol, "rtol", above=0, most=1e-2) / 30, as_count(max_steps, "max_steps")
    rows, cols = start.shape

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        E = y.reshape(rows, cols)
        if not np.all(np.isfinite(E)):  # a trial step that is far too long; it is rejected
            return np.full(y.size, np.nan)
        gradient = A.adjoint_matrix((2 / A.m) * (A.forward(E) - model.b))
        U, s, Vt = np.linalg.svd(E)
        left, right = np.zeros(rows), np.zeros(cols)
        left[: s.size] = right[: s.size] = s ** (2 / L)
        # In the singular bases the sum is entrywise: of the L products of a left and a right power.
        weights = sum(np.multiply.outer(left ** (L - j), right ** (j - 1)) for j in range(1, L + 1))
        return -(U @ (weights * (U.T @ gradient @ Vt.T)) @ Vt).ravel()

    floor = 1e-2 * tol * (float(np.abs(start).max()) or 1.0)
    log = Log(progress=False, limits=limits, so_far=OF_TRAINING)
    with np.errstate(over="ignore", invalid="ignore"):
        check_speed(np.append(log.insist(slope, 0.0, start.ravel()), model.residual(start[None])), "M, A and b", LARGEST)
    solver = log.insist(lambda: scipy.integrate.DOP853(slope, 0.0, start.ravel(), end, rtol=max(tol, 3e-14), atol=floor))
    times, states, message = [0.0], [start.ravel()], "Reached t_final"
    stopped: Status | None = None
    with log:
        log.write("", {})
        while solver.status == "running":
            check_time()
            if len(times) > most:
                message, stopped = f"Stopped{after(most)}, before t_final", Status.LIMIT
                break
            with np.errstate(over="ignore", invalid="ignore"):  # trial steps that are far too long overflow, and are rejected
                solver.step()
            if solver.status == "failed":
                message = "Stopped where a step fell below rounding error"
                break
            states.append(solver.y)
            times.append(float(solver.t))
            log.write("", {})
    matrices = np.stack(states[: len(times)]).reshape(-1, rows, cols)
    loss = np.mean(log.insist(model.residual, matrices) ** 2, axis=-1)
    layers = log.insist(balanced_layers, matrices[-1], [cols, *[min(rows, cols)] * (L - 1), rows])
    status, message = log.end(message, stopped)
    return Trajectory(layers, np.array(times), loss, {"matrix": matrices}, message=message, status=status)
