"""The trace is what the loss rises by, on average

Two networks with three layers multiply to the same matrix. Moved by $\\varepsilon$ in a random direction, the loss rises by
$\\varepsilon^2\\operatorname{tr}\\nabla^2\\mathcal L/2N$ on average over the directions, with $N$ the number of weights:
the lines, which are computed from the exact trace (Proposition 1) and are not fitted to anything. The means over a thousand
directions are drawn with two standard errors.

Chapter: theory/curvature
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

rng = np.random.default_rng(0)
A = bf.measurements.gaussian(40, (5, 5), rng)
flat = bf.dynamics.gaussian_layers([5, 5, 5, 5], 0.5, rng)
b = A(flat[2] @ flat[1] @ flat[0])  # both networks fit
sharp = [flat[0] / 2, flat[1], 2 * flat[2]]
names = {"as drawn": flat, "first layer halved, last one doubled": sharp}

figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
radii = np.geomspace(1e-2, 0.5, 9)
for index, (name, layers) in enumerate(names.items()):
    trace, weights = bf.curvature.trace(layers, A), sum(layer.size for layer in layers)
    print(f"{name}: trace {trace:.5g}, loss {np.sum((A(layers[2] @ layers[1] @ layers[0]) - b) ** 2) / A.m:.1e}")
    rises = []
    for radius in radii:
        found = []
        for _ in range(1000):
            step = [rng.standard_normal(layer.shape) for layer in layers]
            size = radius / np.sqrt(sum(float(np.sum(part**2)) for part in step))
            W1, W2, W3 = (layer + size * part for layer, part in zip(layers, step, strict=True))
            found.append(np.sum((A(W3 @ W2 @ W1) - b) ** 2) / A.m)
        rises.append((np.mean(found), 2 * np.std(found) / np.sqrt(len(found))))
    middle, error = np.transpose(rises)
    ax.errorbar(radii, middle, error, fmt="o", color=f"C{index}", label=f"mean over directions, {name}")
    ax.plot(radii, radii**2 * trace / (2 * weights), color=f"C{index}", label=f"exact trace, {name}")
ax.set(xscale="log", yscale="log", xlabel="size of the perturbation", ylabel="loss")
ax.legend(fontsize="small")
