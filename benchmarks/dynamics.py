"""One step of training, beside plain loops, and the time of whole published experiments.

Run ``python benchmarks/dynamics.py`` for all contenders or name some. The reported ``microseconds_per_step`` is for one
network; the JAX contender needs ``jax``.
"""

from __future__ import annotations

import time

import numpy as np
from harness import Solver, run

import balancedfact as bf

D, DEPTH, SAMPLES, STEP = 5, 10, 50, 0.02
SIZE, RANK, MEASUREMENTS, BATCH, LAYERS = 60, 3, 600, 50, 5


def regression_data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of Marion and Chizat: the regression vector has norm one."""
    X = rng.standard_normal((SAMPLES, D))
    y = X @ rng.standard_normal(D) + rng.standard_normal(SAMPLES)
    return X, y / np.linalg.norm(np.linalg.lstsq(X, y, rcond=None)[0])


def timed(steps: int, call) -> Solver:  # type: ignore[no-untyped-def]
    """A solver that reports the time of one step."""

    def solve() -> dict[str, float]:
        start = time.perf_counter()
        loss = call()
        return {"microseconds_per_step": 1e6 * (time.perf_counter() - start) / steps, "loss": float(loss)}

    return solve


def compiled(runs: int, iterations: int) -> Solver:
    rng = np.random.default_rng(0)
    X, y = regression_data(rng)
    start = bf.dynamics.gaussian_layers([D] * DEPTH + [1], np.full(runs, 0.35), rng)
    A = bf.measurements.regression(X)

    def call() -> float:
        return bf.dynamics.gradient_descent(start, A, y, step=STEP, iterations=iterations, record=[0]).loss.mean(axis=0)[-1]

    return timed(runs * iterations, call)


def many_runs() -> Solver:
    return compiled(640, 4000)


def one_run() -> Solver:
    return compiled(1, 100_000)


def numpy_loop() -> Solver:
    """Backpropagation for one network as one writes it."""
    rng = np.random.default_rng(0)
    X, y = regression_data(rng)
    start = bf.dynamics.gaussian_layers([D] * DEPTH + [1], 0.35, rng)

    def call() -> float:
        W = [layer.copy() for layer in start]
        for _ in range(2000):
            before = [X.T]
            for layer in W:
                before.append(layer @ before[-1])
            error = before[-1] - y
            back = 2 / SAMPLES * error
            for k in range(len(W) - 1, -1, -1):
                gradient, back = back @ before[k].T, W[k].T @ back
                W[k] = W[k] - STEP * gradient
        return float(np.mean(error**2))

    return timed(2000, call)


def jax_loop() -> Solver:
    """A compiled gradient called from a Python loop, in double precision, for one network."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    X, y = regression_data(rng)
    start = [jnp.asarray(layer) for layer in bf.dynamics.gaussian_layers([D] * DEPTH + [1], 0.35, rng)]

    def risk(W):  # type: ignore[no-untyped-def]
        h = X.T
        for layer in W:
            h = layer @ h
        return jnp.mean((h[0] - y) ** 2)

    update = jax.jit(lambda W: [w - STEP * g for w, g in zip(W, jax.grad(risk)(W), strict=True)])

    def call() -> float:
        W = start
        for _ in range(2000):
            W = update(W)
        return float(risk(W))

    return timed(2000, call)


def label_noise(dtype: type) -> Solver:
    rng = np.random.default_rng(0)
    A = bf.measurements.gaussian(MEASUREMENTS, (SIZE, SIZE), rng)
    truth = rng.standard_normal((SIZE, RANK)) @ rng.standard_normal((RANK, SIZE)) / SIZE
    start = bf.dynamics.gaussian_layers([SIZE] * (LAYERS + 1), 0.1, rng)
    options = {"step": 0.001, "iterations": 3000, "batch": BATCH, "label_noise": 1.0, "rng": 0, "record": [0], "dtype": dtype}
    return timed(3000, lambda: bf.dynamics.sgd(start, A, A(truth), **options).loss[-1])


def label_noise_double() -> Solver:
    return label_noise(np.float64)


def label_noise_single() -> Solver:
    return label_noise(np.float32)


def label_noise_numpy(dtype: type) -> Solver:
    """The same step in plain NumPy: gather the batch, backpropagate, update."""
    rng = np.random.default_rng(0)
    A = bf.measurements.gaussian(MEASUREMENTS, (SIZE, SIZE), rng)
    truth = rng.standard_normal((SIZE, RANK)) @ rng.standard_normal((RANK, SIZE)) / SIZE
    start = [w.astype(dtype) for w in bf.dynamics.gaussian_layers([SIZE] * (LAYERS + 1), 0.1, rng)]
    rows, b = A.matrices.reshape(MEASUREMENTS, -1).astype(dtype), A(truth)

    def call() -> float:
        W, stream = [layer.copy() for layer in start], np.random.default_rng(0)
        for _ in range(3000):
            before = [W[0]]
            for layer in W[1:]:
                before.append(layer @ before[-1])
            index = stream.integers(0, MEASUREMENTS, BATCH)
            batch = rows[index]
            residual = batch @ before[-1].ravel() - (b[index] - stream.standard_normal(BATCH)).astype(dtype)
            back = (np.asarray(2 * 0.001 / BATCH, dtype) * residual @ batch).reshape(SIZE, SIZE)
            for k in range(LAYERS - 1, 0, -1):
                gradient, back = back @ before[k - 1].T, W[k].T @ back
                W[k] -= gradient
            W[0] -= back
        return float(np.mean((rows @ np.linalg.multi_dot(W[::-1]).ravel() - b) ** 2))

    return timed(3000, call)


def label_noise_numpy_double() -> Solver:
    return label_noise_numpy(np.float64)


def label_noise_numpy_single() -> Solver:
    return label_noise_numpy(np.float32)


def perceptron() -> Solver:
    rng = np.random.default_rng(0)
    X, y = regression_data(rng)
    start = bf.dynamics.gaussian_layers([D] * DEPTH + [1], np.full(4, 0.55), rng)

    def call() -> float:
        return bf.dynamics.perceptron_descent(start, X, y, step=STEP, iterations=5000, record=[0]).loss[:, -1].mean()

    return timed(20_000, call)


def stiff_flow() -> Solver:
    """Gradient flow to stationarity with a condition number of a thousand, ten layers."""
    rng = np.random.default_rng(0)
    X = np.linalg.qr(rng.standard_normal((20, D)))[0] * np.sqrt(20 * np.geomspace(1e-3, 1, D))
    w = rng.standard_normal(D)
    start = bf.dynamics.gaussian_layers([D] * DEPTH + [1], 0.3, rng)

    def solve() -> dict[str, float]:
        flow = bf.dynamics.gradient_flow(start, bf.measurements.regression(X), X @ (w / np.linalg.norm(w)))
        return {"drift": float(flow["drift"].max()), "loss": float(flow.loss[-1])}

    return solve


if __name__ == "__main__":
    run(
        "dynamics",
        {
            "regression, 640 runs at once": (many_runs, 5, True),
            "regression, one run": (one_run, 5, True),
            "regression, NumPy loop": (numpy_loop, 3, True),
            "regression, JAX loop": (jax_loop, 3, True),
            "label noise, double": (label_noise_double, 5, True),
            "label noise, NumPy double": (label_noise_numpy_double, 5, True),
            "label noise, single": (label_noise_single, 5, True),
            "label noise, NumPy single": (label_noise_numpy_single, 5, True),
            "GELU perceptron": (perceptron, 3, True),
            "stiff flow": (stiff_flow, 3, True),
        },
    )
