"""Times between measured points."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_search.pruning.latency.surface import Surface, best_step, nonnegative


def staircase(n: int, m: int) -> float:
    """A layer on a processor that computes 16 channels at a time."""
    n, m = -(-n // 16) * 16, -(-m // 16) * 16
    return 0.01 + 1e-4 * n + 2e-4 * m + 3e-5 * n * m


def test_staircase_is_found() -> None:
    levels = (8, 24, 40, 48, 64)
    points = {(n, m): staircase(n, m) for n, m in product(levels, levels)}
    assert best_step([(points, (1, 1))]) == 16
    surface = Surface.fitted(points, (1, 1), 16)
    others = np.array(list(product(range(8, 65, 8), repeat=2)), dtype=float)
    expected = [staircase(int(n), int(m)) for n, m in others]
    assert surface.at(others) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_exact_where_measured(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    points = {tuple(map(int, rng.integers(1, 65, groups))): float(rng.uniform(0.01, 1)) for _ in range(12)}
    surface = Surface.fitted(points, (1,) * groups, 8)
    assert surface.at(np.array(list(points), dtype=float)) == pytest.approx(list(points.values()))
    between = surface.at(rng.integers(1, 65, (20, groups)).astype(float))
    assert (between > 0).all()
    assert np.isfinite(between).all()


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_least_squares_without_negative_coefficients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.normal(size=(12, 4)), rng.normal(size=12)
    found = nonnegative(matrix, target)
    gradient = matrix.T @ (matrix @ found - target)
    assert (found >= 0).all()
    assert (gradient >= -1e-6).all()  # the conditions of the optimum
    assert np.abs(gradient * found).max() < 1e-6
