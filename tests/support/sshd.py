"""A real OpenSSH server on loopback, whose users see a home folder and a `python3` of the test's own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.devices import DeviceOptions
from ofa_profiler.devices.remote.shell import Shell
from ofa_profiler.devices.ssh.device import SshDevice

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd:
    """`home` is the home folder on the device; the files of the server itself are beside it."""

    def __init__(self, folder: Path, *more: str, address: str = "127.0.0.1", launcher: Sequence[str] = ()) -> None:
        self.folder = folder
        self.address = address
        self.launcher = list(launcher)
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.user = getpass.getuser()
        self.host_key = make_key(folder / "host_key")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "python3").symlink_to(sys.executable)
        self.config = [
            f"Port {self.port}",
            f"ListenAddress {address}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PasswordAuthentication no",
            "PermitRootLogin yes",
            "LogLevel VERBOSE",
            f"SetEnv HOME={self.home} PATH={programs}:/usr/bin:/bin ORT_DISABLE_TELEMETRY=1",
            *more,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def allow(self, key: Path) -> None:
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(key.with_name(key.name + ".pub").read_text())

    def start(self) -> Sshd:
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where the server gives up its rights
        config = self.folder / "sshd_config"
        config.write_text("\n".join(self.config) + "\n")
        with (self.folder / "log").open("ab") as log:
            command = [*self.launcher, SSHD, "-D", "-e", "-f", str(config)]
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as sock:
                if sock.connect_ex((self.address, self.port)) == 0:
                    return self
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def stop(self, *, sessions: bool = True) -> None:
        """Kill the server at once, and with `sessions` the server's ends of all connections."""
        assert self.process is not None
        victims = self.sessions() if sessions else []
        self.process.kill()
        self.process.wait()
        for pid in victims:
            kill(pid)

    def sessions(self) -> list[int]:
        """The processes of the server that each carry a connection."""
        assert self.process is not None
        found, parents = [], {self.process.pid}
        while parents:
            parents = {pid for pid in children(parents) if name_of(pid).startswith("sshd")}
            found += sorted(parents)
        return found


def children(parents: set[int]) -> set[int]:
    return {pid for pid, parent in _parents().items() if parent in parents}


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    level = {pid}
    while level := children(level) - found:
        found |= level
    return found


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # noqa: PERF203 (processes end while we look)
            continue
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def quick_python(server: Sshd) -> None:
    """Make the server's `python3` this very environment, runtime included."""
    path = server.folder / "bin" / "python3"
    path.unlink()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)


class Me:
    """The home folder of whoever calls ssh, with a key that the server lets in."""

    def __init__(self, home: Path, server: Sshd) -> None:
        self.home = home
        self.key = make_key(home / ".ssh" / "id_ed25519")
        server.allow(self.key)
        self.known_hosts = home / ".ssh" / "known_hosts"
        self.server = server
        self.know(server)

    def know(self, server: Sshd, port: int | None = None) -> None:
        kind, key = server.host_key.with_name("host_key.pub").read_text().split()[:2]
        with self.known_hosts.open("a") as file:
            file.write(f"[{server.address}]:{port or server.port} {kind} {key}\n")

    def configure(self, text: str) -> None:
        (self.home / ".ssh" / "config").write_text(text)


def spec_of(server: Sshd) -> str:
    return f"ssh:127.0.0.1:{server.port}"


def connect(spec: str, **options: object) -> Shell:
    return SshDevice(spec, DeviceOptions(**options)).connect()  # type: ignore[arg-type]
