"""Whose phone and which: keys, names, and the state that a phone is held in."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.phones import Phone, shell_to
from support.proxy import Proxy
from support.sshd import free_port

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.adb import direct as adb_direct
from ofa_profiler.devices.adb.connect import attached_phones, list_phones
from ofa_profiler.devices.adb.keys import load_signer, public_key_text
from ofa_profiler.devices.adb.server import AttachedPhone, find_server
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android import state as android_state
from ofa_profiler.devices.android.device import AdbDevice
from ofa_profiler.devices.android.state import AndroidState, restore_state
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError

# --- keys ---------------------------------------------------------------------------------------------


def test_a_key_is_made_for_us_alone_and_is_the_same_afterwards(tmp_path: Path) -> None:
    path = tmp_path / ".android" / "adbkey"
    signer = load_signer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = path.with_name("adbkey.pub").read_text()
    assert public.endswith("\n")
    assert public.count("\n") == 1
    assert public.strip() == signer.GetPublicKey() == load_signer(path).GetPublicKey()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["adbkey", "adbkey.pub"]


def test_the_public_key_is_what_google_s_adb_makes_of_it(tmp_path: Path) -> None:
    program = shutil.which("adb")
    if program is None:
        pytest.skip("needs Google's adb (apt-get install adb)")
    path = tmp_path / "adbkey"
    subprocess.run([program, "keygen", str(path)], check=True, capture_output=True)
    assert public_key_text(path).split()[0] == path.with_name("adbkey.pub").read_text().split()[0]
    load_signer(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_broken_key_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adbkey"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not an RSA key"):
        load_signer(path)


@pytest.mark.slow
def test_an_unauthorized_phone_says_what_to_do_and_works_once_allowed(
    tmp_path: Path, private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_direct, "ACCEPT_TIMEOUT_S", 2.0)
    told: list[str] = []
    with Phone(tmp_path, "--auth") as phone:
        with pytest.raises(DeviceError, match="look at its screen, accept") as caught:
            AdbDevice(phone.spec, DeviceOptions(tell=told.append)).connect()
        assert not isinstance(caught.value, TransientDeviceError)
        assert len(told) == 1
        assert "accept" in told[0]
        phone.allow(private_home / ".android" / "adbkey.pub")
        with contextlib.closing(shell_to(phone.spec)) as shell:
            assert shell.run(["echo", "hi"]).stdout == b"hi\n"


# --- which phone --------------------------------------------------------------------------------------


def test_adb_alone_lists_the_phones_of_the_server(phone: Phone, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
    with pytest.raises(UsageError, match=phone.spec):
        open_device("adb:")


def test_states_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    phones = {"ABC": "device", "DEF": "unauthorized", "\x1b[31mevil\n" * 3: "weird"}
    found = [AttachedPhone(serial, state) for serial, state in phones.items()]
    monkeypatch.setattr("ofa_profiler.devices.adb.connect.attached_phones", lambda: found)
    words = list_phones()
    assert "adb:ABC," in words
    assert "adb:DEF (not authorized yet" in words
    assert words.isprintable()


def test_without_server_and_usb_it_says_how_to_attach_one() -> None:
    assert find_server() is None
    words = list_phones()
    assert "adb:HOST:PORT" in words
    assert "\n" not in words


@pytest.mark.parametrize("spec", ["adb:host:", "adb::5555", "adb:host:0", "adb:host:70000", "adb:host:५"])
def test_an_address_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="adb:HOST:PORT"):
        open_device(spec).describe()


def test_a_serial_that_is_not_attached(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
    with pytest.raises(DeviceError, match="no such phone is attached"):
        open_device("adb:NOSUCH").describe()
    assert [found.state for found in attached_phones()] == ["device"]


def test_a_port_where_nothing_listens_is_told_at_once() -> None:
    with pytest.raises(DeviceError, match="connection refused") as no:
        open_device(f"adb:127.0.0.1:{free_port()}").describe()
    assert not isinstance(no.value, TransientDeviceError), "nothing to wait for"


# --- the phone's state --------------------------------------------------------------------------------

FIXED, AWAKE = "data/local/fixed_performance_mode", "data/local/stay_on"


def state(phone: Phone) -> tuple[str, str]:
    return phone.text(FIXED), phone.text(AWAKE)


def wait_for(condition: Any, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_state_is_set_and_set_back(shell: AdbShell, phone: Phone) -> None:
    with AndroidState(shell, ROOT) as held:
        assert held.settings == {"fixed_performance_mode": True, "stay_awake": True}
        assert state(phone) == ("true", "true")
    assert state(phone) == ("false", "false")
    assert not (phone.root / ROOT[1:] / "state-before").exists()


def test_the_state_is_set_back_when_the_connection_is_lost(phone: Phone) -> None:
    proxy = Proxy(phone.port)
    with contextlib.closing(proxy):
        shell = shell_to(f"adb:127.0.0.1:{proxy.port}")
        with contextlib.closing(shell), AndroidState(shell, ROOT):
            assert state(phone) == ("true", "true")
            proxy.cut()
            wait_for(lambda: state(phone) == ("false", "false"))


@pytest.mark.slow
def test_the_state_is_set_back_when_nothing_more_is_heard_of_us(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wireless link that is gone, or a computer without power: nobody tells the phone."""
    monkeypatch.setattr(android_state, "_HEARTBEAT_S", 0.5)
    monkeypatch.setattr(android_state, "_PATIENCE_S", 5)
    proxy = Proxy(phone.port)
    with contextlib.closing(proxy):
        shell = shell_to(f"adb:127.0.0.1:{proxy.port}")
        with contextlib.closing(shell), AndroidState(shell, ROOT):
            time.sleep(8)  # longer than it waits
            assert state(phone) == ("true", "true")
            proxy.stall()
            wait_for(lambda: state(phone) == ("false", "false"))
            proxy.cut()  # nothing more to wait for on our side either


