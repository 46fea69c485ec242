"""`agent.py --check RUNTIME`: whether a runtime loads on this machine, and if not, the innermost reason in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kits import STUB_NUMPY, bytes_model, conv_model, make_kit, run_agent, stub_runtime, visits
from support.runtimes import FAULTS

from device_agents.ofa_agent import reasons
from ofa_profiler.protocol.kit import agent_source


def check(runtime: str = "onnxruntime", *more: str, **env: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, str(agent_source()), "--check", runtime, *more]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=60, check=False)
    (line,) = done.stdout.splitlines()
    assert done.returncode == (json.loads(line)["type"] == "fatal")
    return json.loads(line), done.stderr


def broken(folder: Path, fault: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(FAULTS[fault])
    (folder / "numpy.py").write_text(STUB_NUMPY)
    return {"PYTHONPATH": str(folder)}


def test_a_runtime_that_loads_tells_its_version(tmp_path):
    record, _ = check(**stub_runtime(tmp_path / "stub"))
    assert (record["type"], record["version"]) == ("runtime", "0.0-stub")


@pytest.mark.parametrize("how", [[], ["--no-fork"]])
@pytest.mark.parametrize(
    ("fault", "cause", "words"),
    [
        (
            "SIGILL",
            "runtime",
            "does not start: the worker process was killed by signal 4 (SIGILL): an instruction",
        ),
        ("SIGSEGV", "runtime", "killed by signal 11 (SIGSEGV)"),
        ("SIGKILL", "memory", "killed by signal 9 (SIGKILL): probably out of memory"),
        (
            "abort",
            "runtime",
            "(SIGABRT): terminate called after throwing an instance of 'std::out_of_range'; what()",
        ),
        ("exit", "runtime", "ended with exit code 3: license expired"),
        ("numpy 1", "runtime", "it was built for numpy 1, and numpy 2.2.6 is there: numpy<2 is needed there"),
        ("array", "runtime", "numpy<2 is needed there"),
        ("abi", "runtime", "built for another numpy (interface 0x1000009, there is 0x2000000)"),
        ("size", "runtime", "built for another numpy: another release of numpy is needed there"),
        ("system", "runtime", "SystemError: initialization of _state raised unreported exception"),
        ("glibc", "runtime", "the C library there is too old: it needs GLIBC_2.38"),
        (
            "noexec",
            "noexec",
            "/r/x.so cannot be loaded: its file system does not allow programs (it is mounted",
        ),
        ("memory", "memory", "the memory is full"),
        ("stack", "runtime", "executable stack, which this system forbids"),
        ("library", "runtime", "the library libgomp.so.1 is not there"),
    ],
)
def test_the_innermost_reason(tmp_path, fault, cause, words, how):
    record, stderr = check("onnxruntime", *how, **broken(tmp_path / "broken", fault))
    assert record["cause"] == cause
    assert record["error"].startswith("the runtime onnxruntime ")
    assert words in record["error"]
    assert "Traceback" not in stderr


def test_what_is_not_installed(tmp_path):
    (tmp_path / "numpy.py").write_text(STUB_NUMPY)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules.update(dict.fromkeys(['onnxruntime', 'ai_edge_litert', 'tflite_runtime']))"
    )
    record, _ = check(PYTHONPATH=str(tmp_path))
    assert "onnxruntime" in record["error"]
    record, _ = check("nothing")
    assert record["usage"] is True


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_words_are_one_short_line(error: str, words: str):
    reason, cause = reasons.explained(error, words)
    assert "\n" not in reason
    assert len(reason) <= 900
    assert cause in (reasons.RUNTIME, reasons.NOEXEC, reasons.MEMORY)
    assert len(reasons.last_words(words)) <= reasons.MAX_REASON


def test_a_model_that_is_newer_than_the_runtime_is_said_so(tmp_path):
    """By the real onnxruntime: one model of a far opset, one of a far file version."""
    file = conv_model(tmp_path, "conv").path
    models = []
    for name, value in (("opset", 99), ("IR version", 77)):
        model = onnx.load(file)
        if name == "opset":
            model.opset_import[0].version = value
        else:
            model.ir_version = value
        models.append(bytes_model(tmp_path, name, model.SerializeToString()))
    found = visits(run_agent(make_kit(tmp_path / "kit", models)).stdout)
    for name, value in (("opset", 99), ("IR version", 77)):
        (visit,) = found[name]
        assert f"knows {name} " in visit["error"]
        assert f"this model needs {value}: a newer onnxruntime is needed here" in visit["error"]


def test_a_crash_in_a_visit_tells_its_last_words(tmp_path):
    env = stub_runtime(tmp_path / "stub")
    path = tmp_path / "stub" / "onnxruntime.py"
    text = path.read_text().replace("ctypes.string_at(0)", "os.write(2, b'CHECK failed: x > 0\\n'), os.abort()")
    path.write_text(text)
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "op", b"crash")])
    (visit,) = visits(run_agent(kit, env=env).stdout)["op"]
    assert visit["error"] == "the worker process was killed by signal 6 (SIGABRT): CHECK failed: x > 0"
