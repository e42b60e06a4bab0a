r"""The activation :math:`\mathrm{GELU}(z) = z\,\Phi(z)` and its slope, compiled so that they become vector instructions.

With :math:`t = |z|`, :math:`\Phi(-t) = e^{-t^2/2}g(t)`, where `g` is half the scaled complementary error function at
:math:`t/\sqrt2`: smooth, and a polynomial in :math:`(t-3)/(t+3)` to rounding error. The exponential is a Taylor polynomial at a
64th of its argument, squared six times.
"""

from __future__ import annotations

from math import factorial

import numba
import numpy as np
import scipy.special

# Beyond this argument the normal distribution function is 0 or 1 in double precision.
_FAR = 9.0
_DEGREE = 18
_STRETCH = 2 / ((_FAR - 3) / (_FAR + 3) + 1)


def _half_erfcx(u):  # type: ignore[no-untyped-def]
    """The function `g` on ``[0, _FAR]``, with its variable mapped to ``[-1, 1]``."""
    shift = (u + 1) / _STRETCH - 1
    return 0.5 * scipy.special.erfcx(3 * (1 + shift) / (1 - shift) / np.sqrt(2))


# Tuples of the coefficients, highest power first, are constants to the compiler.
_G = tuple(
    float(c) for c in np.polynomial.chebyshev.cheb2poly(np.polynomial.chebyshev.chebinterpolate(_half_erfcx, _DEGREE))[::-1]
)
_T = tuple(1 / factorial(k) for k in range(13, -1, -1))
_DENSITY = float(1 / np.sqrt(2 * np.pi))


@numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def gelu(z, value, slope):  # type: ignore[no-untyped-def]
    """Write the activation of the vector `z` and its derivative."""
    for i in range(z.size):
        x = z[i]
        t = abs(x)
        t = t if t < _FAR else _FAR
        u = ((t - 3.0) / (t + 3.0) + 1.0) * _STRETCH - 1.0
        v = t * t * (-0.5 / 64)
        # Written out, the polynomials leave one loop without branches, which the compiler turns into vector instructions.
        e = _T[0] * v + _T[1]
        e = e * v + _T[2]
        e = e * v + _T[3]
        e = e * v + _T[4]
        e = e * v + _T[5]
        e = e * v + _T[6]
        e = e * v + _T[7]
        e = e * v + _T[8]
        e = e * v + _T[9]
        e = e * v + _T[10]
        e = e * v + _T[11]
        e = e * v + _T[12]
        e = e * v + _T[13]
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        e = e if t < _FAR else 0.0
        g = _G[0] * u + _G[1]
        g = g * u + _G[2]
        g = g * u + _G[3]
        g = g * u + _G[4]
        g = g * u + _G[5]
        g = g * u + _G[6]
        g = g * u + _G[7]
        g = g * u + _G[8]
        g = g * u + _G[9]
        g = g * u + _G[10]
        g = g * u + _G[11]
        g = g * u + _G[12]
        g = g * u + _G[13]
        g = g * u + _G[14]
        g = g * u + _G[15]
        g = g * u + _G[16]
        g = g * u + _G[17]
        g = g * u + _G[18]
        phi = g * e if x < 0 else 1.0 - g * e
        value[i] = x * phi
        slope[i] = phi + x * e * _DENSITY
