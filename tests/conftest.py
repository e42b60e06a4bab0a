"""Settings and fixtures of the whole suite."""

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("balancedfact", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("balancedfact")


@pytest.fixture
def rng():
    return np.random.default_rng(20220)
