"""The Python for phones: brought to an emulated phone, and measuring there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kits import QUICK, STUB_NUMPY, STUB_RUNTIME, bytes_model
from support.phones import Phone, packed, shell_to
from support.proxy import Proxy
from support.sshd import free_port

from ofa_profiler.devices import DeviceOptions
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android import install_python as phone_python
from ofa_profiler.devices.android.device import AdbDevice
from ofa_profiler.devices.android.install_python import install_python
from ofa_profiler.devices.android.python_bundle import Bundle, read_bundle
from ofa_profiler.errors import DeviceError, TransientDeviceError, UploadInterrupted
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure


@pytest.fixture(autouse=True)
def private_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Phone]:
    """A phone that has the bundle."""
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        with contextlib.closing(shell_to(phone.spec)) as shell:
            install_python(shell, bundle, ROOT)
        yield phone


@pytest.fixture
def measuring_phone(phone: Phone, bundle: Bundle) -> Phone:
    """... and with it a runtime that needs no time."""
    library = phone.root / ROOT[1:] / bundle.name / "lib/python3.11"
    (library / "onnxruntime.py").write_text(STUB_RUNTIME)
    (library / "numpy.py").write_text(STUB_NUMPY)
    return phone


@pytest.fixture
def shell(phone: Phone) -> Iterator[AdbShell]:
    with contextlib.closing(shell_to(phone.spec)) as shell:
        yield shell


def leftovers(phone: Phone) -> list[Path]:
    return list((phone.root / ROOT[1:]).glob(".incoming-*"))


@pytest.mark.slow
def test_it_runs_there_and_can_start_itself(shell: AdbShell, bundle: Bundle) -> None:
    python = install_python(shell, bundle, ROOT)
    code = (
        "import ctypes, hashlib, json, os, ssl, subprocess, sys, tempfile\n"
        "again = subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True).stdout.decode()\n"
        "print(json.dumps([again.strip(), os.path.expanduser('~'), tempfile.gettempdir(), sys.argv[1]]))"
    )
    done = shell.run([python, "-c", code, "$(id) é"])
    assert done.stdout.decode().strip() == f'["42", "{ROOT}", "{ROOT}", "$(id) \\u00e9"]', done.stderr


@pytest.mark.slow
def test_it_is_brought_once(shell: AdbShell, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    opened = AdbShell.open
    monkeypatch.setattr(AdbShell, "open", lambda self, line: (sent.append(line), opened(self, line))[1])
    install_python(shell, bundle, ROOT)
    assert len(sent) == 1
    assert "tar" not in sent[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "SHA256SUMS",
        pytest.param("lib/libc.so.6", marks=pytest.mark.long),
        pytest.param("lib/python3.11/json/__init__.py", marks=pytest.mark.long),
    ],
)
def test_damage_is_repaired(phone: Phone, bundle: Bundle, name: str) -> None:
    """What is damaged makes Python fail, and a Python that fails is looked at."""
    path = phone.root / ROOT[1:] / bundle.name / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with AdbDevice(phone.spec, DeviceOptions()) as device:
        assert device.describe().model == "Pixel Sim"
    with tarfile.open(bundle.path) as archive:
        original = archive.extractfile(name)
        assert original is not None
        assert path.read_bytes() == original.read()
    assert not leftovers(phone)


@pytest.mark.long
def test_a_push_that_is_cut_many_times_goes_on_where_it_was(phone: Phone, bundle: Bundle) -> None:
    """More often than there are tries, and each time before the whole could have passed."""
    proxy = Proxy(phone.port)
    proxy.life = 1_600_000
    told: list[str] = []
    device = AdbDevice(f"adb:127.0.0.1:{proxy.port}", DeviceOptions(tell=told.append))
    device.root = f"{ROOT}/cut"
    with contextlib.closing(proxy), device:
        assert device.describe().model == "Pixel Sim"
        assert proxy.accepted > bundle.path.stat().st_size // (proxy.life + (1 << 17)) >= 6
        assert proxy.passed < bundle.path.stat().st_size + 8 * (1 << 20)
    assert len([line for line in told if "MB remain" in line]) >= 4
    folder = phone.root / ROOT[1:] / "cut"
    sums = (folder / bundle.name / "SHA256SUMS").read_text().splitlines()
    for sha256, name in (line.split("  ", 1) for line in sums):
        assert hashlib.sha256((folder / bundle.name / name).read_bytes()).hexdigest() == sha256
    assert not list(folder.glob("*.part"))


@pytest.fixture
def small_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Sent in six pieces; its Python says hello."""
    monkeypatch.setattr(phone_python, "_PIECE_BYTES", 100_000)
    return read_bundle(packed(tmp_path, {"bin/python3": b"echo hello\n", "lib/x": random.Random(0).randbytes(550_000)}))


