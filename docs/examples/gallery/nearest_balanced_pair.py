"""Balanced pairs are a surface with one corner

For $d_1 = 2$, $d_2 = k = 1$ the balanced pairs, $L^\\top L = R^\\top R$, are a double cone in three dimensions: a manifold
everywhere but at its apex, where the rank is lost (Proposition 2). The segments lead from pairs drawn at random to the
nearest balanced pair, which is a formula (Proposition 3). On the right, a step $t$ along a tangent vector leaves the
surface by a distance of order $t^2$, and the pair that the retraction returns differs from the geodesic by order $t^3$
only; the geodesic of the cone is known, because a cone can be unrolled.

Chapter: theory/balanced_geometry
"""

import numpy as np
from matplotlib.figure import Figure

import balancedfact as bf

manifold = bf.manifolds.BalancedPairs(2, 1, 1, rng=1)
rng = np.random.default_rng(3)


def as_point(pair):
    return [float(pair[0][0, 0]), float(pair[0][1, 0]), float(pair[1][0, 0])]


figure = Figure(figsize=(9.6, 4.4), layout="constrained")
cone = figure.add_subplot(1, 2, 1, projection="3d")
angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(-1.5, 1.5, 31))
cone.plot_wireframe(
    height * np.cos(angle), height * np.sin(angle), height, rstride=5, cstride=4, color="0.75", linewidth=0.6, label="balanced"
)
for k in range(25):
    pair = rng.uniform(-1.3, 1.3, (2, 1)), rng.uniform(-1.3, 1.3, (1, 1))
    near = manifold.nearest(*pair)
    segment = np.transpose([as_point(pair), as_point(near)])
    cone.plot(*segment, color="C0", linewidth=1, label="way to the nearest" if k == 0 else None)
    cone.scatter(*as_point(near), color="C1", s=12, label="nearest balanced pair" if k == 0 else None)
cone.set(xlabel="$L_1$", ylabel="$L_2$", zlabel="$R$", xticks=[-1, 0, 1], yticks=[-1, 0, 1], zticks=[-1, 0, 1])
cone.set_box_aspect((1, 1, 1), zoom=0.85)
cone.legend(loc="upper left", fontsize="small")

# Unrolled, a cone with slope one is a sector of the plane: at distance rho from the apex, angles shrink by the root of two.
point = manifold.nearest(np.array([[1.0], [0.0]]), np.array([[1.0]]))
direction = manifold.projection(point, manifold.random_tangent_vector(point))
direction = direction / manifold.norm(point, direction)
along = float(direction[0][0, 0] * point[0][0, 0] + direction[1][0, 0] * point[1][0, 0]) / manifold.norm(point, point)
across = float(direction[0][1, 0])
rho = manifold.norm(point, point)


def geodesic(t):
    x, y = rho + t * along, t * across
    distance, turn = np.hypot(x, y), np.arctan2(y, x) * np.sqrt(2)
    return np.array([distance * np.cos(turn), distance * np.sin(turn), distance]) / np.sqrt(2)


steps = np.geomspace(1e-3, 0.5, 12)
ends = [as_point(manifold.retraction(point, t * direction)) for t in steps]
straight = [np.add(as_point(point), t * np.array(as_point(direction))) for t in steps]
left_by = [np.linalg.norm(np.subtract(a, b)) for a, b in zip(ends, straight, strict=True)]
off = [np.linalg.norm(np.subtract(a, geodesic(t))) for a, t in zip(ends, steps, strict=True)]

ax = figure.add_subplot(1, 2, 2)
ax.loglog(steps, left_by, "o-", color="C0", label="from the straight line")
ax.loglog(steps, off, "s-", color="C1", label="from the geodesic")
ax.loglog(steps, 0.3 * steps**2, ":", color="0.4", label="order $t^2$")
ax.loglog(steps, 0.1 * steps**3, "--", color="0.4", label="order $t^3$")
ax.set(xlabel="step $t$ along a tangent vector", ylabel="distance of the retraction")
ax.legend()
orders = [np.polyfit(np.log(steps[:6]), np.log(distances[:6]), 1)[0] for distances in (left_by, off)]
print("orders: {:.2f}, {:.2f}".format(*orders))
