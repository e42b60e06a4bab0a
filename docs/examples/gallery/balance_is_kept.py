"""Gradient flow keeps what balance there is

Along gradient flow the differences $W_{k+1}^\\top W_{k+1} - W_kW_k^\\top$ do not change: the balanced layers, a manifold
(Proposition 1), are invariant, and other layers stay exactly as far from it as they started. The loss falls meanwhile. Both
starts have the same product, and do not end at the same one.

Chapter: theory/deep_manifolds
"""

from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

rng = np.random.default_rng(2)
A = bf.measurements.gaussian(14, (4, 4), rng)
b = A(np.outer(rng.standard_normal(4), rng.standard_normal(4)))


def imbalance(layers):
    return np.sqrt(sum(np.sum((upper.T @ upper - lower @ lower.T) ** 2) for lower, upper in pairwise(layers)))


plain = bf.dynamics.gaussian_layers([4, 4, 4, 4], 0.35, rng)
starts = {"balanced start": bf.dynamics.balanced_layers(plain[2] @ plain[1] @ plain[0], [4, 4, 4, 4]), "another start": plain}

figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
for index, (name, start) in enumerate(starts.items()):
    flow = bf.dynamics.gradient_flow(start, A, b, t_final=8.0, observe={"imbalance": imbalance})
    ax.semilogy(flow.times, flow.loss, ":", color=f"C{index}", label=f"loss, {name}")
    ax.semilogy(flow.times, flow["imbalance"], color=f"C{index}", label=f"imbalance, {name}")
    first, last = flow["imbalance"][[0, -1]]
    print(f"{name}: imbalance {first:.1e} at first, {last:.1e} at the end; loss {flow.loss[-1]:.1e}")
ax.set(xlabel="time", ylabel="size")
ax.legend()
