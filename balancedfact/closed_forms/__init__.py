"""The analytic constructions: what is flat, balanced or norm-minimal without any search."""

from balancedfact.closed_forms._deep import kronecker_layers, kronecker_minimum, min_isotropic_layers, min_isotropic_trace
from balancedfact.closed_forms._minimal_sharpness import flattest_regression_layers, minimal_sharpness, sharpness_bounds
from balancedfact.closed_forms._pairs import balanced_pair, flat_pair
from balancedfact.closed_forms._rank_one_limit import rank_one_limit, rank_one_limit_sharpness
from balancedfact.closed_forms._regression_sharpness import regression_sharpness
from balancedfact.closed_forms._traces import single_measurement_minimum, two_layer_minimum

__all__ = [
    "balanced_pair",
    "flat_pair",
    "flattest_regression_layers",
    "kronecker_layers",
    "kronecker_minimum",
    "min_isotropic_layers",
    "min_isotropic_trace",
    "minimal_sharpness",
    "rank_one_limit",
    "rank_one_limit_sharpness",
    "regression_sharpness",
    "sharpness_bounds",
    "single_measurement_minimum",
    "two_layer_minimum",
]