@pytest.mark.slow
def test_a_push_sends_what_was_cut_off_and_no_more(phone: Phone, small_bundle: Bundle) -> None:
    root, cuts, left = f"{ROOT}/small", 0, [1_000_000]
    proxy = Proxy(phone.port)
    with contextlib.closing(proxy):
        while cuts < 20:
            proxy.cut_after = proxy.passed + 230_000
            with contextlib.closing(shell_to(f"adb:127.0.0.1:{proxy.port}")) as shell:
                try:
                    python = install_python(shell, small_bundle, root)
                except UploadInterrupted as error:
                    cuts += 1
                    left.append(error.remaining)
                    continue
                assert shell.run(["sh", python]).stdout == b"hello\n"
                break
    assert 2 <= cuts <= 4
    assert left == sorted(set(left), reverse=True)
    assert [path.name for path in (phone.root / root[1:]).iterdir()] == [small_bundle.name]


@pytest.mark.slow
def test_pieces_that_are_damaged_are_not_believed(phone: Phone, small_bundle: Bundle, shell: AdbShell) -> None:
    """An error that may be tried again, and then all is sent again."""
    root = f"{ROOT}/damaged"
    name = f"{small_bundle.name}-{hashlib.sha256(small_bundle.path.read_bytes()).hexdigest()[:16]}.part"
    folder = phone.root / root[1:] / name
    folder.mkdir(parents=True)
    (folder / "000002").write_bytes(bytes(100_000))
    for path in folder.parent, folder, folder / "000002":
        os.chown(path, 2000, 2000)
    with pytest.raises(TransientDeviceError, match="could not be installed on the phone"):
        install_python(shell, small_bundle, root)
    assert not list(folder.parent.iterdir())
    python = install_python(shell, small_bundle, root)
    assert shell.run(["sh", python]).stdout == b"hello\n"
    assert [path.name for path in folder.parent.iterdir()] == [small_bundle.name]


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, bundle: Bundle) -> None:
    with Phone(tmp_path) as phone:
        phone.kill()
        small = phone.root / "data/local/tmp"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,uid=2000,gid=2000", "tmpfs", str(small)], check=True)
        try:
            phone.start()
            shell = shell_to(phone.spec)
            with contextlib.closing(shell), pytest.raises(DeviceError, match="storage of the phone is full") as caught:
                install_python(shell, bundle, ROOT)
            assert not isinstance(caught.value, TransientDeviceError)
            assert not list((phone.root / ROOT[1:]).iterdir())
        finally:
            phone.kill()
            subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.slow
def test_a_phone_of_another_processor_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    with Phone(tmp_path) as phone:
        uname = phone.root / "system/bin/uname"
        uname.unlink()
        uname.write_text("#!/system/bin/sh\necho armv8l\n")
        uname.chmod(0o755)
        with contextlib.closing(shell_to(phone.spec)) as shell, pytest.raises(DeviceError, match="armv8l"):
            install_python(shell, bundle, ROOT)


# --- measuring there, with a runtime that needs no time -----------------------------------------------

SYSTEM = DeviceOptions(runtime_on_board="system")


