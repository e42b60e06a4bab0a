"""Figures that can be run again: settings, units of work, a table, a picture; and worked examples on real data."""

from balancedfact._executors import dask_cluster, process_pool
from balancedfact.experiments._elevation import ELEVATION
from balancedfact.experiments._experiment import Experiment
from balancedfact.experiments._runner import redraw, reproduce
from balancedfact.experiments._scan import SCAN
from balancedfact.experiments._table import Table

EXAMPLES = {"elevation": ELEVATION, "scan": SCAN}

__all__ = ["EXAMPLES", "Experiment", "Table", "dask_cluster", "process_pool", "redraw", "reproduce"]
