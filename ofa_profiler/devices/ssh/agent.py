"""The keys of an ssh agent behind any socket: of OpenSSH, gpg, a password manager, a hardware key."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH

_TIMEOUT_S = 60.0  # the user may have to confirm, or to touch a key


class Agent(AgentSSH):
    """The agent at a socket. If there is none, it has no keys, and `problem` says why."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.problem = ""
        if path is None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(str(path))
            self._connect(connection)  # type: ignore[attr-defined]
        except Exception as error:  # of any kind: what answers there may be no agent
            connection.close()
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            self.problem = f"no ssh agent answers at {path} ({reason})"

    def keys(self) -> list[HeldKey]:
        """Return the keys that it holds, certificates among them."""
        return [HeldKey(self, key.blob, key.comment) for key in self.get_keys()]

    def close(self) -> None:
        """Close the connection. The keys cannot sign afterwards."""
        self._close()  # type: ignore[attr-defined]


class HeldKey(AgentKey):
    """A key of the agent. It signs as what the agent holds, also if that is a certificate."""

    #: A certificate to present. Releases of paramiko before 5 lack this for kinds that they do not know.
    public_blob = None
    #: The agent did not sign: it is locked, or the user did not confirm.
    is_withheld = False

    def twin(self) -> HeldKey:
        """Return another object for the same key, to present a certificate."""
        return HeldKey(self.agent, self.blob, self.comment)

    def asbytes(self) -> bytes:
        return bytes(self.blob)

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        """Sign, or return no signature, so that the server refuses the key and the next one has its turn."""
        try:
            return super().sign_ssh_data(data, algorithm)
        except (OSError, paramiko.SSHException):
            self.is_withheld = True
            return b""
