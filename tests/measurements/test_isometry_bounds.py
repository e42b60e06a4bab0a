"""The relaxation: its operators vanish where they should, and it solves the semidefinite programme it claims to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.measurements._isometry_bounds import Relaxation, partial_transpose, rounding


def symmetric(rng, n):
    M = rng.standard_normal((n, n))
    return M + M.T


def lifted(blocks, r):
    """The operator on (R^r x R^r) x (R^d1 x R^d2) with these blocks on phi, traceless symmetric and antisymmetric tensors."""
    phi = np.eye(r).reshape(-1, 1) / np.sqrt(r)
    swap = np.eye(r * r).reshape(r, r, r * r).transpose(1, 0, 2).reshape(r * r, r * r)
    projectors = [phi @ phi.T, (np.eye(r * r) + swap) / 2 - phi @ phi.T, (np.eye(r * r) - swap) / 2]
    return sum(np.kron(P, block) for P, block in zip(projectors, blocks, strict=False))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_multipliers_vanish_on_the_lifted_matrices(seed, d1, d2, r):
    rng = np.random.default_rng(seed)
    r = min(r, d1)
    relaxation = Relaxation(np.eye(d1 * d2), (d1, d2), r)
    blocks = [symmetric(rng, d1 * d2) for _ in relaxation.counts]
    operator = lifted([np.sum(terms, axis=0) for terms in relaxation._vanishing(relaxation._multipliers(blocks))], r)
    U, V = np.linalg.qr(rng.standard_normal((d1, r)))[0], rng.standard_normal((d2, r))
    x = np.einsum("ak,bl->klab", U, V).ravel()
    assert abs(x @ operator @ x) <= 1e-12 * (x @ x) * np.linalg.norm(operator, 2)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 4), st.integers(1, 3))
def test_multipliers_are_the_orthogonal_projection(seed, d1, d2, r):
    """Idempotent, and what is left is orthogonal to every operator that vanishes."""
    rng = np.random.default_rng(seed)
    r = min(r, d1)
    relaxation = Relaxation(np.eye(d1 * d2), (d1, d2), r)

    def project(blocks):
        return [np.sum(terms, axis=0) for terms in relaxation._vanishing(relaxation._multipliers(blocks))]

    def inner(one, other):
        return sum(n * np.vdot(a, b) for n, a, b in zip(relaxation.counts, one, other, strict=True))

    first, second = ([symmetric(rng, d1 * d2) for _ in relaxation.counts] for _ in range(2))
    once = project(first)
    for a, b in zip(once, project(once), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12 * np.linalg.norm(first))
    rest = [a - b for a, b in zip(first, once, strict=True)]
    assert abs(inner(rest, project(second))) <= 1e-12 * np.linalg.norm(first) * np.linalg.norm(second)
    identity = [np.eye(d1 * d2) for _ in relaxation.counts]
    assert abs(inner(identity, once)) <= 1e-12 * np.linalg.norm(first) * d1 * d2


def test_partial_transpose(rng):
    A, B = rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    np.testing.assert_array_equal(partial_transpose(np.kron(A, B), (3, 2)), np.kron(A, B.T))


def programme(T, shape, r):
    """The semidefinite programme in the lifted operator itself, by a generic solver: max <phi phi' x T, rho>."""
    import cvxpy

    (d1, d2), phi = shape, np.eye(r).reshape(-1, 1)
    size = r * r * d1 * d2
    rho = cvxpy.Variable((size, size), symmetric=True)
    index = np.arange(size).reshape(r, r, d1, d2)  # left copy, right copy, left, right
    flat = [index.transpose(0, 2, 1, 3).reshape(r * d1, r * d2)]
    order = flat[0].ravel()
    swapped = np.arange(size * size).reshape(size, size)[np.ix_(order, order)]
    swapped = swapped.reshape(r * d1, r * d2, r * d1, r * d2)
    entries = cvxpy.vec(rho, order="C")
    constraints = [rho >> 0, cvxpy.trace(rho) == r]
    constraints.append(entries[swapped.ravel()] == entries[swapped.transpose(0, 3, 2, 1).ravel()])
    if r > 1:  # U'U = I: summed over the left index, the left copies decouple
        for k in range(r):
            for other in range(r):
                for p in range(r * d2):
                    for q in range(r * d2):
                        (a, i), (b, j) = divmod(p, d2), divmod(q, d2)
                        mixed = sum(rho[index[k, a, x, i], index[other, b, x, j]] for x in range(d1))
                        trace = sum(rho[index[y, a, x, i], index[y, b, x, j]] for x in range(d1) for y in range(r))
                        constraints.append(mixed == (trace / r if k == other else 0))
    objective = cvxpy.trace(np.kron(phi @ phi.T, T) @ rho)
    problem = cvxpy.Problem(cvxpy.Maximize(objective), constraints)
    return problem.solve(solver="CLARABEL")


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "r"), [((2, 3), 1), ((3, 3), 1), ((4, 3), 1), ((2, 2), 2), ((2, 3), 2), ((3, 2), 2)])
def test_solves_the_programme(rng, shape, r):
    T = symmetric(rng, shape[0] * shape[1])
    expected = programme(T, shape, r)
    found, _ = Relaxation(T, shape, r).bound(3000)
    assert found == pytest.approx(expected, abs=1e-6 * np.linalg.norm(T))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # the generic solver, which is compared to five digits
def test_solves_the_programme_for_matrices_of_rank_two_below_full(rng):
    T = symmetric(rng, 9)
    assert Relaxation(T, (3, 3), 2).bound(3000)[0] == pytest.approx(programme(T, (3, 3), 2), abs=1e-5)


def test_never_worse_than_no_steps_and_stops_when_told(rng):
    T = symmetric(rng, 12)
    relaxation = Relaxation(T, (3, 4), 1)
    values = [relaxation.bound(n)[0] for n in (0, 10, 50, 200)]
    assert values == sorted(values, reverse=True)
    assert relaxation.bound(200, enough=values[1])[0] == values[1]


def test_counts_the_error_of_the_form(rng):
    T = symmetric(rng, 12)
    for r in (1, 2, 3):
        exact, vague = (Relaxation(T, (3, 4), r, error).bound(0)[0] for error in (0.0, 0.5))
        assert vague == pytest.approx(exact + 0.5 * r * r, abs=1e-9) or r > 1
        assert vague >= exact
    assert 4e-16 <= rounding(np.eye(1)) <= 1e-14
    assert rounding(np.eye(4), np.eye(4)) == pytest.approx(2 * rounding(np.eye(4)))


@pytest.mark.parametrize("r", [2, 3])
def test_multiples_of_the_identity_prove_the_largest_eigenvalue(rng, r):
    """The multipliers of the theory page, which adds what the code subtracts."""
    T = symmetric(rng, 12)
    t = np.linalg.eigvalsh(T)[-1]
    multipliers = [np.zeros((12, 12)), -t / 2 * np.eye(12), t / 2 * np.eye(4)]
    assert Relaxation(T, (3, 4), r)._value(multipliers) == pytest.approx(t, rel=1e-11)
