"""Linear measurement maps: forward, adjoint, second moments and rescalings, one file per structure."""

from balancedfact.measurements._base import MeasurementMap
from balancedfact.measurements._check import MeasurementReport, check_measurements
from balancedfact.measurements._dense import Dense
from balancedfact.measurements._ensembles import bernoulli, bernoulli_mask, bilinear, gaussian
from balancedfact.measurements._entries import Entries
from balancedfact.measurements._rank_one import RankOne

__all__ = [
    "Dense",
    "Entries",
    "MeasurementMap",
    "MeasurementReport",
    "RankOne",
    "bernoulli",
    "bernoulli_mask",
    "bilinear",
    "check_measurements",
    "gaussian",
]
