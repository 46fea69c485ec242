"""A latency table of a phone without Python, by the command that a user types, through Google's `benchmark_model`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.phones import Phone
from support.sshd import free_port

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.export import export_ops
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace

#: Prints what Google's program prints, for real models: their size stands for their time, 1 us for 100 bytes.
PROGRAM = r"""#!/system/bin/sh
for word in "$@"; do
  case $word in --graph=*) graph=${word#--graph=};; --num_runs=*) runs=${word#--num_runs=};; --use_gpu=*) gpu=1;; esac
done
case $(head -c 8 "$graph") in *TFL3) ;; *) echo "ERROR: Failed to load model $graph"; exit 1;; esac
us=$(($(wc -c < "$graph") / 100)); low=$((us - 1)); high=$((us + 1))
echo "INFO: STARTING!"
no="is explicitly applied, the model graph will not be executed by the delegate."
[ -n "$gpu" ] && echo "INFO: Though GPU delegate $no"
echo "INFO: Initialized session in 1.5ms."
echo "INFO: count=1 curr=$us"
echo "INFO: count=$runs first=$us curr=$us min=$low max=$high avg=$us std=1 p5=$low median=$us p95=$high"
echo "INFO: Inference timings in us: Init: 1500, First inference: $us, Warmup (avg): $us, Inference (avg): $us"
"""


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        battery = phone.root / "sys/class/thermal/thermal_zone1"  # its charge in percent
        battery.mkdir()
        (battery / "type").write_text("soc\n")
        (battery / "temp").write_text("100\n")
        yield phone


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "android_aarch64_benchmark_model"
    path.write_text(PROGRAM)
    return path


def words(spec: str, program: Path, out: Path, *more: str) -> list[str]:
    where = ["--device", spec, "--benchmark-model", str(program), "--out", str(out), "--name", "phone"]
    return [*where, "--space", "cifar-mbv3", "--resolution", "24", "--runtime", "litert", "--time-limit", "1s", *more]


def check_table(phone: Phone, folder: Path) -> None:
    """It says what ran the models, and its numbers are those that the program printed."""
    table = LatencyTable.load(folder / "phone.csv")
    assert (table.metadata["runtime"], table.metadata["provider"]) == ("litert", "default")
    assert table.metadata["runtime_version"].startswith("benchmark_model ")
    assert table.metadata["device"]["model"] == "Pixel Sim"
    assert table.metadata["device"]["before"]["temperature_c"] == 41.0
    assert table.metadata["device"]["before"]["throttled"] is None
    ops = get_space("cifar-mbv3").with_resolutions([24]).unique_ops()
    for op, model in zip(ops, export_ops(ops, target=Target("litert")), strict=True):
        assert table.latency_ms(op) == model.path.stat().st_size // 100 / 1000
    assert phone.text("data/local/fixed_performance_mode") == "false"


@pytest.fixture
def few_ops(monkeypatch: pytest.MonkeyPatch) -> int:
    """A program takes a second to start on the emulated phone: a few ops of the space stand for all."""
    every = SearchSpace.unique_ops
    monkeypatch.setattr(SearchSpace, "unique_ops", lambda *arguments: every(*arguments)[::20])
    return len(get_space("cifar-mbv3").with_resolutions([24]).unique_ops())


def test_a_table_of_a_phone_without_python(
    phone: Phone, program: Path, tmp_path: Path, few_ops: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ofa_profile(words(phone.spec, program, tmp_path, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["ok"] == few_ops
    check_table(phone, tmp_path)


@pytest.mark.slow
def test_a_delegate_that_does_not_take_the_models_gives_no_numbers(
    phone: Phone, program: Path, tmp_path: Path, few_ops: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ofa_profile(words(phone.spec, program, tmp_path, "--provider", "GPU")) == 4
    assert (
        f"all {few_ops} ops failed, the first with: the requested delegate GPU does not run" in capsys.readouterr().err
    )
    assert not (tmp_path / "phone.csv").exists()


@pytest.mark.long
def test_killed_on_the_way_it_goes_on(phone: Phone, program: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ofa_profiler.cli.profile", *words(phone.spec, program, tmp_path, "--json")]
    journal = tmp_path / "phone.jsonl"
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not journal.exists() or journal.read_text().count('"visit"') < 5:
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] == 96
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    visits = [record["key"] for record in records if record["type"] == "visit"]
    assert len(visits) == len(set(visits)) == 96
    check_table(phone, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--runtime", "onnxruntime"], "--benchmark-model runs TFLite models: use --runtime litert"),
        (["--provider", "TPU"], "benchmark_model has no delegate 'TPU'; --provider must be one of GPU, NNAPI, XNNPACK"),
        (["--benchmark-model", "none"], "none: no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], said: str
) -> None:
    assert ofa_profile(words("adb:127.0.0.1:1", program, tmp_path / "out", *change)) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spec", ["local", "ssh:pi@board"])
def test_the_program_is_for_phones(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    assert ofa_profile(words(spec, program, tmp_path)) == 2
    assert "--benchmark-model is for phones (adb:SERIAL)" in capsys.readouterr().err
