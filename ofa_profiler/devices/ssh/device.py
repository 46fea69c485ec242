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
from ofa_profiler.devices.ssh.config import Target, find_route
from ofa_profiler.devices.ssh.keys import default_keys, usable_keys
from ofa_profiler.devices.ssh.known_hosts import KnownHosts, host_name
from ofa_profiler.devices.ssh.shell import ANSWER_TIMEOUT_S, NO_METHODS, SshShell, close_all, converted_errors
from ofa_profiler.errors import DeviceError, TransientDeviceError

PASSWORD_VARIABLE = "OFA_SSH_PASSWORD"  # noqa: S105
_CONNECT_TIMEOUT_S = 10.0
#: If sent data is not acknowledged for this long, the link is dead.
_DEAD_AFTER_S = 8


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
            close_all(clients)
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
            with converted_errors(self.spec, f"cannot reach {target.host}, port {target.port}"), _refusals(client):
                client.connect(
                    target.host,
                    target.port,
                    target.user,
                    password,
                    key_filename=keys,  # type: ignore[arg-type]
                    allow_agent=not target.identities_only,
                    look_for_keys=False,
                    sock=_socket(target, via),
                    timeout=ANSWER_TIMEOUT_S,
                    banner_timeout=ANSWER_TIMEOUT_S,
                    auth_timeout=ANSWER_TIMEOUT_S,
                    channel_timeout=ANSWER_TIMEOUT_S,
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
        return transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=ANSWER_TIMEOUT_S)
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
        if transport is None or not transport.is_active() or str(error) == NO_METHODS:
            raise
        raise paramiko.AuthenticationException("Authentication failed.") from None
