"""Weight decay: shrinkage that jumps

A matrix is observed whole, and a network of $L$ layers with weight decay fits it. Singular values separate: each is mapped
by a curve that for two layers is soft thresholding, and for more of them jumps (Proposition 2), from zero to $x^*$ at the
threshold $y^*$. Between $y_c$ and $y^*$, dashed, the larger root is still a local minimum although zero is better: there
gradient flow keeps what it has learned.

Chapter: theory/weight_decay
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

penalty = 0.5
sizes = np.linspace(0, 4, 801)
figure = Figure(figsize=(6.4, 4.0), layout="constrained")
ax = figure.subplots()
ax.plot(sizes, sizes, ":", color="0.6", label="no weight decay")
for index, depth in enumerate((2, 3, 5)):
    shrunk = [float(bf.closed_forms.schatten_shrinkage([[y]], penalty, depth)[0, 0]) for y in sizes]
    ax.plot(sizes, shrunk, color=f"C{index}", label=f"{depth} layers")
    if depth > 2:
        best, last = bf.closed_forms.collapse_threshold(penalty, depth)
        print(f"{depth} layers: zero is best below {best:.4f}, and the only minimum below {last:.4f}")
        kept = np.linspace(0, 4, 4001)[1:]
        data = kept + penalty * kept ** (2 / depth - 1)
        local = (data >= last) & (data <= best) & (kept > kept[np.argmin(data)])
        ax.plot(data[local], kept[local], "--", color=f"C{index}", label=f"{depth} layers, local minimum")
ax.set(xlabel="singular value of the data", ylabel="singular value of the fit")
ax.legend()
