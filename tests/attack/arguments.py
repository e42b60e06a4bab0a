"""Every public callable, found by introspection, with a call that works; and values that no argument may break on."""

import inspect
import types
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pymanopt

import balancedfact as bf
from tests.experiments.toy import toy

# Records that functions return, and bases that are subclassed: nobody calls them with data.
RECORDS = {
    *("Certificate", "Comparison", "ComparisonRow", "Cost", "Finding", "IsometryEnclosure", "ManifoldReport"),
    *("MeasurementReport", "NuclearProblem", "Outcome", "PanelEffect", "PenaltyPath", "Point", "Problem", "ProductPoint"),
    *("Solution", "Status", "TangentVector", "Trajectory", "Claim", "Experiment", "Table"),
    *("Algorithm", "LayerManifold", "MeasurementMap", "SecondMoment", "IsotropicMoment", "Sharded"),
}
# Callables that take code of the caller's own (`**details`, decorators), or start processes.
CODE = {"all_of", "at_least", "at_most", "claim", "equal", "fails", "dask_cluster", "process_pool", "style"}


def public():
    """The public callables by their full names."""
    found, seen = {}, set()

    def walk(module, path):
        for name in sorted(module.__all__):
            each = getattr(module, name)
            if isinstance(each, types.ModuleType):
                walk(each, f"{path}.{name}")
            elif callable(each) and id(each) not in seen and name not in RECORDS | CODE:
                seen.add(id(each))
                found[f"{path}.{name}"] = each

    walk(bf, "bf")
    imputer = found.pop("bf.estimators.FlatImputer")  # what scikit-learn wants to be checked by `fit` only

    def fit(X, *, penalty="auto", offset_penalty=None, max_rank=None, tol=1e-8, random_state=None):
        return imputer(
            penalty=penalty, offset_penalty=offset_penalty, max_rank=max_rank, tol=tol, random_state=random_state
        ).fit(X)

    return found | {"bf.estimators.FlatImputer.fit": fit}


def _sphere():
    manifold = pymanopt.manifolds.Sphere(3)

    @pymanopt.function.numpy(manifold)
    def cost(x):
        return float(x[0] + 2 * x[1])

    @pymanopt.function.numpy(manifold)
    def gradient(x):
        return np.array([1.0, 2.0, 0.0])

    return pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)


def by_name(folder):
    """The value of an argument of this name, wherever the function has no value of its own below."""
    A = bf.measurements.gaussian(4, (3, 2), 0)
    M = np.array([[1.0, 2.0], [0.5, -1.0], [2.0, 1.5]])
    layers = [np.eye(2), M]
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    return {
        "A": A,
        "b": A(M),
        "M": M,
        "X": M,
        "Y": M,
        "L": M,
        "R": np.eye(2),
        "candidate": M,
        "A1": M,
        "covariance": covariance,
        "layers": layers,
        "directions": [np.ones((2, 2)), np.ones((3, 2))],
        "w": np.array([1.0, -2.0]),
        "widths": [2, 2, 3],
        "depth": 2,
        "rank": 2,
        "rng": 0,
        "penalty": 0.5,
        "k": 2,
        "d1": 3,
        "d2": 2,
        "m": 4,
        "shape": (3, 2),
        "p": 0.6,
        "scale": 1.0,
        "width": 3,
        "radius": 0.1,
        "step": 0.01,
        "t_final": 0.1,
        "iterations": 3,
        "batch": 2,
        "inputs": np.array([[1.0, 2.0], [0.5, 1.0]]),
        "targets": np.array([1.0, -1.0]),
        "manifold": bf.manifolds.BalancedPairs(3, 2, 2),
        "problem": _sphere(),
        "matrices": np.ones((2, 3, 2)),
        "rows": [0, 1],
        "cols": [1, 0],
        "left": np.ones((2, 3)),
        "right": np.ones((2, 2)),
        "D1": np.diag([1.0, 2.0, 3.0]),
        "D2": covariance,
        "path": folder / "problem.npz",
        "title": "title",
        "matrix": M,
        "progress": False,
    }


