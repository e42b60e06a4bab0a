"""Distance of two networks up to changes of basis of the hidden spaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike

from balancedfact._validate import as_layers

_SWEEPS, _SETTLED = 200, 1e-14


def aligned_distance(layers: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> float:
    r"""Distance of two factorizations up to orthogonal changes of basis of the hidden spaces, relative to the second.

    .. math:: \min_{Q_1,\dots,Q_{L-1}} \Big(\sum_k\|W_k - Q_kV_kQ_{k-1}^\top\|_F^2\Big)^{1/2} \Big/
              \Big(\sum_k\|V_k\|_F^2\Big)^{1/2}, \qquad Q_0 = I, \ Q_L = I.

    Trace, sharpness and norms of the layers do not change under such `Q`. Hidden widths may differ; zeros fill up the smaller.

    Parameters
    ----------
    layers : sequence of array_like, shapes (d_k, d_{k-1})
        ``[W_1, ..., W_L]``.
    reference : sequence of array_like
        ``[V_1, ..., V_L]`` with as many layers, and the same numbers of inputs and outputs.

    Returns
    -------
    float
        The minimum at depth 2, which is an orthogonal Procrustes problem; beyond, where the basis of one hidden space after the
        other is aligned in turn from three starts, an upper bound for it.

    Raises
    ------
    ValueError
        If the numbers of layers, inputs or outputs differ, or an argument is malformed.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact.comparison import aligned_distance
    >>> turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    >>> W = [np.diag([1.0, 2.0]), np.ones((3, 2))]
    >>> bool(aligned_distance([turn @ W[0], W[1] @ turn.T], W) < 1e-12)
    True
    """
    W, V = as_layers(layers), as_layers(reference)
    if len(W) != len(V) or W[0].shape[1] != V[0].shape[1] or W[-1].shape[0] != V[-1].shape[0]:
        shapes = [w.shape for w in W], [v.shape for v in V]
        raise ValueError(f"reference has shapes {shapes[1]}; expected the depth, inputs and outputs of {shapes[0]}")
    size = max(float(np.abs(v).max()) for v in V)
    if size == 0:
        return 0.0 if not any(w.any() for w in W) else np.inf
    hidden = [max(w.shape[0], v.shape[0]) for w, v in zip(W[:-1], V[:-1], strict=True)]
    widths = [W[0].shape[1], *hidden, W[-1].shape[0]]
    W, V = ([_padded(w / size, rows, cols) for w, rows, cols in zip(x, widths[1:], widths, strict=False)] for x in (W, V))
    gap = min(_aligned(W, V, turns) for turns in _starts(W, V))
    return gap / float(np.sqrt(sum(np.sum(v**2) for v in V)))


def _aligned(W: list[np.ndarray], V: list[np.ndarray], turns: list[np.ndarray]) -> float:
    """The distance after one basis after the other has been aligned until nothing changes."""
    gap = np.inf
    for _ in range(_SWEEPS):
        parts = [w - turns[k + 1] @ v @ turns[k].T for k, (w, v) in enumerate(zip(W, V, strict=True))]
        now = float(np.sqrt(sum(np.sum(part**2) for part in parts)))
        if now >= gap * (1 - _SETTLED):
            break
        gap = now
        for k in range(1, len(W)):
            turns[k] = _polar(W[k - 1] @ turns[k - 1] @ V[k - 1].T + W[k].T @ turns[k + 1] @ V[k])
    return gap


def _starts(W: list[np.ndarray], V: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Bases to begin with: aligned layer by layer from below, from above, and by what lies below and above of each."""
    widths = [W[0].shape[1], *(w.shape[0] for w in W)]
    up = [np.eye(width) for width in widths]
    for k in range(1, len(W)):
        up[k] = _polar(W[k - 1] @ up[k - 1] @ V[k - 1].T)
    down = [np.eye(width) for width in widths]
    for k in range(len(W) - 1, 0, -1):
        down[k] = _polar(W[k].T @ down[k + 1] @ V[k])
    both = [np.eye(width) for width in widths]
    for k in range(1, len(W)):
        below = [reduce(lambda E, w: w @ E, layers[:k]) for layers in (W, V)]
        above = [reduce(lambda E, w: w @ E, layers[k:]) for layers in (W, V)]
        sizes = [float(np.sum(part[1] ** 2)) or 1.0 for part in (below, above)]
        both[k] = _polar(below[0] @ below[1].T / sizes[0] + above[0].T @ above[1] / sizes[1])
    yield from (up, down, both)


def _polar(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal matrix closest to a square one."""
    U, _, Vt = np.linalg.svd(matrix)
    return np.asarray(U @ Vt)


def _padded(matrix: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return np.pad(matrix, ((0, rows - matrix.shape[0]), (0, cols - matrix.shape[1])))
