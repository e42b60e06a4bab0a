"""The balance of layers under label noise with a covariance, and where that noise ends and does not."""

from __future__ import annotations

import numpy as np

from balancedfact import closed_forms, curvature, dynamics, measurements
from balancedfact.theorems import _by_definition as naive
from balancedfact.theorems._claim import claim
from balancedfact.theorems._draw import definite, low_rank, orbit, root
from balancedfact.theorems._outcome import Outcome, all_of, at_least, at_most, equal, fails

PAGE = "theory/induced_regularizer"


def fluctuations(layers: list[np.ndarray], matrices: np.ndarray, covariance: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """``E[g g']`` and ``E[g' g]`` for the gradient `g` of each layer that noise on the labels causes, at weights that fit."""
    m = len(matrices)
    # With one measurement, at a residual of 1/2, the gradient of the squared error is its derivative.
    fit = np.array([np.sum(M * naive.product(layers)) for M in matrices])
    rows = [naive.gradient(layers, M[None], np.array([value - 0.5])) for M, value in zip(matrices, fit, strict=True)]
    values, vectors = np.linalg.eigh(covariance)
    parts = np.sqrt(np.maximum(values, 0.0)) * vectors  # one independent source of noise a column
    found = []
    for j in range(len(layers)):
        sources = [(2 / m) * sum(share * row[j] for share, row in zip(part, rows, strict=True)) for part in parts.T]
        found.append((np.sum([g @ g.T for g in sources], axis=0), np.sum([g.T @ g for g in sources], axis=0)))
    return found


def total(sizes: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean square of the gradient."""
    return sum(float(np.trace(left)) for left, _ in sizes)


def velocity(layers: list[np.ndarray], matrices: np.ndarray, covariance: np.ndarray) -> list[np.ndarray]:
    """The speed of the flow at weights that fit, for a step of one, from two short runs that make up for its curvature."""
    A, step = measurements.Dense(matrices), 1e-3
    b = np.array([np.sum(M * naive.product(layers)) for M in matrices])
    time = 1e-4 * sum(float(np.sum(W**2)) for W in layers) / (step * total(fluctuations(layers, matrices, covariance)))
    options = {"step": step, "label_noise": covariance, "rtol": 1e-12, "observe": ()}
    ends = [
        naive.packed(dynamics.label_noise_flow(layers, A, b, t_final=t, **options).layers)  # type: ignore[arg-type]
        for t in (0.0, time / 2, time)
    ]
    speed = (4 * ends[1] - ends[2] - 3 * ends[0]) / (time * step)
    return naive.unpacked(speed, [W.shape for W in layers])


@claim(
    "New",
    "Label noise and the balance of layers",
    "Under label noise of any covariance, for any measurements and any depth, W_(j+1)'W_(j+1) - W_j W_j' moves by step times "
    "E[g_(j+1)'g_(j+1) - g_j g_j'], g_j the gradients that the noise alone causes.",
    kind="exact",
    page=PAGE,
)
def balance(rng: np.random.Generator) -> Outcome:
    depth, rank = int(rng.integers(2, 4)), int(rng.integers(1, 3))
    d0, dL = (int(d) for d in rng.integers(rank, 4, 2))
    layers = orbit(rng, low_rank(rng, dL, d0, rank), rank, depth)
    m = int(rng.integers(2, 5))
    matrices, covariance = rng.standard_normal((m, dL, d0)), definite(rng, m)
    speeds, sizes = velocity(layers, matrices, covariance), fluctuations(layers, matrices, covariance)
    found, expected = [], []
    for j in range(depth - 1):
        change = speeds[j + 1].T @ layers[j + 1] - speeds[j] @ layers[j].T
        found.append(change + change.T)
        expected.append(sizes[j + 1][1] - sizes[j][0])
    return equal(naive.packed(found), naive.packed(expected), rtol=1e-4, scale=total(sizes))


def regression(rng: np.random.Generator, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measurements of several outputs, the matrix behind them, the covariances of the outputs' noise and of the inputs."""
    inputs, outputs, n = 3, int(rng.integers(2, 4)), 8
    X = rng.standard_normal((n, inputs))
    matrices = np.array([np.outer(e, x) for x in X for e in np.eye(outputs)])
    return matrices, low_rank(rng, outputs, inputs, rank), definite(rng, outputs), X.T @ X / n


def quietest(M: np.ndarray, S: np.ndarray, covariance: np.ndarray, rank: int) -> list[np.ndarray]:
    """The two layers at which the noise of the gradient has the least mean square."""
    return closed_forms.kronecker_layers(M, root(S), root(covariance), [M.shape[1], rank, M.shape[0]])


def speed_beside(layers: list[np.ndarray], matrices: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """The speed of the flow there, and where one layer is twice as large and the other half."""
    places = layers, [2 * layers[0], layers[1] / 2]
    at, beside = (float(np.linalg.norm(naive.packed(velocity(place, matrices, noise)))) for place in places)
    return at, beside


@claim(
    "New",
    "Label noise of several outputs, one direction",
    "In a regression whose solution has rank one, two layers under label noise with the covariance S of the outputs stand "
    "still where the noise of the gradient is least; they are the flattest if the variance along the output is the mean one.",
    kind="exact",
    page=PAGE,
)
def one_direction(rng: np.random.Generator) -> Outcome:
    matrices, M, S, covariance = regression(rng, 1)
    lower, upper = quietest(M, S, covariance, 1)
    a, outputs = upper[:, 0], len(M)
    at, beside = speed_beside([lower, upper], matrices, np.kron(np.eye(len(matrices) // outputs), S))
    # The trace is p c^2 + q / c^2 as one layer grows by c and the other shrinks; it is least where the two parts agree.
    p = 2 * float(lower[0] @ covariance @ lower[0])
    q = 2 * float(np.trace(covariance)) * float(a @ a) / outputs
    return all_of(
        product=equal(upper @ lower, M),
        still=at_most(at, 1e-5 * beside),
        trace=equal(curvature.trace([lower, upper], measurements.Dense(matrices)), p + q),
        flat=equal(p / q, float(a @ S @ a) / float(a @ a) / (float(np.trace(S)) / outputs)),
    )


@claim(
    "New",
    "Label noise of several outputs does not make its gradient quietest",
    "Where the noise of the gradient has the least mean square, two layers of rank two under label noise with a covariance do "
    "not stand still, although their balance does: the flow turns away from that point.",
    kind="counterexample",
    page=PAGE,
)
def several_directions(rng: np.random.Generator) -> Outcome:
    matrices, M, S, covariance = regression(rng, 2)
    noise = np.kron(np.eye(len(matrices) // len(M)), S)
    layers = quietest(M, S, covariance, 2)
    turn = np.eye(2) + 0.2 * rng.standard_normal((2, 2))
    other = [turn @ layers[0], layers[1] @ np.linalg.inv(turn)]
    sizes = fluctuations(layers, matrices, noise)
    at, beside = speed_beside(layers, matrices, noise)
    return all_of(
        balance=equal(sizes[1][1], sizes[0][0]),
        least=at_least(total(fluctuations(other, matrices, noise)), total(sizes)),
        still=fails(at_most(at, 1e-5 * beside)),
    )
