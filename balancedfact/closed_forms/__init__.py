"""The analytic constructions: what is flat, balanced or norm-minimal without any search."""

from balancedfact.closed_forms._deep import kronecker_layers, kronecker_minimum, min_isotropic_layers, min_isotropic_trace
from balancedfact.closed_forms._minimal_sharpness import (
    balanced_sharpness,
    flattest_regression_layers,
    minimal_sharpness,
    sharpest_data_direction,
    sharpness_bounds,
)
from balancedfact.closed_forms._pairs import balanced_pair, flat_pair
from balancedfact.closed_forms._rank_one_limit import rank_one_limit, rank_one_limit_sharpness
from balancedfact.closed_forms._regression_sharpness import regression_sharpness
from balancedfact.closed_forms._schatten import collapse_threshold, schatten_layers, schatten_shrinkage, schatten_value
from balancedfact.closed_forms._traces import single_measurement_minimum, two_layer_minimum

__all__ = [
    "balanced_pair",
    "balanced_sharpness",
    "collapse_threshold",
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
    "schatten_layers",
    "schatten_shrinkage",
    "schatten_value",
    "sharpest_data_direction",
    "sharpness_bounds",
    "single_measurement_minimum",
    "two_layer_minimum",
]
