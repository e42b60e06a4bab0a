"""Settings and fixtures of the whole suite."""

import os
from collections import defaultdict
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads in each only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("balancedfact", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("balancedfact")


def pytest_xdist_auto_num_workers(config):
    """Run a few named files in this process: it starts sooner than workers do, and shows what is printed."""
    named = [Path(str(arg).split("::")[0]) for arg in config.args]
    return 0 if named and all(path.is_file() for path in named) else None


def pytest_ignore_collect(collection_path, config):
    """Leave the attacks unread where none of them is asked for: their sweep of the public names takes seconds to set up."""
    if collection_path.name == "attack" and "not attack" in config.getoption("markexpr"):
        return True
    return None


# Folders of which the default tests leave lines unrun. Those of the others are nearly all run by them, and the tracer makes the
# slow tests take two thirds longer.
TRACED = {"commands", "data", "experiments"}


@pytest.hookimpl(tryfirst=True)  # before ``-m`` chooses
def pytest_collection_modifyitems(config, items):
    """Of a test marked ``few(n)`` leave `n` of its cases, evenly spaced, as they are, and mark the others as slow."""
    cases = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("few")
        if marker is not None and item.get_closest_marker("slow") is None:
            cases[item.nodeid.split("[")[0], marker.args[0]].append(item)
    for (_, n), alike in cases.items():
        kept = {(2 * i + 1) * len(alike) // (2 * n) for i in range(n)}
        for place, item in enumerate(alike):
            if place not in kept:
                item.add_marker(pytest.mark.slow)
    if config.pluginmanager.hasplugin("_cov"):
        for item in items:
            folders = item.nodeid.split("/")[1:-1]
            if item.get_closest_marker("slow") is not None and folders and folders[0] not in TRACED:
                item.add_marker(pytest.mark.no_cover)


# These folders train networks: in one process the loops of training are compiled once, in several at the same time. What that
# takes is little beside the slow tests, of which one process would be given most: they are shared one by one.
COMPILED = {"dynamics", "experiments", "theorems"}


def pytest_xdist_make_scheduler(config, log):
    """Share the tests among processes by files, or, where loops are compiled, by folders; slow ones go to whoever is idle."""
    from xdist.scheduler import LoadScopeScheduling, WorkStealingScheduling

    if config.getoption("dist") != "loadscope":
        return None
    if config.getoption("markexpr") == "slow":
        return WorkStealingScheduling(config, log)

    class ByFiles(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            together = nodeid.split("/")[1] in COMPILED and "not slow" in config.getoption("markexpr")
            return "compiled" if together else super()._split_scope(nodeid)

    return ByFiles(config, log)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures of ``balancedfact solve`` empty, for tests that look at other files: layout takes most of its time."""
    monkeypatch.setattr("balancedfact.commands._solve_files.write_picture", lambda path, figure: path.touch())


@pytest.fixture
def rng():
    return np.random.default_rng(20220)
