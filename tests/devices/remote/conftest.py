"""Fixtures of the tests of a board over ssh: models, a private folder on it, a device, a link with faults."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sshd
from support.kits import conv_model
from support.proxy import Proxy
from support.remotes import agents_of, quick
from support.sshd import Me, Sshd

from ofa_profiler.devices.remote.device import RemoteDevice
from ofa_profiler.export import Model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    folder = tmp_path_factory.mktemp("models")
    return [conv_model(folder, f"op {size}", size) for size in (1, 3, 5, 7)]


@pytest.fixture
def store(ssh_server: Sshd) -> Iterator[Path]:
    """The private folder on the device, empty at the start."""
    path = ssh_server.home / ".ofa-profiler"
    subprocess.run(["rm", "-rf", str(path)], check=True)
    yield path
    for pid in agents_of(ssh_server):
        sshd.kill(pid)


@pytest.fixture
def proxy(ssh_server: Sshd, me: Me) -> Iterator[Proxy]:
    proxy = Proxy(ssh_server.port)
    me.know(ssh_server, proxy.port)
    yield proxy
    proxy.close()


@pytest.fixture
def device(ssh_server: Sshd, me: Me, store: Path) -> Iterator[RemoteDevice]:
    with quick(f"ssh:127.0.0.1:{ssh_server.port}") as device:
        yield device
