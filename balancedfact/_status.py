"""The verdict of a solve."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """The verdict of a solve.

    See Also
    --------
    Solution : The result that carries it.
    Certificate : The numbers behind it.

    References
    ----------
    Guide :doc:`/guide/certificate`.

    Examples
    --------
    >>> from balancedfact import Status
    >>> [status.name for status in Status if status.ok], [status.name for status in Status if status.proved]
    (['OPTIMAL', 'STATIONARY'], ['OPTIMAL', 'INFEASIBLE'])
    """

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
    """A limit on the time or the iterations of the call was reached, or the callback asked to stop; the best point so far, with
    its certificate."""

    @property
    def ok(self) -> bool:
        """Tell whether the certificate is as good as was asked for: a proof (``OPTIMAL``) or evidence (``STATIONARY``)."""
        return self in (Status.OPTIMAL, Status.STATIONARY)

    @property
    def proved(self) -> bool:
        """Tell whether the verdict is a proof: that nothing is better (``OPTIMAL``) or that nothing fits (``INFEASIBLE``)."""
        return self in (Status.OPTIMAL, Status.INFEASIBLE)
