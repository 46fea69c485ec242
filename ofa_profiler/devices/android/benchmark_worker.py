"""The worker process of an agent that measures a phone without Python, by Google's `benchmark_model`.

The agent runs on this machine and starts this process (`device_agents/README.md`, Another machine): requests come
from stdin, answers go to stdout. While it measures, the phone is awake and its clocks are fixed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ofa_profiler.devices.adb.connect import open_bridge, phone_of
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android.benchmark_model import check_settings
from ofa_profiler.devices.android.benchmark_runner import BenchmarkRunner, why_not_pinned
from ofa_profiler.devices.android.facts import describe_phone, phone_heat, phone_state
from ofa_profiler.devices.android.state import AndroidState
from ofa_profiler.errors import DeviceError, OfaError, TransientDeviceError, UsageError
from ofa_profiler.protocol.settings import Settings

Message = dict[str, Any]

_ALIVE_EVERY_S = 1.0


@dataclass(frozen=True)
class Task:
    """The task of the process, given at its start."""

    spec: str
    #: `benchmark_model` for the phone, and the folder of the kit; None to describe the phone only.
    program: str | None = None
    kit: str | None = None

    def command(self) -> list[str]:
        """Return the command that starts the process. It searches for modules where this process does."""
        code = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import main; main(sys.argv[1])"
        return [sys.executable, "-c", code, json.dumps(dataclasses.asdict(self)), *sys.path]


class Answers:
    """Sends answers to the agent."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, answer: Message) -> None:
        with self._lock:
            self._stream.write(json.dumps(answer).encode() + b"\n")
            self._stream.flush()

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Within, send the agent a sign of life every second."""
        done = threading.Event()

        def repeat() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(_ALIVE_EVERY_S):
                    self.send({"alive": True})

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Requests(threading.Thread):
    """The requests on `stream`, which ends with the agent. Its end interrupts the main thread."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._main = threading.main_thread().ident

    def run(self) -> None:
        for line in self._stream:
            self._lines.put(line)
        if hasattr(signal, "pthread_kill") and self._main is not None:
            signal.pthread_kill(self._main, signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)

    def __iter__(self) -> Iterator[Message]:
        while True:
            with contextlib.suppress(queue.Empty):  # where waiting for ever cannot be interrupted
                yield json.loads(self._lines.get(timeout=1.0))


class PhoneWorker:
    """Answers requests about one phone. It connects at the first request. A context manager."""

    def __init__(self, task: Task, answers: Answers) -> None:
        self._task, self._answers = task, answers
        self._open = contextlib.ExitStack()
        self._shell: AdbShell | None = None
        self._runner: BenchmarkRunner | None = None

    def __enter__(self) -> PhoneWorker:
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def answer(self, request: Message) -> Message:
        """Return the answer to a request. An error is an answer, too."""
        try:
            with self._answers.alive():
                return self._answer(request)
        except OfaError as error:
            words = str(error).removeprefix(f"{self._task.spec}: ")  # the host adds the name of the device
            transient = isinstance(error, TransientDeviceError)
            return {"fatal": words, "usage": isinstance(error, UsageError), "transient": transient}

    def _answer(self, request: Message) -> Message:
        shell = self._reached()
        if "settings" in request:
            return self._start(shell, Settings.from_json(request["settings"]), request["cores"] or ())
        what = request.get("ask")
        if what == "describe":
            return describe_phone(shell)
        if what == "state":
            return phone_state(shell, request["cores"] or ())
        if what == "profile":
            return {"kernels": None, "why": "benchmark_model gives no times of kernels here"}
        if what == "heat":
            return phone_heat(shell)
        if self._runner is None:
            raise DeviceError(f"a visit was requested before the start: {request!r:.100}")
        return self._runner.visit(request, request["visit_s"], request["last_median_ns"])

    def _reached(self) -> AdbShell:
        if self._shell is None:
            spec = self._task.spec
            bridge = open_bridge(spec, phone_of(spec), lambda line: self._answers.send({"waiting": line}))
            self._shell = AdbShell(spec, bridge)
            self._open.callback(self._shell.close)
        return self._shell

    def _start(self, shell: AdbShell, settings: Settings, cores: Sequence[int]) -> Message:
        if self._task.program is None or self._task.kit is None:
            raise UsageError("this worker was started to describe the phone only")
        check_settings(settings.target.runtime, settings.provider)
        state = self._open.enter_context(AndroidState(shell, ROOT))
        program, models = Path(self._task.program).read_bytes(), _models_of(Path(self._task.kit))
        why_not = why_not_pinned(shell, cores)
        self._runner = BenchmarkRunner.bring(shell, ROOT, program, models, settings, () if why_not else cores)
        return {
            "ready": True,
            "runtime": self._runner.runtime,
            "pinned": bool(self._runner.cores),
            "uncontrolled": [why_not] if why_not else [],
            "device": state.settings,
        }


def _models_of(kit: Path) -> dict[Path, str]:
    """The SHA-256 of each file of the kit that the phone needs: models, and exact values of inputs."""
    entries = json.loads((kit / "manifest.json").read_text("utf-8"))["models"]
    files = [file for entry in entries for file in (entry, *entry.get("variants", ()))]
    values = [tensor["values"] for entry in entries for tensor in entry.get("inputs", ()) if "values" in tensor]
    hashes = {file["file"]: file["sha256"] for file in files} | {name: Path(name).stem for name in values}
    return {kit / "models" / name: sha256 for name, sha256 in hashes.items()}


def main(task: str) -> None:
    """Answer the requests on stdin until it ends; `task` is that of `Task.command`."""

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the restoring of the state
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent to handle
    signal.signal(signal.SIGTERM, end)
    answers = Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever else is printed must not end up between the answers
    requests = Requests(sys.stdin.buffer)
    requests.start()
    with (
        contextlib.suppress(KeyboardInterrupt, BrokenPipeError),
        PhoneWorker(Task(**json.loads(task)), answers) as worker,
    ):
        for request in requests:
            answers.send(worker.answer(request))
