"""The analytic constructions: what is flat, balanced or norm-minimal without any search."""

from balancedfact.closed_forms._deep import kronecker_layers, kronecker_minimum, min_isotropic_layers, min_isotropic_trace
from balancedfact.closed_forms._pairs import balanced_pair, flat_pair
from balancedfact.closed_forms._traces import single_measurement_minimum, two_layer_minimum

__all__ = [
    "balanced_pair",
    "flat_pair",
    "kronecker_layers",
    "kronecker_minimum",
    "min_isotropic_layers",
    "min_isotropic_trace",
    "single_measurement_minimum",
    "two_layer_minimum",
]
