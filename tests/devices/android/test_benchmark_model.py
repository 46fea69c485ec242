"""What Google's `benchmark_model` prints, read strictly: every form becomes its numbers or an error."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.devices.android.benchmark_model import MAX_OUTPUT, Statistics, arguments, parse

#: Recorded on a phone; the warm-up is 30% slower than the runs.
PLAIN = """\
STARTING!
Duplicate flags: num_threads
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/model.tflite]
#threads used for CPU inference: [4]
Loaded model /data/local/tmp/model.tflite
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory \
footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=0 overall=12.8672
"""

#: Of a newer version: every line begins with INFO, percentiles follow, one warm-up run is "all equal".
NEWER = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [4]
INFO: Graph: [/usr/share/models/ssd_mobilenet_v2_coco.tflite]
INFO: Signature to run: []
INFO: Use xnnpack: [1]
INFO: Loaded model /usr/share/models/ssd_mobilenet_v2_coco.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 \
delegate kernels.
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 614.333ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=900416 curr=898333 min=898007 max=906121 avg=899641 std=1546 p5=898120 median=899333 p95=903333
INFO: Inference timings in us: Init: 614333, First inference: 905463, Warmup (avg): 905463, Inference (avg): 899641
INFO: Memory footprint delta from the start of the tool (MB): init=146.375 overall=149.09
"""

#: More than a second per run: means in scientific notation.
SLOW = """\
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=1302718

Running benchmark for at least 5 iterations and at least 0 seconds but terminate if exceeding 3600 seconds.
count=5 first=1296012 curr=1294777 min=1294777 max=1297101 avg=1.29563e+06 std=912

Inference timings in us: Init: 25558, First inference: 1302718, Warmup (avg): 1.30272e+06, Inference (avg): 1.29563e+06
"""

#: A small op: all samples of both blocks are equal.
EQUAL = """\
count=40 curr=12

count=20 curr=11

Inference timings in us: Init: 402, First inference: 12, Warmup (avg): 12, Inference (avg): 11
"""

#: Of 2018.
OLD = """\
Loaded model /data/local/tmp/tflite/mobilenet_v1_1.0_224_quant.tflite
nnapi error: unable to open library libneuralnetworks.so
resolved reporter
Initialized session in 9.933ms
Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""

GPU = """\
INFO: Loaded model /data/local/tmp/mask.tflite
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
INFO: Created TensorFlow Lite delegate for NNAPI.
INFO: Going to apply 2 delegates one after another.
VERBOSE: Replacing 49 out of 49 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions for subgraph 0.
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.
INFO: count=2 first=328140 curr=309932 min=309932 max=328140 avg=319036 std=9104 p5=309932 median=328140 p95=328140

INFO: count=50 first=307215 curr=309783 min=305938 max=333030 avg=309350 std=4411 p5=306372 median=307968 p95=315711

