"""Claims on several outputs, any measurements and weight decay notice planted mistakes."""

import dataclasses

import pytest

from balancedfact import closed_forms, solvers
from tests.theorems import mutations
from tests.theorems.mutations import of_depth, scaled, solution


def of_the_flattest_matrix(function):
    """The least sharpness of one matrix, that of least trace, taken for the least of all that fit."""
    return lambda A, b, depth, **options: solvers.minimal_sharpness(solvers.flat_minimum(A, b).matrix, A, depth)


def another_penalty(function):
    """The network of another weight decay."""
    return lambda A, b, depth, penalty: function(A, b, depth=depth, penalty=1.01 * penalty)


def overstated(certificate):
    """A lower bound that is twice as large."""
    return dataclasses.replace(certificate, lower_bound=2 * certificate.lower_bound)


def understated(certificate):
    """A lower bound that is not quite tight."""
    return dataclasses.replace(certificate, lower_bound=0.9999 * certificate.lower_bound)


MUTATIONS = [
    ("new-least-sharpness-several-outputs", closed_forms, "minimal_sharpness", scaled(1.0001)),
    ("new-least-sharpness-several-outputs", closed_forms, "minimal_sharpness", of_depth(1)),
    ("new-least-sharpness-dual-form", closed_forms, "minimal_sharpness", scaled(0.999)),
    ("new-sharpness-of-balanced-networks", closed_forms, "balanced_sharpness", scaled(1.0001)),
    ("new-least-sharpness-any-measurements", solvers, "minimal_sharpness", solution(value=lambda value: 1.0001 * value)),
    ("new-least-sharpness-of-all-pairs-that-fit", solvers, "flattest_sharpness", solution(value=lambda value: 1.0001 * value)),
    ("new-least-sharpness-of-all-pairs-that-fit", solvers, "flattest_sharpness", of_the_flattest_matrix),
    ("new-critical-step-size-several-outputs", closed_forms, "minimal_sharpness", scaled(0.97)),
    ("new-critical-step-size-several-outputs", closed_forms, "minimal_sharpness", scaled(1.03)),
    ("new-weight-decay-is-a-schatten-quasi-norm", closed_forms, "schatten_value", scaled(1.0001)),
    ("new-collapse-under-weight-decay", closed_forms, "collapse_threshold", lambda f: lambda *args: (1.001 * f(*args)[0], 0.0)),
    ("new-weight-decay-under-measurements", solvers, "norm_minimum", solution(value=lambda value: 1.0001 * value)),
    ("new-weight-decay-under-measurements", solvers, "norm_minimum", solution(certificate=overstated)),
    ("new-weight-decay-under-measurements", solvers, "norm_minimum", another_penalty),
    (
        *("new-rank-one-networks-that-are-global-minima-of-weight-decay", solvers, "norm_minimum"),
        solution(certificate=understated),
    ),
    (
        *("new-rank-one-networks-that-are-global-minima-of-weight-decay", closed_forms, "schatten_value"),
        scaled(0.9),
    ),
    (
        *("new-networks-of-any-rank-that-are-global-minima-of-weight-decay", solvers, "norm_minimum"),
        solution(certificate=understated),
    ),
    (
        *("new-networks-of-any-rank-that-are-global-minima-of-weight-decay", closed_forms, "schatten_value"),
        scaled(0.9),
    ),
    ("new-isolated-fits-are-minima-of-weight-decay", closed_forms, "schatten_value", lambda f: lambda M, L: (M**2).sum()),
]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("key", "owner", "name", "change"), MUTATIONS, ids=[f"{k}-{row[0]}-{row[2]}" for k, row in enumerate(MUTATIONS)]
)
def test_a_planted_mistake_is_noticed(monkeypatch, key, owner, name, change):
    assert mutations.fails_when(monkeypatch, key, owner, name, change)
