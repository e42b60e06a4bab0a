"""Sessions for nox: ``nox -l`` lists them, ``nox`` runs those that need nothing but Python.

Tests run on every Python of the list that is at hand; one that is missing is skipped, and an error where ``CI`` is set. Each
session has an environment of its own.
"""

from __future__ import annotations

import configparser
import os
import re
import sys

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = "CI" in os.environ


def requirements(extra: str | None = None) -> list[str]:
    """Return the requirements in setup.cfg, of the package or of an extra."""
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    text = config["options"]["install_requires"] if extra is None else config["options.extras_require"][extra]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def oldest(requirement: str) -> str:
    """Return a requirement pinned to the lowest version that it allows, such as ``numpy==1.26.*``."""
    found = re.match(r"([\w.-]+(?:\[[\w,]+\])?)\s*>=\s*([\d.]+)", requirement)
    if found is None:
        raise ValueError(f"{requirement} names no lowest version")
    return f"{found[1]}=={found[2]}"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, in parallel; arguments go to pytest, such as ``-- -m slow``."""
    session.install("--editable", ".[test,dask]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def oldest_versions(session: nox.Session) -> None:
    """The test suite with the oldest versions of all dependencies that setup.cfg allows, on the oldest Python."""
    session.install("--editable", ".[test]", *map(oldest, requirements()))
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The share of lines that the tests run, the slow ones included, with the floor of setup.cfg."""
    session.install("--editable", ".[test,dask]")
    session.run("pytest", "-m", "not attack", "--cov", "--cov-report=term-missing:skip-covered", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install(*requirements("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types."""
    session.install("--editable", ".[lint]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, examples in docstrings included."""
    session.install("--editable", ".[docs,test]")
    session.run("pytest", "-n", "0", "--doctest-modules", "balancedfact")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("python", "docs/check_links.py", "docs/_build/html")


@nox.session
def distributions(session: nox.Session) -> None:
    """The wheel and the source distribution, in `dist/`, each installed in a fresh environment and tried there."""
    session.run("bash", ".ci/distributions", "dist", external=True, env={"PYTHON": sys.executable})
