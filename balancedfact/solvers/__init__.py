"""Solvers: flat, balanced and norm-minimal factorizations, each with its certificate."""

from balancedfact.solvers._flat_minimum import flat_minimum
from balancedfact.solvers._methods import select_method
from balancedfact.solvers._norm_minimum import norm_minimum
from balancedfact.solvers.deep._flat_network import flat_network
from balancedfact.solvers.deep._flattest_sharpness import flattest_sharpness
from balancedfact.solvers.fibre._induced_regularizer import induced_regularizer, induced_regularizer_gradient
from balancedfact.solvers.fibre._minimal_sharpness import minimal_sharpness
from balancedfact.solvers.iteration._limits import Limits
from balancedfact.solvers.nuclear._algorithm import Algorithm
from balancedfact.solvers.nuclear._certify import certify
from balancedfact.solvers.nuclear._dual_newton import DualNewton
from balancedfact.solvers.nuclear._factored import Factored
from balancedfact.solvers.nuclear._hold_out import PenaltyPath, select_penalty
from balancedfact.solvers.nuclear._interior_point import InteriorPoint
from balancedfact.solvers.nuclear._problem import NuclearProblem, Point
from balancedfact.solvers.nuclear._splitting import Splitting
from balancedfact.solvers.riemannian._augmented_lagrangian import RiemannianSearch
from balancedfact.solvers.riemannian._balanced_approximation import balanced_approximation
from balancedfact.solvers.riemannian._balanced_factorization import balanced_factorization
from balancedfact.solvers.riemannian._flattest_factorization import flattest_factorization
from balancedfact.solvers.riemannian._riemannian_minimum import riemannian_minimum

__all__ = [
    "Algorithm",
    "DualNewton",
    "Factored",
    "InteriorPoint",
    "Limits",
    "NuclearProblem",
    "PenaltyPath",
    "Point",
    "RiemannianSearch",
    "Splitting",
    "balanced_approximation",
    "balanced_factorization",
    "certify",
    "flat_minimum",
    "flat_network",
    "flattest_factorization",
    "flattest_sharpness",
    "induced_regularizer",
    "induced_regularizer_gradient",
    "minimal_sharpness",
    "norm_minimum",
    "riemannian_minimum",
    "select_method",
    "select_penalty",
]
