"""Phones that their serial number does not tell apart, and serial numbers that are hard to write."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adb_servers import AdbServerLike, Listed
from support.phones import Phone

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.adb import direct as adb_direct
from ofa_profiler.devices.adb.connect import list_phones
from ofa_profiler.devices.adb.server import AttachedPhone, _with_details
from ofa_profiler.devices.android.device import AdbDevice
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError

SERIAL = "0123456789ABCDEF"
TWINS = [
    Listed(SERIAL, transport_id=56),
    Listed(SERIAL, transport_id=57, details="usb:1-2 product:xyz model:xyz device:xyz"),
]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AdbServerLike]]:
    with contextlib.ExitStack() as stack:

        def add(phones: list[Listed], *, old: bool = False) -> AdbServerLike:
            fake = stack.enter_context(contextlib.closing(AdbServerLike(phones, old=old)))
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(fake.port))
            return fake

        yield add


def connect(spec: str) -> None:
    with contextlib.closing(AdbDevice(spec, DeviceOptions()).connect()) as shell:
        assert shell.run(["true"]).exit_code == 0


def test_phones_of_one_serial_are_listed_by_what_tells_them_apart(serve: Callable[..., AdbServerLike]) -> None:
    serve([*TWINS, Listed("OTHER", transport_id=3), Listed("(no serial number)", transport_id=9)])
    assert list_phones() == (
        "attached are adb:transport_id:9 ((no serial number) usb:1-1 model:xyz), "
        f"adb:transport_id:56 ({SERIAL} usb:1-1 model:xyz), adb:transport_id:57 ({SERIAL} usb:1-2 model:xyz), adb:OTHER"
    )


def test_a_transport_id_chooses_one(serve: Callable[..., AdbServerLike]) -> None:
    fake = serve(TWINS)
    connect("adb:transport_id:57")
    chosen = {request for request in fake.requests if request.startswith("host:transport")}
    assert chosen == {"host:transport-id:57"}
    with pytest.raises(TransientDeviceError, match=r"no phone has this transport id now .*adb:transport_id:56"):
        AdbDevice("adb:transport_id:5", DeviceOptions()).open_shell()


def test_their_serial_alone_is_refused_with_the_names_to_use(serve: Callable[..., AdbServerLike]) -> None:
    serve(TWINS)
    with pytest.raises(
        DeviceError, match=r"2 phones have this serial number: adb:transport_id:56 .*57.*name one"
    ) as no:
        connect(f"adb:{SERIAL}")
    assert not isinstance(no.value, TransientDeviceError)
    serve(TWINS, old=True)
    assert list_phones() == f"attached are adb:{SERIAL}, adb:{SERIAL}"
    with pytest.raises(DeviceError, match=r"2 phones have this serial number: .*; unplug all but one"):
        connect(f"adb:{SERIAL}")


@pytest.mark.parametrize("state", ["offline", "unauthorized", "no permissions (user in plugdev group; see [http://x])"])
@pytest.mark.parametrize("order", [1, -1])
def test_of_one_that_is_ready_and_one_that_is_not_the_ready_one_is_meant(
    state: str, order: int, serve: Callable[..., AdbServerLike]
) -> None:
    fake = serve([Listed(SERIAL, state, 8), Listed(SERIAL, "device", 57)][::order])
    connect(f"adb:{SERIAL}")
    assert "host:transport-id:57" in fake.requests
    with pytest.raises(TransientDeviceError, match=r"look at the phone|plug it in|reports the state"):
        AdbDevice("adb:transport_id:8", DeviceOptions()).open_shell()


def test_two_on_usb_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_direct, "usb_phones", lambda: iter([(SERIAL, None), ("B", None), (SERIAL, None)]))
    with pytest.raises(DeviceError, match=r"2 phones on USB have this serial number; run `adb start-server`"):
        connect(f"adb:{SERIAL}")
    with pytest.raises(DeviceError, match=r"no adb server listens on .*; start it there"):
        connect("adb:transport_id:57")


@pytest.mark.parametrize("name", ["transport_id:", "transport_id:x", "transport_id:-1", "transport_id:1:2"])
def test_a_transport_id_is_a_number(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected adb:transport_id:N"):
        open_device(f"adb:{name}")


def test_google_s_server_takes_a_transport_id(phone: Phone, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
    program = shutil.which("adb")
    assert program is not None
    listed = subprocess.run([program, "-P", str(server), "devices", "-l"], capture_output=True, text=True, check=True)
    found = re.search(r"transport_id:(\d+)", listed.stdout)
    assert found is not None
    with contextlib.closing(AdbDevice(f"adb:{found[0]}", DeviceOptions()).connect()) as shell:
        assert shell.run(["echo", "hi"]).stdout == b"hi\n"
    with pytest.raises(DeviceError, match=f"no phone has this transport id now .*{re.escape(phone.spec)}"):
        connect("adb:transport_id:4711")


# --- serial numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("serial", ["ZUG 5S", " GS1012", "adb-XXX (2)._adb-tls-connect._tcp", "a device b", "é ü "])
def test_a_serial_with_spaces_is_listed_as_a_shell_takes_it(serial: str, serve: Callable[..., AdbServerLike]) -> None:
    fake = serve([Listed(serial, transport_id=4), Listed("B")])
    assert f"'adb:{serial}'" in list_phones()
    connect(f"adb:{serial}")
    assert f"host:transport:{serial}" in fake.requests


SERIALS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=30)


@given(SERIALS, st.sampled_from(["device", "offline", "no permissions (a; see [x])"]), st.integers(0, 10**18))
def test_a_line_is_split_where_the_serial_ends(serial: str, state: str, number: int) -> None:
    """Whatever the serial number contains."""
    listed = Listed(serial, state, number)
    found = _with_details(AttachedPhone(serial, state), listed.long.removesuffix("\n"))
    assert found == AttachedPhone(serial, state, str(number), "usb:1-1 model:xyz")
    assert _with_details(AttachedPhone(serial, "recovery"), listed.long).transport_id == ""
