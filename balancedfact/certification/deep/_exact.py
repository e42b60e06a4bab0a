r"""The certificate of layers in exact arithmetic, for small and middle sizes: value, residual and bound of the dual vector.

Layers, measurements and data are rational numbers, and so are the trace, the residual and the moments. The squares of the
singular values in the multiplier bound are the eigenvalues of :math:`H_2^{+2}S^\top H_1^{+2}S` on rows and columns that make
the moments regular; for three layers only their sum is needed, which is rational, for more they are enclosed in ball arithmetic
(Arb, through python-flint). Bounds that follow from isometries, a lift or the least trace of a product are not among these.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from balancedfact._certificate import Certificate
from balancedfact._objective import Objective
from balancedfact.certification._exact import (
    as_fraction,
    exact_fit,
    exact_matrices,
    exact_norm,
    inner,
    part,
    proved,
    rational,
    regular,
    total_of,
    trace_of,
)
from balancedfact.measurements import MeasurementMap

_BALL_BITS = 400


def enclosed_layers(
    A: MeasurementMap, b: np.ndarray, objective: Objective, layers: list[np.ndarray], certificate: Certificate
) -> Certificate:
    """The certificate with `value` rounded up, `lower_bound` rounded down, and residuals from exact numbers."""
    matrices = exact_matrices(A)
    import flint

    W, data, y = [rational(each) for each in layers], rational(b[:, None]), rational(certificate.dual[:, None])
    before = [rational(np.eye(A.matrix_shape[1]))]
    for each in W:
        before.append(each * before[-1])
    after = [rational(np.eye(A.matrix_shape[0]))]
    for each in reversed(W):
        after.insert(0, after[0] * each)
    X, depth = before[-1], len(W)
    residual = [inner(M, X) - data[i, 0] for i, M in enumerate(matrices)]
    S = total_of(M * y[i, 0] for i, M in enumerate(matrices))
    along = inner(data, y)
    if objective.flat:
        value = flint.fmpq(0)
        for B, C in zip(before[:-1], after[1:], strict=True):
            seen = [C.transpose() * M * B.transpose() for M in matrices]
            value += sum((inner(N, N) for N in seen), flint.fmpq(0))
        value = 2 * value / A.m
    else:
        value = total_of(trace_of(each.transpose() * each) for each in W)
    lower = Fraction(0)
    if along > 0 and any(x != 0 for x in S.entries()):
        before_bits, flint.ctx.prec = flint.ctx.prec, _BALL_BITS
        try:
            ball = _multiplier(matrices, S, along, inner(y, y), depth) if objective.flat else _nuclear(A, S, along, depth)
            lower = max(_below(ball), Fraction(0))
        finally:
            flint.ctx.prec = before_bits
    proof = (
        "value, residual, the bound of the dual vector and the gap between them are proved in exact rational and ball "
        "arithmetic, of the numbers given; stationarity and curvature are in floating point"
    )
    return proved(certificate, as_fraction(value), lower, exact_fit(matrices, data, residual, X), False, proof)


def _multiplier(matrices: list[Any], S: Any, along: Any, square: Any, depth: int) -> Any:
    """The multiplier bound as a ball."""
    import flint

    G1, G2 = total_of(M * M.transpose() for M in matrices), total_of(M.transpose() * M for M in matrices)
    P, Q = regular(G1), regular(G2)
    seen = part(S, P, Q)
    M = part(G2, Q, Q).solve(seen.transpose() * part(G1, P, P).solve(seen))
    L, whole = flint.arb(depth), trace_of(M)
    power = 1 / (L - 2)
    try:
        values = [] if depth == 3 else flint.arb_mat(M / whole).eig(multiple=True)
        tops = [max(flint.acb(each).real.upper(), flint.arb(0)) for each in values]
        shares = sum((top**power for top in tops if top > 0), flint.arb(0)) if values else flint.arb(1)
    except ValueError:  # eigenvalues that are not told apart: their sum bounds the sum of their powers, which are concave
        shares = flint.arb(len(Q)) ** (1 - power)
    spread = flint.arb(whole) ** power * shares
    logarithm = (2 - 2 / L) * flint.arb(along).log() - (1 - 2 / L) * (flint.arb(square).log() + spread.log())
    return 2 * L / len(matrices) * logarithm.exp()


def _nuclear(A: MeasurementMap, S: Any, along: Any, depth: int) -> Any:
    """The bound on the sum of squares that follows from the least nuclear norm, as a ball."""
    import flint

    beta = exact_norm([rational(np.eye(size)) for size in A.matrix_shape], S, 1.0)
    return depth * (flint.arb(along) / flint.arb(beta)) ** (flint.arb(2) / depth)


def _below(ball: Any) -> Fraction:
    """The lower end of a ball."""
    mantissa, exponent = ball.lower().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
