"""Certificates of least sharpness: values and bounds from the definitions, files, and files that lie."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest

import balancedfact as bf
from balancedfact import Status
from balancedfact._objective import Objective
from balancedfact.certification.deep._sharpness import certify_sharpness
from balancedfact.measurements import Dense, Entries, RankOne, gaussian
from tests.oracles import hessian


def top(layers, A, b):
    """The largest eigenvalue of the dense Hessian."""
    return np.linalg.eigvalsh(hessian(layers, A.rotated(*map(np.eye, A.matrix_shape)), b))[-1]


def regression(outputs):
    rng = np.random.default_rng(2)
    X, M = rng.standard_normal((4, 3)), rng.standard_normal((outputs, 3))
    A = RankOne(np.tile(np.eye(outputs), (4, 1)), np.repeat(X, outputs, axis=0))
    return A, A(M)


def few(seed, m, d1=3, d2=2):
    rng = np.random.default_rng(seed)
    return gaussian(m, (d1, d2), rng), rng.standard_normal(m)


def determined():
    A, _ = few(1, 6)
    return A, A(np.arange(6.0).reshape(3, 2) - 2)


def entries():
    return Entries([0, 1, 1], [0, 0, 1], (4, 3)), np.array([1.0, 2.0, 3.0])


PROBLEMS = {
    "one output": lambda: regression(1),
    "two outputs": lambda: regression(2),
    "a single measurement": lambda: few(0, 1),
    "data that determine the matrix": determined,
    "entries, rows and columns unseen": entries,
}
DEEP = [pytest.param(depth, marks=[pytest.mark.slow] if depth == 5 else []) for depth in (2, 3, 5)]


def solved(A, b, depth):
    return bf.flattest_sharpness(A, b, depth, rng=0)


@pytest.mark.parametrize("depth", DEEP)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_a_saved_proof_is_found_again_from_the_file_and_the_data_alone(problem, depth, tmp_path):
    A, b = problem()
    solution = solved(A, b, depth)
    assert solution.status is Status.OPTIMAL
    solution.save(tmp_path / "sharp.npz")
    assert "not checked" in bf.Solution.load(tmp_path / "sharp.npz").message
    found = bf.Solution.load(tmp_path / "sharp.npz", A, b)
    assert found.status is Status.OPTIMAL
    assert found.message.startswith("Checked: No network that fits is less sharp")
    fresh = solution.verify(A, b)
    for certificate in (found.certificate, fresh):
        assert certificate.gap == pytest.approx(solution.certificate.gap, abs=1e-9)
        assert certificate.gap <= 1e-4
        assert certificate.value == pytest.approx(top(solution.layers, A, b), rel=1e-12)
        assert certificate.lower_bound <= certificate.value
        assert certificate.worst_datum <= 1e-7
        assert certificate.rounding <= 1e-10
    assert found.objective == Objective("sharpness", depth=depth)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 5])
def test_open_gaps_stay_open_and_nobody_calls_them_minima(depth, tmp_path):
    A, b = few(1, 4)
    solution = solved(A, b, depth)
    assert solution.status is Status.STATIONARY
    solution.save(tmp_path / "sharp.npz")
    found = bf.Solution.load(tmp_path / "sharp.npz", A, b)
    assert found.status is Status.GAP_OPEN
    assert "was not looked at" in found.message
    assert found.certificate.gap == pytest.approx(solution.certificate.gap, rel=1e-2)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_value_is_the_largest_eigenvalue_at_layers_that_fit_or_do_not(depth, rng):
    A = Dense(rng.standard_normal((5, 3, 2)))
    layers = [rng.standard_normal(shape) for shape in zip([2] * (depth - 1) + [3], [2] * depth, strict=True)]
    E = layers[0]
    for W in layers[1:]:
        E = W @ E
    for b in (A(E), rng.standard_normal(5)):
        found = certify_sharpness(A, b, layers, rng.standard_normal((5, 2)), rng.standard_normal(2), rng=rng)
        assert found.value == pytest.approx(top(layers, A, b), rel=1e-12)
        assert np.isnan(found.gap) == (found.feasibility > 1e-9)


def bound_of_two_layers(A, b, Y, z):
    """``4 b.w / m`` over the norm of the dual matrix and the square of `Y`, in eighty digits, from the definition."""
    mpmath.mp.dps = 80
    Y, z, b = mpmath.matrix(Y.tolist()), mpmath.matrix(z.tolist()), mpmath.matrix(b.tolist())
    if isinstance(A, RankOne):
        stack = [mpmath.matrix(u.tolist()) * mpmath.matrix(v.tolist()).T for u, v in zip(A.left, A.right, strict=True)]
    else:
        stack = [mpmath.matrix(M.tolist()) for M in A.stack()]

    def total(y):
        return sum((M * y[i] for i, M in enumerate(stack[1:], start=1)), stack[0] * y[0])

    seen = [total(Y[:, k]) for k in range(Y.cols)]
    roots = []
    for sides in ([B * B.T for B in seen], [B.T * B for B in seen]):
        values, vectors = mpmath.eigsy(sum(sides[1:], sides[0]))
        unseen = max(values) * mpmath.mpf(10) ** -60
        roots.append(vectors * mpmath.diag([1 / mpmath.sqrt(each) if each > unseen else 0 for each in values]) * vectors.T)
    w = Y * z
    norm = max(mpmath.svd_r(roots[0] * total(w) * roots[1], compute_uv=False))
    square = sum(each**2 for each in Y)
    return 4 * (b.T * w)[0] / norm / square / A.m


MAPS = {
    "dense": (lambda rng: Dense(rng.standard_normal((6, 3, 2))), 1e-11),
    "directions unseen": (lambda rng: RankOne(rng.standard_normal((3, 5)), rng.standard_normal((3, 4))), 1e-11),
    "a row and a column unseen": (lambda rng: Entries([0, 0, 1], [0, 1, 1], (3, 3), rng.uniform(0.1, 1, 3)), 1e-11),
    "eight decades": (
        lambda rng: RankOne(np.logspace(0, -8, 6)[:, None] * rng.standard_normal((6, 3)), rng.standard_normal((6, 2))),
        1e-6,
    ),
}


@pytest.mark.parametrize("least", [1.0, 1e-4, 1e-6])
@pytest.mark.parametrize(("draw", "close"), MAPS.values(), ids=MAPS)
def test_the_bound_of_two_layers_holds_in_exact_arithmetic_and_is_close(draw, close, least, rng):
    for _ in range(5):
        A = draw(rng)
        m, (d1, d2) = A.m, A.matrix_shape
        b = rng.standard_normal(m)
        Y = np.linalg.qr(rng.standard_normal((m, m)))[0] * np.geomspace(1.0, least, m)
        z = np.linalg.pinv(Y) @ b
        found = certify_sharpness(A, b, [np.ones((1, d2)), np.ones((d1, 1))], Y, z, rng=rng).lower_bound
        exact = bound_of_two_layers(A, b, Y, z)
        assert 0 < found <= exact
        assert found >= exact * (1 - close)


@pytest.mark.parametrize("common", ["matrices", "data"])
def test_the_rounding_of_combinations_that_cancel_is_counted(common, rng):
    for _ in range(20):
        matrices, b = rng.standard_normal((6, 3, 2)), rng.standard_normal(6)
        if common == "matrices":
            matrices = rng.standard_normal((3, 2)) + 1e-8 * matrices
        else:
            b = 1 + 1e-8 * b
        A, Y = Dense(matrices), rng.standard_normal((6, 4))
        Y -= np.mean(Y, axis=0)  # no weight is on what all measurements have in common
        z = np.linalg.pinv(Y) @ b
        found = certify_sharpness(A, b, [np.ones((1, 2)), np.ones((3, 1))], Y, z, rng=rng).lower_bound
        exact = bound_of_two_layers(A, b, Y, z)
        assert 0 < found <= exact
        assert found >= exact * (1 - 1e-4)


@pytest.mark.parametrize("depth", [3, 5])
def test_the_bound_of_more_layers_is_no_less_than_the_formula_of_its_vectors(depth, rng):
    A, b = few(depth, 5)
    Y, z = rng.standard_normal((5, 3)), rng.standard_normal(3)
    z *= np.sign(b @ Y @ z)
    B = np.array([A.adjoint(y) for y in Y.T])
    roots = []
    for moment in (np.einsum("kpq,krq->pr", B, B), np.einsum("kpq,kpr->qr", B, B)):
        values, vectors = np.linalg.eigh(moment)
        roots.append(vectors / np.sqrt(values) @ vectors.T)
    t = np.linalg.svd(roots[0] @ np.tensordot(z, B, 1) @ roots[1], compute_uv=False)
    least = 2 * depth / A.m * (b @ Y @ z) ** (2 - 2 / depth)
    least /= np.linalg.norm(z) ** (2 - 4 / depth) * np.sum(t ** (2 / (depth - 2))) ** (1 - 2 / depth) * np.sum(Y**2)
    layers = [np.ones((1, 2)), *[np.ones((1, 1))] * (depth - 2), np.ones((3, 1))]
    assert certify_sharpness(A, b, layers, Y, z, rng=rng).lower_bound >= least * (1 - 1e-10)


@pytest.mark.parametrize("depth", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("problem", [lambda: few(1, 4), determined], ids=["few", "determined"])
def test_no_weights_and_no_vector_prove_more_than_a_network_attains(problem, depth, rng):
    A, b = problem()
    solution = solved(A, b, depth)
    attained = top(solution.layers, A, b)
    Y, z = solution.certificate.dual, solution.certificate.weighted_dual
    forged = [(rng.standard_normal(Y.shape), rng.standard_normal(z.size)) for _ in range(4)]
    forged += [(rng.standard_normal(Y.shape), z), (Y, rng.standard_normal(z.size))]
    forged += [(1e200 * Y, z), (1e-200 * Y, z), (Y, 1e300 * z)]
    forged += [(Y + size * rng.standard_normal(Y.shape), z * (1 + size)) for size in (1e-12, 1e-8, 1e-3)]
    longer = [2.0 * solution.layers[0], *solution.layers[1:]]
    for weights, vector in forged:
        certificate = replace(solution.certificate, dual=weights, weighted_dual=vector, lower_bound=np.inf)
        for layers in (solution.layers, longer):
            found = replace(solution, certificate=certificate, layers=layers).verify(A, b)
            assert found.lower_bound <= attained * (1 + 1e-12)


@pytest.mark.parametrize("depth", [2, 3])
def test_no_forged_network_survives_its_data(depth, tmp_path):
    A, b = determined()
    solution = solved(A, b, depth)
    claims = replace(solution.certificate, lower_bound=solution.value, gap=0.0)
    sharper = [2.0 * solution.layers[0], *solution.layers[1:-1], solution.layers[-1] / 2]
    other = [2.0 * solution.layers[0], *solution.layers[1:]]
    weights = np.zeros_like(claims.dual), claims.dual[:-1], claims.dual[0]
    forged = [replace(solution, certificate=replace(claims, dual=each)) for each in weights]
    forged.append(replace(solution, certificate=replace(claims, weighted_dual=np.zeros(0))))
    forged += [replace(solution, certificate=claims, layers=each) for each in (sharper, other)]
    forged.append(replace(solution, certificate=claims, objective=Objective("sharpness", depth=depth + 1)))
    for each in forged:
        each.save(tmp_path / "forged.npz")
        found = bf.Solution.load(tmp_path / "forged.npz", A, b)
        assert found.status is Status.GAP_OPEN
        assert not found.certificate.gap <= 1e-3
    solution.save(tmp_path / "sharp.npz")
    assert "not reached" in bf.Solution.load(tmp_path / "sharp.npz", A, 1.1 * b).message


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("power", [-150, 140])
def test_bounds_scale_with_map_and_data(depth, power):
    A, b = regression(2)
    solution = solved(A, b, depth)
    far = Dense(A.stack() * 10.0**power)
    for B, c, grown, exponent in (
        (far, b, 10.0 ** (-power / depth), 2 / depth),
        (A, 10.0**power * b, 10.0 ** (power / depth), 2 - 2 / depth),
    ):
        if abs(power * exponent) > 300:
            continue  # the sharpness is no floating-point number
        layers = [grown * W for W in solution.layers]
        found = replace(solution, layers=layers).verify(B, c)
        assert found.value / solution.value / 10.0 ** (power * exponent) == pytest.approx(1, rel=1e-10)
        assert found.gap == pytest.approx(solution.certificate.gap, abs=1e-9)


def test_what_a_file_lacks_is_said(tmp_path):
    A, b = regression(1)
    solution = solved(A, b, 3)
    replace(solution, objective=None).save(tmp_path / "old.npz")
    with np.load(tmp_path / "old.npz") as file:
        np.savez(tmp_path / "old.npz", **{name: file[name] for name in file.files if name != "weighted_dual"})
    assert bf.Solution.load(tmp_path / "old.npz").certificate.weighted_dual.size == 0
    found = bf.Solution.load(tmp_path / "old.npz", A, b)
    assert found.status is Status.GAP_OPEN
    assert "the file does not name its objective" in found.message
    without = replace(solution, certificate=replace(solution.certificate, weighted_dual=np.zeros(0))).verify(A, b)
    assert without.lower_bound == 0
    assert "prove no lower bound" in without.proof
    with pytest.raises(ValueError, match=r"^rigorous is True; expected False, for the least sharpness"):
        solution.verify(A, b, rigorous=True)


def test_zero_data():
    A, b = regression(2)
    found = solved(A, 0 * b, 3).verify(A, 0 * b)
    assert (found.value, found.lower_bound, found.gap) == (0, 0, 0)


def test_factorizations_of_a_given_matrix_are_not_judged_by_data(tmp_path):
    A, _ = determined()
    M = np.arange(6.0).reshape(3, 2) - 2
    found = bf.minimal_sharpness(M, A, 3)
    with pytest.raises(ValueError, match=r"no objective that can be verified; expected .* those of flattest_sharpness$"):
        found.verify(A, A(M))
    found.save(tmp_path / "factored.npz")
    loaded = bf.Solution.load(tmp_path / "factored.npz", A, A(M))
    assert loaded.status is Status.GAP_OPEN
    assert "not checked" in loaded.message
