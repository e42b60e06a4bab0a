"""The interface of an algorithm for the convex problem: it proposes points, which are judged elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from balancedfact.solvers.nuclear._problem import NuclearProblem, Pair, Point


class Algorithm(ABC):
    r"""An algorithm for :math:`\min \|Z\|_* + \tfrac1{2q}\|\mathcal A(Z) - b\|^2`, or :math:`\mathcal A(Z) = b` with `q = 0`.

    A subclass is a frozen dataclass whose fields configure it. Passed as ``method=`` to `flat_minimum` or `norm_minimum`, it
    sees the normalised problem only, and yields points as long as it is asked for more. Every point is judged by the same
    certificate, whatever it claims: no algorithm can make a false proof.

    Attributes
    ----------
    name : str
        What `Solution.method` says.
    low_rank : bool
        Whether the points are pairs whose rank is meant, and at most `max_rank`. The points of other algorithms are polished: a
        descent on the factors brings them to exact rank and onto the data; a search that follows sees to a rank limit.

    See Also
    --------
    select_method : The choice among those of the package.
    InteriorPoint, Splitting, Factored, RiemannianSearch : Those of the package.

    References
    ----------
    Guide :doc:`/guide/own_algorithm`.

    Examples
    --------
    Proximal gradient steps, for problems with a penalty:

    >>> from dataclasses import dataclass
    >>> import numpy as np, balancedfact as bf
    >>> from balancedfact.solvers import Algorithm, Point
    >>> @dataclass(frozen=True)
    ... class ProximalGradient(Algorithm):
    ...     name = "proximal gradient"
    ...     steps: int = 2000
    ...
    ...     def suits(self, problem):
    ...         return None if problem.q > 0 else "it needs a penalty"
    ...
    ...     def points(self, problem, rng, *, max_rank=None, initial=None):
    ...         A, b, q = problem.map, problem.b, problem.q
    ...         t = 1 / np.linalg.norm(A.scaled_gram(np.eye(6), np.zeros((6, 5)), np.eye(5)), 2)
    ...         Z = np.zeros(A.matrix_shape)
    ...         for k in range(self.steps):
    ...             residual = b - A(Z)
    ...             if k % 10 == 0:
    ...                 yield Point.from_matrix(Z, residual / q)
    ...             U, s, Vt = np.linalg.svd(Z + t * A.adjoint(residual), full_matrices=False)
    ...             Z = U * np.maximum(s - t * q, 0.0) @ Vt
    >>> A = bf.measurements.gaussian(25, (6, 5), rng=0)
    >>> solution = bf.flat_minimum(A, np.ones(25), penalty=1.0, method=ProximalGradient())
    >>> solution.status.name, solution.method
    ('OPTIMAL', 'proximal gradient')
    """

    name: ClassVar[str]
    low_rank: ClassVar[bool] = False

    def suits(self, problem: NuclearProblem) -> str | None:
        """Return why this algorithm cannot serve, as a clause that follows its name, or ``None`` if it can."""
        return None

    @abstractmethod
    def points(
        self, problem: NuclearProblem, rng: np.random.Generator, *, max_rank: int | None = None, initial: Pair | None = None
    ) -> Iterator[Point]:
        """Yield points, better and better; the caller stops once the gap is closed.

        Parameters
        ----------
        problem : NuclearProblem
            The map, the data `b` and the penalty `q` (0: interpolate), in normalised units.
        rng : numpy.random.Generator
            All randomness.
        max_rank : int, optional
            A limit on the rank, for algorithms that say `low_rank`.
        initial : tuple of numpy.ndarray, optional
            A pair ``(L, R)`` to start from.

        Yields
        ------
        Point
            A pair with a dual vector, see `Point.from_matrix` and `Point.from_pair`.
        """


NO_OFFSETS = "it has no place for offsets"
