"""Convex along geodesics, with a bound that closes

All factorizations of a matrix with layers as narrow as its rank are one orbit, and along the geodesics of the orbit the
logarithm of the trace is convex (Proposition 2). On the left, twenty geodesics through the minimum, in random directions; a
second minimum is not possible. On the right, the search over another matrix: value, and the lower bound of Theorem 3 over
all factorizations, which meets it.

Chapter: theory/induced_regularizer
"""

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure

import balancedfact as bf

rng = np.random.default_rng(1)
A = bf.measurements.gaussian(30, (6, 6), rng)
M = rng.standard_normal((6, 3)) @ rng.standard_normal((3, 6))
solution = bf.induced_regularizer(M, A, 4)
print(solution)

figure = Figure(figsize=(9.6, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
moments = np.linspace(-1, 1, 41)
W, moment = solution.layers, A.second_moment()
for k in range(20):
    directions = [(H + H.T) / 2 for H in rng.standard_normal((3, 3, 3))]
    values = []
    for t in moments:
        G = [scipy.linalg.expm(t * H) for H in directions]
        moved = [G[0] @ W[0], *(G[j] @ W[j] @ np.linalg.inv(G[j - 1]) for j in (1, 2)), W[3] @ np.linalg.inv(G[2])]
        values.append(bf.curvature.trace(moved, moment))
    left.semilogy(moments, values, color="0.6", linewidth=0.8, label="geodesics" if k == 0 else None)
left.axhline(solution.certificate.lower_bound, color="C1", linestyle="--", label="proved lower bound")
left.plot(0, solution.value, "*", color="C2", markersize=12, label="minimum")
left.set(xlabel="place along the geodesic", ylabel="trace of the Hessian", xticks=[-1, -0.5, 0, 0.5, 1])
left.legend()

skew = M @ np.diag(np.geomspace(1, 1e-3, 6))
bf.plots.value_history(right, bf.induced_regularizer(skew, A, 12))
right.set_title("twelve layers")
