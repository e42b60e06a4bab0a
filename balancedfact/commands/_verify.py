"""``balancedfact verify``: every statement of the ledger on random instances."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from balancedfact._validate import as_count
from balancedfact.commands._options import whole

_SIGN_OF_LIFE = 30.0  # seconds between signs of life where no bar is shown


class Tally(NamedTuple):
    """The result of all instances of one claim."""

    instances: int
    failures: int
    worst: float
    seed: int  # of the instance with the worst slack
    error: str

    @property
    def holds(self) -> bool:
        return self.failures == 0 and not self.error


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "verify",
        help="test the theorems on random instances",
        description="Test every statement of the ledger of theorems, or those whose keys start with one of the given words, "
        "on random instances. Prints a table by source. The exit status is 1 if any statement fails, else 0.",
        epilog="example: balancedfact verify glcrmj mc-theorem --instances 20",
    )
    parser.add_argument("claims", metavar="CLAIM", nargs="*", help="beginnings of keys, such as mc or glcrmj-lemma-4")
    parser.add_argument("--instances", metavar="N", type=whole, default=5, help="instances of each claim (default: 5)")
    parser.add_argument("--seed", metavar="S", type=whole, default=0, help="seed of the instances (default: 0)")
    parser.add_argument("--workers", metavar="N", type=whole, help="number of processes (default: one per core)")
    parser.add_argument("--file", metavar="FILE", type=Path, help="a Python file with claims of your own; they run too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts and the worst instances to a file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the claims and print the table; return the exit status."""
    as_count(args.instances, "--instances")
    as_count(args.seed, "--seed", least=0)
    if args.workers is not None:
        as_count(args.workers, "--workers")
    from rich.console import Console
    from rich.progress import Progress

    from balancedfact._executors import process_pool
    from balancedfact._files import write_json
    from balancedfact.theorems import ledger

    load(args.file)
    keys = [claim.key for claim in ledger()]
    chosen = [key for key in keys if not args.claims or any(key.startswith(word.lower()) for word in args.claims)]
    for word in args.claims:
        if not any(key.startswith(word.lower()) for key in keys):
            raise ValueError(_unknown(word, keys))
    shown = Console(stderr=True).is_terminal
    console = Console(stderr=True, quiet=not shown)  # older versions of rich end a bar that is not shown with a line
    verdicts: dict[str, Tally] = {}
    interrupted = False
    with process_pool(args.workers) as pool, Progress(console=console, disable=not shown) as bar:
        task = bar.add_task("claims", total=len(chosen))
        lines = _SignsOfLife(len(chosen)) if not shown else None

        def advance(done: int) -> None:
            bar.update(task, completed=done)
            if lines is not None:
                lines.show(done)

        try:
            verify(pool, chosen, args.instances, args.seed, verdicts, advance, args.file)
        except KeyboardInterrupt:
            interrupted = True
    verdicts = {key: verdicts[key] for key in chosen if key in verdicts}
    Console().print(table(verdicts))
    print(legend(verdicts))
    if args.json is not None:
        write_json(args.json, report(verdicts, args.instances, args.seed))
    failed = [key for key, verdict in verdicts.items() if not verdict.holds]
    print(f"{len(verdicts) - len(failed)} of {len(verdicts)} statements hold on {args.instances} instances each")
    for key in failed:
        print(f"FAILS: {key}  {verdicts[key].error or f'seed {verdicts[key].seed}, slack {verdicts[key].worst:.3g}'}")
    if interrupted:
        print(f"{len(chosen) - len(verdicts)} of {len(chosen)} statements were not finished")
        raise KeyboardInterrupt
    return 1 if failed else 0


def _unknown(word: str, keys: list[str]) -> str:
    """The refusal of a word that no key starts with: how keys start, and those that are like it."""
    starts = dict.fromkeys(key.partition("-")[0] for key in keys)
    like = get_close_matches(word.lower(), keys, n=3, cutoff=0.5) or [key for key in keys if word.lower() in key][:3]
    hint = f"; near it: {', '.join(like)}" if like else ""
    counted = ", ".join(f"{start} ({sum(key.partition('-')[0] == start for key in keys)})" for start in starts)
    return f"CLAIM is {word!r}; expected the beginning of a key: {counted}, such as {keys[0]}{hint}"


