"""What `benchmark_model` prints beside its statistics: other versions, errors that it overcomes, partial delegation."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.devices.android.benchmark_messages import lines_of, notes, why_failed
from ofa_profiler.devices.android.benchmark_model import Timing, parse

NO_OPENCL = "Can not open OpenCL library on this device - libOpenCL.so: cannot open shared object file"
APPLIED = "Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate."
NUMBERS = """\
count=4 first=130565 curr=120829 min=117370 max=130565 avg=122373 std=4930

count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948

Inference timings in us: Init: 870557, First inference: 130565, Warmup (avg): 122373, Inference (avg): 119375
"""
#: What the tool says of operators that a delegate does not run; older versions have other words.
UNSUPPORTED = """\
ERROR: Following operations are not supported by GPU delegate:
CUSTOM TFLite_Detection_PostProcess: TFLite_Detection_PostProcess
UNPACK: Operation is not supported.
294 operations will run on the GPU, and the remaining 62 operations will run on the CPU.
"""
OLDER = """\
ERROR: Next operations are not supported by GPU delegate:
MEAN: Operation is not supported.
First 160 operations will run on the GPU, and the remaining 7 on the CPU.
"""

#: Of LiteRT's own tool, with the marks that it puts before its lines.
LITERT = """\
INFO: STARTING!
INFO: Num threads: [4]
WARNING: Unconsumed cmdline flags: --enable_op_profiling=false
WARNING: [litert/runtime/accelerators/auto_registration.cc:46] NPU accelerator could not be loaded and registered
I0000 00:00:1758455104.504065   62590 accelerator_registry.cc:51] RegisterAccelerator: ptr=0x559f, name=CpuAccelerator
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 30 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions.
INFO: Initialized session in 5.757ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=526 first=2125 curr=969 min=910 max=2125 avg=949.861 std=68 p5=915 median=939 p95=990

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=1054 first=1015 curr=942 min=910 max=1102 avg=947.132 std=23 p5=915 median=942 p95=991

INFO: [./litert/tools/benchmark_litert_model.h:72]
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:73] Model initialization: 5.76 ms
INFO: [./litert/tools/benchmark_litert_model.h:75] Warmup (first):       2.12 ms
INFO: [./litert/tools/benchmark_litert_model.h:77] Warmup (avg):         0.95 ms (526 runs)
INFO: [./litert/tools/benchmark_litert_model.h:79] Inference (avg):      0.95 ms (1054 runs)
INFO: [./litert/tools/benchmark_litert_model.h:83] Inference (min):      0.91 ms
INFO: [./litert/tools/benchmark_litert_model.h:94] Throughput:           197.97 MB/s
INFO: [./litert/tools/benchmark_litert_model.h:117] ======================================
"""


def gpu(*before: str) -> Timing:
    return parse("\n".join([*before, APPLIED, NUMBERS]), runs=50, delegate="GPU")


# --- errors that the tool overcomes ---------------------------------------------------------------------


def test_whole_numbers_are_taken_and_the_errors_are_notes() -> None:
    timing = gpu(f"ERROR: {NO_OPENCL}", "ERROR: Falling back to OpenGL", "INFO: Initialized OpenGL-based API.")
    assert (timing.runs.mean_us, timing.delegates) == (119375.0, ("GPU: completely",))
    assert timing.notes == (NO_OPENCL, "Falling back to OpenGL")


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: dlopen libcdsprpc failed",
        "Failed to open /sys/class/kgsl/kgsl-3d0/devfreq: Permission denied",
        "ERROR: [tensorflow/lite/delegates/gpu/cl/x.cc:72] out of luck",
        "Hexagon delegate is unsupported on this platform.",
    ],
)
def test_any_library_may_complain(line: str) -> None:
    (note,) = gpu(line, line).notes
    assert line.endswith(note)


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Failed to apply GPU delegate.",
        "Failed to apply GPU delegate.",
        "Benchmarking failed.",
        "Aborted (core dumped)",
    ],
)
def test_what_ends_a_run_makes_numbers_worthless(line: str) -> None:
    with pytest.raises(ValueError, match="benchmark_model failed: "):
        gpu(line)


def test_errors_without_the_delegate_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="does not report that the requested delegate GPU runs"):
        parse(f"ERROR: {NO_OPENCL}\n{NUMBERS}", runs=50, delegate="GPU")


def test_an_output_that_is_cut_is_damaged_whatever_was_overcome_before() -> None:
    with pytest.raises(ValueError, match="damaged: 1 blocks of statistics"):
        parse(f"ERROR: {NO_OPENCL}\n{APPLIED}\n{NUMBERS.partition('count=50')[0]}", runs=50, delegate="GPU")
    with pytest.raises(ValueError, match=f"benchmark_model failed: {NO_OPENCL}"):
        parse(f"ERROR: {NO_OPENCL}\n", runs=50, delegate="GPU")


# --- delegates -------------------------------------------------------------------------------------------


def test_the_operators_that_a_delegate_leaves_are_named() -> None:
    assert gpu(UNSUPPORTED).notes == (
        "GPU does not run CUSTOM TFLite_Detection_PostProcess: TFLite_Detection_PostProcess, UNPACK: Operation is not "
        "supported: 294 operations will run on the GPU, and the remaining 62 operations will run on the CPU.",
    )
    (note,) = gpu(OLDER).notes
    assert "GPU does not run MEAN: Operation is not supported: First 160" in note


def test_a_delegate_that_takes_nothing_is_named_first() -> None:
    """Without statistics, and after errors that say nothing to a user."""
    output = """\
