"""Planted mistakes, and the check that a claim notices them: a claim is worth what makes it fail."""

import dataclasses

import numpy as np

from balancedfact.theorems import ledger

CLAIMS = {claim.key: claim for claim in ledger()}


def fails_when(monkeypatch, key, owner, name, change, seeds=10):
    """Whether the claim fails on one of so many instances once ``owner.name`` is changed, where it holds as it is."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, change(getattr(owner, name)))
        failed = next((seed for seed in range(seeds) if not _survives(CLAIMS[key], seed)), None)
    return failed is not None and CLAIMS[key].check(failed).holds


def fails_always_when(monkeypatch, key, owner, name, change):
    """Whether a counterexample fails on every instance once ``owner.name`` is what the printed statement needs."""
    monkeypatch.setattr(owner, name, change(getattr(owner, name)))
    return not any(CLAIMS[key].check(seed).holds for seed in range(3))


def _survives(claim, seed):
    """Whether the claim holds; a mutation may also make it raise, which the ledger counts as a failure."""
    try:
        return claim.check(seed).holds
    except (ValueError, IndexError):
        return False


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


def scaled(factor):
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


def value_times(factor):
    def wrong(routine):
        def solve(*args, **options):
            solution = routine(*args, **options)
            return dataclasses.replace(solution, value=factor * solution.value)

        return solve

    return wrong


def deeper_flow(routine):
    return lambda M, A, b, depth, **options: routine(M, A, b, depth + 1, **options)


def fixed_step(routine):
    """A critical step computed from a sharpness that is too large by two."""
    return lambda *args: 2 * routine(*args)
