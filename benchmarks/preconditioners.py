"""Work of searches on manifolds of layers, without and with the preconditioners of these manifolds.

Run ``python benchmarks/preconditioners.py`` for five starts each, or with another number. The cost is the squared distance of
the product, the isotropic trace R(W), or the trace of the Hessian; derivatives are automatic. A number is the median over
starts: of Hessian products with the trust regions of `riemannian_minimum`, and of iterations of pymanopt's conjugate gradients
with its defaults, at most 1000, to a gradient of 1e-6. ``results/preconditioners.md`` has a row for each problem.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import autograd.numpy as anp
import numpy as np
import pymanopt
from harness import write
from pymanopt.optimizers import ConjugateGradient

import balancedfact as bf
from balancedfact.manifolds import BalancedLayers, Factorizations, ZeroLoss

LIMIT = 15.0  # seconds of one search


def matrix(rows: int, columns: int, rank: int, condition: float, rng: np.random.Generator) -> np.ndarray:
    U, V = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in (rows, columns))
    return np.asarray((U * np.geomspace(1, 1 / condition, rank)) @ V.T)


def product(layers: Any) -> Any:
    end = layers[0]
    for layer in layers[1:]:
        end = anp.dot(layer, end)
    return end


def distance(M: np.ndarray) -> Callable[..., Any]:
    """The squared distance of the product from `M`."""
    return lambda *layers: anp.sum((product(layers) - M) ** 2)


def isotropic(*layers: Any) -> Any:
    """R(W)."""
    total, depth = 0.0, len(layers)
    for j in range(depth):
        before = anp.sum(product(layers[:j]) ** 2) if j else layers[0].shape[1]
        after = anp.sum(product(layers[j + 1 :]) ** 2) if j + 1 < depth else layers[-1].shape[0]
        total = total + before * after
    return total


def trace(stack: np.ndarray) -> Callable[..., Any]:
    """The trace of the Hessian for measurements of shape ``(m, d_L, d_0)``."""

    def cost(*layers: Any) -> Any:
        total, depth = 0.0, len(layers)
        for j in range(depth):
            part = anp.einsum("ipq,rq->ipr", stack, product(layers[:j])) if j else stack
            part = anp.einsum("ipq,pr->irq", part, product(layers[j + 1 :])) if j + 1 < depth else part
            total = total + anp.sum(part**2)
        return 2 * total / len(stack)

    return cost


def problems() -> Iterator[tuple[str, Any, Callable[..., Any], float]]:
    """Name, manifold, cost, and by how much the first and the last layer of a start are out of proportion."""
    rng = np.random.default_rng(0)
    for depth, condition in ((2, 100.0), (3, 100.0), (5, 10.0)):
        M = matrix(15, 20, 5, condition, rng)
        widths = [20, *[5] * (depth - 1), 15]
        name = f"`BalancedLayers`, distance, depth {depth}, condition {condition:.0e}"
        yield name, BalancedLayers(widths, rng=0), distance(M), 1.0
    for depth, condition in ((2, 1e3), (3, 1e3), (5, 1e3), (10, 1e3), (20, 1e3)):
        widths = [20, *[5] * (depth - 1), 15]
        manifold = Factorizations(matrix(15, 20, 5, condition, rng), widths, rng=0)
        yield f"`Factorizations`, $R(W)$, depth {depth}, condition {condition:.0e}", manifold, isotropic, 1.0
    for depth in (3, 5):
        manifold = Factorizations(matrix(15, 20, 5, 1e3, rng), [20, *[5] * (depth - 1), 15], rng=0)
        stack = rng.standard_normal((100, 15, 20))
        yield f"`Factorizations`, trace of 100 Gaussian, depth {depth}, condition 1e+03", manifold, trace(stack), 1.0
    for depth, uneven in ((3, 1.0), (5, 1.0), (3, 30.0)):
        A = bf.measurements.gaussian(40, (10, 10), rng)
        manifold = ZeroLoss(A, A(matrix(10, 10, 2, 2.0, rng)), [10] * (depth + 1), rng=0)
        start = f", first layer {uneven:.0f} times as long" if uneven != 1 else ""
        yield f"`ZeroLoss`, $R(W)$, 40 of 10 x 10, depth {depth}{start}", manifold, isotropic, uneven
        yield f"`ZeroLoss`, trace, 40 of 10 x 10, depth {depth}{start}", manifold, trace(A.matrices), uneven


def main(count: int) -> None:
    lines = [
        "| manifold, cost | products, without | with | s, without | with | conjugate gradients, without | with |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows = []
    for name, manifold, cost, uneven in problems():
        found: dict[str, list[Any]] = {}
        values = []
        for _ in range(count):
            start = manifold.random_point()
            start[0], start[-1] = start[0] * uneven, start[-1] / uneven
            for label, preconditioner in (("without", None), ("with", manifold.preconditioner)):
                problem = pymanopt.Problem(manifold, pymanopt.function.autograd(manifold)(cost), preconditioner=preconditioner)
                began = time.process_time()
                solution = bf.riemannian_minimum(problem, initial=start, rng=0, limits=bf.Limits(seconds=LIMIT), progress=False)
                found.setdefault(f"seconds {label}", []).append(time.process_time() - began)
                found.setdefault(f"products {label}", []).append(int(solution.history["hessian_products"][-1]))
                found.setdefault(f"arrived {label}", []).append(solution.status is bf.Status.STATIONARY)
                values.append(solution.value)
                descent = ConjugateGradient(verbosity=0, max_iterations=1000, min_gradient_norm=1e-6, max_time=LIMIT)
                found.setdefault(f"CG {label}", []).append(descent.run(problem, initial_point=start).iterations)
        middle = {key: statistics.median(numbers) for key, numbers in found.items()}
        rows.append({"name": name, "values": values, **found})
        cells = []
        for label in ("without", "with"):
            missed = count - sum(found[f"arrived {label}"])
            late = f" ({missed} of {count} not within {LIMIT:.0f} s)" if missed else ""
            cells.append(f"{middle[f'products {label}']:.0f}{late}")
        seconds = [f"{middle[f'seconds {label}']:.2f}" for label in ("without", "with")]
        steps = [f"{middle[f'CG {label}']:.0f}" for label in ("without", "with")]
        lines.append(f"| {name} | " + " | ".join([*cells, *seconds, *steps]) + " |")
        write("preconditioners", {"rows": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
