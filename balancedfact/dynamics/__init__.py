"""Training dynamics: rules of training, many runs at once, the flows that they follow in the limit, and where they start."""

from balancedfact.dynamics._balanced_flow import balanced_flow
from balancedfact.dynamics._central_flow import central_flow
from balancedfact.dynamics._descent import gradient_descent, regression_descent
from balancedfact.dynamics._edge_flow import edge_flow
from balancedfact.dynamics._flow import gradient_flow
from balancedfact.dynamics._initialisations import balanced_layers, gaussian_layers, residual_layers
from balancedfact.dynamics._label_noise_flow import label_noise_flow
from balancedfact.dynamics._perceptron import perceptron, perceptron_descent, perceptron_sharpness
from balancedfact.dynamics._sgd import sgd
from balancedfact.dynamics._sharpness_aware import sharpness_aware
from balancedfact.dynamics._stability import stability_threshold
from balancedfact.dynamics._trajectory import Trajectory

__all__ = [
    "Trajectory",
    "balanced_flow",
    "balanced_layers",
    "central_flow",
    "edge_flow",
    "gaussian_layers",
    "gradient_descent",
    "gradient_flow",
    "label_noise_flow",
    "perceptron",
    "perceptron_descent",
    "perceptron_sharpness",
    "regression_descent",
    "residual_layers",
    "sgd",
    "sharpness_aware",
    "stability_threshold",
]