def special(folder):
    """Values of the arguments of one function where the name alone does not tell."""
    A, M = (by_name(folder)[name] for name in ("A", "M"))
    bf.io.write_problem(folder / "problem.npz", A, A(M))
    entries = bf.measurements.Entries([0, 1, 2], [0, 1, 0], (3, 2))
    pair = bf.closed_forms.balanced_pair(M)
    _, axes = plt.subplots(3, 3)
    solution = bf.flat_minimum(entries, [1.0, 2.0, 3.0], rng=0)
    table = bf.compare(entries, [1.0, 2.0, 3.0], rng=0)
    plain = {"ax": axes[0, 0], "solution": solution, "table": table}
    row = np.array([[1.0, 2.0]])
    panel = np.add.outer([1.0, 2.0, 4.0], np.arange(5.0))
    treated = np.zeros(panel.shape)
    treated[2, 4] = 1.0
    squares = toy(pause=0.0, repetitions=1)
    bf.experiments.reproduce(squares, "quick", folder / "drawn")
    return {
        "bf.closed_forms.kronecker_layers": {"X": np.diag([1.0, 2.0, 3.0]), "Y": np.eye(2)},
        "bf.closed_forms.kronecker_minimum": {"X": np.diag([1.0, 2.0, 3.0]), "Y": np.eye(2)},
        "bf.closed_forms.balanced_sharpness": {"M": M, "depth": 2},
        "bf.closed_forms.minimal_sharpness": {"M": M, "depth": 2},
        "bf.flat_network": {"depth": 3},
        "bf.flattest_sharpness": {"depth": 2},
        "bf.closed_forms.flattest_regression_layers": {"M": row, "widths": [2, 2, 1]},
        "bf.closed_forms.rank_one_limit": {"widths": [2, 2, 1]},
        "bf.closed_forms.regression_sharpness": {"layers": [np.eye(2), row], "w": np.array([1.0, -2.0])},
        "bf.dynamics.regression_descent": {"layers": [np.eye(2), row]},
        "bf.dynamics.perceptron": {"layers": [np.eye(2), row]},
        "bf.dynamics.perceptron_descent": {"layers": [np.eye(2), row]},
        "bf.dynamics.perceptron_sharpness": {"layers": [np.eye(2), row]},
        "bf.complete": {"M": np.where(np.eye(3, 4) > 0, np.nan, np.outer([1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 1.0]))},
        "bf.experiments.reproduce": {
            "experiment": squares,
            "scale": "quick",
            "out": folder / "figures",
            "executor": ThreadPoolExecutor(1),
        },
        "bf.experiments.redraw": {"experiment": squares, "out": folder / "drawn"},
        "bf.panel_effect": {"Y": panel, "treated": treated},
        "bf.panel_path": {"Y": panel, "treated": treated, "penalties": [1.0, 0.1]},
        "bf.measurements.TwoWayEntries": {"entries": entries},
        "bf.io.write_problem": {"path": folder / "written.npz"},
        "bf.manifolds.factors_of": dict(zip("LR", pair, strict=True)),
        "bf.manifolds.pair_of": {"B": np.eye(3, 2), "C": np.diag([2.0, 1.0]), "D": np.eye(2)},
        "bf.plots.comparison": {"axes": list(plt.subplots(1, 6)[1]), "table": table},
        "bf.plots.observed": {"A": entries, "b": [1.0, 2.0, 3.0], "ax": axes[0, 1]},
        "bf.plots.recovered_matrix": {"ax": axes[0, 2]},
        "bf.plots.comparison_map": plain,
        "bf.plots.gap_history": plain,
        "bf.plots.singular_values": plain,
        "bf.plots.value_history": plain,
    }


def example(name, function, folder, names, own):
    """Keyword arguments of a call that works; the optional ones that matter are left at their defaults."""
    found = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if key in own.get(name, {}):
            found[key] = own[name][key]
        elif parameter.default is inspect.Parameter.empty or (key == "rng"):
            found[key] = names[key]  # a KeyError asks for an example of a new name
    return found


class Opaque:
    """Something that is no argument of anything."""

    def __repr__(self):
        return "Opaque()"


def malformed():
    """Values by a word: the first ones are never an argument, the others may be one somewhere."""
    never = {"object": Opaque(), "dict": {"a": Opaque()}, "complex": 1 + 2j, "bytes": b"\xff"}
    maybe = {
        "none": None,
        "true": True,
        "word": "word",
        "no text": "",
        "minus one": -1,
        "zero": 0,
        "half": 0.5,
        "nan": float("nan"),
        "inf": float("inf"),
        "huge": 1e308,
        "tiny": 5e-324,
        "long": 2**70,
        "many": 2**31,
        "no list": [],
        "no matrix": [[]],
        "empty": np.empty((0, 3)),
        "four axes": np.ones((2, 2, 2, 2)),
        "ragged": [[1.0, 2.0], [3.0]],
        "objects": np.array([None, 1]),
        "strings": np.array([["a", "b"]]),
        "set": {1, 2},
        "range": range(2),
        "a function": len,
        "a type": int,
        "dates": np.array(["2020"], "M8[D]"),
        "minus inf": float("-inf"),
        "minus huge": -1e308,
        "long below": -(2**70),
        "fraction": Fraction(1, 3),
        "decimal": Decimal("NaN"),
        "no axis": np.array(0.5),
        "booleans": np.array([True, False]),
        "durations": np.array([1], "m8[s]"),
        "records": np.zeros(2, [("a", float)]),
        "frozen set": frozenset({1}),
        "a module": types,
        "an error": ValueError("an error"),
        "a path": Path("none"),
        "bytes list": [b"1", b"2"],
        "deep list": [[[[[1.0]]]]],
    }
    return never, maybe


def spoilt(value):
    """The value with what is no number in one place, for arrays and lists of arrays; nothing for other values."""
    if isinstance(value, list) and value and all(isinstance(each, np.ndarray) for each in value):
        return {f"{word} in the last": [*value[:-1], bad] for word, bad in spoilt(value[-1]).items()}
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, (int, float)) for each in value):
        bad = {"none": None, "word": "word", "nan": np.nan, "minus one": -1, "half": 0.5, "many": 2**31, "long": 2**70}
        return {f"{word} in the last": type(value)([*value[:-1], each]) for word, each in bad.items()}
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return {}
    found = {}
    for word, bad in (("nan", np.nan), ("inf", np.inf), ("minus inf", -np.inf)):
        found[word] = value.copy()
        found[word].flat[-1] = bad
    return found | {
        "complex": value + 1j,
        "strings": value.astype(str),
        "objects": value.astype(object),
        "one axis more": value[None],
        "empty": value[:0],
        "masked": np.ma.masked_array(value, np.arange(value.size).reshape(value.shape) == 0),
    }
