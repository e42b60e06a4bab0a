"""Linear measurement maps: forward, adjoint, second moments and rescalings, one file per structure."""

from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._check import MeasurementReport, check_measurements
from balancedfact.measurements._dense import Dense
from balancedfact.measurements._ensembles import bernoulli, bernoulli_mask, bilinear, gaussian
from balancedfact.measurements._entries import Entries
from balancedfact.measurements._isometry import IsometryEnclosure, isometry_constant
from balancedfact.measurements._rank_one import RankOne
from balancedfact.measurements._regression import regression
from balancedfact.measurements._second_moment import IsotropicMoment, SecondMoment
from balancedfact.measurements._sharded import Sharded
from balancedfact.measurements._two_way import TwoWayEntries

__all__ = [
    "Dense",
    "Entries",
    "IsometryEnclosure",
    "IsotropicMoment",
    "MeasurementMap",
    "MeasurementReport",
    "RankOne",
    "SecondMoment",
    "Sharded",
    "TwoWayEntries",
    "bernoulli",
    "bernoulli_mask",
    "bilinear",
    "check_measurements",
    "gaussian",
    "isometry_constant",
    "regression",
]
