"""``balancedfact solve``: the flat solution of a problem in a file, with its certificate, as files."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from balancedfact._formats import PICTURES
from balancedfact._validate import as_count, as_number, as_rng
from balancedfact.commands._options import add_table_options, problem_of, real, seconds, solution_file, whole

_DESCRIPTION = """\
Find the flat factorization that fits the data in FILE and write it with its
certificate into a folder: solution.npz, report.json, singular_values.png,
gap.png and, for observed entries of a matrix that is not too large, matrix.png;
with --predict also predictions.csv, with --top top.csv, with --complete the
completed matrix.

FILE is a table of entries or a matrix with missing values (.csv, .tsv, .txt,
.dat, also .gz; .parquet, .npy, .mtx, .npz, .png), or measurements with their data
(.npz). How it was read is printed."""

_EPILOG = """\
exit status:
  0    optimal, and proved
  1    a result was written, but its gap is not closed; or no matrix fits the data
  2    bad input or usage
  3    a local minimum with evidence, but no proof, of a global one (--depth 3 and more)
  130  interrupted before there was a result

example:
  balancedfact solve ratings.csv --penalty auto --offsets --top 10 --out ratings-flat"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "solve",
        help="find the flat solution of a problem in a file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the problem")
    parser.add_argument("--depth", metavar="N", type=whole, default=2, help="number of layers (default: 2)")
    parser.add_argument(
        "--penalty",
        metavar="X|auto",
        type=_penalty,
        default=0.0,
        help="weight of flatness against the fit, for noisy data; auto chooses it by hold-out (default: 0, an exact fit)",
    )
    parser.add_argument(
        "--offsets",
        metavar="W",
        type=real,
        nargs="?",
        const=1.0,
        help="add a mean and offsets of rows and columns, whose squares W weighs (1 if W is left out); needs --penalty",
    )
    parser.add_argument("--max-rank", metavar="K", type=whole, help="largest rank allowed (default: any)")
    parser.add_argument("--tol", metavar="T", type=real, default=1e-8, help="relative gap to reach (default: 1e-8)")
    parser.add_argument("--seed", metavar="S", type=whole, default=0, help="seed of all randomness (default: 0)")
    add_table_options(parser)
    parser.add_argument("--predict", metavar="PAIRS", type=Path, help="predict these rows and columns, into predictions.csv")
    parser.add_argument("--top", metavar="N", type=whole, help="write the N largest unseen entries of each row into top.csv")
    parser.add_argument("--complete", choices=("csv", "npy"), help="write completed.csv or completed.npy, the whole matrix")
    parser.add_argument(
        "--from", metavar="SOLUTION", type=Path, dest="start", help="start from a saved solution, or from its folder"
    )
    parser.add_argument(
        "--limit",
        metavar="SECONDS",
        type=seconds,
        help="time limit, such as 60 or 60s, for the solve and for --penalty auto; the best solution so far is then written",
    )
    parser.add_argument("--pictures", choices=PICTURES, default="png", help="format of the pictures (default: png)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: name of FILE + -flat, here)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Solve, write and summarise; the exit status."""
    _check(args)
    import balancedfact as bf
    from balancedfact.commands._solve_files import report, summary, write_all, write_answers
    from balancedfact.data._predictions import read_pairs
    from balancedfact.measurements import Entries
    from balancedfact.solvers import select_penalty
    from balancedfact.solvers.iteration._limits import Budget

    out = args.out or Path(f"{args.file.stem}-flat")
    _refuse_unwritable(out)
    problem = problem_of(args)
    if not isinstance(problem.A, Entries) and (args.predict is not None or args.top is not None):
        raise ValueError(f"--predict and --top are for entries; {args.file} holds {problem.kind} measurements")
    pairs = None if args.predict is None else read_pairs(args.predict)
    initial = None if args.start is None else _start(args.start, args.depth, problem.A.matrix_shape)
    generator = as_rng(args.seed)
    progress = False if args.quiet else None
    start = time.perf_counter()
    budget = Budget(args.limit)
    offsets = {"offset_penalty": args.offsets}
    path = None
    if args.penalty == "auto":
        # half of the time, so that the solve with all data has the other half
        path = select_penalty(problem.A, problem.b, rng=generator, limits=budget.rest(0.5), progress=progress, **offsets)
    solution = bf.flat_minimum(
        problem.A,
        problem.b,
        args.depth,
        penalty=args.penalty if path is None else path.penalty,
        **offsets,
        max_rank=args.max_rank,
        tol=args.tol,
        rng=generator,
        initial=initial,
        limits=budget.rest(),
        progress=progress,
    ).with_labels(problem.row_labels, problem.col_labels)
    settings = {name: getattr(args, name) for name in ("depth", "penalty", "offsets", "max_rank", "tol", "seed", "limit")}
    content = report(args.file, problem, solution, settings, path, time.perf_counter() - start)
    files = write_all(out, problem, solution, content, args.pictures) + write_answers(
        out, problem, solution, pairs, args.top, args.complete
    )
    if not args.quiet:
        print(summary(problem, content, out, files))
    return {"OPTIMAL": 0, "STATIONARY": 3}.get(solution.status.name, 1)


def _start(path: Path, depth: int, shape: tuple[int, int]) -> Any:
    """A saved solution as the point to start from."""
    from balancedfact.solution import Solution

    saved = Solution.load(solution_file(path, "--from"))
    found = (saved.layers[-1].shape[0], saved.layers[0].shape[1])
    if found != shape or len(saved.layers) != depth:
        raise ValueError(
            f"--from is a solution of {len(saved.layers)} layers for a {found[0]} x {found[1]} matrix; expected {depth} layers "
            f"and {shape[0]} x {shape[1]}"
        )
    return saved.pair if depth == 2 else saved.layers


def _penalty(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return real(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'auto'") from None


def _check(args: argparse.Namespace) -> None:
    """Refuse bad options before anything is read, and by the names they have here."""
    as_count(args.depth, "--depth", least=2)
    as_number(args.tol, "--tol", above=0.0)
    as_count(args.seed, "--seed", least=0)
    if args.top is not None:
        as_count(args.top, "--top")
    if args.max_rank is not None:
        as_count(args.max_rank, "--max-rank")
    if args.penalty != "auto":
        as_number(args.penalty, "--penalty", least=0.0)
    if args.offsets is not None:
        as_number(args.offsets, "--offsets", above=0.0)
        if args.penalty == 0:
            raise ValueError("--offsets is given with --penalty 0; expected a penalty, as offsets are for noisy data")
    if args.penalty != 0 and args.depth != 2:
        raise ValueError(f"--penalty is {args.penalty} with --depth {args.depth}; expected --depth 2, or no penalty")


def _refuse_unwritable(out: Path) -> None:
    """Say before the solve, not after it, that its files cannot be written."""
    place = out.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--out is {str(out)!r}; expected a folder that can be written, but {str(place)!r} is not")