@pytest.mark.slow
def test_ops_are_measured_in_the_state_for_it(measuring_phone: Phone, tmp_path: Path) -> None:
    phone = measuring_phone
    models = [bytes_model(tmp_path / "models", f"op {number} $(id) 'é", b"ok %d" % number) for number in range(3)]
    models.append(bytes_model(tmp_path / "models", "crashes", b"crash"))
    seen: list[str] = []

    def watch(_progress: MeasuringProgress) -> None:
        seen.append(phone.text("data/local/fixed_performance_mode"))

    with AdbDevice(phone.spec, SYSTEM) as device:
        results = measure(device, models, QUICK, journal=tmp_path / "j.jsonl", progress=watch)
    assert [result.status for result in results.values()] == ["ok"] * 3 + ["failed"]
    assert set(seen) == {"true"}
    assert phone.text("data/local/fixed_performance_mode") == "false"
    assert phone.text("data/local/stay_on") == "false"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "hot", "cool", "words"),
    [
        pytest.param("sys/class/thermal/thermal_zone0/temp", "96000", "41000", "96 C", marks=pytest.mark.slow),
        ("data/local/thermal_status", "3", "0", "thermal status 3"),
    ],
)
def test_a_hot_phone_cools_down_first(
    measuring_phone: Phone, tmp_path: Path, path: str, hot: str, cool: str, words: str
) -> None:
    phone = measuring_phone
    models = [bytes_model(tmp_path / "models", "op", b"ok")]
    waited: list[str] = []

    def cool_down(progress: MeasuringProgress) -> None:
        if progress.waiting:
            waited.append(progress.waiting)
            assert not progress.visits
            (phone.root / path).write_text(cool + "\n")

    (phone.root / path).write_text(hot + "\n")
    with AdbDevice(phone.spec, SYSTEM) as device:
        results = measure(device, models, QUICK, journal=tmp_path / "j.jsonl", progress=cool_down)
    assert len(waited) == 1
    assert words in waited[0]
    assert results["op"].ok
    records = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert records[1]["fixed_performance_mode"] is True
    assert not any("governor" in note for note in records[1]["uncontrolled"])
    assert records[-1]["measured_hot"] is None


@pytest.mark.slow
def test_a_phone_that_restarts_while_it_measures_loses_nothing(measuring_phone: Phone, tmp_path: Path) -> None:
    phone = measuring_phone
    models = [bytes_model(tmp_path / "models", f"op {number}", b"ok %d" % number) for number in range(30)]
    restarted: list[int] = []

    def restart_once(progress: MeasuringProgress) -> None:
        if progress.visits == 10 and not restarted:
            restarted.append(1)
            phone.restart()

    with AdbDevice(phone.spec, SYSTEM) as device:
        results = measure(device, models, QUICK, journal=tmp_path / "j.jsonl", progress=restart_once)
    assert restarted
    assert [result.status for result in results.values()] == ["ok"] * 30
    lines = [line for line in (tmp_path / "j.jsonl").read_text().splitlines() if '"visit"' in line]
    assert len(lines) == len(set(lines))
    assert phone.text("data/local/fixed_performance_mode") == "false"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", pytest.param("stall", marks=pytest.mark.long)])
def test_a_link_that_breaks_while_it_measures_loses_nothing(measuring_phone: Phone, tmp_path: Path, fault: str) -> None:
    phone = measuring_phone
    models = [bytes_model(tmp_path / "models", f"op {number}", b"ok %d" % number) for number in range(30)]
    proxy = Proxy(phone.port)
    done: list[int] = []

    def break_once(progress: MeasuringProgress) -> None:
        if progress.visits == 10 and not done:
            done.append(1)
            if fault == "cut":
                proxy.cut()
            else:
                proxy.held = True
                threading.Timer(70, lambda: setattr(proxy, "held", False)).start()

    with contextlib.closing(proxy), AdbDevice(f"adb:127.0.0.1:{proxy.port}", SYSTEM) as device:
        results = measure(device, models, QUICK, journal=tmp_path / "j.jsonl", progress=break_once)
    assert done
    assert [result.status for result in results.values()] == ["ok"] * 30


