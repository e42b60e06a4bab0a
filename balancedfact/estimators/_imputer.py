"""Matrix completion as a transformer of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_number, as_rng
from balancedfact.measurements import Entries
from balancedfact.solvers import flat_minimum, select_penalty
from balancedfact.solvers.iteration._log import interrupts_pass

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("balancedfact.estimators takes scikit-learn 1.6 or later: pip install 'balancedfact[sklearn]'") from error


class FlatImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Impute missing values by the flattest factorization, with a certificate.

    Parameters
    ----------
    penalty : float or "auto"
        Weight of flatness against the fit, as in `balancedfact.flat_minimum`; ``"auto"`` chooses it by hold-out
        (`balancedfact.solvers.select_penalty`), 0 fits what is seen exactly.
    offset_penalty : float or None
        Weight of the squares of row and column offsets; ``None`` has none. Without a penalty there are no offsets.
    max_rank : int or None
        Largest rank allowed.
    tol : float
        Relative gap between value and lower bound at which to stop.
    random_state : int, numpy.random.RandomState or None
        Randomness of the hold-out and of starting vectors.

    Attributes
    ----------
    solution_ : Solution
        The factorization with its certificate.
    penalty_ : float
        The penalty that was used.
    n_features_in_ : int
        The number of columns.
    feature_names_in_ : numpy.ndarray of str
        Their names, where the data have names.

    See Also
    --------
    balancedfact.complete : The same without scikit-learn.
    balancedfact.Solution.transform : New rows.

    Notes
    -----
    `transform` fits each row to the columns' factors held fixed, in closed form (`Solution.transform`), and leaves what was
    seen as it is. `fit_transform` does the same with the rows of the fit. A column of which nothing was seen is filled with the
    mean and the offset of the row, or with zero in a model without offsets; no column is dropped.

    References
    ----------
    Guide :doc:`/guide/tables`.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact.estimators import FlatImputer
    >>> X = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    >>> X[0, 0] = X[2, 1] = np.nan
    >>> FlatImputer(penalty=0.0, offset_penalty=None).fit_transform(X).round(3)[2]
    array([3., 6., 9.])
    """

    def __init__(
        self,
        penalty: float | str = "auto",
        *,
        offset_penalty: float | None = 1.0,
        max_rank: int | None = None,
        tol: float = 1e-6,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.offset_penalty = offset_penalty
        self.max_rank = max_rank
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> FlatImputer:
        """Fit the factorization to what was seen.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            ``nan`` where nothing was seen.
        y : object
            Ignored.

        Returns
        -------
        FlatImputer

        Raises
        ------
        ValueError
            If a parameter is out of range, or `X` is no matrix of numbers, holds infinite values or nothing that was seen.
        """
        A, b = Entries.from_array(validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan"))
        rng = self._generator()
        offset = None if self.offset_penalty is None else as_number(self.offset_penalty, "offset_penalty", above=0.0)
        if isinstance(self.penalty, str) and self.penalty == "auto":
            constant = A.m < 2 or not (b - b.mean() if offset is not None else b).any()
            penalty = 1.0 if constant else select_penalty(A, b, offset_penalty=offset, rng=rng, progress=False).penalty
        elif isinstance(self.penalty, str):
            raise ValueError(f"penalty is {self.penalty!r}; expected a number or 'auto'")
        else:
            penalty = as_number(self.penalty, "penalty", least=0.0)
        self.penalty_ = penalty
        with interrupts_pass():  # a search over parameters would go on otherwise
            self.solution_ = flat_minimum(
                *(A, b),
                penalty=penalty,
                offset_penalty=offset if penalty > 0 else None,
                max_rank=self.max_rank,
                tol=self.tol,
                rng=rng,
                progress=False,
            )
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Fill in what is missing, also of rows that were not in the fit.

        Parameters
        ----------
        X : array_like, shape (n, n_features)
            ``nan`` where nothing was seen.

        Returns
        -------
        numpy.ndarray, shape (n, n_features)

        Raises
        ------
        ValueError
            If `X` has other columns than the data of the fit or holds infinite values, or nothing was fitted yet.
        """
        rows = self._checked(X)
        return np.where(np.isnan(rows), self.solution_.transform(rows), rows)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Minus the root mean squared error on a tenth of what was seen in `X`, hidden from the fit of each row.

        Parameters
        ----------
        X : array_like, shape (n, n_features)
            ``nan`` where nothing was seen.
        y : object
            Ignored.

        Returns
        -------
        float
            The larger the better, as model selection in scikit-learn wants it.

        Raises
        ------
        ValueError
            As `transform`, and if nothing in `X` was seen.
        """
        rows = self._checked(X)
        seen = np.argwhere(~np.isnan(rows))
        if not seen.size:
            raise ValueError(f"X has shape {rows.shape} and no entry that was seen; expected at least one number")
        hidden = tuple(seen[np.random.default_rng(0).permutation(len(seen))[: max(1, len(seen) // 10)]].T)
        left = rows.copy()
        left[hidden] = np.nan
        error = self.solution_.transform(left)[hidden] - rows[hidden]
        return -float(np.sqrt(np.mean(error**2)))

    def _checked(self, X: ArrayLike) -> np.ndarray:
        """New rows, once there is a fit."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)

    def _generator(self) -> np.random.Generator:
        if isinstance(self.random_state, np.random.RandomState):
            return np.random.default_rng(self.random_state.randint(2**31))
        return as_rng(self.random_state, "random_state")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
