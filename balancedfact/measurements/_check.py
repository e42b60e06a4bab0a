"""A conformance check for measurement maps, shipped for those who add their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import aslinearoperator

from balancedfact._validate import as_number, as_rng
from balancedfact.measurements._as_map import as_map
from balancedfact.measurements._base import MeasurementMap


@dataclass(frozen=True)
class MeasurementReport:
    """The report of `check_measurements`.

    Attributes
    ----------
    errors : dict of str to float
        For each property the largest relative deviation seen; ``inf`` where a method raised or returned a wrong shape.
    notes : dict of str to str
        What went wrong, for properties whose method raised.
    tolerance : float
        The deviation up to which a property holds.

    See Also
    --------
    check_measurements : Makes it.

    References
    ----------
    Guide :doc:`/guide/own_measurements`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> report = bf.measurements.check_measurements(bf.measurements.gaussian(5, (2, 3), rng=0), rng=0)
    >>> report.ok, report.errors["adjoint"] < report.tolerance
    (True, True)
    """

    errors: dict[str, float]
    notes: dict[str, str]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Tell whether every property holds."""
        return all(error <= self.tolerance for error in self.errors.values())

    def __str__(self) -> str:
        width = max(map(len, self.errors))
        lines = []
        for name, error in self.errors.items():
            verdict = "ok  " if error <= self.tolerance else "FAIL"
            note = f"  {self.notes[name]}" if name in self.notes else ""
            lines.append(f"{verdict}  {name:<{width}}  {error:.1e}{note}")
        return "\n".join(lines)