class _SignsOfLife:
    """A line on stderr now and then, where there is no terminal for a bar."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.started = self.shown = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self.shown >= _SIGN_OF_LIFE and done < self.total:
            self.shown = now
            print(f"verify: {done} of {self.total} statements after {now - self.started:.0f} s", file=sys.stderr, flush=True)


def load(file: Path | None) -> None:
    """Run a file that enters claims of its own, unless this process has done so."""
    if file is None or str(file.resolve()) in _LOADED:
        return
    if not file.is_file():
        raise ValueError(f"--file is {os.fspath(file)!r}; expected a Python file with claims")
    runpy.run_path(str(file))
    _LOADED.add(str(file.resolve()))


_LOADED: set[str] = set()


def verify(
    pool: Executor,
    keys: list[str],
    instances: int,
    seed: int,
    found: dict[str, Tally],
    advance: Callable[[int], None],
    file: Path | None = None,
) -> None:
    """Run the claims with these keys and enter each in `found` as soon as it is done; `advance` hears how many are."""
    futures = {pool.submit(check, key, instances, seed, file): key for key in keys}
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_SIGN_OF_LIFE, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda future: future.exception() is not None):  # an interruption loses none of them
            found[futures[future]] = future.result()
        advance(len(found))


def check(key: str, instances: int, seed: int, file: Path | None = None) -> Tally:
    """Run one claim; an exception is a failure of the claim, not of the run."""
    from balancedfact.theorems import ledger

    load(file)
    claim = next(claim for claim in ledger() if claim.key == key)
    worst, worst_seed, failures = np.inf, -1, 0
    for index in range(instances):
        instance = zlib.crc32(f"{seed} {key} {index}".encode())
        try:
            outcome = claim.check(instance)
        except Exception as error:
            return Tally(index + 1, failures + 1, -np.inf, instance, f"seed {instance}: {type(error).__name__}: {error}")
        failures += not (outcome.holds and np.isfinite(outcome.slack))
        slack = outcome.slack if np.isfinite(outcome.slack) else -np.inf
        if slack < worst:
            worst, worst_seed = slack, instance
    return Tally(instances, failures, float(worst), worst_seed, "")


def table(verdicts: dict[str, Tally]) -> Any:
    """Show the tallies in a table, one section for each source."""
    from rich.table import Table

    from balancedfact.theorems import ledger

    grid = Table(title="Theorem ledger", title_justify="left")
    for heading, justify in (("statement", "left"), ("kind", "left"), ("instances", "right"), ("worst slack", "right")):
        grid.add_column(heading, justify=justify)  # type: ignore[arg-type]
    grid.add_column("verdict")
    for source in dict.fromkeys(claim.source for claim in ledger()):
        for claim in (claim for claim in ledger() if claim.source == source and claim.key in verdicts):
            verdict = verdicts[claim.key]
            name = f"{claim.source}, {claim.name}"
            holds = "holds" if verdict.holds else "FAILS"
            grid.add_row(name, claim.kind, str(verdict.instances), f"{verdict.worst:.2g}", holds)
        grid.add_section()
    return grid


def legend(verdicts: dict[str, Tally]) -> str:
    """The meaning of the columns of the table, and the kinds and sources that are in it."""
    from balancedfact.theorems import KINDS, SOURCES, ledger

    shown = [claim for claim in ledger() if claim.key in verdicts]
    lines = ["worst slack: least distance from failing over the instances, relative; negative where a statement fails"]
    lines += [f"{kind}: {meaning}" for kind, meaning in KINDS.items() if any(claim.kind == kind for claim in shown)]
    lines += [f"{source}: {work}" for source, work in SOURCES.items() if any(claim.source == source for claim in shown)]
    return "\n".join(lines)


def report(verdicts: dict[str, Tally], instances: int, seed: int) -> dict[str, Any]:
    """Collect everything that was found, as plain data."""
    from balancedfact.theorems import ledger

    claims = {claim.key: claim for claim in ledger()}
    rows = []
    for key, verdict in verdicts.items():
        claim = claims[key]
        row: dict[str, Any] = {"key": key}
        row |= {name: getattr(claim, name) for name in ("source", "name", "statement", "kind", "page")}
        row |= {"instances": verdict.instances, "failures": verdict.failures, "holds": verdict.holds}
        row["worst_slack"] = verdict.worst
        if verdict.error:
            row["error"] = verdict.error
        else:
            row |= {"worst_seed": verdict.seed, "worst_details": dict(claim.check(verdict.seed).details)}
        rows.append(row)
    return {"instances": instances, "seed": seed, "claims": rows}
