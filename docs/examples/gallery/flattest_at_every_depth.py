"""The flattest deep factorization, in closed form

The trace of the Hessian under isotropic measurements is $2R(W)$. For one 6 x 4 matrix, thirty random factorizations of each
depth are compared with the minimum of Theorem 1, $R_{\\min} = L(d_0d_L)^{1/L}\\|M\\|_*^{2-2/L}$. None is below one; the
layers of the construction are at one, to rounding; balanced layers, which are what gradient flow from small weights ends
in, are a little above.

Chapter: theory/deep_closed_forms
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

rng = np.random.default_rng(0)
M = rng.standard_normal((6, 4))
depths = [2, 3, 4, 6, 8, 12, 16]

figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
for depth in depths:
    least = bf.closed_forms.min_isotropic_trace(M, depth)
    widths = [4] * depth + [6]
    balanced = bf.dynamics.balanced_layers(M, widths, rng)
    ratios = []
    for _ in range(30):
        W = bf.closed_forms.min_isotropic_layers(M, widths)
        for k in range(depth - 1):  # another factorization of the same matrix
            G = np.linalg.qr(rng.standard_normal((4, 4)))[0] * np.exp(0.25 * rng.standard_normal(4))
            W[k], W[k + 1] = G @ W[k], W[k + 1] @ np.linalg.inv(G)
        ratios.append(bf.curvature.isotropic_trace(W) / least)
    first = depth == depths[0]
    ax.plot([depth] * 30, ratios, ".", color="0.6", label="random factorizations" if first else None)
    drawn = bf.curvature.isotropic_trace(balanced) / least
    ax.plot(depth, drawn, "s", color="C1", markersize=6, label="balanced layers" if first else None)
    attained = bf.curvature.isotropic_trace(bf.closed_forms.min_isotropic_layers(M, widths)) / least
    ax.plot(depth, attained, "*", color="C2", markersize=10, label="layers of the construction" if first else None)
    print(f"depth {depth:2}: construction {attained:.15f}, balanced {drawn:.3f}, best of the random ones {min(ratios):.3f}")
ax.axhline(1.0, color="black", linewidth=1, label="the formula")
ax.set(xscale="log", yscale="log", xlabel="depth", ylabel="$R(W)$ / formula", xticks=depths, xticklabels=depths)
ax.set_yticks([1, 1.1, 1.2, 1.5, 2, 2.5], ["1", "1.1", "1.2", "1.5", "2", "2.5"])
ax.minorticks_off()
ax.legend()
