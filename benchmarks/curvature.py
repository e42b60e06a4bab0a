"""Exact curvature of deep linear networks beside stochastic and iterative estimates by automatic differentiation.

Run ``python benchmarks/curvature.py`` for all contenders or name some. The trace of the Hessian for ten 60 x 60 layers and
600 Gaussian measurements, beside Hutchinson's estimator with 100 probes; the sharpness at a minimiser of a regression network
of width 64 and depth ten on 1000 samples, beside PyHessian and curvlinops. All errors are relative.
"""

from __future__ import annotations

import numpy as np
from harness import Solver, run

import balancedfact as bf

SIZE, MEASUREMENTS, DEPTH, PROBES, POINTS, SEED = 60, 600, 10, 100, 100, 0
WIDTH, SAMPLES = 64, 1000


def deep_problem() -> tuple[bf.measurements.Dense, np.ndarray, list[np.ndarray]]:
    """The map, data of a rank-three matrix, and Gaussian layers that keep the size of what they are applied to."""
    rng = np.random.default_rng(SEED)
    A = bf.measurements.gaussian(MEASUREMENTS, (SIZE, SIZE), rng)
    truth = rng.standard_normal((SIZE, 3)) @ rng.standard_normal((3, SIZE)) / SIZE
    return A, A(truth), [rng.standard_normal((SIZE, SIZE)) / np.sqrt(SIZE) for _ in range(DEPTH)]


def trace_by_definition(layers: list[np.ndarray], A: bf.measurements.Dense) -> float:
    """The sum over layers and measurements, one by one."""
    total, matrices = 0.0, np.ascontiguousarray(A.matrices)
    for j in range(len(layers)):
        B, C = np.eye(SIZE), np.eye(SIZE)
        for layer in layers[:j]:
            B = layer @ B
        for layer in layers[:j:-1]:
            C = C @ layer
        total += sum(float(np.sum((C.T @ matrix @ B.T) ** 2)) for matrix in matrices)
    return 2 / A.m * total


def trace_once() -> Solver:
    A, _, layers = deep_problem()
    exact = trace_by_definition(layers, A)
    return lambda: {"error": abs(bf.curvature.trace(layers, A) / exact - 1)}


def trace_along_curve() -> Solver:
    """The second moments formed, and the trace at many points; the seconds are those of all points together."""
    A, _, layers = deep_problem()
    exact = trace_by_definition(layers, A)

    def solve() -> dict[str, float]:
        moment = A.second_moment()
        values = [bf.curvature.trace(layers, moment) for _ in range(POINTS)]
        return {"error": max(abs(value / exact - 1) for value in values), "points": POINTS}

    return solve


def hutchinson(precision: str, *, batched: bool) -> Solver:
    """The mean of ``v.T @ H @ v`` over random signs `v`, by differentiating twice: in a loop, or all probes in one batch."""
    import torch

    A, b, layers = deep_problem()
    exact, dtype = trace_by_definition(layers, A), getattr(torch, precision)
    stack = torch.tensor(A.matrices.reshape(A.m, -1), dtype=dtype)
    data = torch.tensor(b, dtype=dtype)
    weights = [torch.tensor(layer, dtype=dtype, requires_grad=True) for layer in layers]

    def gradients() -> tuple[torch.Tensor, ...]:
        product = weights[0]
        for weight in weights[1:]:
            product = weight @ product
        loss = torch.mean((stack @ product.reshape(-1) - data) ** 2)
        return torch.autograd.grad(loss, weights, create_graph=True)

    def signs(*leading: int) -> list[torch.Tensor]:
        return [torch.randint(0, 2, (*leading, *weight.shape)).to(dtype) * 2 - 1 for weight in weights]

    def solve() -> dict[str, float]:
        slopes = gradients()
        if batched:
            probes = signs(PROBES)
            products = torch.autograd.grad(slopes, weights, grad_outputs=probes, is_grads_batched=True)
            total = sum(float((v * Hv).sum()) for v, Hv in zip(probes, products, strict=True))
        else:
            total = 0.0
            for _ in range(PROBES):
                probe = signs()
                products = torch.autograd.grad(slopes, weights, grad_outputs=probe, retain_graph=True)
                total += sum(float((v * Hv).sum()) for v, Hv in zip(probe, products, strict=True))
        return {"error": abs(total / PROBES / exact - 1)}

    torch.manual_seed(SEED)
    return solve


def hutchinson_64() -> Solver:
    return hutchinson("float64", batched=False)


def hutchinson_32() -> Solver:
    return hutchinson("float32", batched=False)


def hutchinson_64_batched() -> Solver:
    return hutchinson("float64", batched=True)


def hutchinson_32_batched() -> Solver:
    return hutchinson("float32", batched=True)


