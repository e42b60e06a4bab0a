"""Flat minimum of Gaussian sensing, 60 x 60, rank 3, 600 measurements, beside generic conic solvers.

Run ``python benchmarks/sensing.py`` for all contenders or name some. CLARABEL needs about 3.5 GB of memory and a minute.
"""

from __future__ import annotations

import numpy as np
from harness import Solver, run

import balancedfact as bf

SIZE, RANK, MEASUREMENTS, SEED = 60, 3, 600, 0


def problem() -> tuple[bf.measurements.Dense, np.ndarray, np.ndarray]:
    """The map, its data and the truth, scaled as in the published experiments of Gatmiry et al. 2023."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.gaussian(MEASUREMENTS, (SIZE, SIZE), rng)
    truth = rng.standard_normal((SIZE, RANK)) @ rng.standard_normal((RANK, SIZE)) / SIZE
    return A, A(truth), truth


def accuracies(X: np.ndarray, A: bf.measurements.Dense, b: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Residual, value 4 m nuclear(D1 X D2), and distance to the truth."""
    return {
        "feasibility": float(np.linalg.norm(A(X) - b) / np.linalg.norm(b)),
        "value": 4 * A.m * float(np.linalg.norm(A.D1 @ X @ A.D2, "nuc")),
        "distance_to_truth": float(np.linalg.norm(X - truth) / np.linalg.norm(truth)),
    }


def balancedfact() -> Solver:
    A, b, truth = problem()

    def solve() -> dict[str, float]:
        solution = bf.flat_minimum(A, b)
        return accuracies(solution.matrix, A, b, truth) | {"certified_gap": solution.certificate.gap}

    return solve


def conic(solver: str, **options: float) -> Solver:
    """The same problem as a user of cvxpy writes it, compiled once outside the clock."""
    import cvxpy

    A, b, truth = problem()
    D1, D2 = A.D1, A.D2
    stack = np.einsum("ab,ibc,cd->iad", np.linalg.inv(D1), A.matrices, np.linalg.inv(D2)).reshape(A.m, -1)
    Z = cvxpy.Variable((SIZE, SIZE))
    model = cvxpy.Problem(cvxpy.Minimize(cvxpy.normNuc(Z)), [stack @ cvxpy.vec(Z, order="C") == b])
    model.get_problem_data(solver)

    def solve() -> dict[str, float]:
        model.solve(solver=solver, **options)
        return accuracies(np.linalg.solve(D1, np.linalg.solve(D2, Z.value.T).T), A, b, truth)

    return solve


def clarabel() -> Solver:
    return conic("CLARABEL")


def scs() -> Solver:
    return conic("SCS")


def scs_precise() -> Solver:
    return conic("SCS", eps=1e-9, max_iters=100_000)


if __name__ == "__main__":
    run(
        "sensing",
        {
            "balancedfact": (balancedfact, 7, True),
            "cvxpy SCS": (scs, 1, False),
            "cvxpy SCS eps 1e-9": (scs_precise, 1, False),
            "cvxpy CLARABEL": (clarabel, 1, False),
        },
    )
