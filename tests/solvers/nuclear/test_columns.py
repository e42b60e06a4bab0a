"""Columns that a penalty presses to zero, against the minimisation in one coefficient."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from balancedfact.solvers.nuclear._columns import needed
from balancedfact.solvers.nuclear._problem import balanced
from tests import maps


@pytest.mark.parametrize("build", [maps.dense, maps.entries, maps.rank_one])
def test_a_column_is_needed_where_its_best_coefficient_is_positive(build, rng):
    kept = dropped = 0
    for penalty in np.geomspace(0.1, 10.0, 20):
        A, _ = build(rng, 5, 4, 12, "none")
        L, R, s = balanced(rng.standard_normal((5, 3)), rng.standard_normal((4, 3)))
        b = A(L @ R.T) + 3 * rng.standard_normal(A.m)
        found = needed(A, L, R, s, (b - A(L @ R.T)) / penalty, penalty)[2]
        best = []
        for k in range(3):
            u, v = L[:, k] / np.sqrt(s[k]), R[:, k] / np.sqrt(s[k])
            image, rest = A(np.outer(u, v)), b - A(L @ R.T) + s[k] * A(np.outer(u, v))

            def objective(c, image=image, rest=rest):
                return 0.5 * np.sum((rest - c * image) ** 2) + penalty * c

            best.append(minimize_scalar(objective, bounds=(0, 100), method="bounded", options={"xatol": 1e-9}).x)
        clear = [abs(c) > 1e-6 for c in best]
        np.testing.assert_array_equal(np.isin(s, found), clear)
        kept, dropped = kept + sum(clear), dropped + 3 - sum(clear)
    assert kept
    assert dropped
