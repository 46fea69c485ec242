"""An emulated phone on loopback: Google's adb daemon with a real shell, for arm64, without Python."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from ofa_profiler.devices import DeviceOptions
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android.device import AdbDevice
from support.sshd import free_port

SIM = Path(__file__).resolve().parents[3] / "shared" / "devices" / "sim"


def why_not() -> str:
    """Why there can be no phone here; empty if there can."""
    if not SIM.is_file():
        return "needs the emulated phone in ../shared/devices, which is not there"
    if os.geteuid() != 0:
        return "needs root, to start the emulated phone"
    if not shutil.which("qemu-aarch64-static"):
        return "needs qemu to run arm64 programs (apt-get install qemu-user-static binfmt-support)"
    return ""


class Phone:
    """A phone that can be switched off, and on again with what it had stored."""

    def __init__(self, folder: Path, *options: str) -> None:
        if reason := why_not():
            pytest.skip(reason)
        self.port = free_port()
        self.options = options
        self._environment = {**os.environ, "SIM_STATE": str(folder)}
        #: The phone's root folder, seen from here.
        self.root = folder / f"phone-{self.port}"
        self.spec = f"adb:127.0.0.1:{self.port}"

    def _sim(self, *words: str) -> None:
        done = subprocess.run([SIM, *words], env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> Phone:
        self._sim("start", "phone", str(self.port), *self.options)
        return self

    def kill(self) -> None:
        """Kill the daemon and all that it started, and wait until its port is closed."""
        daemons = self._daemons()
        self._sim("kill", "phone", str(self.port))
        # As another user than who started it, the daemon does not die with its parent. It is the first
        # process of a namespace of its own, which the kernel ends with it.
        for daemon in daemons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGKILL)
        # `sim start` waits for an open port: one that is open still would do for it.
        deadline = time.monotonic() + 300
        while self._listens():
            assert time.monotonic() < deadline, f"port {self.port} is still open"
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def _daemons(self) -> list[int]:
        try:
            parent = int(self.root.with_suffix(".pid").read_text())
            return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        except (OSError, ValueError):
            return []

    def restart(self) -> None:
        self.kill()
        self.start()

    def allow(self, key: Path) -> None:
        """What its owner does when it asks whether to allow this computer."""
        self._sim("allow", str(key), str(self.port))

    def stop(self) -> None:
        self.kill()
        self._sim("stop", "phone", str(self.port))

    def text(self, path: str) -> str:
        """A file of the phone; empty if it is not there."""
        try:
            return (self.root / path).read_text().strip()
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Phone:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()


def shell_to(spec: str) -> AdbShell:
    return AdbDevice(spec, DeviceOptions()).connect()


#: Found out by something else than 45 s of silence. Durations are not asserted: a busy machine takes its time.
AT_ONCE = r"^(?!.*no output)"


def packed(folder: Path, files: dict[str, bytes], sums: bytes | None = None) -> Path:
    """A bundle of these files, with their hashes, or with other `sums`."""
    hashes = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    path = folder / "bundle.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {**files, "SHA256SUMS": hashes.encode() if sums is None else sums}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
