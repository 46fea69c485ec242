"""`ProxyCommand`: a program whose input and output are the connection to a device."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile

_KEPT_WORDS = 2000
_END_TIMEOUT_S = 2.0
_PASS_TIMEOUT_S = 60.0


class ProxySocket(socket.socket):
    """Our end of the program. `close` ends the program and what it has started.

    (paramiko's ProxyCommand never notices that the program has ended.)
    """

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._command = command
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the socket)
        try:
            self._process = subprocess.Popen(
                # As in OpenSSH: the user's shell, which the command replaces.
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._stderr,
                start_new_session=True,  # Ctrl-C must not cut the connection before the device is restored
            )
        except OSError:
            super().close()
            self._stderr.close()
            raise
        finally:
            theirs.close()

    def passed_socket(self) -> socket.socket:
        """Return the connection that the program hands over (`ProxyUseFdpass`)."""
        self.settimeout(_PASS_TIMEOUT_S)
        _, descriptors, _, _ = socket.recv_fds(self, 1, 1)
        if not descriptors:
            raise EOFError
        return socket.socket(fileno=descriptors[0])

    def last_words(self) -> str:
        """Return what the program said on stderr last, else how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        with contextlib.suppress(OSError, ValueError):
            end = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, end - _KEPT_WORDS))
            if lines := self._stderr.read().decode("utf-8", "replace").split("\n"):
                words = "; ".join(line.strip() for line in lines if line.strip())
                if words:
                    return words
        code = self._process.returncode
        return "it says nothing" if code is None else f"it ended with exit code {code}"

    def close(self) -> None:
        super().close()  # most programs end by themselves now
        if self._process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT_S)
                break
