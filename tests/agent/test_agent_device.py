"""What the agent tells about the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kits import QUICK, bytes_model, make_kit, records, run_agent, stub_runtime

from device_agents.ofa_agent import cores, facts, heat, reading
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.records import Device

JETSON = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 19:57:35 2023"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a small system tool in front of all others, which prints what it is told, and ends as it is told."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()

    def add(name: str, output: str, errors: str = "", exit_code: int = 0) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\ncat >&2 <<'END'\n{errors}\nEND\nexit {exit_code}\n")
        path.chmod(0o755)

    return add


def test_describe_gives_null_for_what_it_cannot_read(monkeypatch):
    monkeypatch.setattr(reading, "text", lambda path: None)
    monkeypatch.setattr(reading, "output_of", lambda *command, **more: None)
    monkeypatch.setattr(heat.glob, "glob", lambda pattern: ["/sys/class/thermal/thermal_zone0/temp"])
    described = facts.describe()
    assert described["model"] is None
    assert described["soc"] is None
    assert (described["jetson_release"], described["power_mode"]) == (None, None)
    assert set((described["max_mhz"] or {}).values()) <= {None}
    assert facts.state([0]) == {
        "mhz": {"0": None},
        "temperature_c": None,
        "load_average": facts.state([0])["load_average"],
        "throttled": None,
        "firmware_flags": None,
    }


def test_reads_a_board(monkeypatch):
    files = {
        "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0",
        "/proc/device-tree/compatible": "raspberrypi,5-model-b brcm,bcm2712",
        "/sys/class/thermal/thermal_zone0/temp": "51200",
        "/sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "/sys/class/thermal/thermal_zone1/temp": "nonsense",
        "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000",
        "/sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": "2400000",
        "/sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq": "2400000",
        "/sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "0",
    }
    monkeypatch.setattr(reading, "text", files.get)
    monkeypatch.setattr(heat.glob, "glob", lambda pattern: [name for name in files if "thermal" in name])
    assert facts.model_and_soc() == ("Raspberry Pi 5 Model B Rev 1.0", "brcm,bcm2712")
    assert cores.fastest_cores([0, 1, 2], 1) == [2]
    assert cores.fastest_cores([0, 1, 2], 2) == [1, 2]
    assert cores.fastest_cores([0, 1], 1) == [1]
    assert cores.max_mhz(1) == 2400
    assert facts.state([2])["temperature_c"] == 51.2
    assert facts.state([2])["mhz"] == {"2": None}


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("flags\t\t: fpu avx512f avx512_vnni\nbugs\t\t:", (True, True, False, False)),
        ("flags\t\t: fpu avx2 avx_vnni\nbugs\t\t:", (True, False, False, False)),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t:", (False, True, False, False)),
        ("Features\t: fp asimd asimddp i8mm\nCPU part\t: 0xd0b", (False, False, True, True)),
        # cores of two kinds: what only some of them have does not count
        ("Features\t: fp asimddp i8mm\n\nFeatures\t: fp asimddp\nCPU part\t: 0xd05", (False, False, True, False)),
        # 64 KiB are read: the last line of many cores is cut off
        ("flags\t\t: fpu avx512f avx512_vnni\nbugs\t\t:\nflags\t\t: fpu avx51", (True, True, False, False)),
        ("processor\t: 0\nhart\t: 1", (None, None, None, None)),
        (None, (None, None, None, None)),
    ],
)
def test_reads_the_instructions_for_8_bit_integers(cpuinfo, found, monkeypatch):
    monkeypatch.setattr(reading, "text", {"/proc/cpuinfo": cpuinfo}.get)
    assert tuple(facts.instructions()[name] for name in ("vnni", "avx512", "dotprod", "i8mm")) == found
    described = facts.describe()
    assert {name: described[name] for name in facts.INSTRUCTIONS} == facts.instructions()


def test_two_threads_of_one_core_come_last(monkeypatch):
    siblings = {
        f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": f"{core % 2},{core % 2 + 2}"
        for core in range(4)
    }
    monkeypatch.setattr(reading, "text", siblings.get)
    assert cores.fastest_cores([0, 1, 2, 3], 2) == [2, 3]
    assert cores.fastest_cores([0, 1, 2, 3], 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("printed", "mode"),
    [
        ("NV Power Mode: MAXN\n0", "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2", "MODE_15W_6CORE"),
        ("nothing that is known", "3"),
        ("", "3"),
    ],
)
def test_reads_a_jetson(printed, mode, monkeypatch, tools):
    files = {
        "/proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit",
        "/etc/nv_tegra_release": JETSON,
        "/var/lib/nvpmodel/status": "pmode:0003 fmode:quiet",
    }
    monkeypatch.setattr(reading, "text", files.get)
    tools("nvpmodel", printed)
    described = facts.describe()
    assert described["model"] == "NVIDIA Jetson Xavier NX Developer Kit"
    assert (described["jetson_release"], described["power_mode"]) == ("R35.4.1", mode)


@pytest.mark.parametrize(
    ("flags", "slow", "note"),
    [
        ("0x0", None, None),
        ("0x50005", "the firmware reports throttled=0x50005", "the power supply is too weak (now)"),
        ("0x10000", None, "the power supply is too weak (since the start)"),
        ("0x80008", "the firmware reports throttled=0x80008", None),
        ("rubbish", None, None),
    ],
)
def test_reads_what_a_raspberry_pi_says_of_its_supply(flags, slow, note, tools):
    tools("vcgencmd", f"throttled={flags}")
    state = facts.state([0])
    assert state["throttled"] == slow
    assert state["firmware_flags"] == (None if flags == "rubbish" else flags)
    device = {**facts.describe(), "cores_used": [0], "governor": "performance", "fixed_performance_mode": False}
    notes = [text for text in facts.uncontrolled({**device, "before": state}) if "supply" in text]
    assert len(notes) == (note is not None)
    assert all(text.startswith(str(note)) for text in notes)


EMC = "NVPM ERROR: Error opening /sys/kernel/nvpmodel_emc_cap/emc_iso_cap: 13"
CONF = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_30W_ALL >\n< PM_CONFIG DEFAULT=0 >"


@pytest.mark.parametrize(
    ("printed", "code", "files", "mode", "note"),
    [
        ("NV Power Mode: 5W\n1", 0, {}, "5W", None),
        ("NV Power Mode: 5W\n1", 255, {}, "5W", "the power mode is what nvpmodel printed, but nvpmodel failed"),
        ("", 255, {"status": "pmode:0003"}, "3", "the power mode is the stored one: nvpmodel failed"),
        ("", 255, {"status": "pmode:0003", "conf": CONF}, "MODE_30W_ALL", "the power mode is the stored one"),
        ("", 255, {}, None, "the power mode cannot be read: nvpmodel failed"),
        ("NV Power Mode:", 0, {}, None, "the power mode cannot be read: nvpmodel failed"),
    ],
)
def test_of_a_tool_that_fails_is_taken_what_it_said(printed, code, files, mode, note, monkeypatch, tools):
    """Without root, nvpmodel prints the mode and ends with an error, or only the error."""
    names = {"status": "/var/lib/nvpmodel/status", "conf": "/etc/nvpmodel.conf"}
    monkeypatch.setattr(reading, "text", {names[name]: text for name, text in files.items()}.get)
    tools("nvpmodel", printed, EMC, code)
    described = facts.describe()
    assert described["power_mode"] == mode
    notes = [text for text in described["uncontrolled"] if "nvpmodel" in text]
    assert len(notes) == (note is not None)
    assert all(text.startswith(str(note)) and EMC in text and "may need root" in text for text in notes)


@pytest.mark.parametrize(
    ("output", "errors", "code", "why"),
    [
        ("VCHI initialization failed", "", 255, "add the user to the group video"),
        ("", "Can't open device file: /dev/vcio\nTry creating a device file with: sudo mknod", 1, "add the user to"),
        ("", "sh: /usr/bin/vcgencmd: Permission denied", 126, "add the user to the group video"),
        (
            'error=1 error_msg="Command not registered"',
            "",
            0,
            'vcgencmd says: error=1 error_msg="Command not registered"',
        ),
        ("", "", 1, "vcgencmd says nothing"),
        ("throttled=0x50000", "a warning", 0, None),
        ("throttled=0x0", "", 255, None),
    ],
)
def test_throttling_that_cannot_be_read_is_a_note(output, errors, code, why, tools):
    tools("vcgencmd", output, errors, code)
    described = facts.describe()
    notes = [text for text in described["uncontrolled"] if "throttling" in text]
    assert len(notes) == (why is not None)
    assert all(text.startswith(f"throttling cannot be read here: {why}") for text in notes)
    device = {**described, "cores_used": [0], "governor": "performance", "fixed_performance_mode": False}
    assert set(notes) <= set(facts.uncontrolled({**device, "before": facts.state([0])}))


def test_a_raspberry_pi_without_the_tool_is_told_to_install_it(monkeypatch):
    monkeypatch.setattr(reading, "run", lambda *command: None)
    monkeypatch.setattr(reading, "text", {"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"}.get)
    assert heat.firmware() == (None, "throttling cannot be read here: vcgencmd is not installed")
    monkeypatch.setattr(reading, "text", {"/proc/device-tree/model": "Radxa ROCK 5B"}.get)
    assert heat.firmware() == (None, None)


SAID = st.builds(reading.Said, st.none() | st.integers(0, 255), st.text(max_size=60), st.text(max_size=60))


@given(SAID | st.none())
def test_whatever_a_tool_says_is_a_value_or_a_note(said):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "run", lambda *command: said)
        patch.setattr(reading, "text", lambda path: None)
        flags, no_flags = heat.firmware()
        mode, no_mode = facts.power_mode()
    assert (flags, mode, no_flags, no_mode) == (None,) * 4 if said is None else True
    assert said is None or (flags is None) == (no_flags is not None)
    assert said is None or mode is not None or no_mode is not None
    assert not any("\n" in text for text in (mode, no_flags, no_mode) if text)


@given(st.integers(0, 0xFFFFFFFF), st.sampled_from(["", "\n", " \r\n"]))
def test_any_flags_are_read(flags, end):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "run", lambda *command: reading.Said(0, f"throttled=0x{flags:x}{end}", ""))
        assert heat.firmware() == (flags, None)


def test_what_cannot_be_read_reaches_the_table_of_a_run(tmp_path, tools):
    tools("vcgencmd", "VCHI initialization failed", "", 255)
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "op", b"run")], QUICK)
    environment = stub_runtime(tmp_path / "stub")
    (device,) = (r for r in records(run_agent(kit, env=environment).stdout) if r["type"] == "device")
    assert device["uncontrolled"].count("throttling cannot be read here: add the user to the group video") == 1


def test_a_measurement_does_not_go_on_in_another_power_mode(tmp_path, tools):
    tools("nvpmodel", "NV Power Mode: MAXN\n0")
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "op", b"run")], QUICK)
    environment = stub_runtime(tmp_path / "stub")
    (device,) = (r for r in records(run_agent(kit, env=environment).stdout) if r["type"] == "device")
    assert device["power_mode"] == "MAXN"
    log, _ = read_journal(kit / "results.jsonl")
    with pytest.raises(ValueError, match="another device or runtime than before \\(power_mode 'MAXN', now '10W'"):
        log.add(Device.from_json({**device, "power_mode": "10W"}))
