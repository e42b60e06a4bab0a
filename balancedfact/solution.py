"""The result of every solve: the factorization, how good it is, and the proof."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._certificate import Certificate
from balancedfact._labels import as_labels, positions
from balancedfact._layer_shapes import described, multiply
from balancedfact._linalg import product
from balancedfact._memory import available_memory
from balancedfact._new_rows import Offsets, RowFit, completed_rows
from balancedfact._objective import Objective
from balancedfact._solution_file import read_fields, write_fields
from balancedfact._status import Status
from balancedfact._validate import as_gappy
from balancedfact._values import ByValue
from balancedfact.certification._statement import UNCHECKED, Statement, judged_anew, reproved
from balancedfact.measurements import MeasurementMap

__all__ = ["Certificate", "Objective", "Offsets", "RowFit", "Solution", "Status"]


@dataclass(frozen=True, eq=False, repr=False)
class Solution(ByValue):
    """A factorization with its verdict and certificate.

    Attributes
    ----------
    layers : list of numpy.ndarray
        ``[W_1, ..., W_L]``, `W_1` applied first.
    value : float
        The objective that was minimised, at `layers`.
    status : Status
        The verdict; ``status.ok`` says whether the certificate is as good as was asked for.
    message : str
        The verdict as a sentence, with what a reader should know about the result.
    certificate : Certificate
        The numbers behind the verdict: lower bound and gap, residual, stationarity.
    history : dict of str to numpy.ndarray
        One entry per iteration in each array, such as ``"gap"`` and ``"seconds"``.
    method : str
        The algorithm that was used.
    offsets : Offsets, optional
        The mean and the offsets of rows and columns, where the model has them; `predict` adds them, `matrix` does not.
    row_labels, col_labels : list of str, optional
        The names of rows and columns, where the data have them.
    row_fit : RowFit, optional
        What `transform` needs to know of the objective.
    precision : float
        The relative precision of the data, where they carry fewer digits than float64; else 0.
    objective : Objective, optional
        What was minimised, where `verify` can check it.

    See Also
    --------
    Certificate : The numbers that prove it.
    Status : Its verdict.
    flat_minimum : A solver that returns one.

    References
    ----------
    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
    >>> solution = bf.flat_minimum(A, [1.0, 2.0, 3.0])
    >>> solution.status.ok
    True
    >>> print(solution.matrix.round(3))
    [[1. 2.]
     [3. 2.]]
    """

    layers: list[np.ndarray]
    value: float
    status: Status
    message: str
    certificate: Certificate
    history: dict[str, np.ndarray] = field(default_factory=dict)
    method: str = ""
    offsets: Offsets | None = None
    row_labels: list[str] | None = None
    col_labels: list[str] | None = None
    row_fit: RowFit | None = None
    precision: float = 0.0
    objective: Objective | None = None

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The factors ``(L, R)`` with ``matrix == L @ R.T``, for depth 2."""
        self._matrix_shape  # noqa: B018, refuses what is not made of layers
        if len(self.layers) != 2:
            raise ValueError(f"the solution has {len(self.layers)} layers; pair is defined for 2")
        return self.layers[1], self.layers[0].T

    @property
    def _matrix_shape(self) -> tuple[int, int]:
        if not multiply(self.layers):
            raise ValueError(f"the solution has {described(self.layers)}; expected layers that multiply to a matrix")
        return self.layers[-1].shape[0], self.layers[0].shape[1]

    @property
    def singular_values(self) -> np.ndarray:
        """The singular values of the end-to-end matrix, largest first; as many as its layers leave room for."""
        left, right = self.sides
        if left.shape[1] > min(len(left), len(right)):
            return np.linalg.svd(left @ right.T, compute_uv=False)
        upper, other = (np.asarray(np.linalg.qr(side, mode="r")) for side in (left, right))
        return np.linalg.svd(upper @ other.T, compute_uv=False)

    @property
    def rank(self) -> int:
        """The numerical rank of the end-to-end matrix, without the offsets.

        Singular values count above ``max(d1, d2) * eps`` times the first, or above the relative precision of the data where
        that is coarser (`precision`).
        """
        s = self.singular_values
        return int(np.count_nonzero(s > max(max(self._matrix_shape) * np.finfo(float).eps, self.precision) * s[0]))

    @property
    def matrix(self) -> np.ndarray:
        """The end-to-end matrix ``W_L @ ... @ W_1``, formed anew at each call, without the offsets.

        Raises
        ------
        ValueError
            If the solution is a point of a manifold that is not made of layers.
        MemoryError
            If it would not fit into the memory that is free. `predict` gives single entries without forming it.
        """
        d1, d2 = self._matrix_shape
        free = available_memory()
        if 8 * d1 * d2 > free:
            raise MemoryError(
                f"the matrix is {d1} x {d2}, {8 * d1 * d2 / 1e9:.3g} GB, and {free / 1e9:.3g} GB of memory are free; "
                "use Solution.predict(rows, cols) for its entries, or the factors Solution.pair"
            )
        return product(self.layers)

    def with_labels(self, rows: Sequence[str] | None = None, cols: Sequence[str] | None = None) -> Solution:
        """The same solution with names for its rows and columns.

        Parameters
        ----------
        rows, cols : sequence of str, optional
            As many different names as there are rows and columns; ``None`` for none.

        Returns
        -------
        Solution

        Raises
        ------
        ValueError
            If labels repeat, or are more or fewer than the rows or columns.
        """
        d1, d2 = self._matrix_shape
        return replace(self, row_labels=as_labels(rows, "rows", d1), col_labels=as_labels(cols, "cols", d2))

    def predict(
        self, rows: ArrayLike, cols: ArrayLike, *, return_known: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        r"""Single entries of the end-to-end matrix, with the offsets added where there are any; no matrix is formed.

        Parameters
        ----------
        rows, cols : array_like of int or of str, shape (n,)
            Where the entries stand: positions counted from zero, or labels (texts), where the solution has them. A label that
            it does not have is answered by what is known without it: the mean and the offset of the other label, or zero in
            a model without offsets.
        return_known : bool
            Return also which entries are of known rows and columns.

        Returns
        -------
        numpy.ndarray, shape (n,)
            The entries, in ``O(n k)`` operations for a hidden width `k`.
        known : numpy.ndarray of bool, shape (n,)
            Where both labels are known, with `return_known`.

        Raises
        ------
        ValueError
            If `rows` and `cols` are neither positions within the matrix nor labels, or not as many as each other.

        Examples
        --------
        >>> import balancedfact as bf
        >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
        >>> solution = bf.flat_minimum(A, [1.0, 2.0, 3.0])
        >>> solution.predict([1, 1], [0, 1]).round(3)
        array([3., 2.])
        >>> solution.with_labels(["ann", "bob"], ["Ran", "Alien"]).predict(["bob", "eve"], ["Ran", "Ran"], return_known=True)
        (array([3., 0.]), array([ True, False]))
        """
        from balancedfact.measurements._sampled import sampled_product  # numba is imported only where it is used

        left, right = self.sides
        r = positions(self.row_labels, rows, "rows", len(left))
        c = positions(self.col_labels, cols, "cols", len(right))
        if r.size != c.size:
            raise ValueError(f"cols has {c.size} entries; expected {r.size}, as rows has")
        known = (r >= 0) & (c >= 0)
        found = np.zeros(r.size)
        found[known] = sampled_product(left, right, r[known], c[known])
        if self.offsets is not None:
            mean, by_row, by_col = self.offsets
            found += mean + np.where(r >= 0, by_row[r], 0.0) + np.where(c >= 0, by_col[c], 0.0)
        return (found, known) if return_known else found

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the end-to-end matrix ``left @ right.T``."""
        self._matrix_shape  # noqa: B018, refuses what is not made of layers
        right = self.layers[0]
        for layer in self.layers[1:-1]:
            right = layer @ right
        left = self.layers[-1] if len(self.layers) > 1 else np.eye(len(right))
        return left, right.T

    def transform(self, rows: ArrayLike) -> np.ndarray:
        r"""Fill in new rows, which were not among the data, without solving again.

        The factor :math:`\ell` of a row with the entries `S` seen, and its offset :math:`\alpha`, are those that the objective
        gives with :math:`R` held fixed,

        .. math:: \min_{\ell,\alpha} \tfrac12\sum_{j\in S}(x_j - \mu - \beta_j - \alpha - r_j^\top\ell)^2
                  + \tfrac12 w_S\|\ell\|^2 + \tfrac12 w_\alpha\alpha^2,

        with :math:`w_S = \text{penalty}\,|S|/(m d_2)` where flatness is penalised (:math:`m` entries were seen in the
        solve) and :math:`w_S = \text{penalty}` where the nuclear norm is, and :math:`w_\alpha` the `offset_penalty`. Without a
        penalty :math:`\ell` is the one of least norm among those that fit best.

        Parameters
        ----------
        rows : array_like, shape (n, d2)
            New rows, ``nan`` or masked where nothing was seen.

        Returns
        -------
        numpy.ndarray, shape (n, d2)
            The values of the model in every column, also where something was seen.

        Raises
        ------
        ValueError
            If the solution is not one of two layers for entries, or `rows` does not have its columns.

        Examples
        --------
        >>> import numpy as np, balancedfact as bf
        >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
        >>> solution = bf.flat_minimum(A, [1.0, 2.0, 3.0])
        >>> solution.transform([[2.0, np.nan]]).round(3)
        array([[2.   , 1.333]])
        """
        if self.row_fit is None:
            raise ValueError("the solution is not one of two layers for entries; transform is defined for those")
        _, R = self.sides
        X = as_gappy(rows, "rows")
        if X.shape[1] != len(R):
            raise ValueError(f"rows has shape {X.shape}; expected (n, {len(R)})")
        return completed_rows(X, R, self.row_fit, self.offsets)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the solution to one ``.npz`` file without pickles; `load` reads it back."""
        write_fields(path, {each.name: getattr(self, each.name) for each in fields(self)}, multiply(self.layers))

    def verify(self, A: MeasurementMap, b: ArrayLike, rigorous: bool = False) -> Certificate:
        """Compute the certificate anew, from the layers, the dual vector and the data alone.

        The value and the verdict that the solution states are not used, except that a solution whose status is ``INFEASIBLE``
        is checked for a contradiction in the data, and ``OPTIMAL`` networks for their costly bounds.

        Parameters
        ----------
        A : MeasurementMap
            The measurements.
        b : array_like, shape (m,)
            The data.
        rigorous : bool
            Compute in exact arithmetic, for small matrices: needs ``pip install 'balancedfact[rigorous]'``. For three or more
            layers that is the value, the residual and the bound from the dual vector, and no other bound.

        Returns
        -------
        Certificate
            Value, residual, lower bound and gap are new, and their rounding is bounded. The rest depends on the solution:

            - two layers: stationarity and balance are those of the solution;
            - three or more layers: stationarity and curvature are new too, without a bound on their rounding. If the solution
              says that it is optimal, every bound of `flat_network` is tried that the size allows, which may take minutes;
            - least sharpness: stationarity and curvature are ``nan``;
            - data that contradict one another: `Certificate.excluded_norm` is the nuclear norm up to which no matrix fits, and
              there is no value.

        Raises
        ------
        ValueError
            If an argument is malformed; if the solution minimises none of trace, norm and sharpness over all matrices;
            or if `rigorous` is asked for of three or more layers with a penalty, or of least sharpness.

        Examples
        --------
        >>> import balancedfact as bf
        >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
        >>> bf.flat_minimum(A, [1.0, 2.0, 3.0]).verify(A, [1.0, 2.0, 3.0]).gap < 1e-8
        True
        """
        return reproved(self._statement, A, b, rigorous=rigorous)

    @property
    def _statement(self) -> Statement:
        return Statement(self.layers, self.status, self.certificate, self.offsets, self.objective)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], A: MeasurementMap | None = None, b: ArrayLike | None = None, *, tol: float = 1e-8
    ) -> Solution:
        """Read a solution that `save` wrote.

        A file may say anything. With the data its certificate and its verdict are computed anew; without, the message says that
        they were not checked.

        Parameters
        ----------
        path : path-like
            The file.
        A : MeasurementMap, optional
            The measurements.
        b : array_like, shape (m,), optional
            The data.
        tol : float
            With the data, the relative gap up to which the verdict is ``OPTIMAL``, in place of the tolerance of the solve. For
            the trace of three or more layers and for least sharpness it is 1e-3 if `tol` is smaller, for their bounds are
            coarser. Networks with a larger gap are ``STATIONARY`` if the relative gradient is at most `tol`, or 1e-8 if `tol`
            is smaller, and no curvature is negative; for least sharpness neither is computed, and they are ``GAP_OPEN``.

        Returns
        -------
        Solution

        Raises
        ------
        ValueError
            If the file is not a saved solution, or only one of `A` and `b` is given.
        """
        if (A is None) != (b is None):
            raise ValueError(f"{'b' if b is None else 'A'} is None; expected both A and b, or neither")
        found = cls(**read_fields(path))
        if A is None or b is None:
            message = UNCHECKED + found.message.removeprefix(UNCHECKED)
            return replace(found, message=message)
        return replace(found, **judged_anew(found._statement, found.message.removeprefix(UNCHECKED), A, b, tol))

    def to_dict(self) -> dict[str, Any]:
        """Verdict, value and certificate as plain numbers and texts, for a report; the arrays are left out."""
        return {
            "status": self.status.value,
            "ok": self.status.ok,
            "proved": self.status.proved,
            "message": self.message,
            "method": self.method,
            "value": self.value,
            "shapes": [list(layer.shape) for layer in self.layers],
            "rank": self.rank if multiply(self.layers) else None,
            "iterations": len(self.history.get("iteration", ())),
            "certificate": self.certificate.to_dict(),
        }

    def __repr__(self) -> str:
        c = self.certificate
        return (
            f"<Solution: {self.status.value} ({self.method})\n"
            f"  {self.message}\n"
            f"  {described(self.layers)}, value {self.value:.10g}, lower bound {c.lower_bound:.10g}, gap {c.gap:.1e}\n"
            f"  feasibility {c.feasibility:.1e}, stationarity {c.stationarity:.1e}, balance {c.balance:.1e}"
            f"{'' if np.isnan(c.curvature) else f', curvature {c.curvature:.1e}'}>"
        )

    def _repr_html_(self) -> str:
        """The verdict, the numbers and a small picture, for notebooks."""
        from balancedfact._solution_html import html

        about = f"{self.method}, {described(self.layers)}"
        s = self.singular_values if multiply(self.layers) else np.zeros(0)
        return html(self.status, about, self.message, self.value, self.certificate, s)
