"""The n-th write fails, for every n: nothing half-written is left, and what was there stays."""

import errno
import os

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.experiments._runner import reproduce
from balancedfact.io import write_problem
from tests.experiments.toy import toy

pytestmark = pytest.mark.attack


def save(folder):
    A = bf.measurements.Entries([0, 1], [0, 1], (2, 2))
    bf.flat_minimum(A, [1.0, 2.0], rng=0).save(folder / "solution.npz")
    write_problem(folder / "problem.npz", A, [1.0, 2.0])


def run(folder):
    reproduce(toy(pause=0.0, repetitions=2), "quick", folder)


@pytest.mark.parametrize("work", [save, run])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_every_write_fails_once(tmp_path, monkeypatch, work, call):
    whole = tmp_path / "whole"
    whole.mkdir()
    work(whole)
    expected = {path.name for path in whole.iterdir()}
    real, counts = getattr(os, call), []

    def failing(*args, **kwargs):
        counts[-1] -= 1
        if counts[-1] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    for n in range(1, 100):
        folder = tmp_path / str(n)
        folder.mkdir()
        counts.append(n)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                work(folder)
                failed = False
            except OSError:
                failed = True
        assert not list(folder.rglob("*.partial"))
        for path in folder.rglob("*.npz"):
            with np.load(path) as file:
                assert file.files
        if counts[-1] > 0:  # fewer calls than n: nothing failed
            assert not failed
            break
        work(folder)
        assert {path.name for path in folder.iterdir()} == expected
    assert n > 2
