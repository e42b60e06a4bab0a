"""The table of a comparison and what its columns are."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from balancedfact import curvature
from balancedfact._spectrum import numerical_rank, product_singular_values
from balancedfact.measurements import MeasurementMap


@dataclass(frozen=True)
class ComparisonRow:
    r"""One way to a factorization and what it found.

    Attributes
    ----------
    method : str
        The name of the way, as `compare` lists them.
    fit : float
        Relative residual ``norm(A(E) - b) / norm(b)``.
    trace : float
        Trace of the Hessian of the mean squared error, at depth 2 the scaled trace of the Hessian of the squared error.
    isotropic_trace : float
        The surrogate `R(W)`.
    sharpness : float
        Largest eigenvalue of the Hessian of the mean squared error.
    nuclear_norm : float
        Nuclear norm of the end-to-end matrix.
    rank : int
        Numerical rank of the end-to-end matrix.
    imbalance : float
        Largest ``norm(W_{k+1}.T W_{k+1} - W_k W_k.T)``, relative to the largest squared norm of a layer.
    rank_one : float
        Least share of the squared norm of a layer that lies in its leading singular value, over the layers.
    rank_one_limit : float
        The value of `rank_one` for balanced layers with this product, :math:`s_1^{2/L}/\sum_i s_i^{2/L}` with its singular
        values `s`: what gradient flow from a vanishing start would give.
    alignment : float
        Least squared cosine between leading singular vectors of neighbouring layers; 1 for balanced layers.
    error : float
        Relative distance to the truth, ``nan`` without one.
    seconds : float
        Wall time.
    note : str
        The solver's verdict, or how the run ended.
    layers : list of numpy.ndarray
        ``[W_1, ..., W_L]``.
    excess : float
        How far the trace is above the certified one, relative to it.
    distance : float
        Distance of the layers from the certified ones, relative to the norm of these, after orthogonal changes of basis of the
        hidden spaces, under which no quantity of this table changes: the least at depth 2, an upper bound of it beyond.
    steps : int
        Steps of training, or of the integration of a flow; 0 for a construction or a solver.

    See Also
    --------
    compare : The function that computes the rows.
    Comparison : The table of all rows.

    References
    ----------
    Arora, Cohen, Hazan 2018 (balance is conserved) and Ji, Telgarsky 2019 (alignment) for the limits.

    Guide :doc:`/guide/compare`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(12, (3, 4), rng=0)
    >>> row = bf.compare(A, A(np.ones((3, 4))), methods=["certified", "balanced"], rng=0).rows[0]
    >>> row.rank, row.fit < 1e-10
    (1, True)
    """

    method: str
    fit: float
    trace: float
    isotropic_trace: float
    sharpness: float
    nuclear_norm: float
    rank: int
    imbalance: float
    rank_one: float
    rank_one_limit: float
    alignment: float
    error: float
    seconds: float
    note: str
    layers: list[np.ndarray] = field(repr=False)
    excess: float = np.nan
    distance: float = np.nan
    steps: int = 0


_HEADINGS = {
    "method": "",
    "fit": "residual",
    "trace": "trace",
    "excess": "excess",
    "isotropic_trace": "R(W)",
    "sharpness": "sharpness",
    "nuclear_norm": "nuclear",
    "rank": "rank",
    "imbalance": "imbalance",
    "rank_one": "rank one",
    "rank_one_limit": "limit",
    "alignment": "aligned",
    "distance": "distance",
    "error": "error",
    "steps": "steps",
    "seconds": "seconds",
}


_LEGEND = {
    "fit": "norm(A(E) - b) / norm(b); far above 1e-8, the row did not fit and its other numbers do not compare",
    "trace": "of the Hessian, the flatness that is minimised: small is flat",
    "excess": "how far the trace is above the certified one, relative to it",
    "isotropic_trace": "the same trace for measurements that see all directions alike",
    "sharpness": "largest eigenvalue of the Hessian of the mean squared error",
    "nuclear_norm": "sum of the singular values of the end-to-end matrix E",
    "rank": "numerical rank of E",
    "imbalance": "largest relative norm(W_{k+1}.T W_{k+1} - W_k W_k.T); 0 is balanced",
    "rank_one": "least share of the leading singular value in the square of a layer; 1 is rank one",
    "rank_one_limit": "the same for balanced layers with this product, the limit of flow from a vanishing start",
    "alignment": "least squared cosine of leading singular vectors of neighbouring layers; 1 in that limit",
    "distance": "from the certified layers, up to rotations of the hidden spaces, relative",
    "error": "relative distance of E from the truth",
    "steps": "of training or of the integration of a flow",
    "seconds": "wall time",
}


@dataclass(frozen=True)
class Comparison:
    """The table of `compare`.

    Attributes
    ----------
    rows : list of ComparisonRow
        One per method.
    depth : int
        Number of layers.
    skipped : list of str
        The methods for which a limit on time left nothing, or which the size of the problem rules out.

    See Also
    --------
    compare : The function that returns one.
    ComparisonRow : One row of the table.

    References
    ----------
    Guide :doc:`/guide/compare`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> A = bf.measurements.gaussian(12, (3, 4), rng=0)
    >>> table = bf.compare(A, A(np.ones((3, 4))), methods=["certified", "balanced"], rng=0)
    >>> [row.method for row in table.rows]
    ['certified', 'balanced']
    """

    rows: list[ComparisonRow]
    depth: int
    skipped: list[str] = field(default_factory=list)

    def __getitem__(self, method: str) -> ComparisonRow:
        """The row of a method."""
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)

    def to_dict(self) -> dict[str, object]:
        """The table as plain data, without the layers."""
        names = [each.name for each in fields(ComparisonRow) if each.name != "layers"]
        return {
            "depth": self.depth,
            "skipped": self.skipped,
            "rows": [{name: getattr(row, name) for name in names} for row in self.rows],
        }

    def to_pandas(self) -> Any:
        """The table as a data frame, without the layers; needs pandas."""
        import pandas

        names = [each.name for each in fields(ComparisonRow) if each.name != "layers"]
        return pandas.DataFrame([{name: getattr(row, name) for name in names} for row in self.rows]).set_index("method")

    @property
    def legend(self) -> str:
        """The meaning of the columns of the printed table, one to a line."""
        lines = [f"{_HEADINGS[name]:<10} {meaning}" for name, meaning in _LEGEND.items()]
        return "\n".join(lines)

    def __str__(self) -> str:
        known = not all(np.isnan(row.error) for row in self.rows)
        columns = [name for name in _HEADINGS if known or name != "error"]
        table = Table(box=None, pad_edge=False)
        for name in columns:
            table.add_column(_HEADINGS[name], justify="left" if name == "method" else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(_text(getattr(row, name)) for name in columns))
        console = Console(width=200, color_system=None)
        with console.capture() as text:
            console.print(table)
        lines = [text.get().rstrip()]
        if self.skipped:
            lines.append(f"left out, for want of time or for its size: {'; '.join(self.skipped)}")
        return "\n".join(lines)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def row_of(
    name: str,
    layers: list[np.ndarray],
    A: MeasurementMap,
    b: np.ndarray,
    truth: np.ndarray | None,
    seconds: float,
    note: str,
    steps: int,
) -> ComparisonRow:
    """Collect the numbers of one way; `excess` and `distance` follow once the certified way is known."""
    E = np.linalg.multi_dot(layers[::-1])
    s = product_singular_values(layers)
    shares = s[: numerical_rank(s)] ** (2 / len(layers))  # of balanced layers with this product
    factors = [np.linalg.svd(layer, full_matrices=False) for layer in layers]
    sizes = [float(np.sum(values**2)) or 1.0 for _, values, _ in factors]
    gaps = [above.T @ above - below @ below.T for below, above in pairwise(layers)]
    cosines = [float(above[2][0] @ below[0][:, 0]) ** 2 for below, above in pairwise(factors)]
    scaled = len(layers) == 2
    return ComparisonRow(
        name,
        fit=float(np.linalg.norm(A(E) - b) / np.linalg.norm(b)),
        trace=curvature.scaled_trace(layers[1], layers[0].T, A) if scaled else curvature.trace(layers, A),
        isotropic_trace=curvature.isotropic_trace(layers),
        sharpness=float(curvature.sharpness(layers, A, b)),
        nuclear_norm=float(s.sum()),
        rank=numerical_rank(s),
        imbalance=max(float(np.linalg.norm(gap)) for gap in gaps) / max(sizes),
        rank_one=min(float(values[0] ** 2) / size for (_, values, _), size in zip(factors, sizes, strict=True)),
        rank_one_limit=float(shares[0] / shares.sum()) if shares.size else 0.0,
        alignment=min(cosines),
        error=np.nan if truth is None else float(np.linalg.norm(E - truth) / np.linalg.norm(truth)),
        seconds=seconds,
        note=note,
        layers=layers,
        steps=steps,
    )
