"""A device at the other end of a `Shell`: its private folder, its runtime, the agent there.

    connect -> what is this device? -> bring what it lacks -> start the agent, which goes on where its
    results end, and those are where the host's journal ends, or further

The number of steps does not depend on the number of models. After any failure the connection is dropped
and the next `start` begins with a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.heartbeat import Heartbeat
from ofa_profiler.devices.remote.shell import Running, Shell, one_line
from ofa_profiler.devices.remote.sync import PIECE, Parcel, Store
from ofa_profiler.devices.remote.wheels import Board, Wheels, find_wheels
from ofa_profiler.errors import DeviceError, SendingCutOff, TransientDeviceError
from ofa_profiler.protocol.kit import AGENT_FILE, RESULTS_FILE, agent_files

T = TypeVar("T")

#: Our signs of life to the agent, and how long it goes on without one.
_HEARTBEAT_S = 3.0
_AGENT_PATIENCE_S = 20
#: A device that was reached, and then lost before anything was measured, is tried so often again.
_FIRST_TRIES = 3
#: Before a transfer that was cut off goes on, and how many tries in a row may bring nothing.
_PAUSE_S = 1.0
_FRUITLESS_TRIES = 6
#: An agent that is told to end may take this long.
_FAREWELL_S = 5.0


@dataclass(frozen=True)
class Connection:
    """A device that was reached, and what it told about itself."""

    shell: Shell
    store: Store
    board: Board


class RemoteDevice(Device):
    """Common to everything that is reached through a shell. A subclass says how, and which Python is there."""

    #: The private folder on the device; `~` is the home of whoever we are there.
    root = "~/.ofa-profiler"
    #: A reboot takes a minute or two.
    waits_s = (1, 2, 4, 8, 15, 30, 30, 30)

    def __init__(self, spec: str, options: DeviceOptions) -> None:
        self.spec = spec
        self.options = options
        self._connection: Connection | None = None
        self._met = False
        self._at_once: float = math.inf

    @abstractmethod
    def connect(self) -> Shell:
        """Reach the device. Raises `DeviceError`, or its transient kind."""

    def python(self, shell: Shell) -> list[str]:  # noqa: ARG002
        """The words that start Python on the device; brings one there if need be."""
        return ["python3"]

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        def start() -> Agent:
            with self._dropped_on_failure():
                return self._start(self._reach(), kit, arguments)

        return self._going_on(start)

    def _going_on(self, work: Callable[[], T]) -> T:
        """Begin `work` again when it is cut off while it sends, as long as it has less to send now and then."""
        lacking, fruitless = math.inf, 0
        while True:
            try:
                return work()
            except TransientDeviceError as error:  # noqa: PERF203
                if isinstance(error, SendingCutOff) and error.lacking < lacking:
                    lacking, fruitless = error.lacking, 0
                elif lacking == math.inf or fruitless == _FRUITLESS_TRIES:
                    raise
                else:
                    fruitless += 1
                    self._at_once = PIECE  # what was on its way is lost in a cut: let there be less of it
                self._say(f"{error}; {lacking / 1e6:.1f} MB were left; going on")
                time.sleep(_PAUSE_S)

    def __enter__(self) -> RemoteDevice:
        # Better now than after everything else was prepared; and here somebody can be asked for a password.
        self._patiently(self._reach, self.waits_s[:_FIRST_TRIES])
        return self

    def _say(self, line: str) -> None:
        if self.options.tell is not None:
            self.options.tell(line)

    def _reach(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._meet()
            except TransientDeviceError as error:
                if self._met:
                    raise
                raise DeviceError(str(error)) from None  # it was never there: nothing to wait for
        return self._connection

    def remove(self) -> str:
        try:
            connection = self._reach()
            return self._remove(connection.shell, connection.board.root)
        finally:
            self.close()

    def _remove(self, shell: Shell, root: str) -> str:
        done = shell.run(["rm", "-rf", root])
        if done.exit_code != 0:
            raise DeviceError(f"{self.spec}: cannot remove {root}: {one_line(done.stderr)}")
        return root

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.shell.close()

    @contextlib.contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _meet(self) -> Connection:
        shell = self.connect()
        self._met = True
        try:
            store = Store(shell, self.python(shell), self.root, self.options.tell, self._at_once)
            board = Board.from_record(self.spec, store.hello())
            return Connection(shell, replace(store, root=board.root), board)
        except BaseException:
            shell.close()
            raise

    def _start(self, connection: Connection, kit: Path | None, arguments: Sequence[str]) -> Agent:
        board, python = connection.board, connection.store.python
        files = _agent()
        (agent,) = [path for path in files if path.endswith(f"/{AGENT_FILE}")]
        if kit is None:
            connection.store.bring(Parcel(files))
            return self._spawn(connection, [*python, f"{board.root}/{agent}", *arguments], heartbeat=False)
        runtimes = self.runtimes(board, _runtime_of(kit))
        parcel = _parcel_of(kit, files, runtimes)
        connection.store.bring(parcel)
        words = [*python, f"{board.root}/{agent}", *arguments, "--attached", "--repair"]
        words += ["--patience", str(_AGENT_PATIENCE_S)]
        # One lock for all kits: whoever measures on this device does so alone.
        words += ["--kit", f"{board.root}/{_folder_of(kit)}", "--lock", f"{board.root}/lock"]
        words += self.agent_arguments()
        if self.options.cores:
            words += ["--cores", ",".join(map(str, self.options.cores))]
        if runtimes:
            paths = ":".join(f"{board.root}/{path}" for path in runtimes)
            words = ["env", f"PYTHONPATH={paths}", *words]
        return self._spawn(connection, words, heartbeat=True)

    def agent_arguments(self) -> list[str]:
        """What else an agent that measures is told."""
        return []

    def runtimes(self, board: Board, runtime: str) -> dict[str, Wheels]:
        """Wheels that the device needs for `runtime`, by their folder there; none if it has its own."""
        if self.options.runtime_on_board == "system":
            return {}
        wheels = find_wheels(runtime, board, tell=self.options.tell)
        return {f"runtimes/{wheels.name}": wheels}

    def _spawn(self, connection: Connection, words: Sequence[str], *, heartbeat: bool) -> Agent:
        return RemoteAgent(connection.shell.spawn(words), heartbeat=heartbeat, failed=self.close)


class RemoteAgent(Agent):
    """An agent on a device. It hears from us now and then, and answers; either notices when the other is gone."""

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
            words = one_line(self._running.process.last_words())
        finally:
            self._failed()
        return (f"exit code {code}" if code >= 0 else "killed"), words

    def close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        process = self._running.process
        with contextlib.suppress(DeviceError):
            process.close_input()  # ends it
            deadline = time.monotonic() + _FAREWELL_S
            while process.read(1 << 16, max(0.01, deadline - time.monotonic())):
                pass
        process.close()


def _first_line(kit: Path) -> bytes:
    with (kit / RESULTS_FILE).open("rb") as file:
        return file.readline()


def _folder_of(kit: Path) -> str:
    """Where a kit belongs on the device. Its results begin with what was asked for, and when."""
    return f"kits/{hashlib.sha256(_first_line(kit)).hexdigest()[:16]}"


def _runtime_of(kit: Path) -> str:
    return str(json.loads(_first_line(kit))["settings"]["runtime"])


def _agent() -> dict[str, bytes]:
    """The files of the agent, in a folder named after their content: another version may be running there."""
    files = agent_files()
    names = json.dumps({path: hashlib.sha256(content).hexdigest() for path, content in files.items()})
    folder = f"agents/{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    return {f"{folder}/{path}": content for path, content in files.items()}


def _parcel_of(kit: Path, more: Mapping[str, bytes], runtimes: Mapping[str, Wheels]) -> Parcel:
    """What a device must have before its agent can start with the folder `kit`."""
    folder = _folder_of(kit)
    files: dict[str, Path | bytes] = {f"models/{path.name}": path for path in (kit / "models").iterdir()}
    files[f"{folder}/manifest.json"] = kit / "manifest.json"
    results = (f"{folder}/{RESULTS_FILE}", (kit / RESULTS_FILE).read_bytes())
    return Parcel({**files, **more}, {f"{folder}/models": "../../models"}, runtimes, results)
