import numpy as np
import pytest

from balancedfact.certification import _rounding
from balancedfact.certification._rounding import proved_norm


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 40), (300, 7), (120, 200)])
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_a_proved_norm_is_not_below_the_norm_and_hardly_above(shape, size, rng):
    W = size * rng.standard_normal(shape)
    norm = np.linalg.norm(W / size, 2) * size
    for guess in (None, norm, 0.9 * norm, norm * (1 - 1e-9)):
        found = proved_norm(W, guess)
        assert norm * (1 - 1e-14) <= found <= norm * (1 + 1e-10)
    assert norm <= proved_norm(W, 2 * norm) <= 2.001 * norm


def test_a_guess_saves_the_decomposition(monkeypatch, rng):
    W = rng.standard_normal((30, 20))
    norm = np.linalg.norm(W, 2)

    def refuse(*_, **__):
        raise AssertionError("a norm was computed")

    monkeypatch.setattr(_rounding.np.linalg, "norm", refuse)
    assert norm <= proved_norm(W, norm) <= norm * (1 + 1e-11)


def test_equal_singular_values_are_proved_too():
    W = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))[0]
    assert 1 - 1e-15 <= proved_norm(W) <= 1 + 1e-10
    assert proved_norm(np.zeros((3, 2))) == 0
