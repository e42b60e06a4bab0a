"""The random measurement ensembles of the sources."""

from __future__ import annotations

import numpy as np

from balancedfact._validate import as_count, as_number, as_rng, as_shape, check_room
from balancedfact.measurements._dense import Dense
from balancedfact.measurements._entries import Entries
from balancedfact.measurements._rank_one import RankOne


def gaussian(m: int, shape: tuple[int, int], rng: int | np.random.Generator | None = None) -> Dense:
    r"""Matrix sensing: `m` matrices of `shape` with independent standard normal entries (Ding et al. 2022).

    Parameters
    ----------
    m : int
        The number of measurements.
    shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    rng : int or numpy.random.Generator, optional
        The seed or the generator to draw from.

    Returns
    -------
    Dense
        Not divided by ``sqrt(m)``: the mean of :math:`\langle A_i, X\rangle^2` has the expectation :math:`\|X\|_F^2`.

    Raises
    ------
    ValueError
        If `m` or `shape` is malformed.

    See Also
    --------
    bernoulli : Signs in place of Gaussians.
    bilinear : Products of Gaussian vectors.
    isometry_constant : How near it is to an isometry.

    References
    ----------
    Chapter :doc:`/theory/isometry`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.measurements.gaussian(5, (3, 4), rng=0)
    <Dense: 5 measurements of 3 x 4 matrices>
    """
    m, (d1, d2) = _fitting(m, shape)
    return Dense._from_slabs(as_rng(rng).standard_normal((d1, m, d2)))


def bernoulli(m: int, shape: tuple[int, int], rng: int | np.random.Generator | None = None) -> Dense:
    r"""Matrix sensing: `m` matrices of `shape` whose entries are independent random signs (Ding et al. 2022).

    Parameters
    ----------
    m : int
        The number of measurements.
    shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    rng : int or numpy.random.Generator, optional
        The seed or the generator to draw from.

    Returns
    -------
    Dense
        Not divided by ``sqrt(m)``: the mean of :math:`\langle A_i, X\rangle^2` has the expectation :math:`\|X\|_F^2`.

    Raises
    ------
    ValueError
        If `m` or `shape` is malformed.

    See Also
    --------
    gaussian : Gaussian in place of signs.
    isometry_constant : How near it is to an isometry.

    References
    ----------
    Chapter :doc:`/theory/isometry`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.measurements.bernoulli(5, (3, 4), rng=0)
    <Dense: 5 measurements of 3 x 4 matrices>
    """
    m, (d1, d2) = _fitting(m, shape)
    return Dense._from_slabs(as_rng(rng).choice([-1.0, 1.0], (d1, m, d2)))


def _fitting(m: int, shape: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """A checked number of dense matrices, and their shape."""
    count, (d1, d2) = as_count(m, "m"), as_shape(shape)
    check_room("m with this shape", count, d1, d2)
    return count, (d1, d2)


def bilinear(m: int, shape: tuple[int, int], rng: int | np.random.Generator | None = None) -> RankOne:
    r"""Bilinear sensing: `m` matrices ``u_i v_i.T`` with independent standard normal vectors (Ding et al. 2022).

    Parameters
    ----------
    m : int
        The number of measurements.
    shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    rng : int or numpy.random.Generator, optional
        The seed or the generator to draw from.

    Returns
    -------
    RankOne
        Not divided by ``sqrt(m)``: the mean of :math:`\langle A_i, X\rangle^2` has the expectation :math:`\|X\|_F^2`.

    Raises
    ------
    ValueError
        If `m` or `shape` is malformed.

    See Also
    --------
    RankOne : The map that it returns.
    gaussian : Matrices of full rank.

    References
    ----------
    Chapter :doc:`/theory/isometry`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.measurements.bilinear(5, (3, 4), rng=0)
    <RankOne: 5 measurements of 3 x 4 matrices>
    """
    m, (d1, d2) = as_count(m, "m"), as_shape(shape)
    check_room("m with this shape", m, d1 + d2)
    generator = as_rng(rng)
    return RankOne(generator.standard_normal((m, d1)), generator.standard_normal((m, d2)))


def bernoulli_mask(shape: tuple[int, int], p: float, rng: int | np.random.Generator | None = None) -> Entries:
    """Matrix completion: each entry of a matrix of `shape` observed independently with probability `p`.

    Parameters
    ----------
    shape : tuple of int
        ``(d1, d2)``, the shape of the matrices measured.
    p : float
        The probability, above 0 and at most 1.
    rng : int or numpy.random.Generator, optional
        The seed or the generator to draw from.

    Returns
    -------
    Entries
        The entries observed, row by row, with weight one.

    Raises
    ------
    ValueError
        If an argument is malformed, or the draw observes no entry at all: there is no map of zero measurements.

    See Also
    --------
    Entries : The map that it returns.

    References
    ----------
    Chapter :doc:`/theory/two_factors`.

    Examples
    --------
    >>> import balancedfact as bf
    >>> bf.measurements.bernoulli_mask((3, 4), 1.0, rng=0)
    <Entries: 12 measurements of 3 x 4 matrices>
    """
    (d1, d2), p = as_shape(shape), as_number(p, "p", above=0.0, most=1.0)
    generator = as_rng(rng)
    check_room("shape", d1 + 3 * int(p * d1 * d2))
    # Row by row: the number in a row is binomial and its places a uniform subset, so that memory stays at O(entries).
    counts = generator.binomial(d2, p, size=d1)
    if counts.sum() == 0:
        raise ValueError(f"p is {p}; the draw observed none of the {d1 * d2} entries, expected at least one")
    cols = np.concatenate([np.sort(generator.choice(d2, count, replace=False)) for count in counts])
    return Entries(np.repeat(np.arange(d1), counts), cols, (d1, d2))
