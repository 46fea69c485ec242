"""A latency table of an emulated phone by the command that a user types, and what may happen meanwhile."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.phones import Phone
from support.proxy import Proxy
from support.sshd import free_port

from ofa_profiler.devices.android.python_bundle import get_bundle
from ofa_profiler.errors import DeviceError
from ofa_profiler.protocol.journal import read_journal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Phone(tmp_path_factory.mktemp("phone")) as phone:
        try:
            get_bundle()
        except DeviceError as error:
            pytest.skip(f"needs the internet, once: {error}")
        yield phone


def command(spec: str, out: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "ofa_profiler.cli.profile", "--device", spec, "--out", str(out), "--name", "phone"]
    # Time under emulation means nothing: after the first round it is enough.
    return [
        *words,
        "--space",
        "cifar-mbv3",
        "--resolution",
        "24",
        "--time-limit",
        "1s",
        "--no-calibration",
        "--json",
        *more,
    ]


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(free_port())}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def visits(journal: Path) -> list[tuple[str, int]]:
    if not journal.exists():
        return []
    records = [json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(record["key"], record["round"]) for record in records if record["type"] == "visit"]


def wait_for_visits(journal: Path, count: int, process: subprocess.Popen[str], timeout_s: float = 400) -> None:
    deadline = time.monotonic() + timeout_s
    while len(visits(journal)) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.long
def test_a_table_of_a_phone_through_every_fault(phone: Phone, tmp_path: Path) -> None:
    """The host killed with -9, the phone switched off and on, the cable pulled: nothing lost, nothing twice."""
    proxy = Proxy(phone.port)
    spec, journal = f"adb:127.0.0.1:{proxy.port}", tmp_path / "phone.jsonl"

    killed = start(command(spec, tmp_path))
    wait_for_visits(journal, 8, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = visits(journal)
    deadline = time.monotonic() + 300
    while phone.text("data/local/fixed_performance_mode") != "false":  # set back without the host
        assert time.monotonic() < deadline
        time.sleep(0.2)

    process = start(command(spec, tmp_path))
    wait_for_visits(journal, len(before) + 8, process)
    phone.restart()
    wait_for_visits(journal, len(before) + 20, process)
    proxy.cut()
    out, err = process.communicate(timeout=900)
    proxy.close()

    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["ok"] == document["ops"] == 96
    found = visits(journal)
    assert found[: len(before)] == before
    log, _ = read_journal(journal)
    assert sorted(set(found)) == sorted((key, 0) for key in log.visits)
    assert [len(kept) for kept in log.visits.values()] == [1] * 96
    # Nothing is measured twice but what was measured while the device had drifted, as one on a busy machine does.
    assert len(found) == 96 + log.n_repeated
    with (tmp_path / "phone.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["status"] == "ok" and float(row["median_ms"]) > 0 for row in rows)
    metadata = json.loads((tmp_path / "phone.json").read_text())
    assert metadata["device"]["model"] == "Pixel Sim"
    assert phone.text("data/local/fixed_performance_mode") == "false"
    assert phone.text("data/local/stay_on") == "false"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_ctrl_c_sets_the_state_back_and_the_journal_stays(phone: Phone, tmp_path: Path, number: int, code: int) -> None:
    process = start(command(phone.spec, tmp_path))
    wait_for_visits(tmp_path / "phone.jsonl", 3, process)
    assert phone.text("data/local/fixed_performance_mode") == "true"
    process.send_signal(number)
    _out, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "run the same command again" in err
    assert phone.text("data/local/fixed_performance_mode") == "false"
    assert phone.text("data/local/stay_on") == "false"
    assert len(visits(tmp_path / "phone.jsonl")) >= 3


def test_removing_leaves_nothing_on_the_phone(phone: Phone, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ofa_profiler.cli.profile", "--device", phone.spec, "--remove-from-device"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((phone.root / "data/local/tmp").iterdir()) == []
