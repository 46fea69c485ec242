"""What a phone without Python reports through its shell, and what may be believed of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.phones import Phone, shell_to
from support.sshd import free_port

from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android.benchmark_runner import why_not_pinned
from ofa_profiler.devices.android.facts import _usable_cores, core_list, describe_phone, phone_heat, phone_state


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0", {0}),
        ("0-3,6", {0, 1, 2, 3, 6}),
        ("0-1, 4-5", {0, 1, 4, 5}),
        ("0-7:2/4", {0, 1, 4, 5}),
        *((text, None) for text in ("", "a", "3-0", "-1", "0-", "0-3:1/0", "0-3:5/4", "٣", "0;1")),
    ],
)
def test_lists_of_cores(text: str, cores: set[int] | None) -> None:
    assert core_list(text) == cores


@given(st.sets(st.integers(0, 300), min_size=1))
def test_any_set_of_cores_is_read_as_the_kernel_writes_it(cores: set[int]) -> None:
    starts = sorted(core for core in cores if core - 1 not in cores)
    ends = sorted(core for core in cores if core + 1 not in cores)
    written = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
    assert core_list(written) == cores


@given(st.text(max_size=20))
def test_any_text_is_a_list_of_cores_or_none(text: str) -> None:
    assert core_list(text) is None or core_list(text)


@pytest.mark.parametrize(
    ("facts", "cores"),
    [
        ({}, [0, 1, 7]),
        ({"online": "0-3"}, [0, 1]),
        ({"online": "0-7", "permitted": "1-7"}, [1, 7]),
        ({"core.7": "0"}, [0, 1]),
        ({"online": "what", "permitted": ""}, [0, 1, 7]),
        ({"online": "2-3"}, []),
    ],
)
def test_cores_that_are_off_or_not_permitted_are_not_used(facts: dict[str, str], cores: list[int]) -> None:
    assert _usable_cores({"core.0": "1", "core.1": "1", "core.7": "1", **facts}) == cores


# --- on a phone ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        yield phone


@pytest.fixture
def shell(phone: Phone) -> Iterator[AdbShell]:
    with contextlib.closing(shell_to(phone.spec)) as shell:
        yield shell


def test_thermal_zones_come_with_their_types(phone: Phone, shell: AdbShell) -> None:
    zones = {"1": ("soc", "100"), "2": ("INT3400 Thermal", "20000"), "3": (None, "30000"), "4": ("cpu0", "-127000")}
    for number, (kind, heat) in zones.items():
        folder = phone.root / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir()
        (folder / "temp").write_text(heat + "\n")
        if kind is not None:
            (folder / "type").write_text(kind + "\n")
    found = phone_heat(shell)["zones"]
    assert found == phone_state(shell, [0])["zones"]
    assert [(kind, number) for _, kind, number in found] == [
        ("cpu-thermal", 41000),
        ("soc", 100),
        ("INT3400 Thermal", 20000),
        (None, 30000),
    ]


def test_a_core_that_is_off_is_not_among_the_usable_ones(phone: Phone, shell: AdbShell) -> None:
    cores = phone.root / "sys/devices/system/cpu"
    (cores / "cpu5/cpufreq").mkdir(parents=True)
    (cores / "cpu5/cpufreq/cpuinfo_max_freq").write_text("3187200\n")
    described = describe_phone(shell)
    assert described["cores_allowed"] == [0, 1]
    assert described["max_mhz"]["5"] == 3187.2
    (cores / "online").write_text("0\n")
    assert describe_phone(shell)["cores_allowed"] == [0]
    (cores / "online").unlink()
    (cores / "cpu1/online").write_text("0\n")
    assert 1 not in describe_phone(shell)["cores_allowed"]


def test_pinning_is_tried(shell: AdbShell) -> None:
    assert why_not_pinned(shell, []) == ""
    assert why_not_pinned(shell, [0]) == ""
    assert "cores 61, 62 cannot be used (taskset" in why_not_pinned(shell, [61, 62])
