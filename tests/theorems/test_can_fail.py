"""A claim notices when the code under it is wrong: one constant is changed, and it fails."""

import dataclasses

import numpy as np
import pytest

from balancedfact import closed_forms, curvature, measurements, solvers
from balancedfact.theorems import _draw, ledger
from balancedfact.theorems.deep import _isometry, _samples
from balancedfact.theorems.recovery import _ensembles


def times(factor):
    """The same function, its number or its first array off by a factor."""

    def change(function):
        def wrong(*args, **kwargs):
            result = function(*args, **kwargs)
            if isinstance(result, list | tuple):
                return type(result)([factor * result[0], *result[1:]])
            return factor * result

        return wrong

    return change


def solution(**changes):
    """The same solver, its solution changed."""

    def change(function):
        def wrong(*args, **kwargs):
            found = function(*args, **kwargs)
            return dataclasses.replace(found, **{name: alter(getattr(found, name)) for name, alter in changes.items()})

        return wrong

    return change


def scaled_pair(factor):
    """The same product from factors of other sizes."""

    def change(function):
        def wrong(*args, **kwargs):
            L, R = function(*args, **kwargs)
            return factor * L, R / factor

        return wrong

    return change


def constant(value):
    return lambda function: lambda *args, **kwargs: value


def swapped(function):
    """The two moments of the measurements exchanged where the sizes allow it."""
    return lambda layers, A: function([layer.T for layer in layers[::-1]], A)


halved_solution = solution(value=lambda value: value / 2)
scaled_solution = solution(value=lambda value: 1.01 * value)
moved_solution = solution(layers=lambda layers: [1.01 * layers[0], *layers[1:]])

