"""Offsets, and rows that are fitted to a solved model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Offsets(NamedTuple):
    r"""The offsets added to the factored matrix: :math:`\mu + \alpha_r + \beta_c` to the entry of row `r` and column `c`.

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
    r"""Rule for fitting a row to a solved model: the weight of its squared factor is ``fixed + each * (entries seen)``.

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


def completed_rows(X: np.ndarray, R: np.ndarray, fit: RowFit, offsets: Offsets | None) -> np.ndarray:
    """The rows `X`, ``nan`` where nothing was seen, as the model with right factor `R` has them; see `Solution.transform`."""
    base, G = np.zeros(len(R)), R
    fixed, each, offset = fit
    if offsets is not None:
        base, G = offsets.mean + offsets.cols, np.column_stack([R, np.ones(len(R))])
    out = np.empty(X.shape)
    for k, x in enumerate(X):
        seen = ~np.isnan(x)
        weight = np.full(G.shape[1], fixed + each * int(seen.sum()))
        if offsets is not None:
            weight[-1] = offset
        wide = np.vstack([G[seen], np.diag(np.sqrt(weight))[weight > 0]])
        target = np.concatenate([(x - base)[seen], np.zeros(np.count_nonzero(weight))])
        out[k] = base + G @ np.linalg.lstsq(wide, target, rcond=None)[0] if seen.any() else base
    return out
