"""Builds the options of Google's `benchmark_model`, and parses its output into times or an error.

The tool prints two blocks of statistics, first of the warm-up, then of the runs. A summary at the end repeats both
means. If one of the three is missing, the output was cut off. Times are in microseconds. Means have the six digits of
C++ streams (`1.29563e+06`). A block whose samples are all equal has only `count=N curr=T`. If the requested delegate
does not run the model, the tool reports this in one sentence among others, and still prints plausible times.
Source: `tensorflow/lite/tools/benchmark`, `tensorflow/core/util/stats_calculator.h`.

LiteRT's own tool of the same name prints the same blocks. Its summary has milliseconds with two decimals, and it
reports delegates only as replaced nodes. Source: `litert/tools/benchmark_litert_model.h`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ofa_profiler.devices.android.benchmark_messages import delegates, lines_of, notes, shown, why_failed
from ofa_profiler.errors import UsageError

#: The provider of a table if the tool chose the delegate: XNNPACK, except in old versions.
DEFAULT = "default"
#: The output for one model without profiling is shorter.
MAX_OUTPUT = 1 << 20
_FOREVER_S = 3600.0
#: Means are printed with six significant digits.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Statistics:
    """One block of statistics: times of `count` runs in microseconds."""

    count: int
    first_us: int
    last_us: int
    min_us: int
    max_us: int
    mean_us: float
    std_us: float
    #: Only newer versions of the tool print it.
    median_us: float | None = None


@dataclass(frozen=True)
class Timing:
    """The result of one call of the tool."""

    warm_up: Statistics
    runs: Statistics
    #: Time for loading and preparing the model.
    init_us: int
    #: The delegates that ran the model, as the tool reports them: `XNNPACK: partially (2 kernels)`.
    delegates: tuple[str, ...] = ()
    #: Errors that the tool reports and has overcome.
    notes: tuple[str, ...] = ()

    @property
    def typical_us(self) -> float:
        """The median if it is known, else the mean."""
        return self.runs.mean_us if self.runs.median_us is None else self.runs.median_us


def arguments(graph: str, *, runs: int, threads: int, delegate: str | None = None) -> list[str]:
    """Return the options for exactly `runs` runs of the model `graph`.

    The tool runs until it reaches both the number of runs and a minimum time. It always stops at a maximum time.
    Therefore the minimum time is 0, and the maximum time is longer than any measurement. Profiling of single operators
    is off, because it slows each operator down.
    """
    if delegate is not None and delegate not in DELEGATES:
        raise ValueError(f"no delegate {delegate!r}; there are {', '.join(DELEGATES)}")
    options = {
        "graph": graph,
        "num_threads": threads,
        "num_runs": runs,
        "min_secs": 0,
        "max_secs": f"{_FOREVER_S:g}",
        "warmup_runs": 1,
        "warmup_min_secs": 0.05,
        "enable_op_profiling": "false",
    }
    if delegate is not None:
        options[DELEGATES[delegate]] = "true"
    return [f"--{name}={value}" for name, value in options.items()]


#: Delegate, as the tool writes its name -> option.
DELEGATES = {"GPU": "use_gpu", "NNAPI": "use_nnapi", "XNNPACK": "use_xnnpack", "Hexagon": "use_hexagon"}


def check_settings(runtime: str, provider: str | None) -> None:
    """Raise `UsageError` unless benchmark_model can run models with this runtime and provider."""
    if runtime != "litert":
        raise UsageError(f"--benchmark-model runs TFLite models: use --runtime litert, not {runtime}")
    if provider not in (None, DEFAULT, *DELEGATES):
        known = ", ".join(DELEGATES)
        raise UsageError(f"benchmark_model has no delegate {provider!r:.100}; --provider must be one of {known}")


_WHOLE = r"(\d{1,15})"
_REAL = r"(\d{1,15}(?:\.\d{1,15})?(?:e[+-]?\d{1,2})?)"
_PERCENTILES = rf"(?: p5={_REAL} median={_REAL} p95={_REAL})?"
_DIFFERENT = re.compile(
    rf"count={_WHOLE} first={_WHOLE} curr={_WHOLE} min={_WHOLE} max={_WHOLE} avg={_REAL} std={_REAL}{_PERCENTILES}"
)
_EQUAL = re.compile(rf"count={_WHOLE} curr={_WHOLE}{_PERCENTILES}")
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: {_WHOLE}, First inference: {_WHOLE}, "
    rf"Warmup \(avg\): {_REAL}, Inference \(avg\): {_REAL}"
)
#: The format until 2020.
_OLD_SUMMARY = re.compile(
    rf"Average inference timings in us: Warmup: {_REAL}, Init: {_WHOLE}, (?:Inference|no stats): {_REAL}"
)
#: What LiteRT's tool prints instead, a line each.
_LITERT_RESULTS = "========== BENCHMARK RESULTS"
_LITERT_INIT = re.compile(rf"Model initialization: +{_REAL} ms")
_LITERT_MEANS = [re.compile(rf"{what} \(avg\): +{_REAL} ms \({_WHOLE} runs\)") for what in ("Warmup", "Inference")]


def parse(output: str, *, runs: int, delegate: str | None = None) -> Timing:
    """Parse the output of one call with `runs` runs and, if requested, with `delegate`.

    Raises `ValueError`, with a message of one line, unless the output is complete and matches the call.
    """
    if len(output) > MAX_OUTPUT:
        raise ValueError(f"benchmark_model printed more than {MAX_OUTPUT} characters")
    lines = lines_of(output)
    texts = [line.text for line in lines]
    blocks = [(_statistics(text), _printed_mean(text)) for text in texts if text.startswith("count=")]
    summaries = [summary for summary in map(_summary, texts) if summary is not None]
    is_litert = any(text.startswith(_LITERT_RESULTS) for text in texts)
    is_whole = len(blocks) == 2 and len(summaries) == (0 if is_litert else 1)
    is_fatal = any(line.is_fatal for line in lines)
    if not is_whole or is_fatal:
        if (is_fatal or not blocks) and (why := why_failed(lines, delegate)):
            raise ValueError(why)
        tool = "benchmark_model of LiteRT" if is_litert else "benchmark_model"
        raise ValueError(
            f"the output of {tool} is damaged: {len(blocks)} blocks of statistics and {len(summaries) + is_litert} "
            "summaries, not 2 and 1"
        )
    (warm_up, warm_up_mean), (timed, mean) = blocks
    if is_litert:
        init_us = _check_litert_summary(texts, warm_up, timed)
    else:
        init_us, *means = summaries[0]
        # The texts are compared, not the numbers: a number that was cut off is still a number.
        if means != [warm_up_mean, mean]:
            raise ValueError(f"benchmark_model printed different means: {warm_up_mean} and {mean} us, then {means}")
    if timed.count < runs:
        raise ValueError(f"benchmark_model made {timed.count} runs, not {runs}")
    return Timing(warm_up, timed, init_us, delegates(lines, delegate, is_litert=is_litert), notes(lines))


def _statistics(line: str) -> Statistics:
    if match := _DIFFERENT.fullmatch(line):
        count, first, last, least, most = map(int, match.groups()[:5])
        mean, std = float(match[6]), float(match[7])
        median = float(match[9]) if match[9] else None
        found = Statistics(count, first, last, least, most, mean, std, median)
    elif match := _EQUAL.fullmatch(line):
        count, value = int(match[1]), int(match[2])
        found = Statistics(count, value, value, value, value, float(value), 0.0, float(match[4]) if match[4] else None)
    else:
        raise ValueError(f"benchmark_model printed unreadable statistics: {shown(line)}")
    middle = [found.mean_us] + ([found.median_us] if found.median_us is not None else [])
    if not (
        found.count > 0
        and 0 < found.min_us <= min(found.first_us, found.last_us)
        and max(found.first_us, found.last_us) <= found.max_us
        and all(found.min_us * (1 - _ROUNDING) <= value <= found.max_us * (1 + _ROUNDING) for value in middle)
    ):
        raise ValueError(f"benchmark_model printed impossible statistics: {shown(line)}")
    return found


def _printed_mean(line: str) -> str:
    """Return the mean of a block as C++ prints it."""
    if match := _DIFFERENT.fullmatch(line):
        return match[6]
    return f"{int(line.split()[1].removeprefix('curr=')):.6g}"


def _summary(line: str) -> tuple[int, str, str] | None:
    """Return the initialisation time in microseconds, and the means of warm-up and runs as printed."""
    if match := _SUMMARY.fullmatch(line):
        return int(match[1]), match[3], match[4]
    if match := _OLD_SUMMARY.fullmatch(line):
        return int(match[2]), match[1], match[3]
    return None


def _check_litert_summary(lines: Sequence[str], warm_up: Statistics, timed: Statistics) -> int:
    """Return the initialisation time in microseconds. Raises `ValueError` unless the summary repeats both blocks."""
    init = [match for line in lines if (match := _LITERT_INIT.fullmatch(line))]
    means = [[match for line in lines if (match := form.fullmatch(line))] for form in _LITERT_MEANS]
    if [len(init), *map(len, means)] != [1, 1, 1]:
        raise ValueError("LiteRT's benchmark_model printed a damaged summary: its output was cut off")
    for [match], block in zip(means, (warm_up, timed), strict=True):
        # Two decimals of a millisecond.
        if (
            int(match[2]) != block.count
            or abs(float(match[1]) * 1e3 - block.mean_us) > 5.01 + block.mean_us * _ROUNDING
        ):
            printed = f"{block.mean_us:g} us in {block.count} runs, then {match[1]} ms in {match[2]}"
            raise ValueError(f"LiteRT's benchmark_model printed different means: {printed}")
    return round(float(init[0][1]) * 1e3)
