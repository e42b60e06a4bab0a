r"""The bound from lifts of single layers: semidefinite programmes for each kind of layer, whatever the depth.

Half the trace is at least :math:`L(\prod_jT_j)^{1/L}`, and scaling a layer by `s` and the next one by `1/s` changes no product.
So each of the `L-1` places may be scaled on its own: the first to :math:`T_1 = 1`, the last to :math:`T_L = 1`, and every place
between them to :math:`\langle F,Q_j\rangle = \langle G,P_j\rangle` for two positive definite matrices of one's choice. In these
gauges :math:`T_j\ge\kappa` for every middle layer, with :math:`\kappa` the least value of the lift of its two places: one
number for the second layer, one for the last but one and one for all between (for four or five layers one for each),

.. math:: \tfrac12\operatorname{tr}\nabla^2\mathcal L(W)\ \ge\ L\,(\kappa_a\,\kappa^{L-4}\,\kappa_b)^{1/L},

or :math:`3\kappa^{1/3}` for three layers. `F` and `G` are what the neighbours of a place see at the network known: with `E` and
these held fixed, that network is stationary in every lift.

**Branch and bound.** The size :math:`\langle F,Q_j\rangle` of a place between is open, and a lift in which it may vary much is
poor. The sizes are divided into boxes; the box with the least bound is divided until that raises the bound no more.

**The traces that rounding needs.** If :math:`\|E\|_*\ge\nu` for all that fit and :math:`T\ge\ell` on unit matrices of rank
one, then :math:`\operatorname{tr}Q_j\operatorname{tr}P_j\ge\nu^2` and
:math:`t\ge\ell\operatorname{tr}Q_j\operatorname{tr}P_{j-1}`. With the gauges that bounds the traces and the sizes of all places
where `t` is at most what it is at the network known; where it is more, nothing is to be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise, product
from typing import NamedTuple

import numpy as np

from balancedfact._linalg import EPS
from balancedfact.certification.deep._lift import _STEPS_A_BOUND, Gauge, Lift, State
from balancedfact.certification.deep._white import well_whitened
from balancedfact.measurements import MeasurementMap, isometry_constant

LIFT_WORK, _MOST_STEPS_LIFTED = 4e11, 120000  # steps times order^3 for all terms together; most steps for one
_FEWEST_STEPS_LIFTED, _FEWEST_STEPS_IN_BOXES = 500, 5000  # steps for a term without which it is not begun
_ISOMETRY_STEPS = 100
_ENOUGH = 1 - 6e-4  # of the term at the network known, whose root counts
_BOX_EDGES = 1.5, 2.25, 3.5, 7.0, 20.0  # of the first boxes, over the least size of a place
# A box whose ends have a smaller ratio, and whose bound gains less by a division, is as good as it gets.
_NARROW_BOX, _GAIN_OF_DIVISION = 1.6, 2e-3
_AHEAD_OF_LEAST = 0.01  # part by which the bound of a box is raised over the least of all boxes before the next is looked at
_WORTHWHILE = 0.5  # of the term at the network: a bound that is raised at once
_PATIENT_BOUNDS = 8  # bounds without progress after which a box is divided
_MOST_GAUGES = 2  # of places between; where there are more, they have one gauge in common
_IDENTITY_PART = 0.05  # of the weights of a gauge, which keeps them well conditioned


Box = tuple[tuple[float, float], ...]  # least and most size of each open place


class Side(NamedTuple):
    """One place of a lift: ``tr X <= constant + factor p`` and ``p >= least nu^power`` for the trace `p` that its term sees.

    That is the trace of `P` for the place before the layer, and of `Q` for the one after it.
    """

    gauge: Gauge
    constant: float
    factor: float
    least: float
    power: int

    @property
    def free(self) -> bool:
        """True if the size of the place is open, and boxes of it are looked at."""
        return self.gauge.level == 0


class Term(NamedTuple):
    """The term of a kind of middle layer: the places beside it, the number of such layers, the least at the network."""

    before: Side
    after: Side
    layers: int
    known: float


class Leaf(NamedTuple):
    """A box of the sizes of the open places, the bound on the term in it, where its search ended, and if that stood still."""

    bound: float
    box: Box
    state: State
    stalled: bool


def lifted_bound(
    A: MeasurementMap,
    b: np.ndarray,
    y: np.ndarray,
    layers: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    work: float = LIFT_WORK,
    stop: Callable[[], bool] = lambda: False,
) -> float:
    """The bound on the trace, for a map of ordinary scale that sees every direction; 0 if nothing is proved.

    Parameters
    ----------
    A : MeasurementMap
    b : numpy.ndarray, shape (m,)
    y : numpy.ndarray, shape (m,)
        The dual vector of two layers, for the least nuclear norm.
    layers : sequence of numpy.ndarray
        The flattest network known, whose product fits the data up to a factor. It chooses the gauges and where the search may
        stop; the bound is proved whatever it is, for networks of as many layers.
    rng : numpy.random.Generator
        Of the search beside the relaxation of the isometry constant; it does not affect the bounds.
    work : float
        Steps times the cube of the order, for all terms together.
    stop : callable
        Ends the search early; a lift that has not begun proves nothing.
    """
    (d1, d2), depth = A.matrix_shape, len(layers)
    along = float(b @ y)
    steps = work / (d1 + d2) ** 6 / min(depth - 2, 3)
    if steps < (_FEWEST_STEPS_LIFTED if depth == 3 else _FEWEST_STEPS_IN_BOXES) or A.of_entries or along <= 0:
        return 0.0
    whitened = well_whitened(A)
    if whitened is None:
        return 0.0
    white, stretch = whitened
    stack = white.map.rotated(np.eye(d1), np.eye(d2))
    terms = _terms(stack, b, _outer_products(layers, np.eye(d1) @ white.left, np.eye(d2) @ white.right))
    isometry = isometry_constant(white.map, 1, starts=1, iterations=_ISOMETRY_STEPS, rng=rng).smallest[0]
    if not terms or isometry <= 0:
        return 0.0
    nuclear = along / float(np.linalg.norm(np.tensordot(y, stack, 1), 2)) * (1 - 1e-9)
    margin = 1 - 64 * EPS * (d1 + d2) ** 2 * stretch**2
    total = 0.0
    for term in terms:
        t = _least(stack, b, y, term, isometry, nuclear, min(steps, _MOST_STEPS_LIFTED), stop)
        if t <= 0:
            return 0.0
        total += term.layers * np.log(t * margin)
    return float(2 * depth * np.exp(total / depth))


def _least(
    stack: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
    term: Term,
    isometry: float,
    nuclear: float,
    left: float,
    stop: Callable[[], bool],
) -> float:
    """The proved least value of a term, or that at the network if it is not below: the least over boxes of the open sizes.

    `left` is the number of steps for all boxes.
    """
    _, d1, d2 = stack.shape
    sides = term.before, term.after
    usual = 1 / (d1 * d2)  # the term in units in which the programme is solved
    unit = (usual / term.known) ** (1 / (sides[0].power + sides[1].power))
    traces = _traces(*sides, usual * (1 + 1e-9), isometry, unit * nuclear)
    free = [j for j, side in enumerate(sides) if side.free]
    enough = _ENOUGH * usual
    gauges = [side.gauge._replace(box=(1.0, 2.0) if side.free else None) for side in sides]
    lift = Lift(stack, unit * b, (gauges[0], gauges[1]))

    def proved(box: Box, state: State, goal: float, steps: float) -> Leaf:
        nonlocal left
        enclosed: list[tuple[float, float] | None] = [None, None]
        for j, ends in zip(free, box, strict=True):
            enclosed[j] = ends
        lift.enclose(enclosed)
        lift.state = state
        goal = max((1 + _AHEAD_OF_LEAST) * goal, _WORTHWHILE * usual)
        steps = int(min(left, steps))
        t = lift.least(steps, traces, min(goal, enough), stop, _PATIENT_BOUNDS if free else 0)
        left -= lift.steps
        return Leaf(t, box, lift.state, t < goal and lift.steps < steps - _STEPS_A_BOUND)

    edges = []
    for j in free:
        low, high = _sizes(stack, y, b, sides, j, usual, isometry, unit * nuclear, unit)
        edges.append([low, *(low * edge for edge in _BOX_EDGES if low * edge < high), high])
    leaves: list[Leaf] = []
    boxes = list(product(*(pairwise(each) for each in edges)))
    share = left / (2 * len(boxes)) if free else left  # half of all steps for the first look at every box
    for box in boxes:
        goal = min((leaf.bound for leaf in leaves), default=enough)
        leaves.append(proved(box, leaves[-1].state if leaves else lift.state, goal, share))
    while free and left > _FEWEST_STEPS_LIFTED and not stop():
        leaves.sort(key=lambda leaf: leaf.bound)
        t, box, state, stalled = leaves[0]
        if t >= enough:
            break
        if not stalled:
            again = proved(box, state, t, left)
            leaves[0] = again._replace(bound=max(t, again.bound))
            continue
        ratios = [ends[1] / ends[0] for ends in box]
        j = int(np.argmax(ratios))
        low, high = box[j]
        middle = np.sqrt(low * high)
        halves = [proved((*box[:j], ends, *box[j + 1 :]), state, t, left) for ends in ((low, middle), (middle, high))]
        leaves[:1] = [leaf._replace(bound=max(t, leaf.bound)) for leaf in halves]
        if ratios[j] < _NARROW_BOX and min(leaf.bound for leaf in halves) < (1 + _GAIN_OF_DIVISION) * t:
            break
    return min(min(leaf.bound for leaf in leaves), usual) / usual * term.known


def _sizes(
    stack: np.ndarray,
    y: np.ndarray,
    b: np.ndarray,
    sides: tuple[Side, Side],
    j: int,
    known: float,
    isometry: float,
    nuclear: float,
    unit: float,
) -> tuple[float, float]:
    """Bounds on ``<F, Q> = <G, P>`` at an open place of networks whose term is at most `known`."""
    gauge, other = sides[j].gauge, sides[1 - j]
    (values, U), (others, V) = np.linalg.eigh(gauge.left), np.linalg.eigh(-gauge.right)
    seen = (U / np.sqrt(values)).T @ np.tensordot(y, stack, 1) @ (V / np.sqrt(others))
    low = unit * float(b @ y) / float(np.linalg.norm(seen, 2)) * (1 - 1e-9)
    # The term is at least the isometry times both traces that it sees.
    high = known * (others, values)[j][-1] / (isometry * other.least * nuclear**other.power)
    return low, max(float(high), low) * (1 + 1e-9)


def _outer_products(layers: Sequence[np.ndarray], left: np.ndarray, right: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The products after and before each place, ``(C_j, B_j)``, in whitened coordinates."""
    inner = [layers[0] @ np.linalg.inv(right).T, *layers[1:-1], np.linalg.inv(left) @ layers[-1]]
    before = list(accumulate(inner[:-1], lambda B, W: W @ B))
    after = list(accumulate(inner[:0:-1], lambda C, W: C @ W))[::-1]
    return list(zip(after, before, strict=True))


