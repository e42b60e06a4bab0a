"""Random problems of every kind of map, with spreads up to 1e15; small enough for 60-digit arithmetic."""

from dataclasses import dataclass, replace

import numpy as np

import balancedfact as bf

KINDS = ("gaussian", "entries", "rank-one", "vandermonde", "dependent", "diagonal")


@dataclass(frozen=True)
class Case:
    """Arrays of a map whose first axis numbers the measurements, the data, and what is known of them."""

    kind: str
    arrays: tuple
    shape: tuple
    b: np.ndarray
    built_consistent: bool
    spread: float
    flat: bool
    penalty: float

    def map(self):
        if self.kind == "entries":
            rows, cols, weights = self.arrays
            return bf.measurements.Entries(rows, cols, self.shape, weights)
        if self.kind in ("rank-one", "vandermonde"):
            return bf.measurements.RankOne(*self.arrays)
        return bf.measurements.Dense(self.arrays[0])

    def stack(self):
        """The matrices ``A_i``, without rounding: the factors of those of rank one have few digits."""
        if self.kind == "entries":
            stack = np.zeros((self.b.size, *self.shape))
            rows, cols, weights = self.arrays
            stack[np.arange(self.b.size), rows, cols] = weights
            return stack
        if self.kind in ("rank-one", "vandermonde"):
            left, right = self.arrays
            return left[:, :, None] * right[:, None, :]
        return self.arrays[0]

    def only(self, keep):
        return replace(self, arrays=tuple(each[keep] for each in self.arrays), b=self.b[keep])

    def script(self):
        """Python that makes the problem again."""
        name = {"entries": "Entries", "rank-one": "RankOne", "vandermonde": "RankOne"}.get(self.kind, "Dense")
        values = [each.tolist() for each in self.arrays]
        if self.kind == "entries":
            values.insert(2, self.shape)
        solve = "flat_minimum" if self.flat else "norm_minimum"
        return (
            f"A = bf.measurements.{name}({', '.join(map(repr, values))})\n"
            f"bf.{solve}(A, {self.b.tolist()}, penalty={self.penalty!r}, rng=0)"
        )


def _few_bits(array, bits=20):
    """Rounded to so few binary digits that a product of two of them is exact."""
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(mantissa * 2**bits), exponent - bits)


def draw(seed, index, *, most_spread=15.0, contradict=True):
    """Problem number `index` of a seed."""
    rng = np.random.default_rng([seed, index])
    kind = KINDS[rng.integers(len(KINDS))]
    spread = 10.0 ** (-rng.uniform(0, most_spread) * (rng.random() < 0.7))
    d1, d2 = rng.integers(2, 6, 2)
    m = int(rng.integers(1, 13))
    scales = spread ** rng.random(m)
    if kind == "entries":
        arrays = rng.integers(d1, size=m), rng.integers(d2, size=m), scales
    elif kind == "rank-one":
        arrays = _few_bits(rng.standard_normal((m, d1)) * scales[:, None]), _few_bits(rng.standard_normal((m, d2)))
    elif kind == "vandermonde":
        d2 = int(rng.integers(3, 9))
        arrays = _few_bits(rng.standard_normal((m, d1))), _few_bits(np.vander(np.linspace(0, 1, m), d2))
    elif kind == "diagonal":
        columns = spread ** rng.random(d2)
        stack = (rng.random((m, d1, d2)) < 0.4) * scales[:, None, None] * columns
        arrays = (stack,)
    else:
        stack = rng.standard_normal((m, d1, d2)) * scales[:, None, None]
        if kind == "dependent":
            mix = rng.integers(-2, 3, (m, max(1, m // 2)))
            stack = np.tensordot(mix, stack[: mix.shape[1]], axes=1) + spread * rng.standard_normal(stack.shape) * (
                rng.random() < 0.5
            )
        arrays = (stack,)
    shape = (int(d1), int(d2))
    case = Case(kind, arrays, shape, np.zeros(m), True, spread, bool(rng.random() < 0.7), 0.0)
    rank = int(rng.integers(1, min(shape) + 1))
    truth = rng.standard_normal((d1, rank)) @ (
        (spread if rng.random() < 0.3 else 1.0) ** rng.random(rank)[:, None] * rng.standard_normal((rank, d2))
    )
    b = np.einsum("mij,ij->m", case.stack(), truth)
    built = True
    if contradict and rng.random() < 0.1:
        b, built = b + np.abs(b).max() * rng.standard_normal(m) * (rng.random(m) < 0.5), False
    penalty = float(10 ** rng.uniform(-6, 0) * max(np.abs(b).max(), 1e-300)) if rng.random() < 0.2 else 0.0
    return replace(case, b=b, built_consistent=built, penalty=penalty)
