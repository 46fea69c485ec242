"""`--device ssh:[user@]host[:port]`: a board that is reached over ssh, with paramiko."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import paramiko

from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.device import RemoteDevice
from ofa_profiler.devices.remote.shell import Shell, one_line
from ofa_profiler.devices.ssh.agent import Agent
from ofa_profiler.devices.ssh.config import find_route
from ofa_profiler.devices.ssh.keys import choose_keys
from ofa_profiler.devices.ssh.known_hosts import KnownHosts, host_name
from ofa_profiler.devices.ssh.login import Login, Refused, Transport, printable
from ofa_profiler.devices.ssh.proxy import ProxySocket
from ofa_profiler.devices.ssh.shell import ANSWER_TIMEOUT_S, SshShell, close_all, converted_errors
from ofa_profiler.devices.ssh.target import Target
from ofa_profiler.errors import DeviceError, TransientDeviceError

PASSWORD_VARIABLE = "OFA_SSH_PASSWORD"  # noqa: S105
_CONNECT_TIMEOUT_S = 10.0
#: If sent data is not acknowledged for this long, the link is dead.
_DEAD_AFTER_S = 8


class SshDevice(RemoteDevice):
    """A board with an ssh server and Python."""

    folder_hint = "; --folder-on-board DIR uses another folder"

    def __init__(self, spec: str, options: DeviceOptions) -> None:
        super().__init__(spec, options)
        self.root = options.folder_on_board or self.root
        self._route = find_route(spec, options.tell)
        self._passwords: dict[str, str] = {}

    def open_shell(self) -> Shell:
        clients: list[paramiko.SSHClient] = []
        try:
            for target in self._route:
                clients.append(self._log_in(target, clients[-1] if clients else None))
            return SshShell(self.spec, clients)
        except BaseException:
            close_all(clients)
            raise

    def _log_in(self, target: Target, via: paramiko.SSHClient | None) -> paramiko.SSHClient:
        """Log in with a key, else with a password: from the environment, or entered by the user once."""
        is_board = target is self._route[-1]
        entered, given = self._passwords.get(str(target)), os.environ.get(PASSWORD_VARIABLE)
        # The password in the environment is that of the board: no jump host must see it. It may unlock a key for one.
        password = entered or (given if is_board else None)
        try:
            return self._try(target, via, password, passphrase=entered or given)
        except _AuthenticationFailed as refusal:
            if self._link_errors.was_connected:
                # An earlier login succeeded. A system that is still booting refuses all logins.
                raise TransientDeviceError(str(refusal)) from None
            if password or self.options.ask_password is None:
                raise refusal.explained(is_board=is_board) from None
        password = self.options.ask_password(f"password of {target} (or passphrase of your key): ")
        try:
            client = self._try(target, via, password, passphrase=password)
        except _AuthenticationFailed as refusal:
            raise refusal.explained(is_board=is_board) from None
        self._passwords[str(target)] = password
        return client

    def _try(
        self, target: Target, via: paramiko.SSHClient | None, password: str | None, passphrase: str | None
    ) -> paramiko.SSHClient:
        name = target.alias or host_name(target.host, target.port)
        known = KnownHosts(target.known_hosts)
        agent = Agent(target.agent if target.use_keys else None)
        keys, notes = choose_keys(target, agent.keys(), passphrase)
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(_HostKeyCheck(self.spec, name, known, self.options.accept_host_key))

        def transport(sock: Any, **more: Any) -> paramiko.Transport:
            made = Transport(sock, **more)
            _prefer(made.get_security_options(), known.kinds(name))
            return made

        try:
            with self._opened(target, via) as sock:
                client.connect(
                    target.host,
                    target.port,
                    target.user,
                    sock=sock,
                    timeout=ANSWER_TIMEOUT_S,
                    banner_timeout=ANSWER_TIMEOUT_S,
                    auth_timeout=ANSWER_TIMEOUT_S,
                    channel_timeout=ANSWER_TIMEOUT_S,
                    transport_factory=transport,
                    auth_strategy=Login(target, keys, password),  # type: ignore[arg-type]
                )
        except Refused as refusal:
            client.close()
            words = printable("; ".join([str(refusal), *notes, *([agent.problem] if agent.problem else [])]))
            raise _AuthenticationFailed(f"{self.spec}: {target} refused the login: {words}", refusal.remedy) from None
        except paramiko.ssh_exception.IncompatiblePeer as error:
            made = client.get_transport()
            client.close()
            words = printable(made.explain(error) if isinstance(made, Transport) else str(error))
            raise DeviceError(f"{self.spec}: no connection to {target.host}, port {target.port}: {words}") from None
        except BaseException:
            client.close()
            raise
        finally:
            agent.close()
        return client

    @contextlib.contextmanager
    def _opened(self, target: Target, via: paramiko.SSHClient | None) -> Iterator[Any]:
        """Yield a connection to a machine; if what is done with it fails, close it, and raise our own error."""
        proxy: ProxySocket | None = None
        sock: Any = None
        command = target.proxy_command if via is None else None
        where = f"cannot reach {target.host}, port {target.port}"
        try:
            with converted_errors(self.spec, f"{where} through the ProxyCommand" if command else where):
                if command:
                    proxy = sock = ProxySocket(command)
                    if target.proxy_passes_socket:
                        sock = proxy.passed_socket()
                        proxy.close()
                else:
                    sock = _socket(target, via)
                yield sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if proxy is not None:
                proxy.close()
                if isinstance(error, TransientDeviceError):
                    words = f"{error}; `{command}`: {one_line(proxy.last_words())}"
                    raise TransientDeviceError(words) from None
            raise


class _AuthenticationFailed(Exception):
    """No key and no password was accepted."""

    def __init__(self, words: str, remedy: str) -> None:
        super().__init__(words)
        self._remedy = remedy

    def explained(self, *, is_board: bool) -> DeviceError:
        hint = "copy your public key there (ssh-copy-id)"
        hint += f", or set {PASSWORD_VARIABLE} to the password" if is_board else ""
        return DeviceError(f"{self}; {self._remedy or hint}")


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
        return transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=ANSWER_TIMEOUT_S)
    sock = _connected(target)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    settings = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _DEAD_AFTER_S * 1000}
    for name, value in settings.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _connected(target: Target) -> socket.socket:
    """Connect to the first address that answers."""
    problem = OSError("no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        target.host, target.port, target.family, socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(target.connect_timeout_s or _CONNECT_TIMEOUT_S)
            if target.bind_address:
                sock.bind((target.bind_address, 0))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
            continue
        return sock
    raise problem
