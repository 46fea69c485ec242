"""A device at the other end of a `Shell`: its private folder, its runtime and the agent on it.

A start has four steps: connect, ask the device what it is, upload what it lacks, start the agent. The agent resumes
after its own last result, which is the last one in the journal of the host or a later one. The number of commands does
not depend on the number of models. After any failure the connection is closed, and the next `start` opens a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ofa_profiler.base.retry import LinkErrors, retry
from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.heartbeat import Heartbeat
from ofa_profiler.devices.remote.shell import Running, Shell, one_line, remove_folder
from ofa_profiler.devices.remote.sync import PIECE_BYTES, FileSet, Store
from ofa_profiler.devices.remote.wheels import Board, Wheels, find_wheels
from ofa_profiler.errors import DeviceError, TransientError, UploadInterrupted
from ofa_profiler.protocol.kit import AGENT_FILE, RESULTS_FILE, agent_files
from ofa_profiler.protocol.records import Record, Visit
from ofa_profiler.runtimes import get_runtime

T = TypeVar("T")

#: The interval of our heartbeats to the agent, and how long the agent continues without one.
_HEARTBEAT_S = 3.0
_AGENT_PATIENCE_S = 20
#: Connection attempts for a device that is lost before its first measurement.
_FIRST_ATTEMPTS = 3
#: The pause before an interrupted upload is resumed, and how many attempts without progress are made.
_UPLOAD_PAUSE_S = 1.0
_UPLOAD_ATTEMPTS = 7
#: How long an agent may take to end after the end of its stdin.
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Connection:
    """An open connection to a device, and what the device said about itself."""

    shell: Shell
    store: Store
    board: Board


class RemoteDevice(Device):
    """Common to all devices that are reached through a shell. A subclass opens the shell and names the Python there."""

    #: The private folder on the device; `~` is the home folder of our user there.
    root = "~/.ofa-profiler"
    #: Long enough for a reboot, which takes a minute or two.
    waits_s = (1, 2, 4, 8, 15, 30, 30, 30)
    #: Whether the transport detects damaged data.
    link_has_checksums = True

    def __init__(self, spec: str, options: DeviceOptions) -> None:
        self.spec = spec
        self.options = options
        self._link_errors = LinkErrors(checksums=self.link_has_checksums)
        self._connection: Connection | None = None
        self._upload_batch_bytes: float = math.inf

    @abstractmethod
    def open_shell(self) -> Shell:
        """Open a connection to the device. Raises `DeviceError`, or `TransientDeviceError`."""

    def connect(self) -> Shell:
        """Open a connection to the device. An error is final if the device has never answered."""
        with self._link_errors.classified():
            shell = self.open_shell()
        self._link_errors.was_connected = True
        return shell

    def python(self, shell: Shell) -> list[str]:  # noqa: ARG002
        """Return the command that starts Python on the device, after installing one if necessary."""
        return ["python3"]

    def __enter__(self) -> RemoteDevice:
        # Connect now: it fails before any expensive preparation, and the user can still be asked for a password.
        retry(self._connected, self.waits_s[:_FIRST_ATTEMPTS], before_retry=self._report_retry)
        return self

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        def attempt() -> Agent:
            with self._closed_on_failure():
                return self._start(self._connected(), kit, arguments)

        with self._link_errors.classified():
            return self._resume_uploads(attempt)

    def measure_kit(self, kit: Path, seen: int) -> Generator[Record, None, None]:
        with self._link_errors.classified(), contextlib.closing(super().measure_kit(kit, seen)) as records:
            for record in records:
                if isinstance(record, Visit):
                    self._link_errors.forget()
                yield record

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.shell.close()

    def remove(self) -> str:
        try:
            connection = self._connected()
            return remove_folder(connection.shell, connection.board.root)
        finally:
            self.close()

    def _report(self, line: str) -> None:
        if self.options.tell is not None:
            self.options.tell(line)

    def _connected(self) -> Connection:
        """Return the open connection, or a new one."""
        if self._connection is None:
            with self._link_errors.classified():
                self._connection = self._resume_uploads(self._set_up)
        return self._connection

    def _set_up(self) -> Connection:
        shell = self.connect()
        try:
            store = Store(shell, self.python(shell), self.root, self.options.tell, self._upload_batch_bytes)
            board = Board.from_record(self.spec, store.prepare())
            return Connection(shell, replace(store, root=board.root), board)
        except BaseException:
            shell.close()
            raise

    def _resume_uploads(self, action: Callable[[], T]) -> T:
        """Repeat `action` when an upload in it is interrupted, as long as less and less remains to be sent."""
        remaining = math.inf

        def position(error: TransientError) -> float:
            return -error.remaining if isinstance(error, UploadInterrupted) else -math.inf

        def before_retry(error: TransientError, progress: bool) -> None:
            nonlocal remaining
            if progress:
                remaining = -position(error)
            else:
                self._upload_batch_bytes = PIECE_BYTES  # data in transit is lost in a cut, so keep less in transit
            self._report(f"{error}; resuming the upload, {remaining / 1e6:.1f} MB remain")

        waits_s = [_UPLOAD_PAUSE_S] * _UPLOAD_ATTEMPTS
        return retry(action, waits_s, position=position, before_retry=before_retry)

    @contextlib.contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _start(self, connection: Connection, kit: Path | None, arguments: Sequence[str]) -> Agent:
        board, python = connection.board, connection.store.python
        files = _agent()
        (agent,) = [path for path in files if path.endswith(f"/{AGENT_FILE}")]
        if kit is None:
            connection.store.upload(FileSet(files))
            return self._spawn(connection, [*python, f"{board.root}/{agent}", *arguments], heartbeat=False)
        runtimes = self.runtimes(board, _runtime_of(kit))
        connection.store.upload(_files_for(kit, files, runtimes))
        words = [*python, f"{board.root}/{agent}", *arguments, "--attached", "--repair"]
        words += ["--patience", str(_AGENT_PATIENCE_S)]
        # One lock for all kits: only one measurement runs on a device at a time.
        words += ["--kit", f"{board.root}/{_folder_of(kit)}", "--lock", f"{board.root}/lock"]
        words += self.agent_arguments()
        if self.options.cores:
            words += ["--cores", ",".join(map(str, self.options.cores))]
        if runtimes:
            paths = ":".join(f"{board.root}/{path}" for path in runtimes)
            words = ["env", f"PYTHONPATH={paths}", *words]
        return self._spawn(connection, words, heartbeat=True)

    def agent_arguments(self) -> list[str]:
        """Return further arguments for an agent that measures."""
        return []

    def runtimes(self, board: Board, runtime: str) -> dict[str, Wheels]:
        """Return the wheels that the device needs for `runtime`, by their folder there; none if it has its own."""
        if self.options.runtime_on_board == "system" or not get_runtime(runtime).packages:
            return {}
        wheels = find_wheels(runtime, board, tell=self.options.tell)
        return {f"runtimes/{wheels.name}": wheels}

    def _spawn(self, connection: Connection, words: Sequence[str], *, heartbeat: bool) -> Agent:
        return RemoteAgent(connection.shell.spawn(words), heartbeat=heartbeat, failed=self.close)


class RemoteAgent(Agent):
    """An agent on a device. Host and agent exchange heartbeats, so each notices when the other is gone."""

    def __init__(self, running: Running, *, heartbeat: bool, failed: Callable[[], None]) -> None:
        self._running = running
        self._failed = failed
        self._heartbeat = Heartbeat(running.process, _HEARTBEAT_S) if heartbeat else None

    def read_line(self, limit: int) -> bytes:
        try:
            return self._running.output.read_line(limit)
        except DeviceError:
            self._failed()
            raise

    def finish(self) -> tuple[str, str]:
        try:
            code = self._running.process.wait()
            stderr = one_line(self._running.process.last_words())
        finally:
            self._failed()
        return (f"exit code {code}" if code >= 0 else "killed"), stderr

    def close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        process = self._running.process
        with contextlib.suppress(DeviceError):
            process.close_input()  # the agent ends when its stdin does
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            while process.read(1 << 16, max(0.01, deadline - time.monotonic())):
                pass
        process.close()


def _first_line(kit: Path) -> bytes:
    with (kit / RESULTS_FILE).open("rb") as file:
        return file.readline()


def _folder_of(kit: Path) -> str:
    """Return the folder of a kit on the device, named after the first line of its results: the request and its date."""
    return f"kits/{hashlib.sha256(_first_line(kit)).hexdigest()[:16]}"


def _runtime_of(kit: Path) -> str:
    return str(json.loads(_first_line(kit))["settings"]["runtime"])


def _agent() -> dict[str, bytes]:
    """Return the files of the agent in a folder named after their content, because another version may run there."""
    files = agent_files()
    names = json.dumps({path: hashlib.sha256(content).hexdigest() for path, content in files.items()})
    folder = f"agents/{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    return {f"{folder}/{path}": content for path, content in files.items()}


def _files_for(kit: Path, agent: Mapping[str, bytes], runtimes: Mapping[str, Wheels]) -> FileSet:
    """Return the files that the device needs before its agent can measure the folder `kit`."""
    folder = _folder_of(kit)
    files: dict[str, Path | bytes] = {f"models/{path.name}": path for path in (kit / "models").iterdir()}
    files[f"{folder}/manifest.json"] = kit / "manifest.json"
    results = (f"{folder}/{RESULTS_FILE}", (kit / RESULTS_FILE).read_bytes())
    return FileSet({**files, **agent}, {f"{folder}/models": "../../models"}, runtimes, results)