def regression() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Inputs, noisy outputs, and a minimiser: hidden layers near the identity, the last one by least squares."""
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((SAMPLES, WIDTH))
    y = X @ rng.standard_normal(WIDTH) / np.sqrt(WIDTH) + rng.standard_normal(SAMPLES)
    layers = [np.eye(WIDTH) + 0.5 * rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(DEPTH * WIDTH) for _ in range(DEPTH - 1)]
    features = X.T
    for layer in layers:
        features = layer @ features
    return X, y, [*layers, np.linalg.lstsq(features.T, y, rcond=None)[0][None]]


def exact_sharpness(X: np.ndarray, layers: list[np.ndarray]) -> float:
    """Power iteration on the Gauss-Newton kernel in extended precision, to 18 digits, by vectors alone."""
    X, layers = X.astype(np.longdouble), [layer.astype(np.longdouble) for layer in layers]
    after = [np.ones((1, 1), np.longdouble)]
    for layer in layers[:0:-1]:
        after.append(after[-1] @ layer)
    weights = [np.sum(C**2) for C in after[::-1]]

    def kernel(v: np.ndarray) -> np.ndarray:
        forward = [v]
        for layer in layers[:-1]:
            forward.append(layer @ forward[-1])
        total = weights[-1] * forward[-1]
        for layer, weight, part in zip(layers[-2::-1], weights[-2::-1], forward[-2::-1], strict=True):
            total = layer.T @ total + weight * part
        return total

    v, value = np.ones(WIDTH, np.longdouble), np.longdouble(0)
    while True:
        last, moved = value, X.T @ (X @ v) / len(X)
        value = 2 * (moved @ kernel(moved)) / (v @ moved)
        v = kernel(moved)
        v /= np.sqrt(v @ v)
        if abs(value - last) <= 1e-18 * value:
            return float(value)


def sharpness_exact() -> Solver:
    X, y, layers = regression()
    A, exact = bf.measurements.Dense(X[:, None, :]), exact_sharpness(X, layers)
    return lambda: {"error": abs(bf.curvature.sharpness(layers, A, y) / exact - 1)}


def network(precision: str):  # type: ignore[no-untyped-def]
    """The network, its data and its sharpness, in PyTorch."""
    import torch

    X, y, layers = regression()
    dtype = getattr(torch, precision)
    torch.set_default_dtype(dtype)
    model = torch.nn.Sequential(*[torch.nn.Linear(*layer.shape[::-1], bias=False) for layer in layers])
    for module, layer in zip(model, layers, strict=True):
        module.weight.data = torch.tensor(layer, dtype=dtype)
    torch.manual_seed(SEED)
    return model, torch.tensor(X, dtype=dtype), torch.tensor(y[:, None], dtype=dtype), exact_sharpness(X, layers)


def pyhessian(precision: str) -> Solver:
    import torch
    from pyhessian import hessian

    model, X, y, exact = network(precision)

    def solve() -> dict[str, float]:
        model.zero_grad()
        values, _ = hessian(model, torch.nn.MSELoss(), data=(X, y), cuda=False).eigenvalues()
        return {"error": abs(values[0] / exact - 1)}

    return solve


def pyhessian_64() -> Solver:
    return pyhessian("float64")


def pyhessian_32() -> Solver:
    return pyhessian("float32")


def curvlinops() -> Solver:
    import torch
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    model, X, y, exact = network("float64")
    parameters = [each for each in model.parameters() if each.requires_grad]

    def solve() -> dict[str, float]:
        operator = HessianLinearOperator(model, torch.nn.MSELoss(), parameters, [(X, y)], check_deterministic=False)
        start = np.random.default_rng(SEED).standard_normal(operator.shape[0])
        values = eigsh(operator.to_scipy(), k=1, which="LA", v0=start, return_eigenvectors=False)
        return {"error": abs(float(values[0]) / exact - 1)}

    return solve


if __name__ == "__main__":
    run(
        "curvature_trace",
        {
            "balancedfact, one evaluation": (trace_once, 9, True),
            f"balancedfact, {POINTS} points of a curve": (trace_along_curve, 5, True),
            "PyTorch Hutchinson, float64": (hutchinson_64, 5, True),
            "PyTorch Hutchinson, float32": (hutchinson_32, 5, True),
            "PyTorch Hutchinson, float64, batched": (hutchinson_64_batched, 5, True),
            "PyTorch Hutchinson, float32, batched": (hutchinson_32_batched, 5, True),
        },
    )
    run(
        "curvature_sharpness",
        {
            "balancedfact": (sharpness_exact, 99, True),
            "PyHessian, float64": (pyhessian_64, 9, True),
            "PyHessian, float32": (pyhessian_32, 9, True),
            "curvlinops, eigsh": (curvlinops, 5, True),
        },
    )
