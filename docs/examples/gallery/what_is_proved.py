"""How much of the value each bound proves

Gaussian measurements of one 4 x 4 matrix of rank one, networks of three, four and six layers. The bars are lower bounds
over all networks of any widths, divided by the trace of the network that was found: what costs no more than the search, and
what the best of all bounds adds. One would be a proof that nothing is flatter; the best bounds come within 0.0003 of it
here, and networks count as optimal from 0.999 on (`gap_tol`).

Chapter: theory/global_certificate
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

rng = np.random.default_rng(0)
A = bf.measurements.gaussian(12, (4, 4), rng)
b = A(np.outer(rng.standard_normal(4), rng.standard_normal(4)))

figure = Figure(figsize=(6.4, 3.6), layout="constrained")
ax = figure.subplots()
depths = [3, 4, 6]
for index, (bound, name) in enumerate({"quick": "bounds as cheap as the search", "best": "the best of all bounds"}.items()):
    shares = []
    for depth in depths:
        solution = bf.flat_network(A, b, depth, bound=bound, rng=0)
        shares.append(solution.certificate.lower_bound / solution.value)
        print(f"depth {depth}, {name}: {shares[-1]:.4f}, {solution.status.value}")
    bars = ax.bar(np.arange(3) + 0.4 * index - 0.2, shares, 0.38, label=name)
    ax.bar_label(bars, fmt="%.4f", label_type="center", color="white")
ax.axhline(1.0, color="black", linewidth=1, label="the value: nothing is flatter")
ax.set_xticks(range(3), [f"depth {depth}" for depth in depths])
ax.set(ylabel="proved share of the value", ylim=(0, 1.35))
ax.legend(loc="upper center", ncols=2, fontsize="small")
