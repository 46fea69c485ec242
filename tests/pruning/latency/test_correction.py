"""The correction of sums, fitted to whole networks."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_search.pruning.latency.correction import Correction


def test_known_coefficients() -> None:
    rng = np.random.default_rng(0)
    sums, megabytes = rng.uniform(1, 5, 12), rng.uniform(1, 40, 12)
    found = Correction.fitted(sums, megabytes, 1.05 * sums - 0.1 + 0.03 * megabytes)
    assert (found.scale, found.offset_ms, found.ms_per_mb) == pytest.approx((1.05, -0.1, 0.03))
    assert found.left_out_mape == pytest.approx(0, abs=1e-9)
    assert Correction.from_json(found.to_json()) == found


def test_simple_if_that_is_as_good() -> None:
    rng = np.random.default_rng(1)
    sums, megabytes = rng.uniform(1, 5, 12), rng.uniform(1, 40, 12)
    found = Correction.fitted(sums, megabytes, 1.1 * sums)
    assert (found.scale, found.offset_ms, found.ms_per_mb) == pytest.approx((1.1, 0, 0))


def test_few_networks() -> None:
    assert Correction.fitted(np.empty(0), np.empty(0), np.empty(0)) == Correction()
    one = Correction.fitted(np.array([2.0]), np.array([1.0]), np.array([3.0]))
    assert (one.scale, one.left_out_mape) == (1.5, None)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": float("nan")}, {"ms_per_mb": -1.0}])
def test_wrong_values(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="the correction must"):
        Correction.from_json({**Correction().to_json(), **wrong})
