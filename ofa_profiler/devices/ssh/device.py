"""`--device ssh:[user@]host[:port]`: a board that is reached over ssh, with paramiko."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import paramiko

from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.device import RemoteDevice
from ofa_profiler.devices.remote.shell import SILENCE_S, Process, Shell, Silence, for_any_login_shell, one_line
from ofa_profiler.devices.ssh.config import Target, find_route
from ofa_profiler.devices.ssh.keys import default_keys, usable_keys
from ofa_profiler.devices.ssh.known_hosts import KnownHosts, host_name
from ofa_profiler.errors import DeviceError, OfaError, TransientDeviceError

PASSWORD_VARIABLE = "OFA_SSH_PASSWORD"  # noqa: S105
_CONNECT_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 30.0
#: If sent data is not acknowledged for this long, the link is dead.
_DEAD_AFTER_S = 8
_KEPT_STDERR = 16 << 10
_READ_SLICE_S = 1.0
#: How long to wait for a free session on a server that limits their number (MaxSessions), and how often to ask.
_SESSION_TIMEOUT_S, _SESSION_POLL_S = 5.0, 0.05
_CHUNK = 256 << 10
_LOST = "the connection is lost"
_NO_METHODS = "No authentication methods available"

# Without a handler, paramiko's log of a failed connection is printed to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshDevice(RemoteDevice):
    """A board with an ssh server and Python."""

    def __init__(self, spec: str, options: DeviceOptions) -> None:
        super().__init__(spec, options)
        self._route = find_route(spec)
        self._passwords: dict[str, str] = {}

    def open_shell(self) -> Shell:
        clients: list[paramiko.SSHClient] = []
        try:
            for target in self._route:
                clients.append(self._log_in(target, clients[-1] if clients else None))
            return SshShell(self.spec, clients)
        except BaseException:
            _close(clients)
            raise

    def _log_in(self, target: Target, via: paramiko.SSHClient | None) -> paramiko.SSHClient:
        """Log in with a key, else with a password: from the environment, or entered by the user once."""
        password = self._passwords.get(str(target)) or os.environ.get(PASSWORD_VARIABLE)
        try:
            return self._try(target, via, password)
        except _AuthenticationFailed as refusal:
            if self._link_errors.was_connected:
                # An earlier login succeeded. A system that is still booting refuses all logins.
                raise TransientDeviceError(str(refusal)) from None
            if password or self.options.ask_password is None:
                raise refusal.explained() from None
        password = self.options.ask_password(f"password of {target} (or passphrase of your key): ")
        try:
            client = self._try(target, via, password)
        except _AuthenticationFailed as refusal:
            raise refusal.explained() from None
        self._passwords[str(target)] = password
        return client

    def _try(self, target: Target, via: paramiko.SSHClient | None, password: str | None) -> paramiko.SSHClient:
        name = target.alias or host_name(target.host, target.port)
        known = KnownHosts(target.known_hosts)
        defaults = [] if target.identities_only else default_keys()
        keys, notes = usable_keys([*target.identity_files, *defaults])
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(_HostKeyCheck(self.spec, name, known, self.options.accept_host_key))

        def transport(sock: Any, **more: Any) -> paramiko.Transport:
            made = paramiko.Transport(sock, **more)
            _prefer(made.get_security_options(), known.kinds(name))
            return made

        try:
            with _failures(self.spec, f"cannot reach {target.host}, port {target.port}"), _refusals(client):
                client.connect(
                    target.host,
                    target.port,
                    target.user,
                    password,
                    key_filename=keys,  # type: ignore[arg-type]
                    allow_agent=not target.identities_only,
                    look_for_keys=False,
                    sock=_socket(target, via),
                    timeout=_ANSWER_TIMEOUT_S,
                    banner_timeout=_ANSWER_TIMEOUT_S,
                    auth_timeout=_ANSWER_TIMEOUT_S,
                    channel_timeout=_ANSWER_TIMEOUT_S,
                    transport_factory=transport,
                )
        except paramiko.SSHException as error:
            client.close()
            words = "; ".join([one_line(str(error)).rstrip("."), *notes])
            raise _AuthenticationFailed(f"{self.spec}: {target} refused the login: {words}") from None
        except BaseException:
            client.close()
            raise
        return client


class _AuthenticationFailed(Exception):
    """No key and no password was accepted."""

    def explained(self) -> DeviceError:
        hint = f"copy your public key there (ssh-copy-id), or set {PASSWORD_VARIABLE} to the password"
        return DeviceError(f"{self}; {hint}")


class _HostKeyCheck(paramiko.MissingHostKeyPolicy):
    """Checks every host key. paramiko itself knows no keys, so it calls this for each."""

    def __init__(self, spec: str, name: str, known: KnownHosts, accepted: str | None) -> None:
        self._host = spec, name
        self._known, self._accepted = known, accepted

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        self._known.check(*self._host, key, self._accepted)


def _prefer(options: Any, kinds: list[str]) -> None:
    """Ask for known kinds of keys first. Otherwise a server with several keys could seem to have changed its key."""
    signatures = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}
    wanted = [name for kind in kinds for name in signatures.get(kind, (kind,))]
    offered = options.key_types
    options.key_types = sorted(offered, key=lambda name: wanted.index(name) if name in wanted else len(wanted))


def _socket(target: Target, via: paramiko.SSHClient | None) -> Any:
    """Open a connection that detects within seconds that the other side is gone."""
    if via is not None:
        transport = via.get_transport()
        assert transport is not None
        where = (target.host, target.port)
        return transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=_ANSWER_TIMEOUT_S)
    sock = socket.create_connection((target.host, target.port), timeout=_CONNECT_TIMEOUT_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    settings = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _DEAD_AFTER_S * 1000}
    for name, value in settings.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


@contextlib.contextmanager
def _refusals(client: paramiko.SSHClient) -> Iterator[None]:
    """Replace paramiko's error message for a refused login, which is that of whichever key it tried last."""
    try:
        yield
    except paramiko.AuthenticationException:
        raise
    except paramiko.SSHException as error:
        transport = client.get_transport()
        if transport is None or not transport.is_active() or str(error) == _NO_METHODS:
            raise
        raise paramiko.AuthenticationException("Authentication failed.") from None


@contextlib.contextmanager
def _failures(spec: str, doing: str) -> Iterator[None]:
    """Convert the errors of paramiko and of sockets to our errors, except a refused login."""
    try:
        yield
    except OfaError:
        raise
    except paramiko.PasswordRequiredException:
        raise
    except paramiko.AuthenticationException as error:
        if "EOF" in str(error) or "timeout" in str(error).lower():  # the server did not answer
            raise TransientDeviceError(f"{spec}: {doing}: {one_line(str(error))}") from None
        raise
    except Exception as error:  # of any kind: a damaged packet can fail in any parser of paramiko
        if str(error) == _NO_METHODS:
            raise
        raise TransientDeviceError(f"{spec}: {doing}: {_reason(error)}") from None


@contextlib.contextmanager
def _answered(transport: paramiko.Transport) -> Iterator[None]:
    """Close the connection if the server does not answer in time, because paramiko can wait for ever.

    After the loss of a byte both sides wait for the end of a packet on an intact connection.
    """
    timer = threading.Timer(_ANSWER_TIMEOUT_S, transport.close)
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


def _close(clients: list[paramiko.SSHClient]) -> None:
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
        with _failures(self.spec, _LOST):
            if transport is None:
                raise EOFError
            while True:
                try:
                    channel = transport.open_session(timeout=_ANSWER_TIMEOUT_S)
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
        _close(self._clients)


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
        with _failures(self._spec, _LOST):
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
