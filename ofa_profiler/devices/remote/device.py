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
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.heartbeat import Heartbeat
from ofa_profiler.devices.remote.provision import BrokenRuntime, Ready, bring, use_own, wanted_release
from ofa_profiler.devices.remote.shell import Running, Shell, one_line, remove_folder
from ofa_profiler.devices.remote.sync import PIECE_BYTES, FileSet, Store
from ofa_profiler.devices.remote.wheels import Wheels
from ofa_profiler.errors import DeviceError, TransientError, UploadInterrupted
from ofa_profiler.protocol.kit import AGENT_FILE, RESULTS_FILE, agent_files
from ofa_profiler.protocol.records import Fatal, Record, Visit
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
    #: What the user can do if that folder cannot be written, as the end of a message.
    folder_hint = ""
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
        self._ready: dict[str, Ready] = {}

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
        return self._connected_to(lambda connection: self._start(connection, kit, arguments))

    @property
    def chooses_release(self) -> bool:
        return self.options.runtime_on_board != "system"

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:
        def prepare() -> Ready:
            return self._connected_to(lambda connection: self._prepare(connection, runtime, at_most))

        return retry(prepare, self.waits_s, before_retry=self._report_retry).version

    def _connected_to(self, act: Callable[[Connection], T]) -> T:
        """Act on the open connection, or a new one, and resume interrupted uploads."""

        def attempt() -> T:
            with self._closed_on_failure():
                return act(self._connected())

        with self._link_errors.classified():
            return self._resume_uploads(attempt)

    def _prepare(self, connection: Connection, runtime: str, at_most: str | None = None) -> Ready:
        """Return the runtime, after a check that it loads on the device. That is done once."""
        ready = self._ready.get(runtime)
        if ready is not None and ready.is_at_most(at_most):
            return ready

        def check(wheels: Wheels | None) -> str | None:
            return self._check(connection, runtime, Ready(None, wheels))

        if not self.chooses_release or not get_runtime(runtime).packages:
            ready = use_own(self.spec, runtime, check)
        else:
            wanted = wanted_release(runtime, self.options, at_most)
            ready = bring(self.spec, runtime, connection.board, wanted, check, self._report)
        self._ready[runtime] = ready
        return ready

    def _for_kit(self, connection: Connection, runtime: str) -> Ready:
        """Return the runtime for a kit. One that the device has is checked by the measurement itself."""
        own = not self.chooses_release or not get_runtime(runtime).packages
        return Ready(None) if own else self._prepare(connection, runtime)

    def _check(self, connection: Connection, runtime: str, candidate: Ready) -> str | None:
        """Import the runtime on the device, in a process that may die of it. Raises `BrokenRuntime`."""
        files = _agent()
        connection.store.upload(FileSet(files, runtimes=candidate.folders))
        words = [*self._command(connection, files, candidate), "--check", runtime, "--attached"]
        words += ["--patience", str(_AGENT_PATIENCE_S)]
        with contextlib.closing(self._spawn(connection, words, heartbeat=True)) as agent:
            record = self._answer_of(agent)
        if isinstance(record, Fatal):
            if record.cause in ("runtime", "noexec", "memory"):
                raise BrokenRuntime(one_line(record.error), record.cause)
            raise self._error(record)
        return record.version

    def measure_kit(self, kit: Path, seen: int, visits: int | None = None) -> Generator[Record, None, None]:
        with self._link_errors.classified(), contextlib.closing(super().measure_kit(kit, seen, visits)) as records:
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
            options = self.options.tell, self._upload_batch_bytes, self.folder_hint
            store = Store(shell, self.python(shell), self.root, *options)
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
        board, files = connection.board, _agent()
        if kit is None:
            connection.store.upload(FileSet(files))
            return self._spawn(connection, [*self._command(connection, files), *arguments], heartbeat=False)
        ready = self._for_kit(connection, _runtime_of(kit))
        connection.store.upload(_files_for(kit, files, ready.folders))
        words = [*self._command(connection, files, ready), *arguments, "--attached", "--repair"]
        words += ["--patience", str(_AGENT_PATIENCE_S)]
        # One lock for all kits: only one measurement runs on a device at a time.
        words += ["--kit", f"{board.root}/{_folder_of(kit)}", "--lock", f"{board.root}/lock"]
        words += self.agent_arguments()
        if self.options.cores:
            words += ["--cores", ",".join(map(str, self.options.cores))]
        return self._spawn(connection, words, heartbeat=True)

    def _command(self, connection: Connection, files: Mapping[str, bytes], ready: Ready | None = None) -> list[str]:
        """Return the command that starts the agent, with the runtime that was brought."""
        root = connection.board.root
        (agent,) = [path for path in files if path.endswith(f"/{AGENT_FILE}")]
        command = [*connection.store.python, f"{root}/{agent}"]
        paths = ":".join(f"{root}/{path}" for path in ready.folders) if ready is not None else ""
        return ["env", f"PYTHONPATH={paths}", *command] if paths else command

    def agent_arguments(self) -> list[str]:
        """Return further arguments for an agent that measures."""
        return []

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
