"""Files appear whole or not at all, whoever else writes, and whatever lies at their name."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from balancedfact import _files
from balancedfact._files import alone, remove_partial, write_arrays, write_json, write_picture, write_text, writing

try:
    import fcntl
except ImportError:
    fcntl = None


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "old")

    def interrupted():
        with writing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_links_are_replaced_and_not_followed(tmp_path):
    secret, path = tmp_path / "secret", tmp_path / "note.txt"
    secret.write_text("secret")
    path.symlink_to(secret)
    write_text(path, "new")
    assert secret.read_text() == "secret"
    assert not path.is_symlink()
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_permissions_follow_the_mask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "note.txt", "")
    finally:
        os.umask(before)
    assert (tmp_path / "note.txt").stat().st_mode & 0o777 == 0o640


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A machine that stops between the two steps leaves the old file."""
    path, synced = tmp_path / "note.txt", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, path.exists())))
    write_text(path, "content")
    assert synced[0] == (7, False)
    assert synced[1][1]


def test_twenty_writers_of_one_file(tmp_path):
    path, failed = tmp_path / "arrays.npz", []

    def write(value):
        try:
            for _ in range(5):
                write_arrays(path, {"x": np.full(20_000, value)})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with np.load(path) as file:
        assert np.ptp(file["x"]) == 0
    assert names(tmp_path) == ["arrays.npz"]


def test_every_kind_of_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("nan")})
    write_picture(tmp_path / "a.png", Figure())
    assert (tmp_path / "a.json").read_text() == '{\n  "x": null\n}\n'
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"^x has dtype object; expected numbers$"):
        write_arrays(tmp_path / "a.npz", {"x": np.array([{}])})
    assert names(tmp_path) == ["a.json", "a.png"]


def test_names_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / ("ä" * 127)
    write_text(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("path", [3, None, b"note", "", "a\0b", ["note"]])
def test_what_names_no_file(path):
    with pytest.raises(ValueError, match=r"^path is .*; expected the name of a file$"):
        write_text(path, "x")


def test_leftovers_are_removed(tmp_path):
    Path(tmp_path, ".note.txt.0123.partial").touch()
    Path(tmp_path, "note.partial").touch()
    remove_partial(tmp_path)
    assert names(tmp_path) == ["note.partial"]


class Msvcrt:
    """What Windows has for `fcntl`: a lock on the first byte of an open file, which closing frees."""

    LK_NBLCK = 2

    @staticmethod
    def locking(descriptor, mode, count):
        assert (mode, count) == (Msvcrt.LK_NBLCK, 1)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    "windows", [False, pytest.param(True, marks=pytest.mark.skipif(fcntl is None, reason="it is Windows"))]
)
def test_a_folder_is_held_by_one_at_a_time(tmp_path, monkeypatch, windows):
    if windows:
        monkeypatch.setattr(_files, "fcntl", None)
        monkeypatch.setattr(_files, "msvcrt", Msvcrt)
    folder = tmp_path / "figures" / "units"
    with alone(folder, "another writes"):
        assert folder.is_dir()
        with (
            pytest.raises(ValueError, match=r"^another writes; expected it to be finished, or another folder$"),
            alone(folder, "another writes"),
        ):
            pass
        with alone(tmp_path / "other", "another writes"):
            pass
    with alone(folder, "another writes"):
        folder.rmdir()  # as a run that is finished does
    with alone(folder, "another writes"):
        assert names(folder.parent) == ([".units.lock", "units"] if windows else ["units"])
    assert names(folder.parent) == ["units"]
