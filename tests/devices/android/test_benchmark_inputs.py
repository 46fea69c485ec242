"""Networks of users on a phone without Python: what `benchmark_model` is given, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.phones import Phone
from support.sshd import free_port
from support.tflite_nets import Net, options, packed, widths

from ofa_profiler import LatencyTable
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android.benchmark_inputs import check_inputs, input_options
from ofa_profiler.devices.android.benchmark_messages import lines_of

#: Prints what Google's program prints: the size of a model in bytes stands for its time, 10 ns each. It stops if the
#: file of values is missing, and the GPU takes only models of 40 kB or more.
PROGRAM = r"""#!/system/bin/sh
print -r -- "$@" >> /data/local/tmp/words
for word in "$@"; do
  case $word in
    --graph=*) graph=${word#--graph=};;
    --num_runs=*) runs=${word#--num_runs=};;
    --use_gpu=*) gpu=1;;
    --use_nnapi=*) none=NNAPI;;
    --input_layer_value_files=i0:*) values=${word#--input_layer_value_files=i0:};;
  esac
done
size=$(wc -c < "$graph"); us=$((size / 100)); low=$((us - 1)); high=$((us + 1))
[ -z "$values" ] || [ -f "$values" ] || { echo "ERROR: Failed to read the input_layer_value_file:$values"; exit 1; }
echo "INFO: STARTING!"
no="is explicitly applied, the model graph will not be executed by the delegate."
[ -z "$none" ] || echo "INFO: Though $none delegate $no"
if [ -n "$gpu" ] && [ "$size" -lt 40000 ]; then
  echo "INFO: Though GPU delegate $no"
elif [ -n "$gpu" ]; then
  echo "INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate."
fi
echo "INFO: Initialized session in 1.5ms."
echo "INFO: count=1 curr=$us"
echo "INFO: count=$runs first=$us curr=$us min=$low max=$high avg=$us std=1 p5=$low median=$us p95=$high"
echo "INFO: Inference timings in us: Init: 1500, First inference: $us, Warmup (avg): $us, Inference (avg): $us"
"""
ROWS = 30


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        yield phone


def lookup() -> bytes:
    """Rows of a table by an open number of indices, and layers of which each is long enough for a block of its own."""
    net = Net()
    net.tensor("ids:0", (-1,), "int32")
    net.weights("table", ROWS, 64)
    net.add("GATHER", ["table", "ids:0"], "rows", (-1, 64), options=options("GatherOptions"))
    sizes = {"a": (64, 200), "b": (200, 64), "c": (64, 96)}
    return packed(["ids:0"], [widths(net, "rows", sizes, -1)], net)


def profile(phone: Phone, folder: Path, *more: str) -> int:
    (folder / "net.tflite").write_bytes(lookup())
    (folder / "benchmark_model").write_text(PROGRAM)
    words = ["--device", phone.spec, "--benchmark-model", str(folder / "benchmark_model"), "--name", "n", *more]
    words += ["--model", str(folder / "net.tflite"), "--shape", "400", "--time-limit", "1s"]
    return ofa_profile([*words, "--out", str(folder / "out")])


@pytest.mark.slow
def test_open_sizes_and_exact_integers_arrive(phone: Phone, tmp_path: Path) -> None:
    assert profile(phone, tmp_path) == 0
    table = LatencyTable.load(tmp_path / "out" / "n.csv")
    assert table.metadata["whole_ms"] == len(lookup()) // 100 / 1000
    assert table.metadata["sum_ms"] == pytest.approx(sum(row.median_ms or 0.0 for row in table.rows))
    assert table.metadata["runtime_profile"] is None
    assert len(table.rows) > 1
    calls = [line.split(" ") for line in phone.text("data/local/tmp/words").splitlines()]
    given = {word for call in calls for word in call if word.startswith("--input_layer")}
    assert {"--input_layer=i0", "--input_layer_shape=400"} <= given
    (file,) = {word.rpartition(":")[2] for word in given if word.startswith("--input_layer_value_files=i0:")}
    assert Path(file).parent == Path(ROOT) / "benchmark_model"
    values = np.frombuffer((phone.root / file[1:]).read_bytes(), "<i4")
    assert values.shape == (400,)
    assert set(values) <= set(range(ROWS))
    assert len(set(values)) > 2


@pytest.mark.slow
def test_blocks_that_a_delegate_refuses_are_rows_and_the_sum_says_so(
    phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(phone, tmp_path, "--provider", "GPU", "--json") == 0
    said = capsys.readouterr()
    table = LatencyTable.load(tmp_path / "out" / "n.csv")
    failed = [row for row in table.rows if row.status == "failed"]
    assert 0 < len(failed) < len(table.rows)
    assert all(row.error == "the requested delegate GPU does not run this model" for row in failed)
    document = json.loads(said.out)
    assert document["whole_ms"] == len(lookup()) // 100 / 1000
    assert document["sum_ms"] is None
    assert (
        f"there is no sum, because {len(failed)} of {len(table.rows)} blocks failed; {failed[0].op}: the requested "
        "delegate GPU does not run this model"
    ) in said.err


@pytest.mark.slow
def test_a_network_that_the_phone_does_not_run_ends_the_measurement(
    phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # again, it ends at once
        assert profile(phone, tmp_path, "--provider", "NNAPI", "--time-limit", "100s") == 4
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ofa-profile: ")]
        assert line == (
            "ofa-profile: the device does not run the model: the requested delegate NNAPI does not run this model (use "
            "--fresh to retry)"
        )
    records = [json.loads(line) for line in (tmp_path / "out" / "n.jsonl").read_text().splitlines()]
    visits = [record["key"] for record in records if record["type"] == "visit"]
    assert visits[-1] == "whole"
    assert records[-1]["type"] != "end"
    assert not (tmp_path / "out" / "n.csv").exists()


names = st.text(max_size=20)
exact = st.fixed_dictionaries(
    {"name": names, "dtype": st.just("int32"), "shape": st.lists(st.integers(1, 99), min_size=1, max_size=4)},
    optional={"values": st.from_regex(r"/tmp/[0-9a-f]{8}\.bin", fullmatch=True)},
)


@given(st.lists(exact, max_size=4))
def test_the_options_name_each_input_once_by_its_place(inputs: list[dict[str, object]]) -> None:
    """Whatever its name: the options are split at commas and colons."""
    found = dict(option.split("=", 1) for option in input_options(inputs, "/data"))
    files = {f"i{place}": str(one["values"])[5:] for place, one in enumerate(inputs) if "values" in one}
    if not files:
        assert found == {}
        return
    assert found.keys() == {"--input_layer", "--input_layer_shape", "--input_layer_value_files"}
    assert found["--input_layer"].split(",") == [f"i{place}" for place in range(len(inputs))]
    shapes = [[int(size) for size in shape.split(",")] for shape in found["--input_layer_shape"].split(":")]
    assert shapes == [one["shape"] for one in inputs]
    given = dict(file.split(":") for file in found["--input_layer_value_files"].split(","))
    assert given == {name: f"/data/{file}" for name, file in files.items()}


def test_a_single_number_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="the input 'length', a single number"):
        input_options([{"name": "length", "dtype": "int32", "shape": [], "values": "/tmp/a.bin"}], "/data")


IGNORED = "WARN: Unconsumed cmdline flags: --input_layer=i0 --input_layer_shape=1,4 --input_layer_value_files=i0:/a.bin"


def closed() -> bytes:
    net = Net()
    net.tensor("x", (1, 4))
    return packed(["x"], [widths(net, "x", {"a": (4, 4)}, 1)], net)


def test_a_program_that_ignores_the_options_gives_no_number_of_something_else() -> None:
    """LiteRT's tool is one."""
    floats = [{"name": "x", "dtype": "float32", "shape": [1, 4], "values": "/tmp/a.bin"}]
    integers = [{"name": "ids:0", "dtype": "int32", "shape": [400], "values": "/tmp/a.bin"}]
    assert check_inputs(lines_of("INFO: STARTING!"), integers, lookup) == ()
    assert check_inputs(lines_of("WARN: Unconsumed cmdline flags: --max_secs=5"), integers, lookup) == ()
    for dtype in ("float32", "int8"):
        (note,) = check_inputs(lines_of(IGNORED), [{**floats[0], "dtype": dtype}], closed)
        assert "makes them up" in note
    with pytest.raises(ValueError, match="values of inputs, which 'ids:0' needs"):
        check_inputs(lines_of(IGNORED), integers, closed)
    with pytest.raises(ValueError, match="sizes of inputs, which this model needs"):
        check_inputs(lines_of(IGNORED), floats, lookup)
