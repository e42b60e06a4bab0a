"""The base class of measurement maps: four methods that a new kind must supply, and all that follows from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from balancedfact._linalg import frobenius
from balancedfact._validate import as_array
from balancedfact.measurements._pair_gram import gram_of_products
from balancedfact.measurements._rescaled import Rescaled
from balancedfact.measurements._row_major import RowMajorOperator
from balancedfact.measurements._scaled_gram import scaled_gram
from balancedfact.measurements._second_moment import MapMoment, SecondMoment

if TYPE_CHECKING:
    from balancedfact.measurements._ridge import HalfStep

_COLUMNS_AT_ONCE = 256  # columns of the identity that are multiplied at once


class Whitened(NamedTuple):
    r"""A map in the coordinates ``Z = D1 X D2 / scale**2``, where the scaled trace is a multiple of the nuclear norm.

    ``X = left @ Z @ right.T`` and ``A(X) = scale * map(Z)``. Directions that no measurement sees (the null spaces of `D1`
    and `D2`) are left out, so `left` has ``rank(D1)`` columns and `right` ``rank(D2)``.
    """

    map: MeasurementMap
    left: Any
    right: Any
    scale: float


class MeasurementMap(RowMajorOperator, Rescaled, ABC):
    r"""A linear map :math:`\mathcal A(X)_i = \langle A_i, X\rangle` from ``d1 x d2`` matrices to ``m`` numbers.

    A new kind of measurement is a subclass with `matrix_shape`, `m` and the four abstract methods below; everything else
    here is derived from them, and may be overridden where structure makes it cheaper.

    Attributes
    ----------
    matrix_shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    m : int
        The number of measurements.
    labels : tuple
        The names of rows and of columns, each a list of str or ``None``; solutions take them over.

    See Also
    --------
    check_measurements : Tells whether a subclass is right.

    References
    ----------
    Guide :doc:`/guide/own_measurements`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> isinstance(bf.measurements.gaussian(7, (2, 3), rng=0), bf.measurements.MeasurementMap)
    True
    """

    matrix_shape: tuple[int, int]
    m: int
    labels: tuple[list[str] | None, list[str] | None] = (None, None)

    # What a subclass supplies.

    @abstractmethod
    def _forward(self, X: np.ndarray) -> np.ndarray:
        r"""The numbers :math:`\langle A_i, X\rangle`, shape ``(m,)``."""

    @abstractmethod
    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        r"""The matrix :math:`\sum_i y_i A_i`, shape ``(d1, d2)``."""

    @abstractmethod
    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        r"""The matrix :math:`\sum_i A_i P A_i^\top`, shape ``(d1, d1)``."""

    @abstractmethod
    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        r"""The matrix :math:`\sum_i A_i^\top Q A_i`, shape ``(d2, d2)``."""

    # What follows from it.

    def __call__(self, X: np.ndarray) -> np.ndarray:
        r"""The measurements :math:`\mathcal A(X)_i = \langle A_i, X\rangle`, shape ``(m,)``."""
        return self._forward(as_array(X, "X", shape=self.matrix_shape))

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        r"""The adjoint :math:`\mathcal A^*(y) = \sum_i y_i A_i`, shape ``(d1, d2)``."""
        return self._adjoint(as_array(y, "y", shape=(self.m,)))

    def left_moment(self, P: np.ndarray) -> np.ndarray:
        r"""The second moment :math:`\sum_i A_i P A_i^\top` of a ``d2 x d2`` matrix `P`, shape ``(d1, d1)``."""
        return self._left_moment(as_array(P, "P", shape=(self.matrix_shape[1],) * 2))

    def right_moment(self, Q: np.ndarray) -> np.ndarray:
        r"""The second moment :math:`\sum_i A_i^\top Q A_i` of a ``d1 x d1`` matrix `Q`, shape ``(d2, d2)``."""
        return self._right_moment(as_array(Q, "Q", shape=(self.matrix_shape[0],) * 2))

    # The same for arguments that are right already: what solvers call, thousands of times. Nothing is checked or converted.

    def forward(self, X: np.ndarray) -> np.ndarray:
        r"""The measurements of a float64 array of shape ``(d1, d2)``, unchecked, shape ``(m,)``."""
        return self._forward(X)

    def adjoint_matrix(self, y: np.ndarray) -> np.ndarray:
        r"""The adjoint of a float64 array of shape ``(m,)``, unchecked, as an array of shape ``(d1, d2)``."""
        return self._adjoint(y)

    def left_moment_matrix(self, P: np.ndarray) -> np.ndarray:
        r"""The second moment :math:`\sum_i A_i P A_i^\top` of a float64 array of shape ``(d2, d2)``, unchecked."""
        return self._left_moment(P)

    def right_moment_matrix(self, Q: np.ndarray) -> np.ndarray:
        r"""The second moment :math:`\sum_i A_i^\top Q A_i` of a float64 array of shape ``(d1, d1)``, unchecked."""
        return self._right_moment(Q)

    # Hooks: all have a definition that is right for every map, and may be overridden where structure makes them cheaper.

    def forward_factored(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        r"""The measurements :math:`\mathcal A(L R^\top)`, without forming the product where the structure allows it."""
        return self._forward(L @ R.T)

    def adjoint_operator(self, y: np.ndarray) -> Any:
        r"""The adjoint :math:`\sum_i y_i A_i` as anything with ``@`` and ``.T``: an array, a sparse array, an operator."""
        return self._adjoint(y)

    def adjoint_for_many(self, y: np.ndarray) -> Any:
        r"""The adjoint as `adjoint_operator` gives it, or as an array where that pays after some hundreds of products."""
        return self.adjoint_operator(y)

    def adjoint_norm(self, y: np.ndarray) -> float:
        r"""The Frobenius norm of :math:`\sum_i y_i A_i`, without forming the sum where the structure allows it."""
        S, (_, d2) = self.adjoint_operator(y), self.matrix_shape
        if isinstance(S, np.ndarray):
            return frobenius(S)
        if sp.issparse(S):
            return frobenius(sp.coo_array(S).tocsr().data)  # an entry may be stored in several parts
        blocks = (np.eye(d2, min(_COLUMNS_AT_ONCE, d2 - start), -start) for start in range(0, d2, _COLUMNS_AT_ONCE))
        return frobenius(np.array([frobenius(S @ block) for block in blocks]))

    def pair_hessian(
        self, L: np.ndarray, R: np.ndarray, y: np.ndarray | None = None, *, coupled: int | None = None
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        r"""The second derivative of :math:`\tfrac12\|\mathcal A(LR^\top) - b\|^2` at a pair with residual ``y = b - A(L R.T)``.

        It is the function :math:`(V, W) \mapsto (SR - YW, S^\top L - Y^\top V)` with
        :math:`S = \mathcal A^*\mathcal A(VR^\top + LW^\top)` and :math:`Y = \mathcal A^*(y)`; without `y` only its Gauss-Newton
        part. Only the first `coupled` columns have a partner that moves; the others contribute to `S` but not to `Y`.
        """
        count = L.shape[1] if coupled is None else coupled
        back = None if y is None or count == 0 else self.adjoint_operator(y)

        def hessian(dL: np.ndarray, dR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            push = self.adjoint_operator(self.forward_factored(np.hstack([dL, L]), np.hstack([R, dR])))
            G, H = push @ R, push.T @ L
            if back is not None:
                G[:, :count] -= back @ dR[:, :count]
                H[:, :count] -= back.T @ dL[:, :count]
            return G, H

        return hessian

    def pair_gram(self, L: np.ndarray, R: np.ndarray) -> np.ndarray:
        r"""The matrix of `pair_hessian` without `y`: its unknowns are the entries of `V` above those of `W`, row by row."""
        return gram_of_products(self.pair_hessian(L, R), *self.matrix_shape, L.shape[1])

    def memory_needed(self, columns: int = 10) -> float:
        """Bytes, roughly, that a solve takes beside this map for a solution of so many `columns`; 0 where that is not known."""
        return 0.0

    def half_steps(self, shift: float) -> tuple[HalfStep, HalfStep] | None:
        r"""The steps of alternating least squares for :math:`\|\mathcal A(LR^\top) - b\|^2 + s(\|L\|^2 + \|R\|^2)`.

        Functions of ``b`` and the other factor, see `_ridge.HalfStep`; ``None`` where rows are coupled.
        """
        return None

    @property
    def best_order(self) -> np.ndarray | slice:
        """The order in which it is fastest to go through the measurements."""
        return slice(None)

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        r"""The matrices :math:`P^\top A_i Q` stacked, shape ``(m, p, q)`` for `P` of shape ``(d1, p)``, `Q` ``(d2, q)``."""
        return np.stack([P.T @ self._adjoint(unit) @ Q for unit in np.eye(self.m)])

    def stack(self) -> np.ndarray:
        """The matrices :math:`A_i` stacked, shape ``(m, d1, d2)``."""
        return self.rotated(np.eye(self.matrix_shape[0]), np.eye(self.matrix_shape[1]))

    def energy(self, C: np.ndarray | None, B: np.ndarray | None) -> float:
        r"""The sum :math:`\sum_i \|C^\top A_i B\|_F^2`, `C` of shape ``(d1, p)``, `B` ``(d2, q)``; ``None`` is the identity."""
        moment = self._left_moment(np.eye(self.matrix_shape[1]) if B is None else B @ B.T)
        total = np.trace(moment) if C is None else np.vdot(C, moment @ C)
        return max(float(total), 0.0)  # rounding may leave a sum of squares that vanishes slightly negative

    def second_moment(self) -> SecondMoment:
        r"""The maps :math:`P\mapsto\sum_i A_iPA_i^\top` and its adjoint in the form that is cheapest to use many times.

        `balancedfact.curvature.trace` and its derivatives accept the result in place of the map.
        """
        return self.streamed_moment()

    def streamed_moment(self) -> SecondMoment:
        """The second moments in the form that costs next to nothing to build, for few evaluations."""
        return MapMoment(self)

    @property
    def moment_cost(self) -> int:
        """The multiplications that one second moment takes."""
        d1, d2 = self.matrix_shape
        return self.m * d1 * d2 * max(d1, d2)

    def congruence(self, P: np.ndarray, Q: np.ndarray) -> MeasurementMap:
        r"""The map with matrices :math:`P^\top A_i Q`, that is :math:`Z \mapsto \mathcal A(P Z Q^\top)`."""
        return Congruence(self, P, Q)

    def scaled_gram(self, W11: np.ndarray, W12: np.ndarray, W22: np.ndarray) -> np.ndarray:
        r"""The ``m x m`` matrix :math:`\langle A_i, W_{11} A_j W_{22} + W_{12} A_j^\top W_{12}\rangle`.

        It is the Newton matrix of the interior-point method for the positive-semidefinite scaling
        ``W = [[W11, W12], [W12.T, W22]]``, and the Gram matrix of the map when ``W = I``.
        """
        return scaled_gram(self.rotated, W11, W12, W22)

    def select(self, index: np.ndarray, weights: np.ndarray | None = None) -> MeasurementMap:
        """The map of the measurements numbered `index` only, each multiplied by its weight."""
        return Selected(self, index, np.ones(index.size) if weights is None else weights)

    @cached_property
    def row_norms(self) -> np.ndarray:
        r"""The Frobenius norms :math:`\|A_i\|_F`, shape ``(m,)``."""
        stack = self.stack()
        return np.sqrt(np.einsum("ipq,ipq->i", stack, stack))

    @cached_property
    def gram(self) -> np.ndarray:
        r"""The Gram matrix :math:`\langle A_i, A_j\rangle`, shape ``(m, m)``."""
        d1, d2 = self.matrix_shape
        return self.scaled_gram(np.eye(d1), np.zeros((d1, d2)), np.eye(d2))

    def gram_solver(self, shift: float) -> Callable[[np.ndarray], np.ndarray]:
        r"""A function that applies :math:`(\mathcal A\mathcal A^* + \mathrm{shift}\, I)^{-1}`, which must exist."""
        shifted = self.gram + shift * np.eye(self.m)
        factor = np.linalg.cholesky(shifted), True
        return lambda rhs: scipy.linalg.cho_solve(factor, rhs, check_finite=False)

    @property
    def scale(self) -> float:
        """The magnitude by which intermediate results are divided so that their squares neither overflow nor vanish."""
        return 1.0

    def at_unit_scale(self) -> MeasurementMap:
        """The map with matrices ``A_i / scale``; this map itself where `scale` is 1."""
        return self

    @property
    def D1(self) -> np.ndarray:
        r"""The rescaling :math:`D_1 = (\frac1{m d_2}\sum_i A_i A_i^\top)^{1/2}`, shape ``(d1, d1)`` (Ding et al. 2022)."""
        return self.scale * self._roots[0].dense()

    @property
    def D2(self) -> np.ndarray:
        r"""The rescaling :math:`D_2 = (\frac1{m d_1}\sum_i A_i^\top A_i)^{1/2}`, shape ``(d2, d2)`` (Ding et al. 2022)."""
        return self.scale * self._roots[1].dense()

    def whitened(self) -> Whitened:
        r"""This map in the coordinates :math:`Z = D_1 X D_2`, where flat means of least nuclear norm."""
        left, right = (each.inverse() for each in self._roots)
        return Whitened(self.at_unit_scale().congruence(left, right), left, right, self.scale)

    def unwhitened(self) -> Whitened:
        """This map in the coordinates ``Z = X``, in the form of `whitened`."""
        left, right = (sp.eye_array(size, format="csr") for size in self.matrix_shape)
        return Whitened(self.at_unit_scale(), left, right, self.scale)

    @property
    def forms_stack(self) -> bool:
        """Tell whether `scaled_gram` has to form the ``m x d1 x d2`` stack of matrices."""
        return True

    @property
    def stored_stack(self) -> np.ndarray | None:
        """The matrices :math:`A_i` stacked if the map holds them in memory as they are, else ``None``."""
        return None

    @property
    def vectors(self) -> tuple[np.ndarray, np.ndarray] | None:
        r"""The rows :math:`u_i` and :math:`v_i` if every :math:`A_i = u_iv_i^\top` is held as such, else ``None``."""
        return None

    @property
    def of_entries(self) -> bool:
        """Tell whether every measurement is of a single entry, as in `Entries`."""
        return False

    def as_entries(self) -> SingleEntries:
        """A map `of_entries` as an `Entries` in this process."""
        raise TypeError(f"{type(self).__name__} does not measure single entries")


class SingleEntries(MeasurementMap):
    """A map in this process whose every measurement is of a single entry; `Entries` is the one there is."""

    rows: np.ndarray
    cols: np.ndarray
    weights: np.ndarray
    codes: np.ndarray
    places: tuple[np.ndarray, np.ndarray]


class Congruence(MeasurementMap):
    r"""The map with matrices :math:`P^\top A_i Q`, for maps that have no cheaper form of it."""

    def __init__(self, inner: MeasurementMap, P: np.ndarray, Q: np.ndarray) -> None:
        self.inner, self.P, self.Q = inner, P, Q
        self.matrix_shape = (P.shape[1], Q.shape[1])
        self.m = inner.m

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return self.inner._forward(self.P @ X @ self.Q.T)

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.P.T @ self.inner._adjoint(y) @ self.Q

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        return self.P.T @ self.inner._left_moment(self.Q @ P @ self.Q.T) @ self.P

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        return self.Q.T @ self.inner._right_moment(self.P @ Q @ self.P.T) @ self.Q

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return self.inner.rotated(self.P @ P, self.Q @ Q)


class Selected(MeasurementMap):
    """Some of the measurements of a map, weighted, for maps that have no cheaper form of it."""

    def __init__(self, inner: MeasurementMap, index: np.ndarray, weights: np.ndarray) -> None:
        self.inner, self.index, self.weights = inner, index, weights
        self.matrix_shape, self.m = inner.matrix_shape, index.size

    def _forward(self, X: np.ndarray) -> np.ndarray:
        return self.weights * self.inner._forward(X)[self.index]

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.inner._adjoint(np.bincount(self.index, self.weights * y, self.inner.m))

    def _left_moment(self, P: np.ndarray) -> np.ndarray:
        stack = self.stack()
        return np.tensordot(stack @ P, stack, axes=([0, 2], [0, 2]))

    def _right_moment(self, Q: np.ndarray) -> np.ndarray:
        stack = self.stack()
        return np.tensordot(stack, Q @ stack, axes=([0, 1], [0, 1]))

    def rotated(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return self.weights[:, None, None] * self.inner.rotated(P, Q)[self.index]
