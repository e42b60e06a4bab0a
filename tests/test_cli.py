import json
import subprocess
import sys
import types
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

import balancedfact as bf
from balancedfact.cli import main
from balancedfact.commands import _solve_files
from balancedfact.io import write_problem
from balancedfact.measurements import bernoulli_mask, gaussian
from balancedfact.solution import Certificate, Solution, Status
from balancedfact.solvers.iteration._limits import Budget

ROOT = Path(bf.__file__).parents[1]
FILES = {"solution.npz", "report.json", "singular_values.png", "gap.png"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if not {"picture", "pictures", "drawn"} & set(request.node.originalname.split("_")):
        request.getfixturevalue("undrawn")


@pytest.fixture
def entries(tmp_path):
    """A small completion problem with its truth, as a file in the current folder."""
    rng = np.random.default_rng(0)
    truth = np.outer(rng.standard_normal(8), rng.standard_normal(7))
    A = bernoulli_mask((8, 7), 0.7, rng)
    write_problem("small.npz", A, A(truth), truth)
    return "small.npz"


def names(folder):
    return {entry.name for entry in Path(folder).iterdir()}


def strict_json(path):
    """The content of a file that must be JSON by the letter of the standard."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)


def one_line(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def result(status, gap=0.5, lower=1.0):
    """A stand-in for what the solver returns."""
    layers = [np.ones((1, 7)), np.ones((8, 1))]
    return Solution(layers, 2.0, status, "a sentence.", Certificate(0.0, lower, gap), {})


# solve


def test_solve_writes_a_proven_solution_and_says_so(entries, capsys):
    assert main(["solve", entries]) == 0
    assert names("small-flat") == FILES | {"matrix.png"}
    report, solution = strict_json("small-flat/report.json"), Solution.load("small-flat/solution.npz")
    assert solution.status is Status.OPTIMAL
    assert report["ok"] is True
    assert (report["status"], report["method"]) == ("optimal", solution.method)
    assert solution.message == f"(not checked: read from a file without its data) {report['message']}"
    assert report["value"] == solution.value
    numbers = solution.certificate.to_dict()
    assert report["certificate"] == {name: None if number != number else number for name, number in numbers.items()}
    assert report["certificate"]["gap"] <= 1e-8
    assert report["rank"] == np.linalg.matrix_rank(solution.matrix, tol=1e-5)
    truth = np.load(entries)["truth"]
    assert report["truth_error"] == pytest.approx(np.linalg.norm(solution.matrix - truth) / np.linalg.norm(truth))
    settings = {"depth": 2, "penalty": 0.0, "offsets": None, "max_rank": None, "tol": 1e-8, "seed": 0, "limit": None}
    assert report["settings"] == settings
    assert report["penalty"] == {"value": 0.0}
    assert report["versions"]["numpy"] == np.__version__
    assert {key: report["problem"][key] for key in ("kind", "rows", "columns")} == {"kind": "entries", "rows": 8, "columns": 7}
    captured = capsys.readouterr()
    assert captured.err == ""
    for word in ("entries of a 8 x 7 matrix", "optimal", "value", "lower bound", "gap", "rank", "small-flat", "matrix.png"):
        assert word in captured.out


@pytest.mark.slow
def test_pictures_can_be_read_back(entries):
    main(["solve", entries, "--quiet"])
    for name in ("singular_values.png", "gap.png", "matrix.png"):
        pixels = matplotlib.image.imread(Path("small-flat") / name)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.01


def test_quiet_prints_nothing(entries, capsys):
    assert main(["solve", entries, "--quiet", "--out", "deep/er"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert names("deep/er") == FILES | {"matrix.png"}


def test_labels_and_repeats_are_reported(capsys):
    Path("films.csv").write_text("user,film,stars\nann,Ran,5\nbob,Ran,4\nbob,Alien,3\nann,Ran,5\n")
    main(["solve", "films.csv"])
    report = strict_json("films-flat/report.json")
    assert (report["row_labels"], report["column_labels"]) == (["ann", "bob"], ["Ran", "Alien"])
    out = capsys.readouterr().out
    assert "3 entries of a 2 x 2 matrix" in out
    assert "4 observations" in out
    assert "ann ... bob" in out


@pytest.mark.slow
def test_dense_measurements_have_no_picture_of_entries(entries, capsys):
    A = gaussian(12, (4, 4), rng=0)
    write_problem("dense.npz", A, A(np.ones((4, 4))))
    main(["solve", entries, "--out", "both"])
    assert main(["solve", "dense.npz", "--out", "both"]) == 0
    assert names("both") == FILES  # and the earlier problem's matrix.png is gone
    assert "12 dense measurements of a 4 x 4 matrix" in capsys.readouterr().out


@pytest.mark.slow
def test_large_matrices_are_not_drawn(entries, monkeypatch):
    monkeypatch.setattr(_solve_files, "_LARGEST_IMAGE", 55)
    assert main(["solve", entries]) == 0
    assert names("small-flat") == FILES


def test_the_seed_decides_everything(entries):
    for out in ("one", "two"):
        main(["solve", entries, "--seed", "7", "--quiet", "--out", out])
    one, two = (Solution.load(f"{out}/solution.npz") for out in ("one", "two"))
    np.testing.assert_array_equal(one.matrix, two.matrix)


def test_options_reach_the_solver(entries, monkeypatch):
    seen = {}

    def spy(A, b, depth, **options):
        seen.update(options, depth=depth)
        return result(Status.OPTIMAL)

    monkeypatch.setattr(bf, "flat_minimum", spy)
    main(["solve", entries, "--penalty=0.5", "--max-rank=3", "--tol=1e-5", "--seed=4", "--quiet"])
    del seen["rng"]
    given = {"depth": 2, "penalty": 0.5, "offset_penalty": None, "max_rank": 3, "tol": 1e-5, "initial": None, "progress": False}
    assert seen == given | {"limits": bf.Limits()}
    main(["solve", entries, "--depth", "3"])
    assert (seen["depth"], seen["penalty"], seen["progress"]) == (3, 0.0, None)


def test_penalty_chosen_by_hold_out(capsys):
    rng = np.random.default_rng(0)
    A = bernoulli_mask((12, 10), 0.7, rng)
    truth = np.outer(rng.standard_normal(12), rng.standard_normal(10))
    write_problem("noisy.npz", A, A(truth) + 0.2 * rng.standard_normal(A.m), truth)
    assert main(["solve", "noisy.npz", "--penalty", "auto"]) == 0
    table = strict_json("noisy-flat/report.json")["penalty"]
    errors = table["held_out_errors"]
    assert table["value"] == table["penalties"][int(np.argmin(errors))]
    assert len(errors) == len(table["penalties"]) > 3
    assert strict_json("noisy-flat/report.json")["settings"]["penalty"] == "auto"
    assert f"{len(errors)} tried" in capsys.readouterr().out


@pytest.mark.slow
def test_offsets_are_fitted_drawn_and_reported(capsys):
    rng = np.random.default_rng(0)
    truth = 3 + rng.standard_normal(12)[:, None] + rng.standard_normal(10) + np.outer(rng.standard_normal(12), np.ones(10))
    A = bf.measurements.bernoulli_mask(truth.shape, 0.7, rng)
    write_problem("noisy.npz", A, A(truth) + 0.01 * rng.standard_normal(A.m), truth)
    assert main(["solve", "noisy.npz", "--penalty", "auto", "--offsets", "--tol", "1e-6"]) == 0
    report = json.loads(Path("noisy-flat/report.json").read_text())
    assert report["settings"]["offsets"] == 1.0
    assert report["truth_error"] < 0.2
    solution = bf.Solution.load("noisy-flat/solution.npz")
    fitted = solution.predict(*np.indices(truth.shape).reshape(2, -1)).reshape(truth.shape)
    assert report["truth_error"] == pytest.approx(np.linalg.norm(fitted - truth) / np.linalg.norm(truth))
    assert main(["solve", "noisy.npz", "--penalty", "1", "--offsets", "2.5", "--quiet"]) == 0
    assert json.loads(Path("noisy-flat/report.json").read_text())["settings"]["offsets"] == 2.5
    capsys.readouterr()


def test_contradictory_data(capsys):
    Path("torn.csv").write_text("row,col,value\n0,0,1\n0,0,2\n1,1,1\n")
    assert main(["solve", "torn.csv"]) == 1
    assert strict_json("torn-flat/report.json")["status"] == "infeasible"
    assert strict_json("torn-flat/report.json")["certificate"]["lower_bound"] == "inf"
    assert "infeasible" in capsys.readouterr().out


@pytest.mark.parametrize("status", [Status.GAP_OPEN, Status.RANK_LIMITED, Status.INTERRUPTED])
def test_without_a_proof_the_files_are_there_and_the_status_is_1(entries, monkeypatch, capsys, status):
    monkeypatch.setattr(bf, "flat_minimum", lambda *_, **__: result(status, np.nan, np.nan))
    assert main(["solve", entries]) == 1
    assert names("small-flat") == FILES | {"matrix.png"}
    report = strict_json("small-flat/report.json")
    assert (report["ok"], report["certificate"]["gap"]) == (False, None)
    out = capsys.readouterr().out
    assert status.value in out
    assert "none exists" in out
    assert "nan" not in out


def test_interrupted_before_a_result(entries, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bf, "flat_minimum", stop)
    assert main(["solve", entries]) == 130
    assert "interrupted" in one_line(capsys)
    assert names(".") == {entries}


def test_a_failed_picture_leaves_the_solution_and_no_fragments(entries, monkeypatch, capsys):
    def full_disk(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", full_disk)
    assert main(["solve", entries]) == 2
    assert "No space left on device" in one_line(capsys)
    assert names("small-flat") == {"solution.npz", "report.json"}


def test_too_little_memory(entries, monkeypatch, capsys):
    def out_of_memory(*_, **__):
        raise MemoryError("Unable to allocate 8. TiB")

    monkeypatch.setattr(bf, "flat_minimum", out_of_memory)
    assert main(["solve", entries]) == 2
    assert "not enough memory (Unable to allocate 8. TiB)" in one_line(capsys)


# Usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["sovle"], "sovle"),
        (["solve"], "FILE"),
        (["solve", "small.npz", "--deep", "2"], "--deep"),
        (["solve", "small.npz", "--depth", "two"], "--depth"),
        (["solve", "small.npz", "--depth", "1"], "--depth is 1; expected at least 2"),
        (["solve", "small.npz", "--depth", "3", "--penalty", "auto"], "--penalty is auto with --depth 3"),
        (["solve", "small.npz", "--penalty", "some"], "'some' is neither a number nor 'auto'"),
        (["solve", "small.npz", "--penalty", "-1"], "--penalty is -1.0; expected at least 0"),
        (["solve", "small.npz", "--penalty", "nan"], "'nan' is neither a number nor 'auto'"),
        (["solve", "small.npz", "--depth", "1_0"], "'1_0' is no whole number; expected digits"),
        (["solve", "small.npz", "--depth", "\u0663"], "is no whole number"),
        (["solve", "small.npz", "--seed", " 3"], "' 3' is no whole number"),
        (["solve", "small.npz", "--tol", "1_0e-8"], "'1_0e-8' is no number; expected one such as"),
        (["solve", "small.npz", "--limit", "6_0s"], "'6_0s' is not a time"),
        (["solve", "small.npz", "--offsets"], "--offsets is given with --penalty 0; expected a penalty"),
        (["solve", "small.npz", "--penalty", "1", "--offsets", "0"], "--offsets is 0.0; expected more than 0"),
        (["solve", "small.npz", "--tol", "0"], "--tol is 0.0; expected more than 0"),
        (["solve", "small.npz", "--max-rank", "0"], "--max-rank is 0; expected at least 1"),
        (["solve", "small.npz", "--seed", "-1"], "--seed is -1; expected at least 0"),
        (["solve", "small.npz", "--out", "small.npz"], "--out is 'small.npz'; expected a folder"),
        (["solve", "small.npz", "--out", "small.npz/deep"], "'small.npz/deep'; expected a folder"),
        (["solve", "none.csv"], "none.csv: no such file"),
        (["solve", "small.doc"], "small.doc: the extension is '.doc'"),
    ],
)
def test_bad_usage_is_refused_in_one_line(entries, capsys, arguments, message):
    assert main(arguments) == 2
    line = one_line(capsys)
    assert line.startswith("balancedfact")
    assert message in line
    assert names(".") == {entries}


def test_bad_file_is_refused_in_one_line(capsys):
    Path("a.csv").write_text("1,2\n3,four\n")
    assert main(["solve", "a.csv"]) == 2
    assert "a.csv: line 2 has 'four' in field 2" in one_line(capsys)
    assert names(".") == {"a.csv"}


def test_folder_that_cannot_be_written(entries, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["solve", entries, "--out", "locked/deep"]) == 2
    assert "expected a folder that can be written" in one_line(capsys)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["solve", "example", "--version"]),
        (["solve"], ["--depth", "--penalty", "--max-rank", "--tol", "--seed", "--out", "--quiet", "exit status"]),
        (["example"], ["NAME", "--out"]),
    ],
)
def test_help_shows_the_options_and_an_example(capsys, command, words):
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    for word in [*words, "example:", "\n  balancedfact" if command == ["solve"] else ": balancedfact"]:
        assert word in text


@pytest.mark.slow
def test_module_runs_as_the_command():
    ended = subprocess.run(
        [sys.executable, "-m", "balancedfact", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == f"balancedfact {bf.__version__}"


# example


class _Example:
    summary = "two by two"

    def __call__(self, out: Path) -> int:
        out.mkdir()
        return 1


@pytest.fixture
def _examples(monkeypatch):
    module = types.ModuleType("balancedfact.experiments")
    module.EXAMPLES = {"tiny": _Example(), "longer-name": _Example()}
    monkeypatch.setitem(sys.modules, "balancedfact.experiments", module)


@pytest.mark.usefixtures("_examples")
def test_examples_are_listed(capsys):
    assert main(["example"]) == 0
    assert capsys.readouterr().out.splitlines() == ["tiny         two by two", "longer-name  two by two"]


@pytest.mark.usefixtures("_examples")
@pytest.mark.parametrize(("options", "folder"), [([], "tiny"), (["--out", "there"], "there")])
def test_example_runs_and_gives_its_status(options, folder):
    assert main(["example", "tiny", *options]) == 1
    assert names(".") == {folder}


@pytest.mark.usefixtures("_examples")
def test_unknown_example(capsys):
    assert main(["example", "huge"]) == 2
    assert "NAME is 'huge'; expected one of tiny, longer-name" in one_line(capsys)


@pytest.mark.slow
def test_compare_prints_a_table_and_writes_json_and_a_picture(monkeypatch, capsys):
    monkeypatch.setattr("balancedfact.comparison._ways._STEPS", 500)
    monkeypatch.setattr("balancedfact.comparison._ways._DESCENTS", 200)
    A = bf.measurements.gaussian(9, (4, 3), rng=0)
    truth = np.outer(np.arange(4.0), np.ones(3))
    write_problem("small.npz", A, A(truth), truth)
    assert main(["compare", "small.npz", "--seed", "3"]) == 0
    assert names("small-comparison") == {"comparison.json", "comparison.png"}
    report = strict_json("small-comparison/comparison.json")
    assert [row["method"] for row in report["rows"]][:3] == ["analytic", "certified", "Riemannian"]
    printed = capsys.readouterr().out
    assert all(row["method"] in printed for row in report["rows"])
    assert report["rows"][1]["trace"] == bf.compare(A, A(truth), truth=truth, rng=3, methods=["certified"])["certified"].trace


def test_compare_refuses_bad_options(capsys):
    assert main(["compare", "nothing.npz"]) == 2
    assert main(["compare", "nothing.npz", "--depth", "1"]) == 2
    assert "--depth is 1" in capsys.readouterr().err


def test_compare_takes_some_rows_and_explains_the_columns(entries, capsys):
    assert main(["compare", entries, "--methods", "analytic", "certified"]) == 0
    report = strict_json("small-comparison/comparison.json")
    assert [row["method"] for row in report["rows"]] == ["analytic", "certified"]
    printed = capsys.readouterr().out
    assert "R(W)       the same trace for measurements that see all directions alike" in printed
    assert main(["compare", entries, "--methods", "SDG"]) == 2
    assert "methods holds 'SDG'; expected names of rows: analytic; certified; Riemannian" in one_line(capsys)


# limits


def noisy_ratings(path, count=4000):
    rng = np.random.default_rng(3)
    rows, cols = rng.integers(0, 120, count), rng.integers(0, 90, count)
    values = np.sum(rng.standard_normal((120, 3))[rows] * rng.standard_normal((90, 3))[cols], axis=1) + rng.standard_normal(
        count
    )
    lines = [f"{r},{c},{v:.6f}" for r, c, v in zip(rows, cols, values, strict=True)]
    Path(path).write_text("\n".join(["user,item,rating", *lines]) + "\n")


def test_limit_ends_the_solve(capsys):
    noisy_ratings("ratings.csv")
    assert main(["solve", "ratings.csv", "--penalty", "2.0", "--tol", "1e-13", "--limit", "0.05s", "--quiet"]) == 1
    report = strict_json("ratings-flat/report.json")
    assert report["status"] == "limit"
    assert report["settings"]["limit"] == 0.05
    assert report["certificate"]["lower_bound"] <= report["value"]
    assert capsys.readouterr().out == ""


def test_limit_ends_the_search_for_a_penalty_before(monkeypatch):
    monkeypatch.setattr(Budget, "spent", True)
    noisy_ratings("ratings.csv")
    main(["solve", "ratings.csv", "--penalty", "auto", "--tol", "1e-3", "--limit", "600", "--quiet"])
    report = strict_json("ratings-flat/report.json")
    assert len(report["penalty"]["penalties"]) == 1
    assert report["certificate"]["lower_bound"] <= report["value"] * (1 + 1e-12)


def test_a_limit_that_is_not_reached_changes_nothing(entries):
    main(["solve", entries, "--quiet", "--out", "free"])
    assert main(["solve", entries, "--quiet", "--limit", "60", "--out", "bound"]) == 0
    np.testing.assert_array_equal(Solution.load("free/solution.npz").matrix, Solution.load("bound/solution.npz").matrix)


@pytest.mark.parametrize("text", ["0", "-1s", "soon", "inf", "1m"])
def test_limits_that_are_none(entries, capsys, text):
    assert main(["solve", entries, f"--limit={text}"]) == 2
    assert f"{text!r} is not a time; expected seconds above 0, such as 60 or 60s" in one_line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures_of_other_formats(entries, kind, start):
    main(["solve", entries, "--quiet", "--out", "out"])
    assert main(["solve", entries, "--quiet", "--pictures", kind, "--out", "out"]) == 0
    pictures = {f"{stem}.{kind}" for stem in ("singular_values", "gap", "matrix")}
    assert names("out") == {"solution.npz", "report.json"} | pictures  # those of the earlier run are gone
    contents = {name: Path("out", name).read_bytes() for name in pictures}
    assert all(content.startswith(start) for content in contents.values())
    if kind == "svg":
        main(["solve", entries, "--quiet", "--pictures", kind, "--out", "again"])
        assert Path("again/matrix.svg").read_bytes() == contents["matrix.svg"]