INFO: Created TensorFlow Lite delegate for GPU.
ERROR: tensorflow/lite/core/subgraph.cc:1169 node_index >= 0 was not true.
ERROR: Couldn't get node and registration info for op: -1793924896

INFO: Created 0 GPU delegate kernels.
Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.
"""
    words = r"^the requested delegate GPU does not run this model \(tensorflow/lite/core/subgraph.cc:1169 node_index"
    for wanted in "GPU", None:
        with pytest.raises(ValueError, match=words):
            parse(output, runs=50, delegate=wanted)
    with pytest.raises(ValueError, match=r"^the requested delegate GPU does not run this model$"):
        parse(output + NUMBERS, runs=50, delegate="GPU")
    with pytest.raises(ValueError, match=r"does not run this model \(GPU does not run .*UNPACK: Operation is not"):
        parse(UNSUPPORTED + output, runs=50, delegate="GPU")


# --- LiteRT's tool ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_tool_of_litert_is_read(end: str) -> None:
    timing = parse(LITERT.replace("\n", end), runs=50)
    assert (timing.runs.count, timing.runs.median_us, timing.warm_up.mean_us) == (1054, 942.0, 949.861)
    assert timing.init_us == 5760
    assert timing.delegates == ("XNNPACK: partially (30 of 31 nodes, 3 parts)",)
    assert timing.notes == ()


@pytest.mark.parametrize("inside", ["TfLiteGpuDelegateV2", "LITERT_CL", "LiteRtGpu"])
def test_its_delegate_is_known_by_the_nodes_that_it_replaces(inside: str) -> None:
    line = f"INFO: Replacing 49 out of 49 node(s) with delegate ({inside}) node, yielding 1 partitions for graph 0.\n"
    assert parse(line + LITERT, runs=50, delegate="GPU").delegates[0] == "GPU: completely"
    back = "Restored original execution plan after delegate application failure.\n"
    for output in LITERT, line + back + LITERT:
        with pytest.raises(ValueError, match="does not report that the requested delegate GPU runs"):
            parse(output, runs=50, delegate="GPU")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("(1054 runs)", "(1055 runs)"), "different means"),
        (("0.95 ms (1054", "0.96 ms (1054"), "different means"),
        (("avg=947.132", "avg=957.132"), "different means"),
        (("Model initialization", "Model"), "damaged summary"),
        (("INFO: count=526", "INFO: cout=526"), "1 blocks of statistics and 1 summaries"),
    ],
)
def test_what_contradicts_itself_is_no_number(change: tuple[str, str], words: str) -> None:
    assert change[0] in LITERT
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(LITERT.replace(*change), runs=50)


def test_cut_anywhere_before_its_last_number_it_is_no_number() -> None:
    end = LITERT.index("(1054 runs)") + len("(1054 runs)")
    for stop in range(0, end, 3):
        with pytest.raises(ValueError, match=r"damaged|different means|unreadable|impossible"):
            parse(LITERT[:stop], runs=50)
    assert parse(LITERT[:end], runs=50) == parse(LITERT, runs=50)


def test_fewer_runs_than_requested_are_an_error_and_more_are_not() -> None:
    with pytest.raises(ValueError, match="made 1054 runs, not 1055"):
        parse(LITERT, runs=1055)


# --- any text --------------------------------------------------------------------------------------------

LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [line for text in (LITERT, UNSUPPORTED, OLDER, NUMBERS, APPLIED) for line in text.splitlines()]
        ),
        st.text(max_size=40),
    ),
    max_size=15,
)


@given(LINES, st.sampled_from([None, "GPU", "XNNPACK"]))
def test_no_order_of_lines_makes_it_fail_in_another_way(lines: list[str], delegate: str | None) -> None:
    read = lines_of("\n".join(lines))
    assert all(text.isprintable() and len(text) < 400 for text in (*notes(read), why_failed(read, delegate)))
    try:
        timing = parse("\n".join(lines), runs=50, delegate=delegate)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017 (it may also succeed)
    else:
        assert timing.runs.count >= 50


@given(
    st.permutations(
        ["ERROR: one", "Failed to open two", f"ERROR: {NO_OPENCL}", "INFO: Created 1 GPU delegate kernels."]
    )
)
def test_errors_never_change_numbers(lines: list[str]) -> None:
    assert gpu(*lines).runs == gpu().runs
