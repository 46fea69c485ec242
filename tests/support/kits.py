"""Small models and kits for the tests of the agent and of what drives it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_profiler.export import Model
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.kit import run_record, write_kit
from ofa_profiler.protocol.settings import Settings

#: As little measuring as still goes through every step.
QUICK = Settings(
    min_rounds=2,
    max_rounds=3,
    visit_s=0.005,
    min_visit_samples=5,
    max_visit_samples=20,
    op_timeout_s=10,
    reference_every_s=None,
)

SHAPE = (1, 4, 8, 8)
INPUTS = (TensorSpec("input", "float32", SHAPE),)


def conv_model(folder: Path, key: str, kernel_size: int = 3) -> Model:
    """A real model: one convolution."""
    weight = np.random.default_rng(kernel_size).normal(size=(4, 4, kernel_size, kernel_size)).astype(np.float32)
    node = helper.make_node("Conv", ["input", "weight"], ["output"], pads=[kernel_size // 2] * 4)
    graph = helper.make_graph(
        [node],
        key,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes_model(folder, key, model.SerializeToString())


def bytes_model(folder: Path, key: str, data: bytes) -> Model:
    """A model file with these bytes, whatever they are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()}.onnx"
    path.write_bytes(data)
    return Model.from_file(key, path, INPUTS)


def make_kit(folder: Path, models: Sequence[Model], settings: Settings = QUICK) -> Path:
    write_kit(folder, models, run_record(models, settings, {}))
    return folder


def run_agent(
    kit: Path,
    *arguments: str,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run the kit's own agent by hand, the way its README says."""
    command = [python, str(kit / "agent.py"), "--kit", str(kit), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **(env or {})}, check=False
    )


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def visits(text: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records(text):
        if record["type"] == "visit":
            found.setdefault(record["key"], []).append(record)
    return found


#: A runtime that needs nothing but an interpreter and misbehaves on demand: a model is what it does.
STUB_RUNTIME = """
import ctypes, os, time

__version__ = "0.0-stub"

class ExecutionMode:
    ORT_SEQUENTIAL = 0

class SessionOptions:
    def add_session_config_entry(self, name, value):
        pass

class OrtValue:
    ortvalue_from_numpy = ortvalue_from_shape_and_type = staticmethod(lambda *values: values)

class Value:
    def __init__(self, name):
        self.name, self.type, self.shape = name, "tensor(float)", [1, 4, 8, 8]

class Binding:
    def bind_ortvalue_input(self, name, value):
        pass
    bind_ortvalue_output = bind_ortvalue_input

def get_available_providers():
    return ["DroppedExecutionProvider", "CPUExecutionProvider"]

def is_slow():
    # From the 50th visit in the journal STUB_SLOW on, until a visit has been made again.
    journal = os.environ.get("STUB_SLOW", "")
    if not os.path.exists(journal):
        return False
    with open(journal, "rb") as file:
        data = file.read()
    return data.count(b'"visit"') >= 50 and b'"again":true' not in data

class InferenceSession:
    def __init__(self, model, options, providers):
        self.act = model.decode().split()[0]
    def get_providers(self):
        return ["CPUExecutionProvider"]
    def get_inputs(self):
        return [Value("input")]
    def get_outputs(self):
        return [Value("output")]
    def io_binding(self):
        return Binding()
    def run_with_iobinding(self, binding):
        if self.act == "crash":
            ctypes.string_at(0)
        elif self.act == "kill":
            os.kill(os.getpid(), 9)
        elif self.act == "exit":
            os._exit(3)
        elif self.act == "hang":
            time.sleep(3600)
        elif self.act == "raise":
            raise RuntimeError("no kernel\\nfor this")
        elif self.act == "print":
            os.write(1, b"native noise\\n")
        elif self.act == "mark":
            with open(os.environ["STUB_MARK"], "w") as file:
                file.write(str(os.getpid()))
            time.sleep(3600)
        time.sleep((3 if is_slow() else 1) * float(os.environ.get("STUB_RUN_S", "0.0002")))
"""

STUB_NUMPY = """
class Data:
    type, itemsize = None, 4
    def newbyteorder(self, order):
        return self
    def reshape(self, shape):
        return self
    def astype(self, dtype):
        return self

class RandomState:
    def __init__(self, seed):
        pass
    def uniform(self, low, high, shape):
        return Data()

class random:
    RandomState = RandomState

def dtype(name):
    return Data()

def frombuffer(data, dtype):
    return Data()
"""


def stub_runtime(folder: Path) -> dict[str, str]:
    """Write the stub runtime -> the environment in which an agent finds it instead of the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "onnxruntime.py").write_text(STUB_RUNTIME)
    (folder / "numpy.py").write_text(STUB_NUMPY)
    return {"PYTHONPATH": str(folder)}
