"""What every solve returns: the factorization, how good it is, and the proof."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._arrays import read_arrays
from balancedfact._files import write_arrays
from balancedfact._labels import as_labels, positions
from balancedfact._linalg import product
from balancedfact._memory import available_memory
from balancedfact._validate import as_gappy, as_layers, as_path

if TYPE_CHECKING:
    from balancedfact.measurements import MeasurementMap

_FORMAT = "balancedfact solution 1"
_UNCHECKED = "(not checked: read from a file without its data) "


class Status(Enum):
    """The verdict of a solve."""

    OPTIMAL = "optimal"
    """The certificate closed: no other factorization is better by more than the tolerance."""
    GAP_OPEN = "gap open"
    """The solver stopped with a solution that fits, whose certificate did not reach the tolerance."""
    RANK_LIMITED = "rank limited"
    """The best solution found within the rank limit; a better one of higher rank exists, or may exist."""
    RANK_EXCLUDED = "rank excluded"
    """No matrix within the rank limit was found to fit the data."""
    INFEASIBLE = "infeasible"
    """The data contradict one another: no matrix fits, of any rank. The dual vector proves it."""
    STATIONARY = "stationary"
    """A local minimum to second order, within the tolerance; evidence of a global one, but no bound that proves it."""
    UNATTAINED = "unattained"
    """The objective has no minimum: it falls to its infimum only along layers that diverge. A point close to the infimum."""
    INTERRUPTED = "interrupted"
    """The user stopped the solve; the best point so far is returned."""
    LIMIT = "limit"
    """A limit on time or iterations was reached, or the callback asked to stop; the best point so far, with its certificate."""

    @property
    def ok(self) -> bool:
        """Whether the certificate is as good as was asked for: a proof (``OPTIMAL``) or evidence (``STATIONARY``)."""
        return self in (Status.OPTIMAL, Status.STATIONARY)

    @property
    def proved(self) -> bool:
        """Whether the verdict is a proof: that nothing is better (``OPTIMAL``) or that nothing fits (``INFEASIBLE``)."""
        return self in (Status.OPTIMAL, Status.INFEASIBLE)


class Offsets(NamedTuple):
    r"""What is added to the factored matrix: :math:`\mu + \alpha_r + \beta_c` to the entry of row `r` and column `c`.

    Attributes
    ----------
    mean : float
        The constant :math:`\mu`.
    rows : numpy.ndarray, shape (d1,)
        The offsets :math:`\alpha` of the rows.
    cols : numpy.ndarray, shape (d2,)
        The offsets :math:`\beta` of the columns.
    """

    mean: float
    rows: np.ndarray
    cols: np.ndarray


class RowFit(NamedTuple):
    r"""How a row is fitted to a solved model: the weight of its squared factor is ``fixed + each * (entries seen)``.

    Attributes
    ----------
    fixed, each : float
        The two parts of the weight; both are zero without a penalty, and the least factor that fits is taken.
    offset : float
        The weight of the squared offset of the row, infinite where the model has no offsets.
    """

    fixed: float
    each: float
    offset: float


@dataclass(frozen=True)
class Objective:
    """What was minimised, so that it can be checked.

    Attributes
    ----------
    kind : str
        ``"flat"`` (`balancedfact.flat_minimum`) or ``"norm"`` (`balancedfact.norm_minimum`).
    penalty : float
        The penalty; 0 interpolates.
    offset_penalty : float, optional
        The weight of the squares of offsets.
    depth : int
        The number of layers.
    """

    kind: str
    penalty: float = 0.0
    offset_penalty: float | None = None
    depth: int = 2

    @property
    def flat(self) -> bool:
        """Whether the pair is flat, or of least norm."""
        return self.kind == "flat"

    def weight(self, m: int) -> float:
        """The objective is that many nuclear norms where `m` data are interpolated."""
        return 4.0 * m if self.flat else 2.0


@dataclass(frozen=True, repr=False)
class Certificate:
    """Numbers that prove how good a solution is.

    Attributes
    ----------
    feasibility : float
        Relative residual ``norm(A(X) - b) / norm(b)``. With a penalty the residual is part of the objective, and its size here
        says how far the penalty moved the fit.
    lower_bound : float
        A lower bound on the objective over all factorizations of any width, in the units of `Solution.value`, computed from
        `dual`; ``nan`` where no bound exists, ``inf`` where `dual` proves that no matrix fits.
    gap : float
        ``(value - lower_bound) / value``; ``nan`` where no bound exists.
    dual : numpy.ndarray
        The dual vector `y`, scaled so that it satisfies its constraint.
    stationarity : float
        Relative violation of the first-order optimality condition, the largest of its parts.
    balance : float
        Relative violation of the balance of the factors: rescaled balance ``L.T D1^2 L = R.T D2^2 R`` for flat pairs.
    curvature : float
        Smallest eigenvalue of the Riemannian Hessian of the objective over the feasible set, divided by the largest in
        magnitude; clearly negative at a saddle, ``nan`` where it was not computed.
    fibre_gap : float
        For deep factorizations, ``value / F(E) - 1`` with `F(E)` the least trace of the Hessian over all factorizations of the
        same end-to-end matrix (`balancedfact.induced_regularizer`); ``nan`` where it does not apply.
    direction : numpy.ndarray
        Where the infimum is not attained, the direction along which the layers diverge.
    proof : str
        What makes the lower bound rigorous, in words; where there is none, which parts are evidence.
    value : float
        The objective at the candidate that was certified.
    worst_datum : float
        The largest residual of a single datum, rounding included, relative to ``max(|b_i|, 1e-3 norm(A_i) norm(X))``.
    rounding : float
        How much of the gap is a bound on rounding, an a priori one: what is claimed holds in exact arithmetic.
    excluded_norm : float
        Where the data contradict one another: no matrix of nuclear norm up to this fits them; ``inf`` excludes every matrix.
    """

    feasibility: float
    lower_bound: float = np.nan
    gap: float = np.nan
    dual: np.ndarray = field(default_factory=lambda: np.empty(0))
    stationarity: float = np.nan
    balance: float = np.nan
    curvature: float = np.nan
    fibre_gap: float = np.nan
    direction: np.ndarray = field(default_factory=lambda: np.empty(0))
    proof: str = ""
    value: float = np.nan
    worst_datum: float = np.nan
    rounding: float = np.nan
    excluded_norm: float = np.nan

    def to_dict(self) -> dict[str, float | str]:
        """The numbers without the arrays, for a report."""
        return {name: getattr(self, name) for name in _CERTIFICATE_FIELDS}

    def __repr__(self) -> str:
        numbers = {name: number for name, number in self.to_dict().items() if name != "proof" and not np.isnan(number)}
        return f"Certificate({', '.join(f'{name}={number:.3g}' for name, number in numbers.items())})"


_CERTIFICATE_FIELDS = (
    "feasibility",
    "lower_bound",
    "gap",
    "stationarity",
    "balance",
    "curvature",
    "fibre_gap",
    "proof",
    "value",
    "worst_datum",
    "rounding",
    "excluded_norm",
)


@dataclass(frozen=True, repr=False)
class Solution:
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
        The proof.
    history : dict of str to numpy.ndarray
        One entry per iteration in each array, such as ``"gap"`` and ``"seconds"``.
    method : str
        The algorithm that was used.
    offsets : Offsets, optional
        The mean and the offsets of rows and columns, where the model has them: what `matrix` lacks and `predict` adds.
    row_labels, col_labels : list of str, optional
        The names of rows and columns, where the data have them.
    row_fit : RowFit, optional
        What `transform` needs to know of the objective.
    precision : float
        The relative precision of the data, where they carry fewer digits than float64; else 0.
    objective : Objective, optional
        What was minimised, where `verify` can check it.

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
        if len(self.layers) != 2:
            raise ValueError(f"the solution has {len(self.layers)} layers; pair is defined for 2")
        return self.layers[1], self.layers[0].T

    @property
    def matrix(self) -> np.ndarray:
        """The end-to-end matrix ``W_L @ ... @ W_1``, formed anew at each call, without the offsets.

        Raises
        ------
        MemoryError
            If it would not fit into the memory that is free. `predict` gives single entries without forming it.
        """
        d1, d2 = self.layers[-1].shape[0], self.layers[0].shape[1]
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
        """
        d1, d2 = self.layers[-1].shape[0], self.layers[0].shape[1]
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
            The entries, in ``O(n k)`` operations for layers of `k` hidden columns.
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
        solve) and :math:`w_S = \text{penalty}` where the nuclear norm is. Without a penalty :math:`\ell` is the least of those
        that fit best.

        Parameters
        ----------
        rows : array_like, shape (n, d2)
            New rows, ``nan`` or masked where nothing was seen.

        Returns
        -------
        numpy.ndarray, shape (n, d2)
            What the model says of them, in every column.

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
        base, G = np.zeros(len(R)), R
        fixed, each, offset = self.row_fit
        if self.offsets is not None:
            base, G = self.offsets.mean + self.offsets.cols, np.column_stack([R, np.ones(len(R))])
        out = np.empty(X.shape)
        for k, x in enumerate(X):
            seen = ~np.isnan(x)
            weight = np.full(G.shape[1], fixed + each * int(seen.sum()))
            if self.offsets is not None:
                weight[-1] = offset
            wide = np.vstack([G[seen], np.diag(np.sqrt(weight))[weight > 0]])
            target = np.concatenate([(x - base)[seen], np.zeros(np.count_nonzero(weight))])
            out[k] = base + G @ np.linalg.lstsq(wide, target, rcond=None)[0] if seen.any() else base
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the solution to one ``.npz`` file without pickles; `load` reads it back."""
        header = {
            "format": _FORMAT,
            "depth": len(self.layers),
            "value": self.value,
            "status": self.status.name,
            "message": self.message,
            "method": self.method,
            "precision": self.precision,
            "certificate": self.certificate.to_dict(),
            "objective": None if self.objective is None else asdict(self.objective),
        }
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), "dual": self.certificate.dual}
        arrays["direction"] = self.certificate.direction
        arrays |= {f"layer_{k}": layer for k, layer in enumerate(self.layers, start=1)}
        if self.offsets is not None:
            arrays |= {f"offset_{name}": np.asarray(values) for name, values in self.offsets._asdict().items()}
        for name, labels in (("row_labels", self.row_labels), ("col_labels", self.col_labels)):
            if labels is not None:
                arrays[name] = np.array(json.dumps(labels))
        if self.row_fit is not None:
            arrays["row_fit"] = np.array(self.row_fit)
        arrays |= {f"history_{name}": np.asarray(values) for name, values in self.history.items()}
        write_arrays(path, arrays)

    def verify(self, A: MeasurementMap, b: ArrayLike, rigorous: bool = False) -> Certificate:
        """Compute the certificate anew, from the layers, the dual vector and the data alone.

        Parameters
        ----------
        A : MeasurementMap
            The measurements.
        b : array_like, shape (m,)
            The data.
        rigorous : bool
            Decide in exact arithmetic, for small matrices: needs ``pip install 'balancedfact[rigorous]'``.

        Returns
        -------
        Certificate
            For data that contradict one another, with the norm up to which every matrix is excluded.

        Raises
        ------
        ValueError
            If an argument is malformed, or the objective of the solution is not that of a flat or a norm-minimal pair.

        Examples
        --------
        >>> import balancedfact as bf
        >>> A = bf.measurements.Entries([0, 0, 1], [0, 1, 0], (2, 2))
        >>> bf.flat_minimum(A, [1.0, 2.0, 3.0]).verify(A, [1.0, 2.0, 3.0]).gap < 1e-8
        True
        """
        from balancedfact.certification import verified  # which builds on solvers, and they on this

        return verified(self, A, b, rigorous)

    @classmethod
    def load(cls, path: str | os.PathLike[str], A: MeasurementMap | None = None, b: ArrayLike | None = None) -> Solution:
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

        Raises
        ------
        ValueError
            If the file is not a saved solution, or only one of `A` and `b` is given.
        """
        if (A is None) != (b is None):
            raise ValueError(f"{'b' if b is None else 'A'} is None; expected both A and b, or neither")
        found = cls._read(path)
        if A is None or b is None:
            mark = "" if found.message.startswith(_UNCHECKED) else _UNCHECKED
            return replace(found, message=mark + found.message)
        from balancedfact.certification import rechecked  # which builds on solvers, and they on this

        return rechecked(found, A, b)

    @classmethod
    def _read(cls, path: str | os.PathLike[str]) -> Solution:
        try:
            arrays = read_arrays(as_path(path))
            header = json.loads(str(arrays["header"]))
            if header["format"] != _FORMAT:
                raise KeyError("format")
            layers = as_layers([arrays[f"layer_{k}"] for k in range(1, header["depth"] + 1)])
            certificate = Certificate(dual=arrays["dual"], direction=arrays["direction"], **header["certificate"])
            history = {name[8:]: values for name, values in arrays.items() if name.startswith("history_")}
            offsets = None
            if "offset_mean" in arrays:
                offsets = Offsets(float(arrays["offset_mean"]), arrays["offset_rows"], arrays["offset_cols"])
            verdict = Status[header["status"]], header["message"]
            rows, cols = (json.loads(str(arrays[side])) if side in arrays else None for side in ("row_labels", "col_labels"))
            fit = RowFit(*map(float, arrays["row_fit"])) if "row_fit" in arrays else None
            saved = cls(layers, header["value"], *verdict, certificate, history, header["method"], offsets)
            precision = float(header.get("precision", 0.0))
            said = header.get("objective")
            objective = None if said is None else Objective(**said)
            return replace(saved, objective=objective, row_labels=rows, col_labels=cols, row_fit=fit, precision=precision)
        except (FileNotFoundError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"path is {path!r}; expected a file that Solution.save wrote") from error

    def __repr__(self) -> str:
        shapes = " x ".join(str(size) for size in [self.layers[-1].shape[0], *(w.shape[1] for w in self.layers[::-1])])
        c = self.certificate
        return (
            f"<Solution: {self.status.value} ({self.method})\n"
            f"  {self.message}\n"
            f"  widths {shapes}, value {self.value:.10g}, lower bound {c.lower_bound:.10g}, gap {c.gap:.1e}\n"
            f"  feasibility {c.feasibility:.1e}, stationarity {c.stationarity:.1e}, balance {c.balance:.1e}"
            f"{'' if np.isnan(c.curvature) else f', curvature {c.curvature:.1e}'}>"
        )
