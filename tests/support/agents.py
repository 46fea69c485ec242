"""Agents as processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def wait_for(condition, timeout_s=300.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(kit: Path, *arguments: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(kit / "agent.py"), "--kit", str(kit), *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **env}
    )
