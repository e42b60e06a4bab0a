"""Random balanced pairs and rotations for the claims on geometry, made without the package."""

from __future__ import annotations

import numpy as np

from balancedfact.theorems._draw import orthonormal


def balanced_pair(rng: np.random.Generator, d1: int, d2: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A balanced pair of random rank, made from L and a Gram matrix without the package."""
    rank = int(rng.integers(1, min(d1, d2, k) + 1))
    L = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, k))
    values, vectors = np.linalg.eigh(L.T @ L)
    return L, orthonormal(rng, d2, rank) * np.sqrt(values[-rank:]) @ vectors[:, -rank:].T


def balanced_near(rng: np.random.Generator, L: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A balanced pair close to a balanced one: both rows are turned and the columns mixed alike."""
    spread = 10 ** rng.uniform(-4, -1)
    turns = [np.linalg.qr(np.eye(len(X)) + spread * rng.standard_normal((len(X), len(X))))[0] for X in (L, R)]
    mix = np.eye(L.shape[1]) + spread * rng.standard_normal((L.shape[1], L.shape[1]))
    return turns[0] @ L @ mix, turns[1] @ R @ mix


def skew(d: int, i: int, j: int) -> np.ndarray:
    return np.outer(np.eye(d)[i], np.eye(d)[j]) - np.outer(np.eye(d)[j], np.eye(d)[i])