def test_the_state_is_set_back_by_the_next_run_when_the_phone_went_off(own_phone: Phone) -> None:
    with contextlib.closing(shell_to(own_phone.spec)) as shell, AndroidState(shell, ROOT):
        own_phone.kill()
    assert state(own_phone) == ("true", "true")
    own_phone.start()
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        with AndroidState(shell, ROOT):
            assert state(own_phone) == ("true", "true")
        assert state(own_phone) == ("false", "false")


def test_a_run_that_comes_after_takes_the_state_over(phone: Phone) -> None:
    """The phone may notice late, or never, that an earlier connection is dead."""
    with contextlib.closing(shell_to(phone.spec)) as first, contextlib.closing(shell_to(phone.spec)) as second:
        earlier, later = AndroidState(first, ROOT), AndroidState(second, ROOT)
        with later:
            pass
        earlier.__enter__()
        later.__enter__()
        earlier.__exit__()
        assert state(phone) == ("true", "true")
        later.__exit__()
        assert state(phone) == ("false", "false")
        assert not list((phone.root / ROOT[1:]).glob("state-before*"))


def test_removing_sets_the_state_back_and_leaves_nothing(own_phone: Phone) -> None:
    with contextlib.closing(shell_to(own_phone.spec)) as shell, AndroidState(shell, ROOT):
        own_phone.kill()
    own_phone.start()
    AdbDevice(own_phone.spec, DeviceOptions()).remove()
    assert state(own_phone) == ("false", "false")
    assert not (own_phone.root / ROOT[1:]).exists()


def test_a_system_without_the_modes_is_measured_all_the_same(own_phone: Phone) -> None:
    for name in ("cmd", "svc"):
        (own_phone.root / "system/bin" / name).unlink()
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        with AndroidState(shell, ROOT) as held:
            assert held.settings == {"fixed_performance_mode": False, "stay_awake": False}
        restore_state(shell, ROOT)


def test_the_setting_for_staying_awake_gets_its_own_value_back(own_phone: Phone) -> None:
    program = own_phone.root / "system/bin/settings"
    program.write_text(
        '#!/system/bin/sh\nf=/data/local/$3\ncase $1 in get) cat $f;; put) print -r -- "$4" > $f;; *) exit 1;; esac\n'
    )
    program.chmod(0o755)
    setting = own_phone.root / "data/local/stay_on_while_plugged_in"
    setting.write_text("6\n")
    os.chown(setting, 2000, 2000)
    with contextlib.closing(shell_to(own_phone.spec)) as shell, AndroidState(shell, ROOT):
        setting.write_text("7\n")
    assert setting.read_text() == "6\n"
