"""Thermal zones of real devices: what is believed, in which unit, and from when on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.ofa_agent import heat, reading
from device_agents.ofa_agent.machine import WorkerMachine
from device_agents.ofa_agent.zones import NO_TEMPERATURE, PROCESSOR, Thermometer


def hottest(*readings: dict[str, int]) -> list[float | None]:
    thermometer = Thermometer()
    return [
        thermometer.hottest_c([(f"zone {kind}", kind, number) for kind, number in zones.items()]) for zones in readings
    ]


BOARDS = {
    "Jetson Nano": (
        {"AO-therm": 41500, "CPU-therm": 34000, "GPU-therm": 31000, "PLL-therm": 31500, "PMIC-Die": 100000}
        | {"thermal-fan-est": 33000, "iwlwifi": 39000},
        34.0,
    ),
    "Jetson TX2": (
        {"BCPU-therm": 42500, "MCPU-therm": 42600, "GPU-therm": 41000, "PLL-therm": 42500, "Tboard_tegra": 40000}
        | {"Tdiode_tegra": 41250, "PMIC-Die": 100000, "thermal-fan-est": 41900},
        42.6,
    ),
    "Jetson Orin, GPU off": (
        {
            "cpu-thermal": 47400,
            "gpu-thermal": -256000,
            "cv0-thermal": -256000,
            "soc0-thermal": 46000,
            "tj-thermal": 48000,
        },
        48.0,
    ),
    "Snapdragon 660": (
        {"pm660-tz": 37000, "ibat-high": 150, "ibat-vhigh": 199, "vbat_adc": 4322, "vbat_low": 4322, "soc": 100}
        | {"battery": 33000, "cpu-1-0-usr": 41000, "gpu-usr": 38000, "cpu-1-step": 40000},
        41.0,
    ),
    "Snapdragon 8": (
        {"cpu-0-0-0": 44000, "cpuss-0": 43000, "gpuss-0": 40000, "pm8550-bcl-lvl0": 100, "socd": 97, "vph-lvl0": 120}
        | {"pm7250b-ibat-lvl0": 130, "xo-therm": 36000},
        44.0,
    ),
    "Snapdragon 801, in degrees": ({"tsens_tz_sensor0": 45, "tsens_tz_sensor9": 47, "pm8941_tz": 37000}, 47.0),
    "broken sensor": ({"tsens_tz_sensor4": 136, "tsens_tz_sensor0": 52}, 52.0),
    "MediaTek": (
        {"mtktscpu": 50600, "mtktspmic": 42000, "mtktspa": -127000, "mtktsbattery": 25000, "mtkts_bts1": 125000},
        50.6,
    ),
    "MediaTek, a read that failed": ({"mtktscpu": 0, "mtkts_bts1": 125000, "mtkts_bts0": 35000}, None),
    "Tensor": ({"BIG": 52000, "MID": 49000, "LITTLE": 47000, "G3D": 45000, "soc_therm": 40200, "battery": 33100}, 52.0),
    "Exynos": ({"exynos-therm": 46000, "therm_a": 127000}, 46.0),
    "Raspberry Pi": ({"cpu-thermal": 51540}, 51.54),
    "RK3588": (
        {"package-thermal": 50000, "bigcore0-thermal": 51000, "littlecore-thermal": 49500, "center-thermal": 48000}
        | {"npu-thermal": 48900},
        51.0,
    ),
    "RK3399": ({"soc-thermal": 96111, "gpu-thermal": 52000}, 96.111),
    "Amlogic": ({"soc_thermal": 61000, "ddr_thermal": 60000}, 61.0),
    "Pine64, in degrees": ({"cpu_thermal_zone": 65}, 65.0),
    "in tenths of a degree": ({"cpu_thermal": 655, "battery": 330}, 65.5),
    "laptop": (
        {
            "acpitz": 27800,
            "INT3400 Thermal": 20000,
            "SEN1": 34000,
            "x86_pkg_temp": 57000,
            "B0D4": 56000,
            "iwlwifi_1": 44000,
        }
        | {"pch_cannonlake": 49000, "TCPU": 56500},
        57.0,
    ),
    "virtual machine": ({"acpitz": 27800}, None),
    "nothing": ({}, None),
    "a zone of the battery only": ({"soc": 100}, None),
}


@pytest.mark.parametrize("board", BOARDS)
def test_what_a_board_reports_at_first(board: str) -> None:
    zones, degrees = BOARDS[board]
    assert hottest(zones, zones) == [degrees, degrees]


def test_a_zone_of_an_unknown_type_counts_once_it_has_moved() -> None:
    cold = {"cpu-thermal": 40000, "mystery": 99000, "constant": 100000, "PMIC-Die": 100000}
    assert hottest(cold, cold, {**cold, "mystery": 98500}, cold) == [40.0, 40.0, 98.5, 99.0]


def test_temperatures_of_a_processor_are_compared_with_each_other() -> None:
    """Before and after: another zone that counts from now on has not made it warmer."""
    thermometer = Thermometer()
    for heat_of_radio in 70000, 71000:
        zones = [("0", "CPU-therm", 34000), ("1", "iwlwifi", heat_of_radio)]
        assert thermometer.processor_c(zones) == 34.0
    assert thermometer.hottest_c(zones) == 71.0
    assert thermometer.processor_c(zones[1:]) == 71.0


def test_a_level_that_moves_is_no_temperature_beside_others_in_millidegrees() -> None:
    first = {"cpu-thermal": 40000, "charge": 100, "current": 950}
    assert hottest(first, {**first, "charge": 99, "current": 990}) == [40.0, 40.0]
    assert hottest({"ambient": 30}, {"ambient": 31}) == [None, 31.0], "all in degrees"


def test_waking_up_is_not_moving() -> None:
    """A sensor without power says 0 or -256; then it has its first value."""
    zones = ({"mystery": number} for number in (0, -256000, 100000, 127000, 100000))
    assert hottest(*zones) == [None] * 5


@pytest.mark.parametrize(
    "kind", ["soc", "SOC", "ibat-high", "ibat_vhigh", "vbat", "vbat_too_low", "bcl-lvl0", "PMIC-Die", "pmic"]
)
def test_what_is_never_a_temperature(kind: str) -> None:
    assert hottest({kind: 96000}, {kind: 97000}, {kind: 100}, {kind: 99}) == [None] * 4


@pytest.mark.parametrize(
    "kind", ["soc-thermal", "soc_thermal", "soc0-thermal", "soc_max", "cpu", "gpu0-thermal", "cluster0"]
)
def test_the_zones_of_a_processor_count_at_once(kind: str) -> None:
    assert hottest({kind: 96000}) == [96.0]


KINDS = st.one_of(
    st.sampled_from(sorted({kind for zones, _ in BOARDS.values() for kind in zones})), st.text(max_size=12), st.none()
)
ZONES = st.lists(st.tuples(st.sampled_from("abc"), KINDS, st.integers(-(10**6), 10**6)), max_size=5)


@given(st.lists(ZONES, max_size=5))
def test_a_temperature_is_one_of_a_zone_that_may_count(readings: list[list[tuple[str, str | None, int]]]) -> None:
    thermometer = Thermometer()
    for zones in readings:
        found = thermometer.hottest_c(zones)
        normal = [((kind or "").lower().replace("_", "-"), number) for _, kind, number in zones]
        credible = {
            value for kind, n in normal if not NO_TEMPERATURE.fullmatch(kind) for value in (n, n / 10, n / 1000)
        }
        assert found is None or (0 < found < 125 and found in credible)


@given(st.lists(ZONES, min_size=1, max_size=1), st.integers(2, 5))
def test_what_never_changes_counts_only_if_it_is_a_processor_s(
    readings: list[list[tuple[str, str | None, int]]], times: int
) -> None:
    thermometer = Thermometer()
    zones = [(f"{name}{place}", kind, number) for place, (name, kind, number) in enumerate(readings[0])]
    found = {thermometer.hottest_c(zones) for _ in range(times)}
    assert len(found) == 1
    if not any(PROCESSOR.fullmatch((kind or "").lower().replace("_", "-")) for _, kind, _ in zones):
        assert found == {None}


@given(st.integers(1250, 124_999))
def test_millidegrees_are_read_exactly(number: int) -> None:
    assert hottest({"cpu-thermal": number}) == [number / 1000]


# --- where they are used ---------------------------------------------------------------------------------


def test_this_machine_is_not_hot_for_a_zone_that_is_always_at_100(monkeypatch: pytest.MonkeyPatch) -> None:
    zones = {"CPU-therm": "34000", "PMIC-Die": "100000", "soc": "100", "what": "99000"}
    files = {}
    for place, (kind, number) in enumerate(zones.items()):
        files[f"/sys/class/thermal/thermal_zone{place}/type"] = kind
        files[f"/sys/class/thermal/thermal_zone{place}/temp"] = number
    monkeypatch.setattr(reading, "text", files.get)
    monkeypatch.setattr(heat.glob, "glob", lambda pattern: [name for name in files if name.endswith("/temp")])
    monkeypatch.setattr(heat, "THERMOMETER", Thermometer())
    monkeypatch.setattr(heat, "cooling", list)
    assert (heat.temperature_c(), heat.throttled()) == (34.0, None)
    files["/sys/class/thermal/thermal_zone0/temp"] = "96000"
    assert (heat.temperature_c(), heat.throttled()) == (96.0, "the hottest sensor is at 96 C")


def test_a_machine_behind_a_worker_is_judged_in_the_same_way() -> None:
    class Visitor:
        answers = iter([99000, 99000, 98000, 98000, 98000])

        def ask(self, what: str, **_more: object) -> dict[str, object]:
            zones = [["0", "cpu-0-0-usr", 41000], ["1", "soc", 100], ["2", "mystery", next(self.answers)]]
            return {"mhz": {}, "zones": zones} if what == "state" else {"thermal_status": 0, "zones": zones}

    machine = WorkerMachine(Visitor())
    assert machine.state([]) == {"mhz": {}, "temperature_c": 41.0, "throttled": None}
    assert machine.throttled() == "the hottest sensor is at 98 C"
    assert machine.state([])["temperature_c"] == 41.0
