"""Points and tangent vectors that have several parts."""

from __future__ import annotations

from pymanopt.manifolds.product import _ProductTangentVector
from pymanopt.tools import ndarraySequenceMixin


class ProductPoint(ndarraySequenceMixin, list):
    """A point with several parts, such as a pair or layers: a list that NumPy does not turn into an array.

    See Also
    --------
    TangentVector : The tangent vectors at such points.
    LayerManifold : A base class for manifolds of such points.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    >>> import numpy as np
    >>> from balancedfact.manifolds import ProductPoint
    >>> L, R = point = ProductPoint([np.ones((3, 2)), np.ones((4, 2))])
    >>> len(point), (L @ R.T).shape
    (2, (3, 4))
    """


class TangentVector(_ProductTangentVector):
    """A list of matrices with the arithmetic that pymanopt's optimizers use: sums, differences, multiples.

    Every manifold of this package whose points have several parts uses it, and a manifold of your own may.

    See Also
    --------
    ProductPoint : A point in the same layout.
    LayerManifold : A base class for manifolds with such vectors.

    References
    ----------
    Guide :doc:`/guide/own_manifold`.

    Examples
    --------
    >>> import numpy as np, balancedfact as bf
    >>> vector = bf.manifolds.TangentVector([np.ones((1, 2)), np.ones((2, 1))])
    >>> print(2.0 * vector - vector)
    [array([[1., 1.]]), array([[1.],
           [1.]])]
    """
