"""What changes save follows from the measurements alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.models.base import TimedModel
from ofa_profiler.models.what_if.ranking import savings
from ofa_profiler.models.what_if.variants import Variant
from ofa_profiler.protocol.measurement import Measurement


def variant(key: str) -> Variant:
    return Variant(key, f"change {key}", (f"place {key}",), TimedModel(b"", ()))


def measured(key: str, ms: float, off: float = 0.01) -> Measurement:
    """Even and odd rounds are `off` apart."""
    return Measurement(key, tuple((time,) * 3 for time in [ms, ms * (1 + off)] * 3))


def test_the_most_first_with_its_noise() -> None:
    found = {"a": measured("a", 9.99), "b": measured("b", 8.0), "c": measured("c", 11.0)}
    result = savings(measured("whole", 10.0), [variant(key) for key in "abc"], found)
    assert [saving.change for saving in result] == ["change b", "change a", "change c"]
    assert result[0].saved_ms == pytest.approx(2.0)
    # Half of 1% is the standard deviation of a time. Four networks tell it: Student's t has four degrees of freedom.
    assert result[0].noise_ms == pytest.approx(2.776 * np.log(1.01) / 2 * (10**2 + 8**2) ** 0.5)
    assert [saving.is_clear for saving in result] == [True, False, False]
    assert str(result[0]) == "change b: 2 ms ± 0.18 ms, 20.0% of the network"
    assert str(result[1]).endswith("; no more than the noise")
    assert str(result[2]).endswith("; it does not save time")
    assert json.loads(json.dumps(result[0].to_json()))["places"] == ["place b"]


def test_other_programs_do_not_count() -> None:
    """A run in ten takes much longer, and one whole visit."""
    busy = tuple((8.0,) * 9 + (30.0,) for _ in range(5))
    found = {"a": Measurement("a", (*busy, (20.0,) * 10))}
    original = Measurement("whole", ((10.0,) * 10,) * 6)
    (saving,) = savings(original, [variant("a")], found)
    assert saving.saved_ms == pytest.approx(2.0)


def test_failed_networks_are_left_out() -> None:
    failed = Measurement("a", (), "failed", "out of memory")
    assert savings(measured("whole", 1.0), [variant("a"), variant("b")], {"a": failed}) == ()
    assert savings(Measurement("whole", (), "failed", "x"), [variant("a")], {"a": measured("a", 1.0)}) == ()


def test_noise_of_one_round_is_that_of_the_agent() -> None:
    original = Measurement("whole", ((10.0, 10.0),), half_width=0.02)
    (saving,) = savings(original, [variant("a")], {"a": Measurement("a", ((9.0, 9.0),), half_width=0.01)})
    assert saving.noise_ms == pytest.approx(0.02 * (10**2 + 9**2) ** 0.5)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=6))
def test_order(times: list[float]) -> None:
    found = {str(i): measured(str(i), ms) for i, ms in enumerate(times)}
    result = savings(measured("whole", 10.0), [variant(key) for key in found], found)
    assert [saving.after_ms for saving in result] == pytest.approx(sorted(times))
    assert all(saving.noise_ms > 0 for saving in result)
