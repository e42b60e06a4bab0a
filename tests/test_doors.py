"""What tools see of the package: names, types, and an import that loads only what is used."""

import pydoc
import rlcompleter
import subprocess
import sys

import pytest

import balancedfact as bf

ROOMS = {
    *("closed_forms", "curvature", "dynamics", "experiments", "io", "manifolds", "measurements", "plots", "solvers", "theorems")
}


def test_dir_lists_every_public_name_and_nothing_else():
    listed = {name for name in dir(bf) if not name.startswith("__")}
    assert listed == set(bf.__all__) - {"__version__"}
    assert listed >= ROOMS | {"Solution", "Status", "compare", "flat_minimum"}
    assert "__version__" in dir(bf)
    for name in listed:
        assert getattr(bf, name) is not None


@pytest.mark.parametrize("room", sorted(ROOMS - {"io"}))
def test_rooms_list_what_they_have(room):
    names = getattr(bf, room).__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(getattr(bf, room), name) is not None


def test_completion_and_help_see_the_doors():
    completer = rlcompleter.Completer({"bf": bf})
    found = {completer.complete("bf.comp", state) for state in range(3)}
    assert "bf.compare(" in found
    text = pydoc.plain(pydoc.render_doc(bf))
    for name in ("flat_minimum(", "compare(", "class Solution"):
        assert name in text


def test_a_name_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="module 'balancedfact' has no attribute 'does_not_exist'"):
        _ = bf.does_not_exist


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_only_what_every_user_needs():
    heavy = ["autograd", "dask", "distributed", "matplotlib", "numba", "pandas", "pymanopt", "scipy.optimize", "sklearn", "torch"]
    loaded = in_a_fresh_process(f"import sys, balancedfact; print(*set({heavy!r}).intersection(sys.modules))")
    assert loaded.split() == []


def test_rooms_open_without_an_import_of_their_own():
    assert in_a_fresh_process("import balancedfact as bf; print(bf.io.read_problem.__name__)").strip() == "read_problem"


@pytest.mark.slow
def test_type_checkers_see_every_name_and_refuse_others(tmp_path):
    api = pytest.importorskip("mypy.api")
    lines = ["import balancedfact as bf", *(f"print(bf.{name})" for name in sorted(bf.__all__)), "bf.does_not_exist"]
    lines += ["x: int = bf.io.read_problem", "print(bf.manifolds.LayerManifold, bf.theorems.claim, bf.experiments.reproduce)"]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    out, _, code = api.run([str(script), *options])
    errors = [line for line in out.splitlines() if ": error:" in line]
    assert code == 1
    assert len(errors) == 2, out
    assert 'Module has no attribute "does_not_exist"' in errors[0]
    assert "Incompatible types in assignment" in errors[1]
