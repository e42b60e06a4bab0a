"""``balancedfact check``: a saved solution against its data; what the file says of itself counts for nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from balancedfact._validate import as_number
from balancedfact.commands._options import add_table_options, problem_of, real, solution_file


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to those of the command line."""
    parser = subparsers.add_parser(
        "check",
        help="check a saved solution against its data",
        description="Compute the value, residual, lower bound and gap of a saved solution anew, from its layers, its dual "
        "vector and the data in FILE, and print the verdict that follows. Verdicts stored with the solution are not used. The "
        "exit status is 0 if the solution is proved to be optimal, else 1.",
        epilog="example: balancedfact check ratings-flat ratings.csv",
    )
    parser.add_argument("solution", metavar="SOLUTION", type=Path, help="solution.npz of balancedfact solve, or its folder")
    parser.add_argument("file", metavar="FILE", type=Path, help="the problem, as balancedfact solve read it")
    parser.add_argument("--rigorous", action="store_true", help="use exact arithmetic, for small problems (extra: rigorous)")
    parser.add_argument(
        "--tol", metavar="T", type=real, default=1e-8, help="relative gap that counts as closed (default: 1e-8)"
    )
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; the exit status."""
    from balancedfact.solution import Solution, Status

    as_number(args.tol, "--tol", above=0.0)
    path = solution_file(args.solution)
    problem = problem_of(args)
    found = Solution.load(path, problem.A, problem.b, tol=args.tol)
    print(f"{found.status.value}: {found.message}")
    certificate, objective = found.certificate, found.objective
    if objective is not None:  # the file says which; its proof is that of this one
        offsets = "no offsets" if objective.offset_penalty is None else f"offset penalty {objective.offset_penalty:g}"
        print(f"objective: {objective.kind}, {objective.depth} layers, penalty {objective.penalty:g}, {offsets}")
    if args.rigorous:
        certificate = found.verify(problem.A, problem.b, rigorous=True)
        print("in exact arithmetic:")
    for name, number in certificate.to_dict().items():
        if isinstance(number, float) and number == number:
            print(f"  {name:15}{number:.10g}")
    closed = not args.rigorous or certificate.gap <= args.tol
    return 0 if found.status is Status.OPTIMAL and closed else 1