MUTATIONS = [
    ("cs282-section-3-hessian", curvature, "hessian_vector_product", times(2.0)),
    ("cs282-equation-5-scaled-trace", curvature, "scaled_trace", times(0.5)),
    ("cs282-equation-6-nuclear-norm", closed_forms, "balanced_pair", scaled_pair(1.001)),
    ("ddf-balanced-and-norm-minimal-pairs-of-a-matrix", closed_forms, "balanced_pair", scaled_pair(1.5)),
    ("ddf-flat-value-of-a-matrix", closed_forms, "flat_pair", scaled_pair(1.001)),
    ("ddf-flat-pairs-are-rescaled-balanced", closed_forms, "flat_pair", scaled_pair(1.001)),
    ("cs282-equation-10-lemma", closed_forms, "flat_pair", scaled_pair(2.0)),
    ("cs282-first-claim-equal-values", solvers, "norm_minimum", scaled_solution),
    ("cs282-second-claim-minimisers", solvers, "flat_minimum", moved_solution),
    ("cs282-third-claim-recovery", solvers, "flat_minimum", moved_solution),
    ("cs282-equation-7-near-norm-minimality", solvers, "flat_minimum", solution(layers=lambda W: [9 * W[0], W[1] / 9])),
    ("cs282-equation-8-near-balance", solvers, "flat_minimum", solution(layers=lambda W: [9 * W[0], W[1] / 9])),
    ("cs282-section-5-balanced-approximation", solvers, "balanced_approximation", moved_solution),
    ("ddf-recovery-gaussian-sensing", solvers, "flat_minimum", moved_solution),
    ("cs282-section-4-1-bilinear-sensing", measurements, "bilinear", constant(measurements.gaussian(40, (14, 16), 0))),
    ("ddf-covariance-estimation-trace", curvature, "scaled_trace", times(2.0)),
    ("ddf-robust-pca", _ensembles, "_principal_component_pursuit", lambda f: lambda Y, weight: f(Y, weight / 4)),
    ("glcrmj-lemma-2", curvature, "trace", times(0.5)),
    ("glcrmj-lemma-3", curvature, "trace", times(0.5)),
    ("glcrmj-lemma-4", closed_forms, "min_isotropic_layers", times(1.001)),
    ("glcrmj-lemma-4", closed_forms, "min_isotropic_trace", times(1.001)),
    ("glcrmj-lemma-5", _isometry, "near_isometry", lambda f: lambda *a, **k: (f(*a, **k)[0], 0.01)),
    ("glcrmj-theorem-1-induced-regularizer", solvers, "induced_regularizer", solution(value=lambda value: 2 * value)),
    ("glcrmj-theorem-3", solvers, "flat_minimum", solution(layers=lambda layers: [0 * layers[0], *layers[1:]])),
    ("glcrmj-theorem-4", _samples, "_least_frobenius", times(0.9)),
    ("glcrmj-theorem-5", closed_forms, "two_layer_minimum", times(0.5)),
    ("glcrmj-theorem-6", _samples, "_signed_count", times(0.1)),
    ("glcrmj-theorem-7", closed_forms, "single_measurement_minimum", times(0.5)),
    ("glcrmj-example-1", measurements, "gaussian", lambda f: lambda m, *rest: f(m // 8, *rest)),
    ("glcrmj-table-1", solvers, "induced_regularizer", scaled_solution),
    ("blog-regularizer", curvature, "trace", swapped),
    ("blog-lower-bound", closed_forms, "kronecker_minimum", times(1.5)),
    ("blog-construction", closed_forms, "kronecker_layers", times(1.001)),
    ("blog-conclusion", solvers, "induced_regularizer", scaled_solution),
]


@pytest.mark.parametrize(("key", "module", "name", "change"), MUTATIONS, ids=[f"{row[0]}-{row[2]}" for row in MUTATIONS])
def test_a_mutation_makes_the_claim_fail(monkeypatch, key, module, name, change):
    claim = next(claim for claim in ledger() if claim.key == key)
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    assert not all(survives(claim, seed) for seed in range(10))


def survives(claim, seed):
    """Whether the claim holds; a mutation may also make it raise, which the ledger counts as a failure."""
    try:
        return claim.check(seed).holds
    except (ValueError, IndexError):
        return False


# Of a counterexample: if the printed statement were true, it would fail.


TRUE_AS_PRINTED = [
    ("glcrmj-trace-after-lemma-2-as-printed", curvature, "trace", times(0.5)),
    ("glcrmj-theorem-5-as-printed", solvers, "induced_regularizer", halved_solution),
    ("glcrmj-theorem-7-as-printed", solvers, "induced_regularizer", halved_solution),
    ("glcrmj-theorem-1-induced-regularizer-as-printed", solvers, "induced_regularizer", halved_solution),
    ("glcrmj-lemma-3-as-printed", curvature, "trace", times(0.5)),
    ("glcrmj-lemma-4-constants-as-printed", closed_forms, "min_isotropic_trace", times(100.0)),
]


@pytest.mark.parametrize(("key", "module", "name", "change"), TRUE_AS_PRINTED, ids=[row[0] for row in TRUE_AS_PRINTED])
def test_a_counterexample_fails_if_the_print_is_right(monkeypatch, key, module, name, change):
    claim = next(claim for claim in ledger() if claim.key == key)
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    assert not any(claim.check(seed).holds for seed in range(3))


# The computations that the claims compare with.


def test_second_derivative_is_exact_to_the_fifth_degree(rng):
    coefficients = rng.standard_normal(6)
    assert _draw.second_derivative(lambda t: np.polyval(coefficients, t)) == pytest.approx(2 * coefficients[3], abs=1e-12)


def test_random_factorizations_multiply_to_the_matrix(rng):
    M = rng.standard_normal((3, 5))
    for depth in (2, 3, 5):
        for width in (3, 6):
            layers = _draw.factorization(rng, M, depth, width)
            assert [layer.shape[0] for layer in layers] == [width] * (depth - 1) + [3]
            np.testing.assert_allclose(_draw.product(layers), M, atol=1e-9)


def test_near_isometry_has_the_constant_it_returns(rng):
    A, delta = _draw.near_isometry(rng, (4, 3), 1, 0.5, unseen=2)
    assert delta < 0.5
    for _ in range(200):
        X = np.outer(rng.standard_normal(4), rng.standard_normal(3))
        assert abs(np.sum(A(X) ** 2) / A.m / np.sum(X**2) - 1) <= delta
    low, _ = measurements.isometry_constant(A, 1, rng=0).delta
    assert low == pytest.approx(delta, rel=1e-2)


def test_near_isometry_refuses_the_impossible(rng):
    with pytest.raises(RuntimeError, match="isometry constant below 1e-09"):
        _draw.near_isometry(rng, (2, 2), 1, 1e-9, unseen=0)
