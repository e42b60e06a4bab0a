"""Several outputs: how much sharper balanced networks are

Gradient flow from a vanishing start ends at balanced layers. Their sharpness, explicit, over the least that there is
(Theorem 1), for regressions with three outputs, random covariances and three depths. Proposition 2 bounds the ratio by the
condition number of the covariance; the dots stay below it, and touch one where the data are white.

Chapter: theory/several_outputs
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

rng = np.random.default_rng(0)
conditions = np.geomspace(1, 1e4, 60)
figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
for index, depth in enumerate((2, 3, 10)):
    ratios = []
    for condition in conditions:
        turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        covariance = turn @ np.diag(np.geomspace(1, 1 / condition, 4)) @ turn.T
        M = rng.standard_normal((3, 4)) @ turn @ np.diag(np.geomspace(1, condition, 4) ** rng.uniform(0, 0.5)) @ turn.T
        balanced = bf.closed_forms.balanced_sharpness(covariance, M, depth)
        ratios.append(balanced / bf.closed_forms.minimal_sharpness(covariance, M, depth))
    ax.plot(conditions, ratios, ".", color=f"C{index}", label=f"depth {depth}")
    print(f"depth {depth}: between {min(ratios):.4f} and {max(ratios):.4g} times the least")
ax.plot(conditions, conditions, color="black", linewidth=1, label="Proposition 2: the condition number")
ax.set(xscale="log", yscale="log", xlabel="condition number of the covariance", ylabel="sharpness of balanced layers / least")
ax.legend()
