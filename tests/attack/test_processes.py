"""Runs that are killed, workers that are killed, two runs at once and torn files: nothing is lost, nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from balancedfact._executors import process_pool
from balancedfact.experiments._runner import reproduce
from tests.experiments.toy import toy

pytestmark = [pytest.mark.attack, pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")]


def start(folder, pause=0.05):
    command = [sys.executable, "-m", "tests.experiments.toy", str(folder), "2", str(pause)]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def children(pid):
    """The processes below one, by number."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    reproduce(toy(pause=0.0, repetitions=8), "quick", folder)
    return (folder / "toy.csv").read_bytes()


@pytest.fixture(scope="module")
def start_up():
    """Seconds that a worker may take to start on this machine now: until then it cannot look whether its parent is there."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tests.experiments.toy"], cwd=Path(__file__).parents[2], check=True)
    return 2 * (time.monotonic() - began)


def test_killed_runs_leave_no_worker_and_lose_nothing(tmp_path, whole, start_up, size, seed):
    rng, slowest = np.random.default_rng(seed), 0.0
    count = max(1, int(3 * size))
    for attempt in range(count):
        folder = tmp_path / str(attempt)
        run = start(folder, 0.3)
        time.sleep(rng.uniform(1.0, 4.0))
        workers = children(run.pid)
        run.kill()  # the run alone, not its workers
        run.wait()
        killed = time.monotonic()
        end = killed + 5 + start_up
        while any(map(running, workers)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not [pid for pid in workers if running(pid)]
        slowest = max(slowest, time.monotonic() - killed)
        assert start(folder, 0.3).wait() == 0
        assert (folder / "toy.csv").read_bytes() == whole
    print(f"{count} kills from seed {seed}: no worker after {slowest:.1f} s, with {start_up:.1f} s to start; every table whole")


def _slow_square(x):
    time.sleep(0.2)
    return x * x, os.getpid()


def _die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_workers_are_replaced(size):
    with process_pool(2) as pool:
        futures = [pool.submit(_slow_square, x) for x in range(40)]
        for k in range(max(1, int(2 * size))):
            victim = futures[8 * k % 32].result()[1]
            if running(victim):
                os.kill(victim, signal.SIGKILL)
        assert [future.result()[0] for future in futures] == [x * x for x in range(40)]


def test_a_task_that_kills_every_worker_ends():
    with process_pool(1) as pool, pytest.raises(Exception, match="terminated abruptly"):
        pool.submit(_die, 0).result(timeout=60)


def test_two_runs_in_one_folder(tmp_path):
    first = start(tmp_path, 0.5)
    while not list(tmp_path.glob("toy.quick.units/*.json")):
        time.sleep(0.05)
        assert first.poll() is None
    with pytest.raises(ValueError, match=r"^another run of toy writes to .*; expected it to be finished, or another folder$"):
        reproduce(toy(pause=0.5, repetitions=8), "quick", tmp_path)
    assert first.wait() == 0


@pytest.mark.parametrize("torn", [b"", b"[", b"[{]", b"null", b"\xff\xfe", b"[1]", b"[" * 5000])
def test_torn_units_are_run_again(tmp_path, whole, torn):
    experiment = toy(pause=0.0, repetitions=8)
    folder = tmp_path / "toy.quick.units"

    class Stop(Exception):
        pass

    def stop(settings, unit, rng):
        if unit["repetition"] == 4:
            raise Stop
        return experiment.run(settings, unit, rng)

    stopped = type(experiment)(**{**vars(experiment), "run": stop})
    with pytest.raises(Stop):
        reproduce(stopped, "quick", tmp_path)
    found = sorted(folder.glob("*.json"))
    assert len(found) == 4
    found[1].write_bytes(torn)
    (folder / ".000009.json.0123.partial").write_bytes(b"left by a killed writer")
    reproduce(experiment, "quick", tmp_path)
    assert (tmp_path / "toy.csv").read_bytes() == whole
    assert json.loads((tmp_path / "toy.json").read_text())["units_found_from_an_earlier_run"] == 3
    assert not folder.exists()
