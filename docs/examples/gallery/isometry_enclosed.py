"""Isometry constants, enclosed

For more and more Gaussian measurements of 6 x 6 matrices: the most and the least that a matrix of rank one is stretched, as
an interval between a matrix that attains it and a proof that nothing exceeds it. All intervals but the least at 12
measurements are points to four digits. The extreme eigenvalues, which allow for all matrices and not only those of rank
one, are far outside: the least of them is zero below 36 measurements, where the rank-one bound is positive already.

Chapter: theory/isometry
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

counts = [12, 18, 27, 36, 54, 80, 120, 180]
figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
rows = []
for m in counts:
    A = bf.measurements.gaussian(m, (6, 6), rng=0)
    found = bf.measurements.isometry_constant(A, 1, rng=0)
    eigenvalues = np.linalg.eigvalsh(sum(np.outer(matrix, matrix) for matrix in A.matrices) / m)
    rows.append((*found.largest, *found.smallest, eigenvalues[-1], max(eigenvalues[0], 0)))
    (low, high), (least, most) = found.smallest, found.largest
    print(f"m = {m:3}: least in [{low:.4f}, {high:.4f}], most in [{least:.4f}, {most:.4f}]")
rows = np.transpose(rows)
for low, high, colour, name in ((0, 1, "C0", "most, rank one"), (2, 3, "C1", "least, rank one")):
    half = (rows[high] - rows[low]) / 2
    ax.errorbar(counts, rows[low] + half, half, fmt="o-", color=colour, capsize=4, label=f"{name}: attained to proved")
ax.plot(counts, rows[4], "--", color="C0", linewidth=1, label="most, all matrices")
ax.plot(counts, rows[5], "--", color="C1", linewidth=1, label="least, all matrices")
ax.axhline(1.0, color="0.4", linewidth=1, linestyle=":", label="an isometry")
ax.set(xscale="log", xlabel="measurements", ylabel=r"$\|\mathcal{A}(X)\|^2 / m\|X\|^2$", xticks=counts, xticklabels=counts)
ax.minorticks_off()
ax.legend()
