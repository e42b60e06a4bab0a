import numpy as np
import pytest

from balancedfact.measurements import Dense, IsotropicMoment, check_measurements
from tests import bad_input, maps


def failing(report):
    return {name for name, error in report.errors.items() if not error <= report.tolerance}


def mistaken(matrices, **methods):
    return type("Mistaken", (maps.Minimal,), methods)(matrices)


def raising(self, *arguments, **options):
    raise RuntimeError("not written yet")


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 5), (1, 1)])
@pytest.mark.parametrize("m", [1, 6])
def test_a_subclass_with_the_four_methods_passes(shape, m, rng):
    report = check_measurements(maps.Minimal(rng.standard_normal((m, *shape))), rng)
    assert report.ok, str(report)


@pytest.mark.parametrize("c", [1e-150, 1e-30, 1e30, 1e150])
def test_magnitude_alone_fails_no_map(c, rng):
    for build in maps.BUILT_IN.values():
        A, _ = build(rng, 4, 3, 6, "none", c)
        report = check_measurements(A, rng)
        assert report.ok, f"{A!r}\n{report}"


@pytest.mark.parametrize("m", [1, 2, 30])
def test_a_map_of_zeros_passes(m, rng):
    for build in maps.BUILT_IN.values():
        report = check_measurements(build(rng, 3, 4, m, "zero")[0], rng)
        assert report.ok, str(report)


def doubled(name):
    return lambda self, *arguments: 2 * getattr(maps.Minimal, name)(self, *arguments)


def transposed_argument(name):
    return lambda self, P: getattr(maps.Minimal, name)(self, P.T)


MISTAKES = {
    "forward off by two": ({"_forward": doubled("_forward")}, {"forward"}),
    "adjoint with squared weights": ({"_adjoint": lambda self, y: maps.Minimal._adjoint(self, y**2)}, {"adjoint"}),
    "adjoint off by two": ({"_adjoint": doubled("_adjoint")}, {"forward"}),
    "adjoint without one measurement": (
        {"_adjoint": lambda self, y: maps.Minimal._adjoint(self, np.append(y[:-1], 0))},
        {"forward"},
    ),
    "left moment of the transpose": ({"_left_moment": transposed_argument("_left_moment")}, {"left_moment"}),
    "right moment of the transpose": ({"_right_moment": transposed_argument("_right_moment")}, {"right_moment"}),
    "left moment off by two": ({"_left_moment": doubled("_left_moment")}, {"left_moment"}),
    "right moment off by two": ({"_right_moment": doubled("_right_moment")}, {"right_moment"}),
    "left moment averaged": (
        {"_left_moment": lambda self, P: maps.Minimal._left_moment(self, P) / self.m},
        {"left_moment"},
    ),
    "moments exchanged": (
        {"_left_moment": maps.Minimal._right_moment, "_right_moment": maps.Minimal._left_moment},
        {"left_moment", "right_moment"},
    ),
    "factors exchanged": (
        {"forward_factored": lambda self, L, R: maps.Minimal.forward_factored(self, R, L)},
        {"forward_factored"},
    ),
    "scaled Gram matrix without the cross term": (
        {"scaled_gram": lambda self, W11, W12, W22: maps.Minimal.scaled_gram(self, W11, 0 * W12, W22)},
        {"scaled_gram"},
    ),
    "scaled Gram matrix with the cross term subtracted": (
        {
            "scaled_gram": lambda self, W11, W12, W22: (
                2 * maps.Minimal.scaled_gram(self, W11, 0 * W12, W22) - maps.Minimal.scaled_gram(self, W11, W12, W22)
            )
        },
        {"scaled_gram"},
    ),
    "second moments of other measurements": (
        {"second_moment": lambda self: IsotropicMoment(self.matrix_shape)},
        {"second_moment.left", "second_moment.right"},
    ),
    "energy off by two": ({"energy": doubled("energy")}, {"energy"}),
    "energy not squared": ({"energy": lambda self, C, B: np.sqrt(maps.Minimal.energy(self, C, B))}, {"energy"}),
    "rotation transposed": (
        {"rotated": lambda self, P, Q: maps.Minimal.rotated(self, P, Q).transpose(0, 2, 1)},
        {"rotated"},
    ),
    "D1 without its root": ({"D1": property(lambda self: self._left_moment(np.eye(3)) / (3 * self.m))}, {"D1"}),
    "D2 without 1/m": ({"D2": property(lambda self: np.sqrt(self.m) * maps.Minimal.D2.fget(self))}, {"D2"}),
    "rescaling with the wrong side": ({"rescale_left": maps.Minimal.rescale_right}, {"rescale_left"}),
    "rescaling off by two": ({"rescale_right": doubled("rescale_right")}, {"rescale_right"}),
    "selection ignores the index": ({"select": lambda self, index, weights=None: self}, {"select"}),
    "selection ignores the weights": (
        {"select": lambda self, index, weights=None: maps.Minimal.select(self, index)},
        {"select"},
    ),
    "congruence exchanged": (
        {"congruence": lambda self, P, Q: maps.Minimal.congruence(self, Q, P)},
        {"congruence"},
    ),
    "whitened scale off by two": (
        {"whitened": lambda self: maps.Minimal.whitened(self)._replace(scale=2.0)},
        {"whitened"},
    ),
    "matrix-vector product in column-major order": (
        {"matvec": lambda self, x: self._forward(np.reshape(x, self.matrix_shape, order="F"))},
        {"linear_operator"},
    ),
    "transposed product in column-major order": (
        {"rmatvec": lambda self, y: self._adjoint(np.ravel(y)).ravel(order="F")},
        {"linear_operator.T"},
    ),
    "norms squared": ({"row_norms": property(lambda self: maps.Minimal.row_norms.func(self) ** 2)}, {"row_norms"}),
    "Gram solver without the shift": (
        {"gram_solver": lambda self, shift: maps.Minimal.gram_solver(self, shift / 2)},
        {"gram_solver"},
    ),
    "NaN in the forward map": ({"_forward": lambda self, X: np.full(self.m, np.nan)}, {"forward"}),
    "NaN in the adjoint": ({"_adjoint": lambda self, y: np.full(self.matrix_shape, np.nan)}, {"adjoint"}),
    "forward map of the wrong shape": ({"_forward": lambda self, X: np.zeros((self.m, 1))}, {"forward"}),
    "adjoint of the wrong shape": ({"_adjoint": lambda self, y: np.zeros(9)}, {"adjoint"}),
}


