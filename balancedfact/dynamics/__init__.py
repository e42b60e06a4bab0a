"""Training dynamics: gradient flow, gradient descent, SGD and label noise, one network or many at once."""

from balancedfact.dynamics._balanced_flow import balanced_flow
from balancedfact.dynamics._descent import gradient_descent, regression_descent
from balancedfact.dynamics._flow import gradient_flow
from balancedfact.dynamics._initialisations import balanced_layers, gaussian_layers, residual_layers
from balancedfact.dynamics._perceptron import perceptron, perceptron_descent, perceptron_sharpness
from balancedfact.dynamics._sgd import sgd
from balancedfact.dynamics._sharpness_aware import sharpness_aware
from balancedfact.dynamics._trajectory import Trajectory

__all__ = [
    "Trajectory",
    "balanced_flow",
    "balanced_layers",
    "gaussian_layers",
    "gradient_descent",
    "gradient_flow",
    "perceptron",
    "perceptron_descent",
    "perceptron_sharpness",
    "regression_descent",
    "residual_layers",
    "sgd",
    "sharpness_aware",
]
