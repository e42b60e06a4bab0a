"""Every argument of every public function takes malformed values: an answer or a ``ValueError`` that names it."""

import inspect
import re
import resource
import signal
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import balancedfact as bf

from .arguments import by_name, example, malformed, public, special, spoilt

pytestmark = [pytest.mark.attack, pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")]

PUBLIC = public()
_SECONDS = 20  # of processor time: other work on the machine does not count
_MEMORY = 2**31  # what a call may allocate beyond what is there
# Words for numbers that ask for very much work: with limits, where a function takes them.
_EXTREME = {"huge", "tiny", "long", "many", "many in the last", "long in the last"}
_SOON = bf.Limits(seconds=2)
# Arguments of which one axis more is one more run, or one more matrix; gaps are what a table is for.
_STACKED = {"covariance", "w", "inputs", "targets", "layers", "scale", "step"}
_GAPPY = {("bf.complete", "M"), ("bf.panel_effect", "Y"), ("bf.panel_path", "Y")}


class TooSlow(BaseException):
    pass


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    own = special(folder)
    yield lambda name: example(name, PUBLIC[name], folder, by_name(folder), own)
    plt.close("all")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder for what malformed names of files and folders leave."""
    monkeypatch.chdir(tmp_path)


def attempt(function, arguments):
    """The outcome of a call: its result and ``None``, or ``None`` and the exception, a warning included."""

    def alarm(*_):
        raise TooSlow

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, alarm)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function(**arguments), None
    except (Exception, TooSlow) as error:
        return None, error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, before)


def complaint(error, key, value):
    """What is wrong with the way in which an argument is refused, or ``None``; a file may be named instead."""
    if isinstance(error, TooSlow):
        return f"takes more than {_SECONDS} s of processor time"
    if not isinstance(error, ValueError):
        return f"{type(error).__name__}: {error}"
    named = re.search(rf"\b{re.escape(key)}\b", str(error)) or (key == "path" and str(value) in str(error))
    if not named:
        return f"a ValueError that does not name it: {error}"
    if "expected" not in str(error):
        return f"a ValueError that does not say what was expected: {error}"
    return None


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_malformed_arguments(name, examples):
    function, good = PUBLIC[name], examples(name)
    _, error = attempt(function, good)
    assert error is None, f"the example of {name} itself fails: {error!r}"
    never, maybe = malformed()
    wrong, calls = [], 0
    parameters = inspect.signature(function).parameters
    for key, parameter in parameters.items():
        if (name, key) == ("bf.estimators.FlatImputer.fit", "X"):  # which scikit-learn checks, in its own words
            continue
        anything = parameter.annotation in ("Any", inspect.Parameter.empty)
        bad = spoilt(good.get(key))
        fine = {"none in the last", "half in the last", "minus one in the last", "many in the last"}
        if (name, key) in _GAPPY:
            fine |= {"nan", "masked", "objects"}
        if key in _STACKED and name.startswith(("bf.dynamics", "bf.closed_forms")):
            fine |= {"one axis more"}
        for word, value in [*never.items(), *maybe.items(), *bad.items()]:
            if word == "a type" and key == "callback":  # it is called, and what it raises is the caller's own
                continue
            limits = {"limits": _SOON} if word in _EXTREME and key != "limits" and "limits" in parameters else {}
            _, error = attempt(function, good | limits | {key: value})
            calls += 1
            said = complaint(error, key, value) if error is not None else None
            if error is None and not anything and word not in fine and (word in bad or word in never):
                said = "is accepted"
            if said:
                wrong.append(f"{name}({key}={word}): {said}"[:300])
    print(f"{name}: {calls} malformed calls, {len(wrong)} wrong")
    assert not wrong, f"{len(wrong)} of {calls}:\n" + "\n".join(wrong)


def same(a, b, rtol):
    """Tell whether two results hold the same numbers."""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, rtol) for x, y in zip(a, b, strict=True))
    if isinstance(a, (np.ndarray, float)):
        return np.allclose(a, b, rtol=rtol, atol=0, equal_nan=True)
    if hasattr(a, "layers"):
        return same(a.layers, b.layers, rtol)
    return True


def others(value):
    """The same numbers in other clothes."""
    if isinstance(value, list) and value and all(isinstance(each, np.ndarray) for each in value):
        return [list(each) for each in zip(*(others(each) for each in value), strict=True)]
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return []
    wide = np.zeros(tuple(2 * n for n in value.shape))
    strided = wide[tuple(slice(None, None, 2) for _ in value.shape)]
    strided[...] = value
    frozen = value.copy()
    frozen.flags.writeable = False
    return [value.astype(np.float32), value.tolist(), np.asfortranarray(value), strided, frozen, value.astype(">f8")]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_the_same_numbers_give_the_same_answer(name, examples):
    function = PUBLIC[name]
    plain = {
        key: value.astype(np.float32).astype(float) if isinstance(value, np.ndarray) else value
        for key, value in examples(name).items()
    }
    answer, error = attempt(function, plain)
    assert error is None
    for key, value in plain.items():
        before = np.copy(value) if isinstance(value, np.ndarray) else None
        for k, other in enumerate(others(value)):
            found, error = attempt(function, plain | {key: other})
            assert error is None, f"{key}, {k}: {error!r}"
            assert same(answer, found, 1e-12), f"{key}, {k}"
        assert before is None or np.array_equal(before, value, equal_nan=True), f"{key} was changed"
