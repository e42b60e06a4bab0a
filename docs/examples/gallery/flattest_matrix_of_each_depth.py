"""Every depth has a flattest matrix of its own

Three of four entries of a matrix are known, 1, 2 and 4. For each value of the fourth, a curve shows the least trace of the
Hessian over all networks of one depth whose product is that matrix, divided by the minimum of the curve. Where the fourth
entry is 8 the matrix has rank one, and every curve has the kink of Theorem 2. The deeper the network, the closer its
flattest matrix comes to that of rank one. At none of these depths is it the matrix of least nuclear norm (dotted): *minimum
trace is not minimum nuclear norm*. The stars are what `flat_minimum` finds without being told the curve.

Chapter: theory/deep_flat_minimum
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
b = np.array([1.0, 2.0, 4.0])
free = np.linspace(-10, 16, 131)

figure = Figure(figsize=(6.4, 4.6), layout="constrained")
ax = figure.subplots()
for index, depth in enumerate((2, 3, 5, 10)):
    values = [bf.induced_regularizer([[1.0, 2.0], [4.0, x]], A, depth, tol=1e-8).value for x in free]
    least = min(values)
    ax.plot(free, np.array(values) / least, color=f"C{index}", label=f"depth {depth}")
    found = bf.flat_minimum(A, b, depth, rng=0)
    ax.plot(
        found.matrix[1, 1], bf.induced_regularizer(found.matrix, A, depth).value / least, "*", color=f"C{index}", markersize=12
    )
    print(f"depth {depth:2}: the fourth entry is {found.matrix[1, 1]:.4f}, {found.status.value}")
ax.plot([], [], "*", color="0.3", markersize=12, label="flat_minimum")
nuclear = np.array([np.linalg.norm([[1.0, 2.0], [4.0, x]], "nuc") for x in free])
ax.plot(free, nuclear / nuclear.min(), ":", color="black", label="nuclear norm / its minimum")
ax.set(xlabel="the entry that is not known", ylabel="least trace / its minimum", ylim=(0.98, 1.6))
figure.legend(loc="outside lower center", ncols=3)
