"""The network that training from small weights tends to: its sharpness, and the rate."""

from __future__ import annotations

import itertools

import numpy as np

from balancedfact import closed_forms, dynamics
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal


@claim(
    "New",
    "Sharpness of the rank-one limit",
    "The layers c u_k v_k' with c = |w|^(1/L), u_k = v_(k+1), v_1 along w solve the regression, are balanced, and have "
    "sharpness 2c^(2L-2) lambda_max(Sigma + (L-1) Sigma^(1/2) v_1 v_1' Sigma^(1/2)).",
    kind="exact",
    page="theory/sharpness_and_dynamics",
)
def limit_sharpness(rng: np.random.Generator) -> Outcome:
    L, d, n = int(rng.integers(2, 5)), int(rng.integers(1, 4)), int(rng.integers(2, 8))
    problem = naive.regression(rng, d, n)
    layers = closed_forms.rank_one_limit(problem.w, [d, *rng.integers(1, 4, L - 1), 1])
    gaps = [above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)]
    found = closed_forms.rank_one_limit_sharpness(problem.covariance, problem.w, L)
    dense = naive.top(naive.hessian(layers, problem.matrices, problem.targets))
    return all_of(
        sharpness=equal(found, dense, rtol=1e-8, depth=L),
        product=equal(naive.product(layers)[0], problem.w),
        balance=equal(naive.packed(gaps), 0 * naive.packed(gaps), scale=float(np.linalg.norm(problem.w))),
        not_flattest=at_least(found, closed_forms.minimal_sharpness(problem.covariance, problem.w, L)),
    )


@claim(
    "New",
    "Rank-one limit, rate",
    "Gradient flow from a start of scale sigma ends within O(sigma^2) of the rank-one limit's sharpness, and with layers "
    "misaligned by O(sigma^4).",
    kind="empirical",
    page="theory/sharpness_and_dynamics",
)
def limit_rate(rng: np.random.Generator) -> Outcome:
    L, d = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    problem = naive.regression(rng, d, 5 * d, norm=1.0)
    unit = dynamics.gaussian_layers([d, *[d] * (L - 1), 1], 1.0, rng)
    limit = closed_forms.rank_one_limit_sharpness(problem.covariance, problem.w, L)
    off, turned = [], []
    scales = (0.04, 0.01, 0.0025)
    for scale in scales:
        run = dynamics.gradient_flow([scale * W for W in unit], problem.A, problem.targets, rtol=1e-10, record=1e9)
        sharp = naive.top(naive.hessian(run.layers, problem.matrices, problem.targets))
        off.append(abs(sharp / limit - 1) / scale**2)
        turned.append(float(1 - run["alignment"][-1].min()) / scale**4)
    return all_of(
        sharpness=at_most(max(off[1:]), 4 * off[0] + 2, first=off[0], last=off[-1], depth=L),
        alignment=at_most(max(turned[1:]), 4 * turned[0] + 2, first=turned[0], last=turned[-1]),
    )
