"""A claim is worth what makes it fail: each fails when the routine that it is about is wrong."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import balancedfact as bf
from balancedfact import closed_forms, curvature, dynamics, manifolds
from balancedfact.dynamics import _flow
from balancedfact.solvers.deep import _bounds as deep_bounds
from balancedfact.theorems import ledger

CLAIMS = {claim.key: claim for claim in ledger()}


def times(factor):
    """The routine's result, wrong by a factor."""
    return lambda routine: lambda *args, **options: factor * np.asarray(routine(*args, **options))


def wrong_layer(routine):
    """Gradient flow whose first layer learns a little faster than the others."""

    def slope(self, y):
        slopes = routine(self, y)
        slopes[: self.ends[0]] *= 1.01
        return slopes

    return slope


def without_width(routine):
    """Residual layers whose noise is not divided by the root of the width."""

    def layers(width, depth, scale, rng=None):
        return [np.eye(width) + np.sqrt(width) * (W - np.eye(width)) for W in routine(width, depth, scale, rng)]

    return layers


def of_depth(change):
    """The closed form of another depth."""
    return lambda routine: lambda covariance, w, depth: routine(covariance, w, depth + change)


def unevenly_scaled(routine):
    """Layers with the right product and the scale of the outer ones exchanged."""

    def layers(*args):
        first, *rest, last = routine(*args)
        return [2 * first, *rest, last / 2]

    return layers


def farther(routine):
    """A balanced pair, but not the nearest one."""
    return lambda self, A, B: [1.05 * X for X in routine(self, A, B)]


def one_frame_for_both(routine):
    """L = BC, R = BD, as printed, taken with D = B as far as shapes allow."""

    def factors(L, R):
        B, C, D = routine(L, R)
        return B, C, np.eye(*D.shape)

    return factors


def solution_times(factor):
    def wrong(routine):
        def solve(*args, **options):
            solution = routine(*args, **options)
            return replace(solution, value=factor * solution.value)

        return solve

    return wrong


def deeper_flow(routine):
    return lambda M, A, b, depth, **options: routine(M, A, b, depth + 1, **options)


def fixed_step(routine):
    """A critical step computed from a sharpness that is too large by two."""
    return lambda *args: 2 * routine(*args)


def one_more(routine):
    def start(self, *args, **options):
        routine(self, *args, **options)
        self._dimension += 1

    return start


MUTATIONS = [
    ("mc-theorem-1", closed_forms, "minimal_sharpness", times(0.1)),
    ("mc-theorem-1", closed_forms, "sharpness_bounds", times(0.5)),
    ("mc-theorem-2-every-minimiser", closed_forms, "regression_sharpness", times(0.5)),
    ("mc-theorem-2-arbitrarily-sharp-minimisers", curvature, "sharpness", times(0.01)),
    ("mc-theorem-2-large-depth", closed_forms, "minimal_sharpness", of_depth(1)),
    ("mc-one-dimensional-example", curvature, "sharpness", times(0.5)),
    ("mc-critical-step-size", closed_forms, "minimal_sharpness", fixed_step),
    ("mc-lemma-1", _flow._Field, "slope", wrong_layer),
    ("mc-lemma-6-chi-square", dynamics, "residual_layers", without_width),
    ("mc-lemma-6-normal", dynamics, "residual_layers", without_width),
    ("mc-lemma-8", curvature, "loss_gradient", times(0.2)),
    ("mc-lemma-3", dynamics, "residual_layers", without_width),
    ("mc-corollary-2", closed_forms, "minimal_sharpness", times(1.5)),
    ("new-trace-formula-off-minimisers", curvature, "trace", times(0.5)),
    ("new-scaled-trace-off-minimisers", curvature, "scaled_trace", times(0.5)),
    ("new-sharpness-through-aka", curvature, "sharpness", times(0.5)),
    ("new-exact-minimal-sharpness-lower-bound", closed_forms, "minimal_sharpness", times(1.0001)),
    ("new-exact-minimal-sharpness-value", closed_forms, "minimal_sharpness", times(0.9999)),
    ("new-exact-minimal-sharpness-dual-form", closed_forms, "minimal_sharpness", times(0.9999)),
    ("new-sharpness-of-the-rank-one-limit", closed_forms, "rank_one_limit_sharpness", of_depth(-1)),
    ("new-two-layers", closed_forms, "two_layer_minimum", times(0.5)),
    ("new-one-measurement", closed_forms, "single_measurement_minimum", times(0.5)),
    ("new-separated-sides-of-any-shape", closed_forms, "kronecker_layers", unevenly_scaled),
    ("new-flattest-deep-network-lower-bound", deep_bounds, "multiplier_bound", times(1.01)),
    ("new-geodesic-convexity", curvature, "trace", lambda routine: lambda *args: 1 / routine(*args)),
    ("new-width-independence-search", bf, "induced_regularizer", solution_times(1.0001)),
    ("new-stationary-factorizations-are-global-minima", bf, "induced_regularizer", solution_times(0.9999)),
    ("new-certificate-at-every-point", bf, "induced_regularizer", solution_times(0.5)),
    ("new-stiefel-parametrisation", manifolds, "factors_of", one_frame_for_both),
    ("new-nearest-balanced-pair", manifolds.BalancedPairs, "nearest", farther),
    ("new-flow-of-balanced-starts", dynamics, "balanced_flow", deeper_flow),
]
NAMES = [f"{key}-{name}" for key, _, name, _ in MUTATIONS]


@pytest.mark.parametrize(("key", "owner", "name", "mutation"), MUTATIONS, ids=NAMES)
def test_claim_fails_when_the_routine_is_wrong(monkeypatch, key, owner, name, mutation):
    seeds = range(2)
    assert all(CLAIMS[key].check(seed).holds for seed in seeds)
    monkeypatch.setattr(owner, name, mutation(getattr(owner, name)))
    outcomes = [CLAIMS[key].check(seed) for seed in seeds]
    assert any(not outcome.holds and outcome.slack < 0 for outcome in outcomes)


def test_small_start_is_necessary_for_equal_norms(monkeypatch):
    """Corollary 1 fails for starts that are not small: its hypothesis is used."""
    from balancedfact.theorems.sharpness import _training

    monkeypatch.setattr(_training, "smallness", lambda layers: 1e-5)
    assert not all(CLAIMS["mc-corollary-1"].check(seed).holds for seed in range(5))


def test_keys_are_unique():
    keys = [claim.key for claim in ledger()]
    assert not [key for key, group in itertools.groupby(sorted(keys)) if len(list(group)) > 1]
