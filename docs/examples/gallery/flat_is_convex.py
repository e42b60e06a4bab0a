r"""The flattest factorization is the minimum of a convex function

Three of four entries of a matrix are known: 1, 2 and 4. The fourth is free, so the matrices that fit are a line, and each
of them has many factorizations. Every dot is one, drawn at random: the scaled trace of the Hessian lies above
$4m\|D_1XD_2\|_*$ (Theorem 3), and the rescaled balanced factorization attains it. The curve is convex, so a number below
which no factorization can be, the certified lower bound, touches it at its minimum.

Chapter: theory/two_factors
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
b = np.array([1.0, 2.0, 4.0])
solution = bf.flat_minimum(A, b)
print(solution)

rng = np.random.default_rng(0)
free = np.linspace(-6, 14, 241)
matrices = [np.array([[1.0, 2.0], [4.0, x]]) for x in free]
least = [bf.curvature.scaled_trace(*bf.closed_forms.flat_pair(X, A), A) for X in matrices]

dots = []
for x, X in zip(free, matrices, strict=True):
    L, R = bf.closed_forms.flat_pair(X, A)
    G = np.eye(L.shape[1]) + 0.35 * rng.standard_normal((L.shape[1], L.shape[1]))
    dots.append((x, bf.curvature.scaled_trace(L @ G, R @ np.linalg.inv(G).T, A)))

figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
ax.plot(*np.transpose(dots), ".", color="0.6", label="factorizations of each matrix, at random")
ax.plot(free, least, label=r"the flattest of them: $4m\,\|D_1XD_2\|_*$")
ax.axhline(solution.certificate.lower_bound, color="C1", linestyle="--", linewidth=1, label="certified lower bound")
ax.plot(solution.matrix[1, 1], solution.value, "*", color="C2", markersize=13, label="flat_minimum")
ax.set(xlabel="the entry that is not known", ylabel="scaled trace of the Hessian", ylim=(12, 62))
ax.legend(loc="upper center", frameon=True, framealpha=0.9)
