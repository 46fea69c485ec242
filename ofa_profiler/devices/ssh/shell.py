"""Programs on a board, over an ssh connection of paramiko."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

import paramiko

from ofa_profiler.devices.remote.shell import SILENCE_S, Process, Shell, Silence, for_any_login_shell, one_line
from ofa_profiler.errors import DeviceError, OfaError, TransientDeviceError

#: How long to wait for an answer of the server.
ANSWER_TIMEOUT_S = 30.0
_KEPT_STDERR = 16 << 10
_READ_SLICE_S = 1.0
#: How long to wait for a free session on a server that limits their number (MaxSessions), and how often to ask.
_SESSION_TIMEOUT_S, _SESSION_POLL_S = 5.0, 0.05
_CHUNK = 256 << 10
_LOST = "the connection is lost"

# Without a handler, paramiko's log of a failed connection is printed to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@contextlib.contextmanager
def converted_errors(spec: str, doing: str) -> Iterator[None]:
    """Convert the errors of paramiko and of sockets to our errors, except a refused login."""
    try:
        yield
    except OfaError:
        raise
    except paramiko.AuthenticationException as error:
        if "EOF" in str(error) or "timeout" in str(error).lower():  # the server did not answer
            raise TransientDeviceError(f"{spec}: {doing}: {one_line(str(error))}") from None
        raise
    except paramiko.ssh_exception.IncompatiblePeer:
        raise
    except Exception as error:  # of any kind: a damaged packet can fail in any parser of paramiko
        raise TransientDeviceError(f"{spec}: {doing}: {_reason(error)}") from None


@contextlib.contextmanager
def _answered(transport: paramiko.Transport) -> Iterator[None]:
    """Close the connection if the server does not answer in time, because paramiko can wait for ever.

    After the loss of a byte both sides wait for the end of a packet on an intact connection.
    """
    timer = threading.Timer(ANSWER_TIMEOUT_S, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, EOFError):
        return "closed by the other side"
    if "protocol banner" in str(error):
        return "no ssh server answers there, or it has too many logins at the same time (MaxStartups)"
    return one_line((error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__)


def close_all(clients: list[paramiko.SSHClient]) -> None:
    """Close connections, the last one first. Never raises."""
    for client in reversed(clients):
        with contextlib.suppress(Exception):
            client.close()


class SshShell(Shell):
    """A connection. The last of `clients` is logged in on the device, the others on the jump hosts."""

    def __init__(self, spec: str, clients: list[paramiko.SSHClient]) -> None:
        self.spec = spec
        self._clients = clients

    def open(self, line: str) -> SshProcess:
        transport = self._clients[-1].get_transport()
        deadline = time.monotonic() + _SESSION_TIMEOUT_S
        with converted_errors(self.spec, _LOST):
            if transport is None:
                raise EOFError
            while True:
                try:
                    channel = transport.open_session(timeout=ANSWER_TIMEOUT_S)
                    break
                except paramiko.ChannelException as refusal:
                    # The session of the previous program may not be free yet.
                    if time.monotonic() > deadline:
                        words = f"the ssh server opens no session ({refusal.text}); see MaxSessions there"
                        raise DeviceError(f"{self.spec}: {words}") from None
                time.sleep(_SESSION_POLL_S)
            with _answered(transport):
                channel.exec_command(for_any_login_shell(line).encode("utf-8", "surrogateescape"))
            return SshProcess(self.spec, channel)

    def close(self) -> None:
        close_all(self._clients)


class SshProcess(Process):
    """A program in one channel of a connection."""

    def __init__(self, spec: str, channel: paramiko.Channel) -> None:
        self._spec = spec
        self._channel = channel
        self._stderr = b""

    def read(self, size: int, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            self._channel.settimeout(_READ_SLICE_S)
            try:
                self._drain()  # a full stderr pipe would block the program
                data = self._channel.recv(size)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue
                raise Silence(f"{self._spec}: no output for {timeout_s:g} s") from None
            except (OSError, EOFError, paramiko.SSHException):
                # Reading sends window updates, so it can also fail because the other side is gone.
                raise self._lost() from None
            if not data and not self._channel.eof_received:
                raise self._lost()
            return data

    def write(self, data: bytes) -> None:
        deadline = time.monotonic() + SILENCE_S
        sent = 0
        while sent < len(data):
            try:
                taken = self._channel.send(data[sent : sent + _CHUNK])
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise TransientDeviceError(f"{self._spec}: no data accepted for {SILENCE_S:g} s") from None
                continue
            except (OSError, EOFError, paramiko.SSHException):
                raise self._lost() from None
            if not taken:
                raise self._lost()
            deadline = time.monotonic() + SILENCE_S
            sent += taken

    def close_input(self) -> None:
        with converted_errors(self._spec, _LOST):
            self._channel.shutdown_write()

    def wait(self) -> int:
        if not self._channel.status_event.wait(SILENCE_S):
            raise TransientDeviceError(f"{self._spec}: a program on the device does not end")
        code = int(self._channel.exit_status)
        # A killed program has no exit code either, but then the connection is still open.
        if code < 0 and not self._is_alive():
            raise self._lost()
        return code

    def last_words(self) -> str:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._drain()
        return self._stderr.decode("utf-8", "replace")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.close()

    def _drain(self) -> None:
        while self._channel.recv_stderr_ready():
            self._stderr = (self._stderr + self._channel.recv_stderr(1 << 16))[-_KEPT_STDERR:]

    def _is_alive(self) -> bool:
        transport = self._channel.get_transport()
        return bool(transport.is_active())

    def _lost(self) -> TransientDeviceError:
        if self._is_alive():
            return TransientDeviceError(f"{self._spec}: the program on the device has ended")
        error = self._channel.get_transport().get_exception()
        return TransientDeviceError(f"{self._spec}: {_LOST}" + (f": {_reason(error)}" if error else ""))