def _terms(stack: np.ndarray, b: np.ndarray, outer: list[tuple[np.ndarray, np.ndarray]]) -> list[Term]:
    """The kinds of layers and their gauges; none where the network is zero or does not point along the data."""
    m, d1, d2 = stack.shape
    C, B = outer[0]
    data = np.tensordot(stack, C @ B, 2)
    factor = float(b @ data) / max(float(data @ data), np.finfo(float).tiny)
    places = [(C @ C.T, factor**2 * B.T @ B) for C, B in outer]
    sizes = [np.trace(X) for place in places for X in place]
    if not (factor > 0 and np.all(np.isfinite(sizes)) and min(sizes) > 0):
        return []
    first = Side(Gauge(np.eye(d1), np.zeros((d2, d2)), 1 / d2), 1 / d2, 1.0, d2, 2)
    last = Side(Gauge(np.zeros((d1, d1)), np.eye(d2), 1 / d1), 1 / d1, 1.0, d1, 2)
    between = []
    for (_, P), (Q, _) in zip(places, places[2:], strict=False):  # the neighbours of every place between
        seen_left = np.einsum("iab,bc,idc->ad", stack, P, stack, optimize=True)
        seen_right = np.einsum("iba,bc,icd->ad", stack, Q, stack, optimize=True)
        between.append((_unit_mean(seen_left), _unit_mean(seen_right)))
    if len(between) > _MOST_GAUGES:
        F, G = (np.mean(seen, axis=0) for seen in zip(*between, strict=True))
        between = [(F, G)] * len(between)
    sides = [(first, first), *(_between(F, G) for F, G in between), (last, last)]
    scaled = [_in_gauge(place, side[0].gauge) for place, side in zip(places, sides, strict=True)]
    values = [float(np.einsum("iab,icd,ac,bd->", stack, stack, Q, P, optimize=True)) / m for (_, P), (Q, _) in pairwise(scaled)]
    terms = [Term(before, after, 1, known) for ((before, _), (_, after)), known in zip(pairwise(sides), values, strict=True)]
    if len(between) > _MOST_GAUGES:
        middle = terms[1:-1]
        terms[1:-1] = [middle[0]._replace(layers=len(middle), known=min(term.known for term in middle))]
    return terms


