"""Rescaled-balanced pairs, the set on which flat pairs lie."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from balancedfact._validate import as_array
from balancedfact.manifolds._balanced_pairs import BalancedPairs, PairLike
from balancedfact.manifolds._product import ProductPoint, TangentVector


class RescaledBalancedPairs(BalancedPairs):
    r"""The manifold :math:`\{(L, R) : L^\top D_1^\top D_1 L = R^\top D_2^\top D_2 R\}`, for invertible :math:`D_1, D_2`.

    Points are pairs ``[L, R]``. The change of variables :math:`L' = D_1L`, :math:`R' = D_2R` maps it onto `BalancedPairs`, and
    the geometry is carried over by it: the inner product is :math:`\langle D_1U_a, D_1U_b\rangle + \langle D_2V_a,
    D_2V_b\rangle`, in which the change of variables is an isometry, and everything said of `BalancedPairs` holds.

    Parameters
    ----------
    D1 : array_like, shape (d1, d1)
    D2 : array_like, shape (d2, d2)
        The rescalings, such as those of a measurement map.
    k : int
        Number of columns.
    rng : int or numpy.random.Generator, optional
        Randomness of `random_point` and `random_tangent_vector`, as in `BalancedPairs`.

    Raises
    ------
    ValueError
        If `D1` or `D2` is not a finite real square matrix or is singular to rounding, or `k` is not a positive integer.

    See Also
    --------
    BalancedPairs : The case of identity matrices :math:`D_1`, :math:`D_2`.
    balancedfact.flat_minimum : A search over it, with ``method="riemannian"``.

    Notes
    -----
    For a function of ``L @ R.T``, ill-conditioned `D1` and `D2` make the problem ill-conditioned. That slows first-order
    optimizers down, trust regions much less.

    References
    ----------
    Ding et al. 2022 (flat pairs are balanced after rescaling).

    Chapters :doc:`/theory/balanced_geometry` and :doc:`/theory/two_factors`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(40, (5, 4), rng=0)
    >>> manifold = bf.manifolds.RescaledBalancedPairs(A.D1, A.D2, 2, rng=0)
    >>> L, R = manifold.random_point()
    >>> bool(np.allclose(L.T @ A.D1 @ A.D1 @ L, R.T @ A.D2 @ A.D2 @ R))
    True
    """

    def __init__(self, D1: ArrayLike, D2: ArrayLike, k: int, *, rng: int | np.random.Generator | None = None) -> None:
        self.D1, self.D2 = as_array(D1, "D1", ndim=2), as_array(D2, "D2", ndim=2)
        self._factors = []
        for name, D in (("D1", self.D1), ("D2", self.D2)):
            if D.shape[0] != D.shape[1]:
                raise ValueError(f"{name} has shape {D.shape}; expected a square matrix")
            s = np.linalg.svd(D, compute_uv=False)
            if s[-1] <= D.shape[0] * np.finfo(float).eps * s[0]:
                raise ValueError(
                    f"{name} is singular, with singular values from {s[-1]:.1e} to {s[0]:.1e}; expected it invertible"
                )
            self._factors.append(scipy.linalg.lu_factor(D))
        super().__init__(self.D1.shape[0], self.D2.shape[0], k, rng=rng)

    def __str__(self) -> str:
        return f"Rescaled-b{super().__str__()[1:]}"

    # The change of variables.

    def _scaled(self, pair: PairLike) -> list[np.ndarray]:
        return [self.D1 @ pair[0], self.D2 @ pair[1]]

    def _unscaled(self, pair: PairLike) -> list[np.ndarray]:
        return [scipy.linalg.lu_solve(factor, part) for factor, part in zip(self._factors, pair, strict=True)]

    def _dual(self, pair: PairLike) -> list[np.ndarray]:
        """Euclidean gradients in the new variables."""
        return [scipy.linalg.lu_solve(factor, part, trans=1) for factor, part in zip(self._factors, pair, strict=True)]

    # The geometry of balanced pairs, carried over.

    def inner_product(self, point: PairLike, tangent_vector_a: PairLike, tangent_vector_b: PairLike) -> float:
        """The inner product of the rescaled vectors."""
        return super().inner_product(point, self._scaled(tangent_vector_a), self._scaled(tangent_vector_b))

    def norm(self, point: PairLike, tangent_vector: PairLike) -> float:
        """The norm of the rescaled vector."""
        return super().norm(point, self._scaled(tangent_vector))

    def residual(self, point: PairLike) -> float:
        """Distance of the rescaled pair from balance, between 0 and 1."""
        return super().residual(self._scaled(point))

    def nearest(self, A: np.ndarray, B: np.ndarray) -> ProductPoint:
        """The rescaled-balanced pair nearest to ``(A, B)`` in the rescaled norm, as in `BalancedPairs.nearest`."""
        A, B = as_array(A, "A", shape=(self.d1, self.k)), as_array(B, "B", shape=(self.d2, self.k))
        return ProductPoint(self._unscaled(super().nearest(self.D1 @ A, self.D2 @ B)))

    def random_point(self) -> ProductPoint:
        """A random balanced pair in the rescaled variables."""
        generator = self._generator()
        draw = [generator.standard_normal((self.d1, self.k)), generator.standard_normal((self.d2, self.k))]
        return ProductPoint(self._unscaled(super().nearest(*draw)))

    def projection(self, point: PairLike, vector: PairLike) -> TangentVector:
        """The projection on the tangent space, orthogonal in the metric of this manifold."""
        return TangentVector(self._unscaled(super().projection(self._scaled(point), self._scaled(vector))))

    def euclidean_to_riemannian_gradient(self, point: PairLike, euclidean_gradient: PairLike) -> TangentVector:
        """The Riemannian gradient in the metric of this manifold."""
        return TangentVector(self._unscaled(super().projection(self._scaled(point), self._dual(euclidean_gradient))))

    def euclidean_to_riemannian_hessian(
        self, point: PairLike, euclidean_gradient: PairLike, euclidean_hessian: PairLike, tangent_vector: PairLike
    ) -> TangentVector:
        """The Riemannian Hessian along a tangent vector, in the metric of this manifold."""
        hessian = super().euclidean_to_riemannian_hessian(
            self._scaled(point), self._dual(euclidean_gradient), self._dual(euclidean_hessian), self._scaled(tangent_vector)
        )
        return TangentVector(self._unscaled(hessian))
