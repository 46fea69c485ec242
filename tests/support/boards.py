"""The emulated arm64 board: another machine, another Python, no internet. Times mean nothing there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import sshd


class SimulatedBoard:
    """`sim` of the shared folder, with its state in a folder of ours. A context manager."""

    def __init__(self, sim: Path, folder: Path) -> None:
        if os.geteuid() != 0 or shutil.which("qemu-aarch64-static") is None:
            pytest.skip("needs root, and apt-get install qemu-user-static binfmt-support")
        self.sim, self.port = sim, sshd.free_port()
        self.env = {**os.environ, "SIM_STATE": str(folder)}
        self.key = self.call("start")
        #: The board's root folder, seen from here.
        self.root = folder / f"board-{self.port}"

    def call(self, what: str) -> str:
        command = [str(self.sim), what, "board", str(self.port)]
        # Its daemon keeps our pipe open, so what it says goes to a file.
        with (Path(self.env["SIM_STATE"]) / "said").open("w+") as said:
            subprocess.run(command, env=self.env, stdout=said, check=True, timeout=300)
            said.seek(0)
            return said.read().strip()

    def reached_from(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """Make `home` the home folder, where `ssh:board` is this board -> the fingerprint of its host key."""
        monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")))
        monkeypatch.setenv("HOME", str(home))
        (home / ".ssh").mkdir()
        config = f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  User pi\n  IdentityFile {self.key}\n"
        (home / ".ssh" / "config").write_text(config)
        command = ["ssh-keygen", "-lf", str(self.root / "etc" / "ssh" / "hk")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]

    def __enter__(self) -> SimulatedBoard:
        return self

    def __exit__(self, *_error: object) -> None:
        self.call("stop")
