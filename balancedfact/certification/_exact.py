r"""A certificate in exact arithmetic, for small and middle sizes.

All numbers given are rational, and so are value, residual, the sum ``S = A*(y)`` and the second moments. The norm of
:math:`D_1^+SD_2^+` is at most `beta` if and only if :math:`\beta^2D_2^2 - S^\top D_1^{+2}S` is positive semidefinite; on
rows and columns that make the second moments regular, that is decided by pivots in ball arithmetic (Arb, through python-flint).
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._new_rows import Offsets
from balancedfact._objective import Objective
from balancedfact.certification._pair import reached
from balancedfact.measurements import MeasurementMap, RankOne

_MOST = 400_000  # numbers in all matrices of the measurements
_WIDEST = 80


def enclosed(
    A: MeasurementMap,
    b: np.ndarray,
    objective: Objective,
    pair: tuple[np.ndarray, np.ndarray],
    certificate: Certificate,
    offsets: Offsets | None,
) -> Certificate:
    """The certificate with `value` rounded up, `lower_bound` rounded down, and residuals from exact numbers."""
    matrices = exact_matrices(A)
    import flint

    d1, d2 = A.matrix_shape
    L, R = (rational(each) for each in pair)
    X = L * R.transpose()
    if offsets is not None:
        rows = rational(np.column_stack([offsets.rows, np.ones(d1), np.full(d1, offsets.mean)]))
        X_seen = X + rows * rational(np.column_stack([np.ones(d2), offsets.cols, np.ones(d2)])).transpose()
    else:
        X_seen = X
    data, y = rational(b[:, None]), rational(certificate.dual[:, None])
    residual = [inner(M, X_seen) - data[i, 0] for i, M in enumerate(matrices)]
    moments = [total_of(M * M.transpose() for M in matrices), total_of(M.transpose() * M for M in matrices)]
    S = total_of(M * y[i, 0] for i, M in enumerate(matrices))
    zero, one, weight = flint.fmpq(0), flint.fmpq(1), flint.fmpq(4 * A.m if objective.flat else 2)
    if objective.flat:
        value = 2 * trace_of(L.transpose() * moments[0] * L) / d2 + 2 * trace_of(R.transpose() * moments[1] * R) / d1
        squares = [moments[0] / (A.m * d2), moments[1] / (A.m * d1)]
    else:
        value = trace_of(L.transpose() * L) + trace_of(R.transpose() * R)
        squares = [rational(np.eye(d1)), rational(np.eye(d2))]
    beta = exact_norm(squares, S, float(objective.penalty or 1.0))
    along, square = inner(data, y), inner(y, y)
    penalty = exact_number(objective.penalty)
    misfit = sum((r * r for r in residual), zero)
    if objective.penalty > 0:
        value = misfit / 2 + value * penalty / weight
        if offsets is not None and objective.offset_penalty is not None:
            ridge = exact_number(objective.offset_penalty)
            parts = [rational(each[:, None]) for each in (offsets.rows, offsets.cols)]
            value += ridge / 2 * sum((inner(each, each) for each in parts), zero)
            along -= exact_number(offsets.mean) * sum((S[p, q] for p in range(d1) for q in range(d2)), zero)
            ones = [rational(np.ones((size, 1))) for size in (d2, d1)]
            sums = S * ones[0], S.transpose() * ones[1]
            square += sum((inner(each, each) for each in sums), zero) / ridge
        scale = one if beta <= penalty else penalty / beta
        lower = scale * along - scale * scale * square / 2
    else:
        lower = weight * along / beta if beta > 0 and along > 0 else zero
    proof = "value, residual, bound and gap are proved in exact rational and ball arithmetic, of the numbers given"
    fit = exact_fit(matrices, data, residual, X)
    return proved(certificate, as_fraction(value), as_fraction(max(lower, zero)), fit, objective.penalty > 0, proof)


def proved(
    certificate: Certificate, value: Fraction, lower: Fraction, fit: tuple[float, float], inexact: bool, proof: str
) -> Certificate:
    """The certificate with exact numbers rounded outwards; there is a gap where the data are fitted, or need not be."""
    fits, worst = fit
    gap = rounded_up((value - lower) / value) if value > 0 else 0.0
    if not (inexact or reached(fits, worst)):
        gap = np.nan
    return replace(
        certificate,
        feasibility=fits,
        worst_datum=worst,
        value=rounded_up(value),
        lower_bound=-rounded_up(-lower),
        gap=gap,
        rounding=0.0,
        proof=proof,
    )


def exact_fit(matrices: list[Any], data: Any, residual: list[Any], X: Any) -> tuple[float, float]:
    """The relative residual and the worst datum, rounded up."""
    import flint

    zero = flint.fmpq(0)
    size = sum((x * x for x in X.entries()), zero)
    misses = [
        as_fraction(abs(r)) / max(as_fraction(abs(data[i, 0])), Fraction(1, 1000) * _root(inner(M, M)) * _root(size))
        for i, (r, M) in enumerate(zip(residual, matrices, strict=True))
        if r != 0 and (data[i, 0] != 0 or (inner(M, M) != 0 and size != 0))
    ]
    unmet = any(
        r != 0 and data[i, 0] == 0 and (size == 0 or inner(M, M) == 0)
        for i, (r, M) in enumerate(zip(residual, matrices, strict=True))
    )
    worst = np.inf if unmet else rounded_up(max(misses, default=Fraction(0)))
    squares = inner(data, data)
    fits = float(np.sqrt(rounded_up(as_fraction(sum((r * r for r in residual), zero) / squares)))) if squares > 0 else 0.0
    return fits, worst


def exact_matrices(A: MeasurementMap) -> list[Any]:
    """The measurements in rational numbers; refuse what is too large for them, or to compute with them at all."""
    try:
        import flint  # noqa: F401
    except ImportError as error:
        raise ValueError("rigorous is True; expected python-flint: pip install 'balancedfact[rigorous]'") from error
    d1, d2 = A.matrix_shape
    if A.m * d1 * d2 > _MOST or max(d1, d2) > _WIDEST:
        raise ValueError(f"rigorous is True and A has {A.m} x {d1} x {d2} numbers; expected at most {_MOST}, {_WIDEST} wide")
    return _matrices(A)


def _matrices(A: MeasurementMap) -> list[Any]:
    if isinstance(A, RankOne):  # whose products are not formed in floating point
        return [rational(u[:, None]) * rational(v[None, :]) for u, v in zip(A.left, A.right, strict=True)]
    return [rational(M) for M in A.stack()]


def exact_number(x: float) -> Any:
    import flint

    return flint.fmpq(*float(x).as_integer_ratio())


def rational(array: np.ndarray) -> Any:
    import flint

    rows, cols = array.shape
    return flint.fmpq_mat(rows, cols, [exact_number(x) for x in array.ravel().tolist()])


def total_of(terms: Any) -> Any:
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total


def inner(X: Any, Y: Any) -> Any:
    import flint

    return sum((x * y for x, y in zip(X.entries(), Y.entries(), strict=True)), flint.fmpq(0))


def trace_of(X: Any) -> Any:
    import flint

    return sum((X[i, i] for i in range(X.nrows())), flint.fmpq(0))


def as_fraction(x: Any) -> Fraction:
    return Fraction(int(x.p), int(x.q))


def rounded_up(x: Fraction) -> float:
    """The least float that is not below."""
    try:
        found = float(x)
    except OverflowError:
        return np.inf
    return found if Fraction(found) >= x else float(np.nextafter(found, np.inf))


def _root(x: Any) -> Fraction:
    """A rational number a little below the square root."""
    value = as_fraction(x)
    shift = max(0, 240 - (value.numerator.bit_length() - value.denominator.bit_length()))
    shift += shift % 2
    return Fraction(math.isqrt((value.numerator << shift) // value.denominator), 1 << (shift // 2))


def regular(G: Any) -> list[int]:
    """Indices on which a positive-semidefinite matrix is regular and has its whole rank."""
    reduced, rank = G.rref()
    return [next(j for j in range(G.ncols()) if reduced[i, j] != 0) for i in range(rank)]


def part(G: Any, rows: list[int], cols: list[int]) -> Any:
    import flint

    return flint.fmpq_mat(len(rows), len(cols), [G[p, q] for p in rows for q in cols])


def exact_norm(squares: list[Any], S: Any, start: float) -> Any:
    """A rational upper bound on the norm of ``D1^+ S D2^+``, sharp to about twelve digits."""
    P, Q = (regular(G) for G in squares)
    if not P or not Q or all(x == 0 for x in S.entries()):
        return exact_number(0.0)
    seen = part(S, P, Q)
    H = seen.transpose() * part(squares[0], P, P).solve(seen)
    G = part(squares[1], Q, Q)
    high = exact_number(start)
    while not _positive(high * high * G - H):
        high = high * 2
    low = high
    while _positive(low * low * G - H):
        low, high = low / 2, low
    for _ in range(44):
        middle = (low + high) / 2
        low, high = (low, middle) if _positive(middle * middle * G - H) else (middle, high)
    return high


def _positive(G: Any) -> bool:
    """Tell whether a symmetric rational matrix is proved positive definite, by its pivots as balls."""
    import flint

    before, flint.ctx.prec = flint.ctx.prec, 400
    try:
        n = G.nrows()
        rows = [[flint.arb(G[i, j]) for j in range(n)] for i in range(n)]
        for k in range(n):
            pivot = rows[k][k]
            if not pivot > 0:
                return False
            for i in range(k + 1, n):
                factor = rows[i][k] / pivot
                rows[i] = [x - factor * p for x, p in zip(rows[i], rows[k], strict=True)]
        return True
    finally:
        flint.ctx.prec = before
