"""A run that is killed and started again ends with the same table as one never killed, wherever its units run."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from balancedfact._executors import dask_cluster, process_pool
from balancedfact.experiments._runner import reproduce
from tests.experiments import toy

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


class Counting(ThreadPoolExecutor):
    """An executor that counts what it is given."""

    submitted = 0

    def submit(self, *args, **kwargs):
        self.submitted += 1
        return super().submit(*args, **kwargs)


def table_of(folder, **settings):
    with Counting(1) as executor:
        reproduce(toy.toy(**settings), "quick", folder, executor, progress=False)
    return (folder / "toy.csv").read_bytes()


def test_rows_are_those_of_a_plain_loop(tmp_path):
    with ThreadPoolExecutor(3) as executor:
        table = reproduce(toy.toy(), "paper", tmp_path, executor, progress=False)
    settings = toy.toy().scales["paper"]
    expected = []
    for index, unit in enumerate(toy.units(settings)):
        expected += toy.run(settings, unit, np.random.default_rng([1, zlib.crc32(b"toy"), index]))
    assert table.rows == expected
    assert {path.name for path in tmp_path.iterdir()} == {"toy.csv", "toy.png", "toy.json"}
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_provenance_names_settings_versions_and_machine(tmp_path):
    table_of(tmp_path)
    report = json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))
    assert report["settings"] == dict(toy.toy().scales["quick"])
    assert (report["figure"], report["scale"], report["units"], report["rows"]) == ("toy", "quick", 8, 24)
    assert report["units_found_from_an_earlier_run"] == 0
    assert {"numpy", "numba", "python", "balancedfact"} <= set(report["versions"])
    assert report["machine"]["cores"] == os.cpu_count()


def test_unknown_scale(tmp_path):
    with ThreadPoolExecutor() as executor, pytest.raises(ValueError, match=r"scale is 'huge'; expected 'quick' or 'paper'"):
        reproduce(toy.toy(), "huge", tmp_path / "new", executor)
    assert not (tmp_path / "new").exists()


def test_a_broken_unit_is_raised_and_what_was_finished_is_kept(tmp_path):
    whole = table_of(tmp_path / "whole")
    broken = {"scale": 1.0, "repetition": 2}
    with pytest.raises(ArithmeticError, match="this unit is broken"):
        table_of(tmp_path / "part", broken=broken)
    finished = {path.name for path in (tmp_path / "part" / "toy.quick.units").glob("*.json")}
    assert finished - {"000007.json"} == {f"{index:06d}.json" for index in range(6)}
    assert not (tmp_path / "part" / "toy.csv").exists()
    # Other settings do not pick up what these left.
    with Counting(1) as executor:
        reproduce(toy.toy(), "quick", tmp_path / "part", executor, progress=False)
    assert executor.submitted == 8
    assert (tmp_path / "part" / "toy.csv").read_bytes() == whole


def test_finished_units_are_not_run_again(tmp_path, monkeypatch):
    whole = table_of(tmp_path / "whole")
    stopped = Counting(1)
    monkeypatch.setattr("balancedfact.experiments._runner.write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with stopped, pytest.raises(KeyboardInterrupt):
        reproduce(toy.toy(), "quick", tmp_path, stopped, progress=False)
    monkeypatch.undo()
    (tmp_path / "toy.quick.units" / "000003.json").unlink()
    with Counting(1) as executor:
        reproduce(toy.toy(), "quick", tmp_path, executor, progress=False)
    assert executor.submitted == 1
    assert (tmp_path / "toy.csv").read_bytes() == whole
    assert json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))["units_found_from_an_earlier_run"] == 7


@pytest.mark.slow
def test_the_pool_gives_its_processes_one_thread_and_leaves_no_trace(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with process_pool(1) as pool:
        inside = pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result()
    assert inside == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def start(folder, where, pause):
    command = [sys.executable, "-m", "tests.experiments.toy", str(folder), str(where), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True)


def units_on_disk(folder):
    return len(list((folder / "toy.quick.units").glob("*.json")))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_and_resume(tmp_path, workers):
    whole = table_of(tmp_path / "whole", repetitions=8)
    killed = start(tmp_path / "killed", workers, 0.25)
    wait_for(lambda: units_on_disk(tmp_path / "killed") >= 3)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    found = units_on_disk(tmp_path / "killed")
    assert found < 16
    assert start(tmp_path / "killed", 3 - workers, 0.25).wait() == 0
    assert (tmp_path / "killed" / "toy.csv").read_bytes() == whole
    report = json.loads((tmp_path / "killed" / "toy.json").read_text(encoding="utf-8"))
    assert report["units_found_from_an_earlier_run"] == found


@pytest.mark.slow
def test_dask_cluster_with_two_worker_processes(tmp_path):
    distributed = pytest.importorskip("distributed")
    whole = table_of(tmp_path / "whole", repetitions=8)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        killed = start(tmp_path / "killed", address, 0.25)
        wait_for(lambda: units_on_disk(tmp_path / "killed") >= 3)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        assert units_on_disk(tmp_path / "killed") < 16
        assert start(tmp_path / "killed", address, 0.25).wait() == 0
    assert (tmp_path / "killed" / "toy.csv").read_bytes() == whole


def test_no_scheduler_at_the_address():
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=r"scheduler is 'nonsense://x'"), dask_cluster("nonsense://x"):
        pass