INFO: Inference timings in us: Init: 5664363, First inference: 328140, Warmup (avg): 319036, Inference (avg): 309350
"""


def test_the_runs_are_read_and_not_the_warm_up() -> None:
    timing = parse(PLAIN, runs=50)
    assert timing.runs == Statistics(50, 32891, 33978, 32641, 34005, 33209.4, 450.0)
    assert timing.warm_up.mean_us == 34825.1
    assert timing.init_us == 855
    assert timing.typical_us == 33209.4


def test_a_newer_version_tells_the_median() -> None:
    timing = parse(NEWER, runs=50)
    assert timing.runs.median_us == timing.typical_us == 899333
    assert timing.warm_up == Statistics(1, 905463, 905463, 905463, 905463, 905463.0, 0.0, 905463.0)
    assert timing.delegates == ("XNNPACK: partially (1 kernels)",)


def test_scientific_notation() -> None:
    assert parse(SLOW, runs=5).runs.mean_us == 1295630.0


def test_equal_samples() -> None:
    assert parse(EQUAL, runs=20).runs == Statistics(20, 11, 11, 11, 11, 11.0, 0.0)


def test_the_oldest_version() -> None:
    assert parse(OLD, runs=15).runs.mean_us == 66767.6


def test_line_ends_of_a_terminal_do_not_matter() -> None:
    assert parse(PLAIN.replace("\n", "\r\n"), runs=50) == parse(PLAIN, runs=50)


def test_a_delegate_that_runs_the_model() -> None:
    assert parse(GPU, runs=50, delegate="GPU").delegates == ("GPU: completely",)


def test_a_delegate_that_does_not_run_the_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="requested delegate NNAPI does not run"):
        parse(GPU, runs=50, delegate="NNAPI")
    with pytest.raises(ValueError, match="does not report"):
        parse(PLAIN, runs=50, delegate="GPU")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("count=50 ", "count=49 "), "49 runs"),
        (("avg=33209.4", "avg=nan"), "unreadable statistics"),
        (("avg=33209.4", "avg=-33209.4"), "unreadable statistics"),
        (("avg=33209.4", "avg=inf"), "unreadable statistics"),
        (("avg=33209.4", "avg=3320.94"), "impossible statistics"),
        (("Inference (avg): 33209.4", "Inference (avg): 33309.4"), "different means"),
        (("Warmup (avg): 34825.1", "Warmup (avg): 99"), "different means"),
        (("min=32641", "min=0"), "impossible statistics"),
        (("min=32641", "min=33000"), "impossible statistics"),
        (
            ("count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450", "count=0"),
            "unreadable statistics",
        ),
        (("std=450", "std=450 and more"), "unreadable statistics"),
        (("Initialized session in 0.855ms.", "ERROR: Failed to apply GPU delegate."), "Failed to apply GPU"),
        (("Initialized session in 0.855ms.", "Benchmarking failed."), "Benchmarking failed"),
        (("Initialized session", "count=5 curr=7\nInitialized session"), "3 blocks"),
    ],
)
def test_what_is_wrong_is_an_error_and_never_a_number(change: tuple[str, str], words: str) -> None:
    assert change[0] in PLAIN
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        parse(PLAIN.replace(*change), runs=50)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [PLAIN, NEWER, SLOW, EQUAL, OLD, GPU])
def test_an_output_that_is_cut_anywhere_is_an_error(text: str) -> None:
    """Wherever the connection breaks: a number whose last digits are missing is still a number."""
    counts = re.findall(r"count=(\d+)", text)
    last = re.search(r".*timings in us: .*", text)
    assert last is not None
    for end in range(last.end()):
        with pytest.raises(ValueError, match=r"damaged|different means|unreadable|impossible|runs, not"):
            parse(text[:end], runs=int(counts[1]))
    parse(text[: last.end()], runs=int(counts[1]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/system/bin/sh: benchmark_model: not found\n",
        'CANNOT LINK EXECUTABLE "./benchmark_model": library "libEGL.so" not found\n',
        "ERROR: Could not open '/data/local/tmp/none.tflite'.\nERROR: Failed to load model none.tflite\n",
        "ERROR: Encountered unresolved custom op: LceQuantize.\nERROR: Node number 2 failed to prepare.\n",
        PLAIN.partition("Running")[0] + "Segmentation fault \n",
        "\x1b[31m\0\xff" * 100,
    ],
)
def test_what_prints_no_statistics_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="benchmark_model") as caught:
        parse(text, runs=50)
    assert str(caught.value).isprintable()


def test_an_endless_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="more than"):
        parse(PLAIN + " " * MAX_OUTPUT, runs=50)


@given(st.text(max_size=300))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    with pytest.raises(ValueError, match="benchmark_model"):
        parse(text, runs=50)


def block(samples: list[int], percentiles: bool) -> tuple[str, str]:
    """As the tool prints it -> the line, and the mean as it stands in the summary."""
    mean = f"{sum(samples) / len(samples):.6g}"
    median = sorted(samples)[len(samples) // 2]
    more = f" p5={min(samples)} median={median} p95={max(samples)}" if percentiles else ""
    if len(set(samples)) == 1:
        return f"count={len(samples)} curr={samples[0]}{more}", mean
    variance = sum(sample**2 for sample in samples) / len(samples) - (sum(samples) / len(samples)) ** 2
    return (
        f"count={len(samples)} first={samples[0]} curr={samples[-1]} min={min(samples)} max={max(samples)} "
        f"avg={mean} std={int(max(0.0, variance) ** 0.5)}{more}",
        mean,
    )


TIMES = st.lists(st.integers(1, 10**9), min_size=1, max_size=30)


@given(TIMES, TIMES, st.booleans(), st.sampled_from(["", "INFO: "]), st.integers(0, 10**9))
def test_whatever_was_measured_is_read_back(
    warm_up: list[int], runs: list[int], percentiles: bool, prefix: str, init_us: int
) -> None:
    (first, first_mean), (second, second_mean) = block(warm_up, percentiles), block(runs, percentiles)
    text = "\n".join(
        prefix + line
        for line in (
            "Initialized session in 1ms.",
            first,
            "",
            second,
            "",
            f"Inference timings in us: Init: {init_us}, First inference: {warm_up[0]}, "
            f"Warmup (avg): {first_mean}, Inference (avg): {second_mean}",
        )
    )
    timing = parse(text, runs=len(runs))
    assert (timing.runs.count, timing.runs.min_us, timing.runs.max_us) == (len(runs), min(runs), max(runs))
    assert timing.runs.mean_us == pytest.approx(sum(runs) / len(runs), rel=1e-5)
    assert timing.init_us == init_us


def test_arguments_for_an_exact_count() -> None:
    words = arguments("/data/local/tmp/a b/$(x).tflite", runs=30, threads=2)
    assert "--graph=/data/local/tmp/a b/$(x).tflite" in words
    assert {"--num_runs=30", "--min_secs=0", "--max_secs=3600", "--num_threads=2"} < set(words)
    assert "--enable_op_profiling=false" in words
    assert "--use_gpu=true" in arguments("m", runs=1, threads=1, delegate="GPU")
    with pytest.raises(ValueError, match="no delegate"):
        arguments("m", runs=1, threads=1, delegate="TPU")
