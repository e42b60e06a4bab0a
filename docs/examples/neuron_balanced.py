"""Two-layer networks with balanced neurons, as a pymanopt manifold of one's own."""

import autograd.numpy as anp
import numpy as np
import pymanopt
from pymanopt.manifolds.manifold import Manifold
from pymanopt.optimizers import ConjugateGradient, TrustRegions

import balancedfact as bf
from balancedfact.manifolds import TangentVector


# [manifold]
class NeuronBalanced(Manifold):
    """Pairs ``[V, U]`` with ``norm(V[:, i])**2 == p * norm(U[:, i])**2`` for every neuron `i`.

    Parameters
    ----------
    inputs, outputs, neurons : int
        `V` of shape ``(inputs, neurons)`` holds the weights into the neurons, `U` of shape ``(outputs, neurons)`` those out.
    degree : int
        The degree `p` of the activation: 1 for ReLU, 2 for a square.
    """

    second_order_retraction = True

    def __init__(self, inputs, outputs, neurons, degree=1, rng=None):
        self.shapes, self.degree = [(inputs, neurons), (outputs, neurons)], degree
        self.rng = np.random.default_rng(rng)
        name = f"Balanced neurons of degree {degree}: {inputs} inputs, {neurons} neurons, {outputs} outputs"
        super().__init__(name, (inputs + outputs - 1) * neurons, point_layout=(1, 1))

    def inner_product(self, point, tangent_vector_a, tangent_vector_b):
        return sum(float(np.vdot(a, b)) for a, b in zip(tangent_vector_a, tangent_vector_b, strict=True))

    def norm(self, point, tangent_vector):
        return np.sqrt(self.inner_product(point, tangent_vector, tangent_vector))
    # [projection]
    def _multiplier(self, point, vector):
        """Per neuron the number `s` for which ``(s V, -p s U)`` is the normal part of a vector."""
        (V, U), (A, B) = point, vector
        excess = np.sum(V * A, axis=0) - self.degree * np.sum(U * B, axis=0)
        size = np.sum(V * V, axis=0) + self.degree**2 * np.sum(U * U, axis=0)
        return np.divide(excess, size, out=np.zeros_like(size), where=size > 0)

    def projection(self, point, vector):
        (V, U), (A, B) = point, vector
        s = self._multiplier(point, vector)
        return TangentVector([A - V * s, B + U * (self.degree * s)])

    to_tangent_space = projection

    def transport(self, point_a, point_b, tangent_vector_a):
        return self.projection(point_b, tangent_vector_a)
    # [projection end]

    # [retraction]
    def nearest(self, V, U):
        """The nearest balanced pair: columns keep their directions, their lengths are projected on a ray."""
        v, u = np.linalg.norm(V, axis=0), np.linalg.norm(U, axis=0)
        root = np.sqrt(self.degree)
        length = (root * v + u) / (self.degree + 1)
        return TangentVector([V * np.divide(root * length, v, out=np.zeros_like(v), where=v > 0),
                              U * np.divide(length, u, out=np.zeros_like(u), where=u > 0)])

    def retraction(self, point, tangent_vector):
        (V, U), (A, B) = point, tangent_vector
        return self.nearest(V + A, U + B)
    # [retraction end]

    def residual(self, point):
        """How far a point is from balance, relative to its size; the check and the certificate report it."""
        (V, U), p = point, self.degree
        return float(np.abs(np.sum(V * V, axis=0) - p * np.sum(U * U, axis=0)).max() / (np.sum(V * V) + p * np.sum(U * U)))

    # [points]
    def random_point(self):
        return self.nearest(*(self.rng.standard_normal(shape) for shape in self.shapes))

    def random_tangent_vector(self, point):
        vector = self.projection(point, [self.rng.standard_normal(shape) for shape in self.shapes])
        return vector / self.norm(point, vector)

    def zero_vector(self, point):
        return TangentVector(np.zeros(shape) for shape in self.shapes)
    # [points end]

    # [derivatives]
    def euclidean_to_riemannian_gradient(self, point, euclidean_gradient):
        return self.projection(point, euclidean_gradient)

    def euclidean_to_riemannian_hessian(self, point, euclidean_gradient, euclidean_hessian, tangent_vector):
        s = self._multiplier(point, euclidean_gradient)
        (hV, hU), (A, B) = euclidean_hessian, tangent_vector
        return self.projection(point, [hV - A * s, hU + B * (self.degree * s)])
    # [derivatives end]
# [manifold end]


# [check]
report = bf.manifolds.check_manifold(NeuronBalanced(3, 2, 4, degree=2, rng=0), rng=0)
print(report)
assert report.ok
# [check end]

# [problem]
rng = np.random.default_rng(2)
inputs, outputs, neurons = 6, 3, 4
teacher = NeuronBalanced(inputs, outputs, neurons, 2, rng).random_point()
x = rng.standard_normal((400, inputs))
y = (x @ teacher[0]) ** 2 @ teacher[1].T
wrong = rng.choice(400, 40, replace=False)
y[wrong] += 20 * rng.standard_normal((40, outputs))  # a tenth of the answers is wrong

manifold = NeuronBalanced(inputs, outputs, neurons, 2, rng)


@pymanopt.function.autograd(manifold)
def cost(V, U):
    """A smooth absolute value, which wrong answers do not dominate."""
    residual = anp.dot(anp.dot(x, V) ** 2, U.T) - y
    return anp.mean(anp.sqrt(0.01 + residual**2))


problem = pymanopt.Problem(manifold, cost)
# [problem end]


# [use]
def solve(optimizer, starts=4):
    """The best of a few random starts: networks have local minima."""
    runs = [optimizer.run(problem, initial_point=manifold.random_point()) for _ in range(starts)]
    return min(runs, key=lambda run: run.cost)


for optimizer in (TrustRegions(verbosity=0), ConjugateGradient(verbosity=0)):
    best = solve(optimizer)
    V, U = best.point
    right = np.delete(np.arange(400), wrong)
    error = np.linalg.norm(((x @ V) ** 2 @ U.T - y)[right]) / np.linalg.norm(y[right])
    balance = np.abs(np.sum(V * V, axis=0) - 2 * np.sum(U * U, axis=0)).max()
    print(f"{type(optimizer).__name__}: cost {best.cost:.9f}, {best.iterations} iterations, gradient {best.gradient_norm:.0e}, "
          f"error on the right answers {error:.1e}, balance {balance:.0e}")
# [use end]


# [certificate]
solution = bf.riemannian_minimum(problem, initial=best.point, rng=0)
print(solution)
# [certificate end]
