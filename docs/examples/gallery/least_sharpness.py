"""The least sharpness, from both sides

A regression with two inputs and three layers. On the left, $2\\lambda_{\\max}$ of Theorem 1 as a function of the scale $s$,
which is the sharpness of the layers stated there; random networks that fit lie above it, and its minimum is $S_{\\min}$. On
the right, the dual form (Proposition 3): every unit vector gives a lower bound on the sharpness of all minimisers, and the
best one meets $S_{\\min}$. No network is flatter, and one is as flat.

Chapter: theory/sharpness_and_dynamics
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

covariance, w, depth = np.diag([1.0, 0.2]), np.array([0.6, 0.8]), 3
least = bf.closed_forms.minimal_sharpness(covariance, w, depth)
root = np.sqrt(covariance)
print(f"least sharpness {least:.6f}")

figure = Figure(figsize=(9.6, 3.8), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
scales = np.geomspace(0.05, 20, 200)
upper = [
    2 * np.linalg.eigvalsh(s * covariance + (depth - 1) * s ** (-1 / (depth - 1)) * np.outer(root @ w, root @ w))[-1]
    for s in scales
]
left.plot(scales, upper, label="of Theorem 1, against $s$")
rng = np.random.default_rng(0)
dots = []
for _ in range(300):
    top, middle = rng.standard_normal((1, 2)), rng.standard_normal((2, 2))
    bottom = np.linalg.solve(middle, np.outer(top[0], w) / np.sum(top**2))
    scale = 3 ** rng.uniform(-1, 1)
    layers = [bottom / scale, middle, top * scale]
    gain = float(np.linalg.norm(layers[2] @ layers[1]) ** 2)
    dots.append((gain, bf.closed_forms.regression_sharpness(layers, covariance, w)))
left.plot(*np.transpose(dots), ".", color="0.6", zorder=0, label="networks that fit, at random")
left.set(
    xscale="log",
    yscale="log",
    xlabel=r"scale $s$, or $\|p^\top W_L\cdots W_2\|^2$ of a network",
    ylabel="sharpness",
    ylim=(0.4, 200),
    xlim=(0.05, 20),
)
angle = np.linspace(0, np.pi, 400)
y = np.array([np.cos(angle), np.sin(angle)])
lower = 2 * depth * np.sum(y * (covariance @ y), axis=0) ** (1 / depth) * np.abs(y.T @ root @ w) ** (2 - 2 / depth)
right.plot(angle / np.pi, lower, color="C1", label="lower bound from each unit vector $y$")
right.set(xlabel=r"angle of $y$ / $\pi$")
for ax in (left, right):
    ax.axhline(least, color="black", linestyle="--", linewidth=1, label="least sharpness")
    ax.legend(loc="upper center", frameon=True, framealpha=0.9)
right.set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
right.minorticks_off()
