"""The factorizations of a fixed matrix, as an orbit of the general linear groups of the hidden layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_array, as_layers, as_widths
from balancedfact.manifolds._exponential import exponential
from balancedfact.manifolds._layers import Latest, LayerManifold, Layers
from balancedfact.manifolds._orbit_curvature import OrbitCurvature
from balancedfact.manifolds._product import ProductPoint, TangentVector

_LONGEST = 8.0  # a longer step of one layer is cut: exp(8) is about 3000


class _Spans(NamedTuple):
    """Orthonormal bases of what the layers pass on, one of each per hidden layer, ``(d_k, r)``."""

    reached: list[np.ndarray]  # the range of W_k ... W_1
    seen: list[np.ndarray]  # the row space of W_L ... W_{k+1}


class Factorizations(LayerManifold):
    r"""The manifold of all layers of rank :math:`r = \operatorname{rank}M` with the product :math:`W_L\cdots W_1 = M`.

    With hidden layers of width :math:`r` these are *all* factorizations of `M`. Points are lists ``[W_1, ..., W_L]``, and a
    cost is a function ``cost(*layers)``. The set is one orbit: every point is reached from every other by

    .. math:: W_k \mapsto G_kW_kG_{k-1}^{-1}, \qquad G_k \text{ invertible},\quad G_0 = I,\ G_L = I.

    A tangent vector is given by one ``d_k x d_k`` matrix :math:`X_k` per hidden layer and stands for the velocities

    .. math:: \xi_k = X_kW_k - W_kX_{k-1}, \qquad X_0 = X_L = 0,

    which `embedding` returns. The metric is :math:`\sum_k\langle X_k, Y_k\rangle`, which measures *relative* changes: with
    hidden layers of width :math:`r` the same matrices :math:`X_k` have the same length everywhere. The gradient costs products
    of matrices only, :math:`X_k = \nabla_kf\,W_k^\top - W_{k+1}^\top\nabla_{k+1}f`, and the retraction is the exponential map,

    .. math:: G_k = \exp(X_k - X_k^\top)\exp(X_k^\top),

    so that iterates never leave the set. Functions that depend on the point through sums of squares of products of layers,
    such as the trace of the Hessian and its isotropic surrogate, are geodesically convex: along
    :math:`G_k = \exp(tX_k)` with symmetric :math:`X_k` they are sums of exponentials in `t`, and antisymmetric :math:`X_k` of
    hidden layers do not change them. Every stationary point is a global minimum, from every start.

    Parameters
    ----------
    M : array_like, shape (d_L, d_0)
        The product, not zero. Singular values that rounding could have produced count as zero.
    widths : list of int
        :math:`d_0, \dots, d_L`; the hidden ones are at least the rank of `M`.
    rng : int or numpy.random.Generator, optional
        Randomness of `random_point` and `random_tangent_vector`. Without it every draw is seeded from NumPy's
        global state, as for pymanopt's own manifolds.

    Attributes
    ----------
    M : numpy.ndarray
        The product.
    rank : int
        The rank :math:`r` of `M` and of all layers.
    dim : int
        :math:`r\sum_{k=1}^{L-1}(2d_k - r)`, which is :math:`(L-1)r^2` for hidden layers of width `r`.
    second_order_retraction : bool
        True: the retraction is the exponential map, for steps up to length 8 in every layer. Longer ones are cut.

    Raises
    ------
    ValueError
        If `M` is no finite real matrix or is zero, `widths` does not fit it or has a hidden layer narrower than its rank, or
        `rng` is no seed or generator.

    See Also
    --------
    ZeroLoss : The manifold of all layers that fit the data.
    balancedfact.flattest_factorization : The factorization of least trace.

    Notes
    -----
    **Where it is a manifold.** Everywhere: a product of rank `r` needs layers of rank `r` or more, so that the layers of rank
    exactly `r` are closed, and an orbit has no singular points. With some hidden layer wider than `r` there are other
    factorizations, whose layers have larger rank. All of them together are a manifold if and only if `r` is the smallest of
    the widths. Otherwise they are singular at the points of this manifold, and a smooth set only on open parts, of
    different dimensions when hidden layers are narrower than both ends. Nothing is lost for flatness: projecting the hidden
    layers to rank `r` keeps the product and never raises the trace of the Hessian or its surrogate, so their least values over
    all factorizations are those over this manifold. Widths above the rank only add directions to it. Solving at width `r` and
    calling `embed` is cheaper.

    `projection` is orthogonal in the Euclidean inner product of layers, as a projection of ambient vectors should be. It
    solves a dense least-squares problem in :math:`\sum_kd_k^2` unknowns; the optimizers do not use it. After every step the
    rounding error of the product is removed, so that it does not add up.

    References
    ----------
    Gatmiry et al. 2023 (the trace of the Hessian and its isotropic surrogate on factorizations of a fixed matrix); Kempf, Ness
    1979, The length of vectors in representation spaces (convexity along orbits).

    Chapter :doc:`/theory/deep_manifolds`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> M = np.outer([1.0, 2.0, 2.0], [3.0, 4.0])
    >>> manifold = bf.manifolds.Factorizations(M, [2, 1, 1, 3], rng=0)
    >>> W1, W2, W3 = manifold.random_point()
    >>> manifold.dim, bool(np.allclose(W3 @ W2 @ W1, M))
    (2, True)
    """

    def __init__(self, M: ArrayLike, widths: Iterable[int], *, rng: int | np.random.Generator | None = None) -> None:
        self.M = as_array(M, "M", ndim=2)
        rows, columns = self.M.shape
        sizes = as_widths(widths, (rows, columns))
        U, s, Vt = np.linalg.svd(self.M, full_matrices=False)
        self.rank = r = int(np.count_nonzero(s > max(self.M.shape) * np.finfo(float).eps * s[0]))
        if r == 0:
            raise ValueError("M is zero; expected a matrix of rank at least 1")
        if min(sizes[1:-1]) < r:
            raise ValueError(
                f"widths has a hidden width of {min(sizes[1:-1])}; expected at least {r}, the rank of M (if M is of lower "
                "rank up to errors larger than rounding, truncate its singular value decomposition)"
            )
        self._left, self._values, self._right = U[:, :r], s[:r], Vt[:r]
        super().__init__(
            f"Factorizations of a {rows} x {columns} matrix of rank {r} with widths {sizes}",
            sizes,
            r * sum(2 * d - r for d in sizes[1:-1]),
            rng,
        )
        self._spans, self._inverse, self._curvature = Latest(self._spans_of), Latest(self._inverse_of), Latest(OrbitCurvature)

    def residual(self, point: Layers) -> float:
        r"""Distance of layers from the set: the larger of :math:`\|W_L\cdots W_1 - M\|_F/\|M\|_F` and the largest relative
        size of what a layer has off the ranges and row spaces of the products before and after it."""
        product, spans = point[0], self._spans(point)
        for layer in point[1:]:
            product = layer @ product
        worst = np.linalg.norm((product - self.M) / self._values[0]) / np.linalg.norm(self._values / self._values[0])
        into, out = [*spans.reached, self._left], [self._right.T, *spans.seen]
        for layer, Y, Z in zip(point, into, out, strict=True):
            rest = layer - Y @ (Y.T @ layer)
            worst = max(worst, np.linalg.norm(rest) / np.linalg.norm(layer))
            worst = max(worst, np.linalg.norm(layer - (layer @ Z) @ Z.T) / np.linalg.norm(layer))
        return float(worst)

    # Points and vectors.

    def balanced_point(self) -> ProductPoint:
        """Balanced layers with the product `M`: all have the singular values ``s ** (1 / L)``, on the first `r` coordinates."""
        root = self._values ** (1 / self.depth)
        bases = [self._right.T, *(np.eye(d, self.rank) for d in self.widths[1:-1]), self._left]
        return ProductPoint((bases[k + 1] * root) @ bases[k].T for k in range(self.depth))

    def random_point(self) -> ProductPoint:
        r"""Balanced layers moved by random :math:`G_k = \exp(N_k)Q_k`, with `N_k` normal of variance :math:`1/(4d_k)` and
        orthogonal `Q_k`."""
        generator, groups, inverses = self._generator(), [], []
        for d in self.widths[1:-1]:
            Q, T = np.linalg.qr(generator.standard_normal((d, d)))
            Q, N = Q * np.sign(np.diag(T)), generator.standard_normal((d, d)) / np.sqrt(4 * d)
            groups.append(exponential(N) @ Q)
            inverses.append(Q.T @ exponential(-N))
        return self._acted(self.balanced_point(), groups, inverses)

    def embed(self, layers: Layers, widths: Iterable[int]) -> ProductPoint:
        """The same factorization in wider hidden layers: blocks of zeros are appended, which changes no product.

        Parameters
        ----------
        layers : list of array_like
            A point of this manifold, or any layers with its widths or smaller ones.
        widths : list of int
            The wider widths, with the same ends.

        Returns
        -------
        list of numpy.ndarray

        Raises
        ------
        ValueError
            If the layers cannot be multiplied to the shape of `M`, or a width is smaller than that of the layers.
        """
        checked = as_layers(layers, (self.widths[-1], self.widths[0]))
        sizes = as_widths(widths, (self.widths[-1], self.widths[0]))
        found = [checked[0].shape[1], *(layer.shape[0] for layer in checked)]
        if len(sizes) != len(found) or any(wide < own for wide, own in zip(sizes, found, strict=True)):
            raise ValueError(f"widths is {sizes}; expected widths of at least {found}, those of the layers")
        padded = []
        for layer, rows, columns in zip(checked, sizes[1:], sizes[:-1], strict=True):
            padded.append(np.zeros((rows, columns)))
            padded[-1][: layer.shape[0], : layer.shape[1]] = layer
        return ProductPoint(padded)

    def zero_vector(self, point: Layers) -> TangentVector:
        """The zero of the tangent space."""
        return TangentVector(np.zeros((d, d)) for d in self.widths[1:-1])

    def random_tangent_vector(self, point: Layers) -> TangentVector:
        """A random direction in the tangent space, of norm one."""
        generator = self._generator()
        vector = self._horizontal(point, [generator.standard_normal((d, d)) for d in self.widths[1:-1]])
        return TangentVector(part / self.norm(point, vector) for part in vector)

    def embedding(self, point: Layers, tangent_vector: Layers) -> TangentVector:
        """The velocities of the layers, ``X_k W_k - W_k X_{k-1}``."""
        velocities = [np.zeros_like(layer) for layer in point]
        for k, X in enumerate(tangent_vector):
            velocities[k] += X @ point[k]
            velocities[k + 1] -= point[k + 1] @ X
        return TangentVector(velocities)

    # Moving.

    def exp(self, point: Layers, tangent_vector: Layers) -> ProductPoint:
        """The exponential map, with steps longer than 8 in some layer cut to that length."""
        longest = max(float(np.linalg.norm(X)) for X in tangent_vector)
        factor = 1.0 if longest <= _LONGEST else _LONGEST / longest
        groups, inverses = [], []
        for X in tangent_vector:
            turn, stretch = exponential(factor * (X - X.T)), factor * X.T
            groups.append(turn @ exponential(stretch))
            inverses.append(exponential(-stretch) @ turn.T)
        return self._acted(point, groups, inverses)

    def retraction(self, point: Layers, tangent_vector: Layers) -> ProductPoint:
        """The same as `exp`."""
        return self.exp(point, tangent_vector)

    def transport(self, point_a: Layers, point_b: Layers, tangent_vector_a: Layers) -> TangentVector:
        """The same matrices `X_k`, projected when hidden layers are wider than the rank; otherwise an isometry."""
        return self._horizontal(point_b, tangent_vector_a)

    def to_tangent_space(self, point: Layers, vector: Layers) -> TangentVector:
        """The part of matrices `X_k` that moves the point at `point`, orthogonal to those that do not."""
        return self._horizontal(point, vector)

    def projection(self, point: Layers, vector: Layers) -> TangentVector:
        """The tangent vector whose velocities are nearest to given layers in the Euclidean norm."""
        X = self._inverse(point) @ np.concatenate([np.ravel(part) for part in vector])
        ends = np.cumsum([d * d for d in self.widths[1:-1]])[:-1]
        return TangentVector(part.reshape(d, d) for part, d in zip(np.split(X, ends), self.widths[1:-1], strict=True))

    # Derivatives.

    def euclidean_to_riemannian_gradient(self, point: Layers, euclidean_gradient: Layers) -> TangentVector:
        r"""The gradient :math:`X_k = \nabla_kf\,W_k^\top - W_{k+1}^\top\nabla_{k+1}f`."""
        return self._moment(point, euclidean_gradient)

    def euclidean_to_riemannian_hessian(
        self, point: Layers, euclidean_gradient: Layers, euclidean_hessian: Layers, tangent_vector: Layers
    ) -> TangentVector:
        """The Riemannian Hessian along a tangent vector, in the metric of this manifold."""
        X, velocities = tangent_vector, self.embedding(point, tangent_vector)
        gradient = self._moment(point, euclidean_gradient)
        change = self._moment(point, euclidean_hessian) + self._moment(velocities, euclidean_gradient)
        # The connection of the right-invariant metric on the general linear group.
        bent = [
            H + ((x.T @ g - g @ x.T) + (g.T @ x - x @ g.T) + (g @ x - x @ g)) / 2
            for H, x, g in zip(change, X, gradient, strict=True)
        ]
        return self._horizontal(point, bent)

    def preconditioner(self, point: Layers, vector: Layers) -> TangentVector:
        """Apply the inverse of the Hessian of the isotropic trace :math:`R(W)` along symmetric :math:`X_k`.

        For ``pymanopt.Problem(manifold, cost, preconditioner=manifold.preconditioner)`` and costs like the trace of the Hessian
        or its isotropic surrogate, for which steps are those of Newton at hidden widths of `r`. In closed form, whatever the
        depth and the condition number. Antisymmetric :math:`X_k`, along which these costs are constant, are divided likewise.
        """
        return self._horizontal(point, self._curvature(point).inverse(vector))

    # The inside.

    def _moment(self, point: Layers, vector: Layers) -> TangentVector:
        """The adjoint of `embedding`."""
        return TangentVector(vector[k] @ point[k].T - point[k + 1].T @ vector[k + 1] for k in range(self.depth - 1))

    def _spans_of(self, point: Layers) -> _Spans:
        reached, seen = [self._right.T], [self._left]
        for layer in point[:-1]:
            reached.append(np.linalg.qr(layer @ reached[-1])[0])
        for layer in point[:0:-1]:
            seen.append(np.linalg.qr(layer.T @ seen[-1])[0])
        return _Spans(reached[1:], seen[:0:-1])

    def _inverse_of(self, point: Layers) -> np.ndarray:
        """The pseudo-inverse of `embedding` as a matrix, whose rank is the dimension."""
        hidden = self.widths[1:-1]
        rows = [0, *np.cumsum([layer.size for layer in point])]
        columns = [0, *np.cumsum([d * d for d in hidden])]
        matrix = np.zeros((rows[-1], columns[-1]))
        for k, d in enumerate(hidden):
            place = slice(columns[k], columns[k + 1])
            matrix[rows[k] : rows[k + 1], place] = np.kron(np.eye(d), point[k].T)
            matrix[rows[k + 1] : rows[k + 2], place] = -np.kron(point[k + 1], np.eye(d))
        n = self._dimension
        U, s, Vt = np.linalg.svd(matrix, full_matrices=False)
        return (Vt[:n].T / s[:n]) @ U[:, :n].T

    def _horizontal(self, point: Layers, vector: Layers) -> TangentVector:
        """Project `X_k` onto the horizontal space.

        That is minus the block from the complement of `reached` to that of `seen`, along which the product is constant.
        """
        if max(self.widths[1:-1]) == self.rank:
            return TangentVector(np.array(X) for X in vector)
        spans, parts = self._spans(point), []
        for X, Y, Z in zip(vector, spans.reached, spans.seen, strict=True):
            idle = X - (X @ Y) @ Y.T
            parts.append(X - idle + Z @ (Z.T @ idle))
        return TangentVector(parts)

    def _acted(self, point: Layers, groups: list[np.ndarray], inverses: list[np.ndarray]) -> ProductPoint:
        """The layers ``G_k W_k G_{k-1}^{-1}``, with the rounding error of their product removed."""
        moved = [np.array(layer) for layer in point]
        for k, (G, inverse) in enumerate(zip(groups, inverses, strict=True)):
            moved[k] = G @ moved[k]
            moved[k + 1] = moved[k + 1] @ inverse
        # U e V.T with e close to the diagonal of singular values, which it is made equal to.
        e = moved[0] @ self._right.T
        for layer in moved[1:]:
            e = layer @ e
        moved[0] = (moved[0] @ self._right.T) @ np.linalg.solve(self._left.T @ e, self._values[:, None] * self._right)
        moved[-1] = self._left @ (self._left.T @ moved[-1])
        return ProductPoint(moved)