class DamagedCommand:
    """Changes a letter in the middle of what comes at once of the command line `number`."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.done = False

    def __call__(self, data: bytes, upstream: bool) -> bytes:
        start = data.find(b"shell,v2,raw:") if upstream else -1
        if start < 0:
            return data
        self.left -= 1
        if self.left != 0:
            return data
        self.done = True
        end = data.find(b"\0", start)
        at = (start + (end if end >= 0 else len(data))) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# The 1st looks for Python, the 2nd asks what is there, the 3rd keeps the state, the 4th asks what is missing,
# the 5th sends it, the 6th starts the agent.
@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 7))
def test_a_command_line_that_is_damaged_costs_another_try(measuring_phone: Phone, tmp_path: Path, number: int) -> None:
    """Nothing guards it on the way: it fails like a wrong one, and only what fails twice is wrong."""
    models = [bytes_model(tmp_path / "models", f"op {n}", b"ok %d" % (10 * number + n)) for n in range(3)]
    proxy = Proxy(measuring_phone.port)
    damage = DamagedCommand(number)
    proxy.damage = damage
    with contextlib.closing(proxy), AdbDevice(f"adb:127.0.0.1:{proxy.port}", SYSTEM) as device:
        results = measure(device, models, QUICK, journal=tmp_path / "j.jsonl")
    assert damage.done
    assert [result.status for result in results.values()] == ["ok"] * 3
    assert measuring_phone.text("data/local/fixed_performance_mode") == "false"


@pytest.mark.slow
def test_a_phone_that_is_full_says_so_and_goes_on_when_it_is_not(
    measuring_phone: Phone, bundle: Bundle, tmp_path: Path
) -> None:
    models = [bytes_model(tmp_path / "models", f"op {number}", b"ok %d" % number) for number in range(30)]
    journal = tmp_path / "j.jsonl"
    with Phone(tmp_path) as phone:
        phone.kill()
        small = phone.root / "data/local/tmp"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,uid=2000,gid=2000", "tmpfs", str(small)], check=True)
        try:
            root = phone.root / ROOT[1:]
            root.mkdir()
            os.chown(root, 2000, 2000)
            subprocess.run(["cp", "-a", str(measuring_phone.root / ROOT[1:] / bundle.name), str(root)], check=True)
            phone.start()
            hog = small / "photos"

            def fill(progress: MeasuringProgress | None = None) -> None:
                if progress is None or progress.visits >= 10:
                    with contextlib.suppress(OSError), hog.open("ab", buffering=0) as file:
                        while True:
                            file.write(bytes(4096))

            with AdbDevice(phone.spec, SYSTEM) as device:
                with pytest.raises(DeviceError, match="No space left on device") as caught:
                    measure(device, models, QUICK, journal=journal, progress=fill)
                assert not isinstance(caught.value, TransientDeviceError)
                assert str(caught.value).isprintable()
            assert phone.text("data/local/fixed_performance_mode") == "false"
            assert phone.text("data/local/stay_on") == "false"
            fill()
            with (
                pytest.raises(DeviceError, match=r"full|No space|cannot be saved") as caught,
                AdbDevice(phone.spec, SYSTEM) as device,
            ):
                measure(device, models, QUICK, journal=journal, progress=fill)
            assert not isinstance(caught.value, TransientDeviceError)
            assert str(caught.value).isprintable()
            assert phone.text("data/local/fixed_performance_mode") in ("", "false")
            hog.unlink()
            with AdbDevice(phone.spec, SYSTEM) as device:
                results = measure(device, models, QUICK, journal=journal)
            assert [result.status for result in results.values()] == ["ok"] * 30
            lines = [line for line in journal.read_text().splitlines() if '"visit"' in line]
            assert len(lines) == len(set(lines))
        finally:
            phone.kill()
            subprocess.run(["umount", "--lazy", str(small)], check=True)
