"""How long to attack, and from which seed: ``ATTACK_SIZE=30 ATTACK_SEED=7 pytest -m attack``."""

import os

import numpy as np
import pytest


@pytest.fixture(scope="session")
def size():
    """The factor by which the numbers of cases grow; at 1 all attacks together take about two minutes, at 30 an hour."""
    return float(os.environ.get("ATTACK_SIZE", "1"))


@pytest.fixture(scope="session")
def seed():
    """The seed of all attacks, printed so that a failure can be run again; from the clock with ``ATTACK_SEED=random``."""
    text = os.environ.get("ATTACK_SEED", "20220")
    chosen = int(np.random.SeedSequence().entropy) % 2**32 if text == "random" else int(text)
    print(f"ATTACK_SEED={chosen}")
    return chosen
