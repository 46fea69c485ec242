"""Durations, counts and sizes: whatever is typed is read exactly or refused in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.base.units import (
    format_bytes,
    format_count,
    format_duration_ms,
    parse_bytes,
    parse_count,
    parse_duration_ms,
)
from ofa_profiler.errors import UsageError

DURATIONS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}
COUNTS = {"K": 1e3, "M": 1e6, "G": 1e9}
BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}

PARSERS = pytest.mark.parametrize(
    ("parse", "units"), [(parse_duration_ms, DURATIONS), (parse_count, COUNTS), (parse_bytes, BYTES)]
)


@PARSERS
@given(number=st.decimals(min_value="0.001", max_value="100000", places=3), data=st.data())
def test_number_and_unit_are_read_exactly(parse, units, number, data):
    unit = data.draw(st.sampled_from(sorted(units)))
    assert parse(f"{number}{unit}") == float(number) * units[unit]


def value_or_error(parse, text) -> float | UsageError:
    try:
        return parse(text, "--budget")
    except UsageError as error:
        return error


@PARSERS
@given(text=st.one_of(st.text(), st.from_regex(r"[-+]?[0-9.]{1,6}[a-zA-Z ]{0,3}", fullmatch=True)))
def test_any_text_is_positive_and_finite_or_refused_in_one_line(parse, units, text):
    result = value_or_error(parse, text)
    if isinstance(result, float):
        assert 0 < result < math.inf
    else:
        assert str(result).startswith("--budget ")
        assert "\n" not in str(result)


@pytest.mark.parametrize("text", ["20", "20.5", ".5"])
def test_bare_number_is_refused_with_the_units(text):
    with pytest.raises(UsageError, match="has no unit; use one of us, ms, s, m, h"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    "text", ["", " ", "ms", "-5ms", "+5ms", "5 ms x", "1e3ms", "nanms", "infs", "5MS", "٣ms", "0ms", "0"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(UsageError):
        parse_duration_ms(text)


def test_overflow_is_refused():
    with pytest.raises(UsageError, match="finite"):
        parse_duration_ms("9" * 400 + "h")


@given(value_ms=st.floats(min_value=1e-3, max_value=1e8))
def test_formatted_duration_reads_back_to_three_digits(value_ms):
    text = format_duration_ms(value_ms)
    number, unit = text.split(" ")
    assert "e" not in number
    assert parse_duration_ms(number + unit.replace("min", "m")) == pytest.approx(value_ms, rel=0.005)


@given(value=st.floats(min_value=1e3, max_value=1e14))
def test_formatted_count_reads_back_to_three_digits(value):
    text = format_count(value)
    assert "e" not in text
    assert parse_count(text) == pytest.approx(value, rel=0.005)


@given(value=st.floats(min_value=1, max_value=1e14))
def test_formatted_size_reads_back_to_three_digits(value):
    number, unit = format_bytes(value).split(" ")
    assert "e" not in number
    assert parse_bytes(number + unit) == pytest.approx(value, rel=0.005)
