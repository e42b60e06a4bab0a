"""Damaged files of every kind: each ends in an answer or in a ``ValueError``, within the memory, without a signal."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import balancedfact as bf
from balancedfact.io import write_problem

pytestmark = [pytest.mark.attack, pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")]

# Run in a process of its own: a crash of the interpreter or a lack of memory must not pass for an exception.
_READER = """
import json, resource, sys, warnings
import balancedfact as bf
from balancedfact.io import read_problem
import balancedfact.measurements, balancedfact.solution
warnings.simplefilter("error")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for line in sys.stdin:
    path = line.rstrip("\\n")
    print(json.dumps(path), flush=True)
    try:
        bf.Solution.load(path) if "solution" in path else read_problem(path)
        outcome = "read"
    except ValueError as error:
        outcome = "refused" if str(error) else "a ValueError without a word"
    except MemoryError:
        outcome = "refused"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps(outcome), flush=True)
"""


def originals(folder):
    A = bf.measurements.Entries([0, 1, 2, 0], [0, 1, 2, 2], (3, 3))
    write_problem(folder / "entries.npz", A, [1.0, 2.0, 3.0, 4.0])
    write_problem(folder / "dense.npz", bf.measurements.gaussian(3, (2, 2), 0), [1.0, 2.0, 3.0])
    bf.flat_minimum(A, [1.0, 2.0, 3.0, 4.0], rng=0).save(folder / "solution.npz")
    np.save(folder / "matrix.npy", np.array([[1.0, np.nan], [2.0, 3.0]]))
    (folder / "coordinates.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 1.5E0\n2 3 -2.0\n")
    (folder / "array.mtx").write_text("%%MatrixMarket matrix array real symmetric\n2 2\n1.5\n2\n3\n")
    (folder / "triplets.csv").write_text("row,column,value\n0,0,1.5\n1,2,-2\n2,1,3e2\n")
    (folder / "labels.csv").write_text("user,film,rating\nann,Ran,5\nbob,Ran,4\nbob,Alien,3\n")
    (folder / "table.tsv").write_text("\ta\tb\nx\t1\t\ny\t2\t3\n")
    (folder / "table.txt").write_text("1 2 nan 4\n3 4 5 6\n")
    return sorted(folder.iterdir())


def damage(content, rng):
    """A few bytes changed, cut, doubled, or replaced by what readers are known to trip over."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(content) + 1))
        way = rng.integers(5)
        if way == 0 and at < len(content):
            content[at] = rng.integers(256)
        elif way == 1:
            del content[at:]
        elif way == 2:
            del content[at : at + int(rng.integers(1, 9))]
        elif way == 3:
            content[at:at] = content[at : at + int(rng.integers(1, 60))]
        else:
            tokens = (
                b"9223372036854775807",
                b"1E-",
                b"0",
                b"-1",
                b"1e999",
                b"nan",
                b"\0",
                b"4000000000",
                b"1" * 22,
                b"1_000",
                b"\n",
            )
            content[at : at + 1] = tokens[rng.integers(len(tokens))]
    return bytes(content)


def outcomes(paths):
    """What became of each file; a file at which the process ended is said to have ended it."""
    found, left = {}, [str(path) for path in paths]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    while left:
        run = subprocess.run(
            [sys.executable, "-c", _READER],
            input="\n".join(left) + "\n",
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        assert lines, run.stderr
        found.update(zip(lines[::2], lines[1::2], strict=False))
        if len(lines) % 2:
            found[lines[-1]] = f"ends the process, exit status {run.returncode}"
        left = [path for path in left if path not in found]
    return found


def test_damaged_files(tmp_path, size, seed):
    clean = tmp_path / "clean"
    clean.mkdir()
    files = originals(clean)
    assert set(outcomes(files).values()) == {"read"}
    rng, paths = np.random.default_rng(seed), []
    for k in range(max(20, int(1500 * size))):
        original = files[k % len(files)]
        path = tmp_path / f"{k}-{original.name}"
        path.write_bytes(damage(original.read_bytes(), rng))
        paths.append(path)
    found = outcomes(paths)
    bad = {path: outcome for path, outcome in found.items() if outcome not in ("read", "refused")}
    print(f"{len(found)} damaged files from seed {seed}: {len(bad)} bad")
    assert not bad, "\n".join(f"{o}: {Path(p).name}: {Path(p).read_bytes()[:300]!r}" for p, o in list(bad.items())[:5])


def bomb():
    """Three gigabytes of zeros in three megabytes, as the data of a problem."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("matrix.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (12_800, 12_800)})
        for _ in range(1250):
            file.write(bytes(1 << 20))
    return stream.getvalue()


def test_files_made_to_harm(tmp_path):
    header = "%%MatrixMarket matrix coordinate real general\n"
    made = {
        "exponent.mtx": header + "2 2 1\n1 1 1E-",
        "digits.mtx": header + "2 2 1\n1 1 " + "1" * 22 + ".5\n",
        "index.mtx": header + "2 2 1\n" + "1" * 22 + " 1 1\n",
        "empty.mtx": "%%MatrixMarket matrix array real general\n0 3\n",
        "announced.mtx": header + "9 9 999999999999\n1 1 1\n",
        "far.csv": "9223372036854775807,0,1\n",
        "large.csv": "400000000,0,1\n",
        "underscore.csv": "row,column,value\n0,1,2\n1,0,1_000\n",
        "bomb.npz": bomb(),
    }
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w") as archive:
        archive.writestr("b.npy", b"no array")
        archive.writestr("readme.txt", b"text")
    made["member.npz"] = member.getvalue()
    for name, content in made.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = {Path(path).name: outcome for path, outcome in outcomes(sorted(tmp_path.iterdir())).items()}
    assert found.pop("digits.mtx") == "read"
    assert set(found.values()) == {"refused"}, found
