"""The properties of a phone without Python, read with its shell."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ofa_profiler.devices.remote.shell import Shell, one_line
from ofa_profiler.protocol.records import Device

#: Prints one `name=value` per line; without a value if it cannot be read.
_DESCRIBE = """\
for name in ro.product.model ro.soc.model ro.board.platform ro.build.version.release; do
  echo "$name=$(getprop $name)"
done
echo "machine=$(uname -m)"
read -r _ total _ < /proc/meminfo; echo "memory_kb=$total"
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  read -r khz < $cpu/cpufreq/cpuinfo_max_freq && echo "max_khz.${cpu##*cpu}=$khz"
  read -r now < $cpu/cpufreq/scaling_cur_freq && echo "khz.${cpu##*cpu}=$now"
  read -r governor < $cpu/cpufreq/scaling_governor && echo "governor.${cpu##*cpu}=$governor"
done 2>/dev/null
for zone in /sys/class/thermal/thermal_zone*/temp; do
  read -r heat < $zone && echo "heat.$zone=$heat"
done 2>/dev/null
true
"""
_LONGEST_WORD = 200


def describe_phone(shell: Shell) -> Device:
    """Return the properties of a phone that do not change."""
    return Device.from_json(phone_identity(read_facts(shell)))


def read_facts(shell: Shell) -> dict[str, str]:
    """Return the properties as text, by name. Their values are not checked."""
    lines = shell.run(["sh", "-c", _DESCRIBE]).stdout.decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: one_line(value)[:_LONGEST_WORD] for name, _, value in pairs if value.strip()}


def fastest_cores(facts: Mapping[str, str], count: int) -> tuple[int, ...] | None:
    """Return the `count` cores with the highest clock; None if the phone does not report its clocks."""
    clocks = {core: khz for core, khz in _per_core(facts, "max_khz").items() if khz > 0}
    chosen = sorted(clocks, key=lambda core: (clocks[core], core), reverse=True)[:count]
    return tuple(sorted(chosen)) if len(chosen) == count else None


def _per_core(facts: Mapping[str, str], name: str) -> dict[int, int]:
    found = {}
    for fact, value in facts.items():
        kind, _, core = fact.rpartition(".")
        if kind == name and _is_number(core) and _is_number(value):
            found[int(core)] = int(value)
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def phone_state(facts: Mapping[str, str], cores: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the properties that change during a measurement: the clocks of `cores`, and the temperature."""
    clocks = _per_core(facts, "khz")
    heat = [int(value) for name, value in facts.items() if name.startswith("heat.") and _is_number(value)]
    degrees = [value / 1000 if value >= 200 else float(value) for value in heat if value]
    return {
        "mhz": {str(core): clocks[core] / 1000 if core in clocks else None for core in cores or ()},
        "temperature_c": max((value for value in degrees if value < 200), default=None),
    }


def phone_identity(facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of a `device` record that does not change."""
    memory, clocks = facts.get("memory_kb", ""), _per_core(facts, "max_khz")
    release = facts.get("ro.build.version.release")
    return {
        "type": "device",
        "time": now(),
        "model": facts.get("ro.product.model"),
        "soc": facts.get("ro.soc.model") or facts.get("ro.board.platform"),
        "machine": facts.get("machine"),
        "os": f"Android {release}" if release else None,
        "python": None,
        "memory_mb": int(memory) // 1024 if _is_number(memory) else None,
        "cores_allowed": sorted(clocks) or None,
        "max_mhz": {str(core): khz / 1000 for core, khz in clocks.items()} or None,
    }


def now() -> str:
    """Return the time of this machine."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
