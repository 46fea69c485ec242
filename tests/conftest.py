"""Fixtures that every test file may use."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support import sshd
from support.sshd import Me, Sshd

from ofa_profiler.devices.android.python_bundle import Bundle, get_bundle
from ofa_profiler.errors import DeviceError
from ofa_profiler.verification import conditions
from ofa_profiler.verification import profile as calibrated_profile
from ofa_search.searching import api
from ofa_search.searching.engines import DEFAULT_ENGINE, registry
from ofa_search.searching.engines.annealing import Annealing
from ofa_search.searching.engines.evolutionary import Evolutionary

# Before any test file imports the runtime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# What a busy machine takes is no fault of what is tested.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
# Ignored in the background or under nohup, they would be ignored by the programs that tests send them to, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary folder of our own, and with it the lock of the local device.

    Tests look at what happens, not at how long it takes: they need not wait for a measurement that is
    going on on this machine.
    """
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(autouse=True)
def exact_numbers() -> Iterator[None]:
    """`ofa-train` lets its process round tiny numbers to zero; a test that calls it must not do so to the next one."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def no_calibration_by_default() -> Iterator[None]:
    """Tables are calibrated only where a test asks for it: it takes a while. Programs need `--no-calibration`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrated_profile, "DEFAULT_FITTED", 0)
        yield


@pytest.fixture(scope="module", autouse=True)
def short_searches() -> Iterator[None]:
    """The default engine makes few rounds, and bounds are looked for shortly, except in `tests/searching/`.

    Other tests look at what is done with a result. Programs that they start search as long as ever.
    """
    short = Evolutionary(annealing=Annealing(chains=16, rounds=20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "PROOF_SECONDS", 0.02)
        patch.setitem(registry._ENGINES._entries, DEFAULT_ENGINE, lambda: short)
        yield


@pytest.fixture
def without_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ofa-verify` does not look for drift, so that a test need not wait until this machine is steady."""
    monkeypatch.setitem(conditions._SAMPLING, "reference_every_s", None)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of published tables and data sets beside the checkout; the test is skipped without it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("needs the published tables and data sets in ../shared, which is not there")
    return path


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A running OpenSSH server, whose `python3` is this environment."""
    if sshd.SSHD is None:
        pytest.skip("needs an OpenSSH server: apt-get install openssh-server")
    server = Sshd(tmp_path_factory.mktemp("board"))
    sshd.quick_python(server)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def me(ssh_server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Me:
    """A home of our own, from which `ssh:127.0.0.1:PORT` leads to the server."""
    for variable in ("SSH_AUTH_SOCK", "OFA_SSH_PASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    return Me(tmp_path / "me", ssh_server)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The real one, from the cache of this machine or built now."""
    try:
        return get_bundle()
    except DeviceError as error:
        pytest.skip(f"needs the internet, once: {error}")
