"""The ways to a factorization: closed forms, solvers, flows and rules of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from balancedfact import closed_forms, curvature, dynamics
from balancedfact._linalg import product
from balancedfact._spectrum import numerical_rank
from balancedfact.measurements import MeasurementMap
from balancedfact.solution import Solution, Status
from balancedfact.solvers import flat_minimum, minimal_sharpness, norm_minimum
from balancedfact.solvers.iteration._limits import Budget, Limits

# Sizes of the products of Gaussian starts, relative to the matrix of least nuclear norm; scale of residual starts.
_SMALL_START, _START, _RESIDUAL_SCALE = 1e-3, 0.3, 0.25
# Steps and batch of stochastic gradient descent, its step relative to the limit of stability, and the standard deviation of
# label noise relative to the root mean square of the data.
_STEPS, _BATCH, _CAUTION, _NOISE = 20_000, 50, 0.2, 0.3
# Relative residual up to which an unfinished search is a start for others.
_FITS = 1e-6
# Operations of a step of the search for the least sharpness, beyond which its row is left out.
_MOST_FLOPS = 5e9
# Steps of the other rules; the large step relative to that limit; length of a normalised step and radius of the ball, relative
# to the norm of the analytic layers; weight decay relative to their sharpness; accuracy of flows and of the least sharpness.
_DESCENTS, _EDGE, _PACE, _RADIUS, _DECAY, _ACCURACY = 4000, 0.95, 1e-3, 0.02, 1e-3, 1e-4


class Found(NamedTuple):
    """The end of one way."""

    layers: list[np.ndarray]
    note: str
    steps: int = 0


class Ways:
    """The ways, each a function without arguments that returns layers and a note."""

    def __init__(
        self, A: MeasurementMap, b: np.ndarray, depth: int, rng: np.random.Generator, budget: Budget, most: int | None
    ) -> None:
        self.A, self.b, self.depth = A, b, depth
        self.budget, self.most = budget, most
        self.least = norm_minimum(A, b, limits=self.limits())
        if not np.isfinite(self.least.value):
            raise ValueError(f"b contradicts itself: {self.least.message}")
        if self.least.status is Status.LIMIT and not self.least.certificate.feasibility <= _FITS:
            raise ValueError("limits end before a matrix that fits is found, from which the rows start; expected longer ones")
        self.seeds = rng.spawn(6)
        d1, d2 = A.matrix_shape
        self.width = min(d1, d2)
        self.widths = [d2, *[self.width] * (depth - 1), d1]

    def limits(self) -> Limits:
        """The limits of the next search: half of the time that is left, so that others have some."""
        return replace(self.budget.rest(0.5), iterations=self.most)

    def all(self) -> Iterator[tuple[str, Callable[[], Found | None]]]:
        """The names of the rows and how to find them."""
        yield "analytic", lambda: Found(self.analytic, "closed form")
        yield "certified", self.certified
        yield "Riemannian", self.riemannian
        yield "balanced", lambda: Found(dynamics.balanced_layers(self.least.matrix, self.widths), "closed form")
        yield "least sharpness", self.least_sharpness
        yield "flow, small start", lambda: self.flow(self.start(_SMALL_START, self.seeds[2]))
        if self.A.matrix_shape[0] == self.A.matrix_shape[1]:
            yield "flow, residual start", self.residual_flow
        yield "flow, balanced start", self.balanced_flow
        limit, size = 2 / self.sharpness, float(np.sqrt(sum(np.sum(w**2) for w in self.analytic)))
        yield "descent", lambda: self.rule("gradient_descent", _CAUTION * limit)
        yield "descent, large step", lambda: self.rule("gradient_descent", _EDGE * limit)
        yield "momentum", lambda: self.rule("gradient_descent", _CAUTION * limit, momentum=0.9)
        yield "normalised", lambda: self.rule("gradient_descent", _PACE * size, normalised=True)
        yield "weight decay", lambda: self.rule("gradient_descent", _CAUTION * limit, weight_decay=_DECAY * self.sharpness)
        for direction in ("ascent", "worst", "average"):
            options = {"radius": _RADIUS * size, "direction": direction, "inner": 3, "rng": self.seeds[4]}
            yield f"SAM, {direction}", lambda options=options: self.rule("sharpness_aware", _CAUTION * limit, **options)  # type: ignore[misc]
        yield "SGD", lambda: self.stochastic(0.0)
        yield "label-noise SGD", lambda: self.stochastic(_NOISE * float(np.sqrt(np.mean(self.b**2))))

    @cached_property
    def analytic(self) -> list[np.ndarray]:
        """The closed-form layers for the matrix of least nuclear norm."""
        M = self.least.matrix
        if self.depth == 2:
            L, R = closed_forms.flat_pair(M, self.A)
            return [R.T, L]
        rank = self.least.layers[0].shape[0]
        return closed_forms.min_isotropic_layers(M, [M.shape[1], *[rank] * (self.depth - 1), M.shape[0]])

    @cached_property
    def sharpness(self) -> float:
        """Sharpness of the analytic layers, which tells small steps from large ones."""
        return float(curvature.sharpness(self.analytic, self.A, self.b))

    @cached_property
    def flattest(self) -> Solution:
        """The certified solution."""
        return flat_minimum(self.A, self.b, self.depth, rng=self.seeds[0], limits=self.limits())

    def certified(self) -> Found:
        return Found(self.flattest.layers, self.flattest.status.value)

    def riemannian(self) -> Found:
        solution = flat_minimum(
            self.A, self.b, self.depth, method="riemannian", rng=self.seeds[1], limits=self.limits(), progress=False
        )
        return Found(solution.layers, solution.status.value)

    def least_sharpness(self) -> Found | None:
        """The layers of least sharpness for the certified matrix up to its numerical rank, unless that takes too long."""
        U, s, Vt = np.linalg.svd(self.flattest.matrix, full_matrices=False)
        rank = numerical_rank(s)
        seen, unknowns = min(self.A.m, rank * (sum(self.A.matrix_shape) - rank)), (self.depth - 1) * rank * (rank + 1) // 2
        if 10 * seen**3 + (seen * unknowns) ** 2 > _MOST_FLOPS:
            return None
        M = (U[:, :rank] * s[:rank]) @ Vt[:rank]
        solution = minimal_sharpness(M, self.A, self.depth, tol=_ACCURACY, limits=self.limits())
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return Found(solution.layers, solution.status.value)

    def residual_flow(self) -> Found | None:
        return self.flow(dynamics.residual_layers(self.width, self.depth, _RESIDUAL_SCALE, self.seeds[2]))

    def balanced_flow(self) -> Found | None:
        """The flow from balanced layers with the product of the common start, along which layers stay balanced."""
        return self.flow(dynamics.balanced_layers(product(self.common_start), self.widths))

    def flow(self, start: list[np.ndarray]) -> Found | None:
        """The end of the flow, or nothing if the time ends before it does."""
        limits = self.budget.rest()
        end = dynamics.gradient_flow(start, self.A, self.b, rtol=_ACCURACY, stationarity=1e-9, observe=(), limits=limits)
        return Found(end.layers, end.message, int(end.iterations[-1])) if self.ended(end) else None

    def rule(self, name: str, step: float, **options: object) -> Found | None:
        """A rule of training, and then plain descent, so that what is compared fits the data as well as it can."""
        limits = self.budget.rest()
        run = getattr(dynamics, name)(
            self.common_start,
            self.A,
            self.b,
            step=step,
            iterations=_DESCENTS,
            record=[_DESCENTS],
            observe=(),
            limits=limits,
            **options,
        )
        note = f"step {step:.2g}"
        if not self.ended(run):
            return None
        if run.diverged >= 0:
            return Found(run.layers, f"{note}, diverged", int(run.diverged))
        calm, rest = _CAUTION * 2 / max(self.sharpness, curvature.sharpness(run.layers, self.A, self.b)), _DESCENTS // 2
        limits = self.budget.rest()
        end = dynamics.gradient_descent(
            run.layers, self.A, self.b, step=calm, iterations=rest, record=[rest], observe=(), limits=limits
        )
        return Found(end.layers, note, _DESCENTS + rest) if self.ended(end) else None

    def stochastic(self, noise: float) -> Found | None:
        """SGD with a step that the curvature of the analytic layers allows."""
        batch = min(_BATCH, self.A.m)
        step = _CAUTION / (self.sharpness + curvature.trace(self.analytic, self.A) / batch)
        layers, rng = self.common_start, deepcopy(self.seeds[5])  # the same batches with and without noise
        taken = 0
        for label_noise, steps in ((noise, _STEPS), (0.0, _STEPS // 2)):
            options = {"iterations": steps, "batch": batch, "label_noise": label_noise, "rng": rng, "record": [steps]}
            options |= {"observe": (), "limits": self.budget.rest()}
            run = dynamics.sgd(layers, self.A, self.b, step=step, **options)  # type: ignore[arg-type]
            if not self.ended(run):
                return None
            layers, taken = run.layers, taken + steps
        return Found(layers, f"step {step:.2g}" + (", diverged" if run.diverged >= 0 else ""), taken)

    @cached_property
    def common_start(self) -> list[np.ndarray]:
        """Common starting point of all rules of training."""
        return self.start(_START, self.seeds[3])

    def start(self, size: float, rng: np.random.Generator) -> list[np.ndarray]:
        """Gaussian layers whose product has about `size` times the norm of the matrix of least nuclear norm."""
        layer = (size * float(np.linalg.norm(self.least.matrix, 2))) ** (1 / self.depth)
        return dynamics.gaussian_layers(self.widths, layer / np.sqrt(4 * self.width), rng)

    def ended(self, run: dynamics.Trajectory) -> bool:
        """Tell whether a run came to its own end, before that of the time; pass Ctrl-C on, which it has taken for itself."""
        if run.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return run.status is None or not self.budget.spent
