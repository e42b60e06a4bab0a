"""``balancedfact verify``."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from balancedfact import _executors
from balancedfact.cli import main
from balancedfact.commands import _verify
from balancedfact.theorems import KINDS, Claim, Outcome, ledger
from balancedfact.theorems._claim import LEDGER
from balancedfact.theorems._outcome import at_most, equal

FAST = "blog-construction"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def threads(monkeypatch):
    """The claims run in this process, where a test can change them."""

    @contextmanager
    def pool(workers=None):
        with ThreadPoolExecutor(workers or 1) as executor:
            yield executor

    monkeypatch.setattr(_executors, "process_pool", pool)


@pytest.fixture
def enter(monkeypatch):
    """Enter a claim of ours; the ledger is as before after the test."""

    def enter(name, test, source="New"):
        monkeypatch.setattr("balancedfact.theorems.LEDGER", [*LEDGER, *entered])
        entered.append(Claim(source, name, "A statement.", "exact", "theory/two_factors", test))
        monkeypatch.setattr("balancedfact.theorems.LEDGER", [*LEDGER, *entered])

    entered = []
    return enter


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    with open(path, encoding="utf-8") as file:
        return json.load(file, parse_constant=refuse)


@pytest.mark.slow
def test_holding_claims_exit_with_zero_in_processes_of_their_own(monkeypatch, capsys):
    monkeypatch.setattr(_verify, "_SIGN_OF_LIFE", 3600.0)  # no sign of life, however busy the machine is
    assert main(["verify", FAST, "--instances", "2", "--workers", "1", "--json", "report.json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "Blog, Construction" in captured.out
    assert captured.out.endswith("1 of 1 statements hold on 2 instances each\n")
    report = strict_json("report.json")
    assert (report["instances"], report["seed"]) == (2, 0)
    (row,) = report["claims"]
    claim = next(claim for claim in ledger() if claim.key == FAST)
    assert "worst slack: least distance from failing" in captured.out  # the legend
    assert f"{claim.kind}: {KINDS[claim.kind]}" in captured.out
    assert f"{claim.source}: " in captured.out
    assert {name: row[name] for name in ("key", "source", "name", "statement", "kind", "page")} == {
        "key": FAST,
        "source": "Blog",
        "name": "Construction",
        "statement": claim.statement,
        "kind": "exact",
        "page": claim.page,
    }
    assert (row["instances"], row["failures"], row["holds"]) == (2, 0, True)
    outcome = claim.check(row["worst_seed"])
    assert row["worst_slack"] == pytest.approx(outcome.slack, abs=1e-5)
    assert row["worst_details"] == pytest.approx(outcome.details, abs=1e-9)


def test_a_failing_claim_exits_with_one_and_is_named(threads, enter, capsys):
    enter("always true", lambda rng: equal(1.0, 1.0))
    enter("sometimes false", lambda rng: at_most(rng.uniform(), 0.5))
    assert main(["verify", "new-always", "new-sometimes", "--instances", "20", "--json", "report.json"]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 statements hold on 20 instances each" in out
    named = [line for line in out.splitlines() if line.startswith("FAILS")]
    assert len(named) == 1
    assert named[0].startswith("FAILS: new-sometimes-false  seed ")
    good, bad = strict_json("report.json")["claims"]
    assert good["holds"]
    assert not bad["holds"]
    assert 0 < bad["failures"] < 20
    # The seed it names is that of the worst instance.
    value = np.random.default_rng(bad["worst_seed"]).uniform()
    assert bad["worst_details"] == {"value": value, "bound": 0.5}
    assert bad["worst_slack"] == pytest.approx((0.5 - value) / 0.5)
    assert str(bad["worst_seed"]) in named[0]


def test_an_exception_is_a_failure_of_its_claim_alone(threads, enter, capsys):
    def broken(rng):
        raise ZeroDivisionError("by nothing")

    enter("broken", broken)
    assert main(["verify", "new-broken", FAST, "--instances", "3", "--json", "report.json"]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 statements hold" in out
    assert "FAILS: new-broken" in out
    assert "ZeroDivisionError: by nothing" in out
    rows = {row["key"]: row for row in strict_json("report.json")["claims"]}
    assert rows[FAST]["holds"]
    assert not rows["new-broken"]["holds"]
    assert rows["new-broken"]["worst_slack"] == "-inf"
    assert "ZeroDivisionError" in rows["new-broken"]["error"]
    assert "worst_details" not in rows["new-broken"]


def test_what_is_not_a_number_does_not_hold_and_is_no_bad_json(threads, enter, capsys):
    values = iter([1.0, np.nan, 1.0, np.nan])
    enter("undefined", lambda rng: equal(next(values), 1.0))
    assert main(["verify", "new-undefined", "--instances", "3", "--json", "report.json"]) == 1
    (row,) = strict_json("report.json")["claims"]
    assert (row["failures"], row["worst_slack"]) == (1, "-inf")
    assert row["worst_details"] == {"left": None, "right": 1.0, "deviation": None}


def test_a_slack_that_is_not_a_number_counts_as_the_worst(threads, enter):
    slacks = iter([0.5, np.nan, 0.7])
    enter("bare", lambda rng: Outcome(True, next(slacks)))
    verdict = _verify.check("new-bare", 3, 0)
    assert verdict.worst == -np.inf
    assert not verdict.holds


def test_words_choose_claims_by_the_beginning_of_their_keys(threads, capsys):
    assert main(["verify", "BLOG-con", "cs282-section-5-r", "--instances", "1", "--json", "report.json"]) == 0
    keys = [row["key"] for row in strict_json("report.json")["claims"]]
    expected = [claim.key for claim in ledger() if claim.key.startswith(("blog-con", "cs282-section-5-r"))]
    assert keys == expected
    assert len(keys) == 6
    out = capsys.readouterr().out
    assert "6 of 6" in out
    assert "R = B D" in out


def test_without_words_all_claims_run(threads, monkeypatch, capsys):
    monkeypatch.setattr(_verify, "check", lambda key, instances, seed, file: _verify.Tally(instances, 0, 1.0, 7, ""))
    monkeypatch.setattr(_verify, "report", lambda *arguments: pytest.fail("no file was asked for"))
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert f"{len(ledger())} of {len(ledger())} statements hold on 5 instances each" in out


def test_more_instances_begin_with_the_same_ones_and_seeds_differ(threads, enter):
    drawn = []

    def record(rng):
        drawn.append(rng.uniform())
        return equal(1.0, 1.0)

    enter("recorded", record)
    for instances, seed in ((2, 0), (4, 0), (2, 1)):
        main(["verify", "new-recorded", "--instances", str(instances), "--seed", str(seed)])
    assert drawn[:2] == drawn[2:4]
    assert len(set(drawn)) == 6


def test_a_long_run_shows_signs_of_life_where_there_is_no_terminal(threads, monkeypatch, capsys):
    monkeypatch.setattr(_verify, "_SIGN_OF_LIFE", 0.0)
    assert main(["verify", "blog-con", "cs282-section-5-r", "--instances", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    shown = [int(re.fullmatch(r"verify: (\d) of 6 statements after \d+ s", line)[1]) for line in lines]
    assert shown == sorted(shown)
    assert shown
    assert shown[-1] < 6


def test_an_interrupted_run_prints_what_it_has(threads, enter, capsys):
    def interrupt(rng):
        raise KeyboardInterrupt

    enter("interrupting", interrupt)
    assert main(["verify", FAST, "new-interrupting", "--instances", "1"]) == 130
    captured = capsys.readouterr()
    assert "1 of 1 statements hold on 1 instances each" in captured.out
    assert captured.out.endswith("1 of 2 statements were not finished\n")
    assert "interrupted" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-claim"], "CLAIM is 'no-such-claim'; expected the beginning of a key: "),
        (["--instances", "0"], "--instances is 0"),
        (["--workers", "0"], "--workers is 0"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_bad_arguments_are_one_line_on_stderr(arguments, message, capsys):
    assert main(["verify", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_help_shows_an_example(capsys):
    assert main(["verify", "--help"]) == 0
    assert "balancedfact verify glcrmj mc-theorem --instances 20" in capsys.readouterr().out


def test_table_has_a_row_for_every_verdict():
    verdicts = {
        "blog-construction": _verify.Tally(3, 0, 0.25, 1, ""),
        "glcrmj-lemma-1": _verify.Tally(3, 2, -0.5, 1, ""),
    }
    columns = {column.header: list(column.cells) for column in _verify.table(verdicts).columns}
    assert columns["statement"] == ["GLCRMJ, Lemma 1", "Blog, Construction"]
    assert columns["kind"] == ["bound", "exact"]
    assert columns["instances"] == ["3", "3"]
    assert columns["worst slack"] == ["-0.5", "0.25"]
    assert columns["verdict"] == ["FAILS", "holds"]


def test_an_unknown_word_is_answered_by_the_beginnings_of_keys(capsys):
    assert main(["verify", "mc", "glcrmj-lema-4"]) == 2
    said = capsys.readouterr().err
    assert "CLAIM is 'glcrmj-lema-4'; expected the beginning of a key: ddf (" in said
    assert "glcrmj-lemma-4" in said