def _between(F: np.ndarray, G: np.ndarray) -> tuple[Side, Side]:
    """A place between in the gauge of `F` and `G`, as the one before a layer and as the one after."""
    F, G = ((1 - _IDENTITY_PART) * W + _IDENTITY_PART * np.eye(len(W)) for W in (F, G))
    gauge, spectra = Gauge(F, -G, 0.0), [np.linalg.eigvalsh(W) for W in (F, G)]
    # <F, Q> = <G, P> bounds the trace of either block by that of the other.
    of_P, of_Q = ((1 + 1e-9) * float(spectra[j][-1] / spectra[1 - j][0]) for j in (1, 0))
    return Side(gauge, 0.0, 1 + of_P, of_P**-0.5, 1), Side(gauge, 0.0, 1 + of_Q, of_Q**-0.5, 1)


def _unit_mean(W: np.ndarray) -> np.ndarray:
    """The symmetric matrix as a multiple of which the mean of the eigenvalues is 1."""
    return (W + W.T) / (2 * np.trace(W) / len(W))


def _in_gauge(place: tuple[np.ndarray, np.ndarray], gauge: Gauge) -> tuple[np.ndarray, np.ndarray]:
    """``(Q, P)`` as ``(s Q, P / s)`` in the gauge, one of whose three numbers is zero."""
    Q, P = place
    left, right = float(np.vdot(gauge.left, Q)), float(np.vdot(gauge.right, P))
    s = np.sqrt(-right / left) if gauge.level == 0 else gauge.level / left if left else right / gauge.level
    return s * Q, P / s


def _traces(before: Side, after: Side, known: float, isometry: float, nuclear: float) -> float:
    """A bound on the product of the traces of both places of networks whose term is at most `known`."""
    both = known / isometry  # bounds the product of the two traces that the term sees
    least = [side.least * nuclear**side.power for side in (before, after)]
    crossed = before.constant * after.factor / least[0] + after.constant * before.factor / least[1]
    return before.constant * after.constant + (crossed + before.factor * after.factor) * both