@pytest.mark.parametrize(("methods", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_planted_mistake_is_found_and_named(methods, expected, rng):
    report = check_measurements(mistaken(rng.standard_normal((5, 3, 3)), **methods), rng)
    assert not report.ok
    assert expected <= failing(report), str(report)
    assert not any(np.isnan(error) for error in report.errors.values())
    for name in expected:
        assert any(line.startswith("FAIL") and name in line for line in str(report).splitlines())


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)])
def test_exchanged_factors_are_found_for_rectangular_matrices(shape, rng):
    A = mistaken(rng.standard_normal((5, *shape)), **MISTAKES["factors exchanged"][0])
    assert "forward_factored" in failing(check_measurements(A, rng))


METHODS = {
    "_forward": "forward",
    "_adjoint": "adjoint",
    "_left_moment": "left_moment",
    "_right_moment": "right_moment",
    "forward_factored": "forward_factored",
    "adjoint_operator": "adjoint_operator",
    "adjoint_for_many": "adjoint_for_many",
    "pair_hessian": "pair_hessian",
    "pair_gram": "pair_gram",
    "rotated": "rotated",
    "energy": "energy",
    "congruence": "congruence",
    "select": "select",
    "scaled_gram": "scaled_gram",
    "gram_solver": "gram_solver",
    "rescale_left": "rescale_left",
    "rescale_right": "rescale_right",
    "whitened": "whitened",
    "matvec": "linear_operator",
    "rmatvec": "linear_operator.T",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_raises_is_a_failed_property_and_no_crash(method, rng):
    report = check_measurements(mistaken(rng.standard_normal((5, 3, 3)), **{method: raising}), rng)
    assert not report.ok
    assert report.errors[METHODS[method]] == np.inf
    assert report.notes[METHODS[method]] == "RuntimeError: not written yet"
    assert "RuntimeError: not written yet" in str(report)


@pytest.mark.parametrize("name", ["D1", "D2", "row_norms"])
def test_an_attribute_that_raises_is_a_failed_property_and_no_crash(name, rng):
    report = check_measurements(mistaken(rng.standard_normal((5, 3, 3)), **{name: property(raising)}), rng)
    assert report.errors[name] == np.inf
    assert "RuntimeError" in report.notes[name]


def test_the_tolerance_decides(rng):
    matrices = rng.standard_normal((5, 3, 3))
    slightly = {"_forward": lambda self, X: (1 + 1e-6) * maps.Minimal._forward(self, X)}
    assert not check_measurements(mistaken(matrices, **slightly), 0).ok
    assert check_measurements(mistaken(matrices, **slightly), 0, tol=1e-4).ok


def test_errors_are_deterministic_by_seed(rng):
    A = Dense(rng.standard_normal((5, 3, 4)))
    assert check_measurements(A, 7).errors == check_measurements(A, 7).errors
    assert check_measurements(A, 7).errors == check_measurements(A, np.random.default_rng(7)).errors
    assert check_measurements(A, 7).errors != check_measurements(A, 8).errors


def test_the_report_has_a_line_for_each_property(rng):
    report = check_measurements(Dense(rng.standard_normal((5, 3, 4))), rng)
    assert len(str(report).splitlines()) == len(report.errors)
    assert all(line.startswith("ok") for line in str(report).splitlines())
    assert report.notes == {}


@pytest.mark.parametrize("seed", bad_input.BAD_RNG, ids=repr)
def test_a_bad_generator_is_refused(seed):
    with pytest.raises(ValueError, match=r"^rng is "):
        check_measurements(Dense(np.ones((1, 2, 2))), seed)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.nan, np.inf, True, "1e-8", None, 1j])
def test_a_bad_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"^tol is "):
        check_measurements(Dense(np.ones((1, 2, 2))), 0, tol=tolerance)
