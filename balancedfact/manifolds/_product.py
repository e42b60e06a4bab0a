"""Points and tangent vectors that have several parts."""

from __future__ import annotations

from pymanopt.manifolds.product import _ProductTangentVector
from pymanopt.tools import ndarraySequenceMixin


class ProductPoint(ndarraySequenceMixin, list):
    """A point with several parts, such as a pair or layers: a list that NumPy does not turn into an array."""


class TangentVector(_ProductTangentVector):
    """A list of matrices with the arithmetic that pymanopt's optimizers use: sums, differences, multiples.

    Every manifold of this package whose points have several parts uses it, and a manifold of your own may.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> vector = bf.manifolds.TangentVector([np.ones((1, 2)), np.ones((2, 1))])
    >>> print(2.0 * vector - vector)
    [array([[1., 1.]]), array([[1.],
           [1.]])]
    """