def check_measurements(
    A: MeasurementMap, rng: int | np.random.Generator | None = None, *, tol: float = 1e-10
) -> MeasurementReport:
    r"""Check that every method of a measurement map agrees with the matrices :math:`A_i` that its adjoint defines.

    The matrices are read off one by one as :math:`\mathcal A^*(e_i)`, so the check costs `m` adjoints and ``m * d1 * d2`` of
    memory: use it on small instances.

    Parameters
    ----------
    A : MeasurementMap
        The map.
    rng : int or numpy.random.Generator, optional
        Randomness of the test matrices.
    tol : float
        Relative deviation up to which a property holds.

    Returns
    -------
    MeasurementReport
        Printable; ``report.ok`` is the verdict, ``report.errors`` has one named entry per property.

    Raises
    ------
    ValueError
        If `A` is no measurement map or another argument is malformed. What `A` itself raises is an entry of the report.

    See Also
    --------
    MeasurementMap : The base of maps of your own.
    MeasurementReport : What is returned.

    References
    ----------
    Guide :doc:`/guide/own_measurements`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.measurements.check_measurements(bf.measurements.bilinear(6, (3, 4), rng=0), rng=0).ok
    True
    """
    as_number(tol, "tol", above=0.0)
    generator = as_rng(rng)
    (d1, d2), m = as_map(A).matrix_shape, A.m
    try:
        stack = np.stack([A.adjoint(unit) for unit in np.eye(m)])
    except Exception as error:
        return MeasurementReport({"adjoint": np.inf}, {"adjoint": f"{type(error).__name__}: {error}"}, tol)
    if stack.shape != (m, d1, d2) or not np.isfinite(stack).all():
        note = f"shape {stack.shape[1:]}" if stack.shape != (m, d1, d2) else "NaN or infinite values"
        return MeasurementReport({"adjoint": np.inf}, {"adjoint": f"{note}; expected finite {d1} x {d2}"}, tol)
    scale = np.abs(stack).max() or 1.0
    X, y = generator.standard_normal((d1, d2)), generator.standard_normal(m)
    k = min(d1, d2)
    L, R = generator.standard_normal((d1, k)), generator.standard_normal((d2, k))
    P, Q = generator.standard_normal((d2, d2)), generator.standard_normal((d1, d1))
    root = generator.standard_normal((d1 + d2, d1 + d2))
    W = root @ root.T
    W11, W12, W22 = W[:d1, :d1], W[:d1, d1:], W[d1:, d1:]
    unit = stack / scale
    left_square = scale**2 / (m * d2) * np.einsum("ipq,irq->pr", unit, unit)
    right_square = scale**2 / (m * d1) * np.einsum("ipq,ipr->qr", unit, unit)
    swapped = np.einsum("pq,jrq,rs->jps", W12, stack, W12) + np.einsum("pr,jrs,sq->jpq", W11, stack, W22)

    halves = np.einsum("pk,ipq->ikq", L, stack), np.einsum("ipq,ql->ipl", stack, R)
    energies = np.array([np.sum(part**2) for part in (np.einsum("ikq,ql->ikl", halves[0], R), *halves)])
    stack_gram = np.einsum("ipq,jpq->ij", stack, stack)
    gram_shift = float(np.trace(stack_gram)) / m or 1.0
    some = np.flatnonzero(generator.random(m) < 0.7)[::-1]
    if some.size == 0:
        some = np.array([0])

    seed = int(generator.integers(2**32))
    L2, R2 = generator.standard_normal((d1, k)), generator.standard_normal((d2, k))
    push = np.einsum("i,ipq->pq", np.einsum("ipq,pk,qk->i", stack, L2, R) + np.einsum("ipq,pk,qk->i", stack, L, R2), stack)
    back = np.einsum("i,ipq->pq", y, stack)
    jacobian = np.concatenate([stack @ R, stack.transpose(0, 2, 1) @ L], axis=1).reshape(m, -1)
    first = np.arange(k) < 1
    curved = np.vstack([push @ R - back @ (R2 * first), push.T @ L - back.T @ (L2 * first)])

    def whitened_forward() -> np.ndarray:
        white = A.whitened()
        Z = np.random.default_rng(seed).standard_normal(white.map.matrix_shape)
        return white.scale * white.map.forward(Z)  # Z is empty for a zero map

    def whitened_expected() -> np.ndarray:
        white = A.whitened()
        Z = np.random.default_rng(seed).standard_normal(white.map.matrix_shape)
        return A(white.left @ Z @ white.right.T)

    def operator_columns() -> np.ndarray:
        return aslinearoperator(A).matmat(np.eye(d1 * d2))

    pairs = {
        "forward": (lambda: A(X), np.einsum("ipq,pq->i", stack, X)),
        "adjoint": (lambda: A.adjoint(y), np.einsum("i,ipq->pq", y, stack)),
        "left_moment": (lambda: A.left_moment(P), np.einsum("ipq,qr,isr->ps", stack, P, stack)),
        "right_moment": (lambda: A.right_moment(Q), np.einsum("iqp,qr,irs->ps", stack, Q, stack)),
        "second_moment.left": (
            lambda: A.second_moment().left_moment(P + P.T),
            np.einsum("ipq,qr,isr->ps", stack, P + P.T, stack),
        ),
        "second_moment.right": (
            lambda: A.second_moment().right_moment(Q + Q.T),
            np.einsum("iqp,qr,irs->ps", stack, Q + Q.T, stack),
        ),
        "forward_factored": (lambda: A.forward_factored(L, R), np.einsum("ipq,pk,qk->i", stack, L, R)),
        "adjoint_operator": (lambda: A.adjoint_operator(y) @ R, np.einsum("i,ipq,qk->pk", y, stack, R)),
        "adjoint_operator.T": (lambda: A.adjoint_operator(y).T @ L, np.einsum("i,ipq,pk->qk", y, stack, L)),
        "adjoint_for_many": (lambda: A.adjoint_for_many(y) @ R, np.einsum("i,ipq,qk->pk", y, stack, R)),
        "adjoint_norm": (lambda: np.array([A.adjoint_norm(y)]), np.array([np.linalg.norm(back)])),
        "pair_hessian": (lambda: np.vstack(A.pair_hessian(L, R, y, coupled=1)(L2, R2)), curved),
        "pair_gram": (lambda: A.pair_gram(L, R), jacobian.T @ jacobian),
        "energy": (lambda: np.array([A.energy(*pair) for pair in ((L, R), (L, None), (None, R))]), energies),
        "rotated": (lambda: A.rotated(L, R), np.einsum("ipq,pk,ql->ikl", stack, L, R)),
        "stack": (A.stack, stack),
        "congruence": (lambda: A.congruence(L, R)(np.eye(k)), np.einsum("ipq,pk,qk->i", stack, L, R)),
        "select": (lambda: A.select(some, y[some])(X), y[some] * np.einsum("ipq,pq->i", stack[some], X)),
        "row_norms": (lambda: A.row_norms, scale * np.sqrt(np.einsum("ipq,ipq->i", unit, unit))),
        "gram_solver": (lambda: stack_gram @ A.gram_solver(gram_shift)(y) + gram_shift * A.gram_solver(gram_shift)(y), y),
        "scaled_gram": (lambda: A.scaled_gram(W11, W12, W22), np.einsum("ipq,jpq->ij", stack, swapped)),
        "D1": (lambda: A.D1 @ A.D1, left_square),
        "D2": (lambda: A.D2 @ A.D2, right_square),
        "rescale_left": (lambda: A.scale * A.rescale_left(L), lambda: A.D1 @ L),
        "rescale_right": (lambda: A.scale * A.rescale_right(R), lambda: A.D2 @ R),
        "whitened": (whitened_forward, whitened_expected),
        "linear_operator": (operator_columns, stack.reshape(m, d1 * d2)),
        "linear_operator.T": (lambda: aslinearoperator(A).rmatvec(y), np.einsum("i,ipq->pq", y, stack).ravel()),
    }
    errors, notes = {}, {}
    for name, (compute, reference) in pairs.items():
        try:
            found = np.asarray(compute())
            expected = reference() if callable(reference) else reference
        except Exception as error:  # a method of the map under test may fail in any way; that is a verdict, not a crash
            errors[name], notes[name] = np.inf, f"{type(error).__name__}: {error}"
            continue
        if found.shape != expected.shape:
            errors[name], notes[name] = np.inf, f"shape {found.shape}; expected {expected.shape}"
            continue
        size = np.abs(expected).max() or scale
        deviation = float(np.abs(found - expected).max() / size)
        errors[name] = deviation if np.isfinite(deviation) else np.inf
    return MeasurementReport(errors, notes, tol)
