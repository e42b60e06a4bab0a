"""Balanced geometry: manifolds that plug into pymanopt, and the check that every new manifold must pass."""

from balancedfact.manifolds._balanced_layers import BalancedLayers
from balancedfact.manifolds._balanced_pairs import BalancedPairs
from balancedfact.manifolds._check import check_manifold
from balancedfact.manifolds._factorizations import Factorizations
from balancedfact.manifolds._findings import Finding, ManifoldReport
from balancedfact.manifolds._layers import LayerManifold
from balancedfact.manifolds._probe import Cost
from balancedfact.manifolds._product import ProductPoint, TangentVector
from balancedfact.manifolds._rescaled_balanced_pairs import RescaledBalancedPairs
from balancedfact.manifolds._stiefel_product import factors_of, pair_of, stiefel_product
from balancedfact.manifolds._stiefel_triples import StiefelTriples
from balancedfact.manifolds._zero_loss import ZeroLoss

__all__ = [
    "BalancedLayers",
    "BalancedPairs",
    "Cost",
    "Factorizations",
    "Finding",
    "LayerManifold",
    "ManifoldReport",
    "ProductPoint",
    "RescaledBalancedPairs",
    "StiefelTriples",
    "TangentVector",
    "ZeroLoss",
    "check_manifold",
    "factors_of",
    "pair_of",
    "stiefel_product",
]
