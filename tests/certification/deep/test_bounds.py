import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancedfact as bf
from balancedfact.certification.deep._bounds import isometry_bound
from balancedfact.certification.deep._multiplier import multiplier_bound
from balancedfact.measurements import gaussian
from tests.maps import BUILT_IN, cases
from tests.oracles import trace_terms

pytestmark = pytest.mark.filterwarnings("error")


@given(cases(*BUILT_IN.values()), st.integers(3, 6))
def test_no_layers_are_below_the_bound(case, depth):
    A, matrices, rng = case
    d1, d2 = A.matrix_shape
    widths = [d2, *rng.integers(1, 5, depth - 1), d1]
    layers = [rng.standard_normal(shape) for shape in zip(widths[1:], widths, strict=False)]
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    b, value = A(product), sum(trace_terms(layers, matrices))
    for y in (b, rng.standard_normal(A.m), np.zeros(A.m)):
        assert 0 <= multiplier_bound(A, b, y, depth) <= value * (1 + 1e-9)


@pytest.mark.parametrize("depth", [3, 4, 8])
def test_the_bound_is_the_formula(depth, rng):
    A, b, y = gaussian(5, (3, 4), rng), rng.standard_normal(5), rng.standard_normal(5)
    y *= np.sign(b @ y)
    stack = A.matrices
    left, right = np.einsum("ipq,irq->pr", stack, stack), np.einsum("ipq,ipr->qr", stack, stack)
    S = np.einsum("i,ipq->pq", y, stack)
    # singular values of left^-1/2 S right^-1/2, from the eigenvalues of left^-1 S right^-1 S^T
    t = np.sqrt(np.linalg.eigvals(np.linalg.solve(left, S) @ np.linalg.solve(right, S.T)).real)
    power = np.sum(t ** (2 / (depth - 2))) ** (1 - 2 / depth)
    expected = 2 * depth / 5 * (b @ y) ** (2 - 2 / depth) / (np.linalg.norm(y) ** (2 - 4 / depth) * power)
    np.testing.assert_allclose(multiplier_bound(A, b, y, depth), expected, rtol=1e-9)
    np.testing.assert_allclose(multiplier_bound(A, b, 7 * y, depth), expected, rtol=1e-9)
    assert multiplier_bound(A, b, -y, depth) == 0


@pytest.mark.parametrize("depth", [3, 5])
def test_the_isometry_bound_holds_and_is_the_formula(depth, rng):
    A = gaussian(12, (4, 4), rng)
    E = rng.standard_normal((4, 4))
    nuclear = np.linalg.norm(A.D1 @ E @ A.D2, "nuc")
    bound = isometry_bound(A, nuclear, depth, rng)
    value = bf.induced_regularizer(E, A, depth).value
    assert 0.2 * value < bound < value
    white = np.einsum("pq,iqr,rs->ips", np.linalg.inv(A.D1), A.matrices, np.linalg.inv(A.D2))
    least = min(np.linalg.svd(np.einsum("ipq,p->iq", white, u / np.linalg.norm(u)))[1][-1] ** 2 / 12 for u in directions(rng))
    expected = 2 * depth * (16 * least ** (depth - 2)) ** (1 / depth) * nuclear ** (2 - 2 / depth)
    assert 0.9 * expected < bound <= expected
    assert isometry_bound(A, 2 * nuclear, depth, rng) == pytest.approx(2 ** (2 - 2 / depth) * bound, rel=1e-9)
    assert isometry_bound(A, 0.0, depth, rng) == 0


def directions(rng):
    """Many vectors: the least singular value of sum_p u_p A_i[p, :] over them is close to the least over all."""
    return rng.standard_normal((10000, 4))


def test_no_isometry_no_bound(rng):
    assert isometry_bound(gaussian(2, (4, 4), rng), 1.0, 3, rng) == 0
    assert isometry_bound(gaussian(300, (15, 15), rng), 1.0, 3, rng) == 0  # it would take long
