"""Covariance sensing: differences of two quadratic measurements, as a measurement map of one's own."""

import numpy as np

import balancedfact as bf


# [map]
class EnergyDifferences(bf.measurements.MeasurementMap):
    """Measurements ``x_i.T X x_i - z_i.T X z_i``, that is ``A_i = x_i x_i.T - z_i z_i.T``.

    Parameters
    ----------
    first, second : array_like, shape (m, d)
        The vectors ``x_i`` and ``z_i``.
    """

    def __init__(self, first, second):
        self.first = np.array(first, dtype=float)
        self.second = np.array(second, dtype=float)
        if self.first.ndim != 2 or self.first.shape != self.second.shape:
            raise ValueError(f"shapes {self.first.shape} and {self.second.shape}; expected (m, d) twice")
        self.m, d = self.first.shape
        self.matrix_shape = (d, d)

    def _forward(self, X):
        x, z = self.first, self.second
        return np.einsum("ip,ip->i", x @ X, x) - np.einsum("ip,ip->i", z @ X, z)

    def _adjoint(self, y):
        x, z = self.first, self.second
        return (x.T * y) @ x - (z.T * y) @ z

    def _left_moment(self, P):
        x, z = self.first, self.second
        xx, xz = np.einsum("ip,ip->i", x @ P, x), np.einsum("ip,ip->i", x @ P, z)
        zx, zz = np.einsum("ip,ip->i", z @ P, x), np.einsum("ip,ip->i", z @ P, z)
        return (x.T * xx) @ x - (x.T * xz) @ z - (z.T * zx) @ x + (z.T * zz) @ z

    def _right_moment(self, Q):
        return self._left_moment(Q)  # the A_i are symmetric


# [map end]


# [faster]
class FastEnergyDifferences(EnergyDifferences):
    """The same map, with two derived methods that its structure makes cheaper."""

    def rotated(self, P, Q):
        x, z = self.first, self.second
        return np.einsum("ip,iq->ipq", x @ P, x @ Q) - np.einsum("ip,iq->ipq", z @ P, z @ Q)

    def forward_factored(self, L, R):
        x, z = self.first, self.second
        return np.einsum("ik,ik->i", x @ L, x @ R) - np.einsum("ik,ik->i", z @ L, z @ R)


# [faster end]


# [check]
rng = np.random.default_rng(0)
small = FastEnergyDifferences(rng.standard_normal((7, 4)), rng.standard_normal((7, 4)))
report = bf.measurements.check_measurements(small, rng=0)
print(report)
assert report.ok
# [check end]

# [use]
d, m = 12, 60
factor = rng.standard_normal((d, 2))
covariance = factor @ factor.T
A = FastEnergyDifferences(rng.standard_normal((m, d)), rng.standard_normal((m, d)))
solution = bf.flat_minimum(A, A(covariance))
print(solution)
error = np.linalg.norm(solution.matrix - covariance) / np.linalg.norm(covariance)
print(f"relative distance to the covariance: {error:.1e}")
# [use end]
