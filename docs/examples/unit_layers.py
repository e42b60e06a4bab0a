"""A manifold of layers from three methods and a derivative: every layer of Frobenius norm one."""

import itertools

import autograd.numpy as anp
import numpy as np
import pymanopt

import balancedfact as bf
from balancedfact.manifolds import LayerManifold, TangentVector, check_manifold


# [manifold]
class UnitLayers(LayerManifold):
    """Layers ``[W_1, ..., W_L]`` of the given widths with ``norm(W_j) == 1``: a product of spheres."""

    def __init__(self, widths, rng=None):
        sizes = [below * above for below, above in itertools.pairwise(widths)]
        super().__init__(f"unit layers of widths {widths}", widths, sum(sizes) - len(sizes), rng)

    def random_point(self):
        return [W / np.linalg.norm(W) for W in self.normal_layers()]

    def projection(self, point, vector):
        return TangentVector(V - np.vdot(W, V) * W for W, V in zip(point, vector, strict=True))

    def retraction(self, point, tangent_vector):
        return [(W + V) / np.linalg.norm(W + V) for W, V in zip(point, tangent_vector, strict=True)]

    def euclidean_to_riemannian_hessian(self, point, euclidean_gradient, euclidean_hessian, tangent_vector):
        parts = zip(point, euclidean_gradient, euclidean_hessian, tangent_vector, strict=True)
        return self.projection(point, [H - np.vdot(W, G) * V for W, G, H, V in parts])
# [manifold end]


# [check]
report = check_manifold(UnitLayers([3, 2, 4], rng=0), rng=0)
assert report.ok, report
# [check end]

# [use]
target = np.random.default_rng(1).standard_normal((4, 3))
manifold = UnitLayers([3, 2, 4], rng=0)


@pymanopt.function.autograd(manifold)
def cost(W1, W2):
    """How badly the product of the layers is aligned with a matrix."""
    return -anp.sum(target * anp.dot(W2, W1))


solution = bf.riemannian_minimum(pymanopt.Problem(manifold, cost), rng=0)
print(solution)
print("largest singular value of the target:", np.linalg.norm(target, 2))
# [use end]
