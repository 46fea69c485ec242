"""What a phone without Python reports through its shell: text by name, not trusted, and what follows from it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ofa_profiler.devices.remote.shell import Shell, one_line

#: `name=value`, one a line; what cannot be read has no value.
_HEAT = """\
for zone in /sys/class/thermal/thermal_zone*; do
  kind=; read -r kind < $zone/type; read -r heat < $zone/temp && echo "zone.${zone##*zone}=$heat $kind"
done 2>/dev/null
for cooler in /sys/class/thermal/cooling_device*; do
  read -r kind < $cooler/type && read -r level < $cooler/cur_state && echo "cooling.${cooler##*device}=$level $kind"
done 2>/dev/null
echo "thermal_status=$(dumpsys thermalservice 2>/dev/null | grep -m 1 'Thermal Status:')"
"""
_STATE = """\
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  read -r now < $cpu/cpufreq/scaling_cur_freq && echo "khz.${cpu##*cpu}=$now"
done 2>/dev/null
"""
_DESCRIBE = """\
for name in ro.product.model ro.soc.model ro.board.platform ro.build.version.release; do
  echo "$name=$(getprop $name)"
done
echo "machine=$(uname -m)"
read -r _ total _ < /proc/meminfo; echo "memory_kb=$total"
while read -r name value; do
  [ "$name" = Cpus_allowed_list: ] && echo "permitted=$value"
done < /proc/self/status
read -r cores < /sys/devices/system/cpu/online; echo "online=$cores"
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  on=1; read -r on < $cpu/online; echo "core.${cpu##*cpu}=$on"
  read -r khz < $cpu/cpufreq/cpuinfo_max_freq && echo "max_khz.${cpu##*cpu}=$khz"
  read -r governor < $cpu/cpufreq/scaling_governor && echo "governor.${cpu##*cpu}=$governor"
done 2>/dev/null
"""
_LONGEST_WORD = 200


def describe_phone(shell: Shell) -> dict[str, Any]:
    """What does not change: a record of type `device`, and the governors by core in it."""
    facts = _read(shell, _DESCRIBE)
    memory, clocks = facts.get("memory_kb", ""), _per_core(facts, "max_khz")
    release = facts.get("ro.build.version.release")
    return {
        "type": "device",
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": facts.get("ro.product.model"),
        "soc": facts.get("ro.soc.model") or facts.get("ro.board.platform"),
        "machine": facts.get("machine"),
        "os": f"Android {release}" if release else None,
        "python": None,
        "memory_mb": int(memory) // 1024 if _is_number(memory) else None,
        "cores_allowed": _usable_cores(facts) or None,
        "max_mhz": {str(core): khz / 1000 for core, khz in clocks.items()} or None,
        "governors": _cores(facts, "governor"),
    }


def phone_state(shell: Shell, cores: Sequence[int]) -> dict[str, Any]:
    """What changes during a measurement: clocks of `cores`, thermal zones."""
    facts = _read(shell, _STATE + _HEAT)
    clocks = _per_core(facts, "khz")
    return {
        "mhz": {str(core): clocks[core] / 1000 if core in clocks else None for core in cores},
        "zones": _zones(facts),
    }


def phone_heat(shell: Shell) -> dict[str, Any]:
    """What the phone reports about heat; the agent decides whether it is too hot."""
    facts = _read(shell, _HEAT)
    status = facts.get("thermal_status", "").rpartition(":")[2].strip()
    coolers = [value.partition(" ") for name, value in facts.items() if name.startswith("cooling.")]
    return {
        "thermal_status": int(status) if _is_number(status) else None,
        "cooling": [[kind, int(level)] for level, _, kind in coolers if _is_number(level)],
        "zones": _zones(facts),
    }


def _read(shell: Shell, script: str) -> dict[str, str]:
    lines = shell.run(["sh", "-c", script + "true\n"]).stdout.decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: one_line(value)[:_LONGEST_WORD] for name, _, value in pairs if value.strip()}


def _zones(facts: Mapping[str, str]) -> list[tuple[str, str | None, int]]:
    """Name, type and number of each thermal zone. The agent decides which of them are temperatures."""
    found = ((name, *value.partition(" ")[::2]) for name, value in facts.items() if name.startswith("zone."))
    return [(name, kind or None, int(number)) for name, number, kind in found if _is_number(number)]


def _usable_cores(facts: Mapping[str, str]) -> list[int]:
    """The cores that are on and that programs of the shell may use. What the phone does not report is no limit."""
    there = {int(core) for core, on in _cores(facts, "core").items() if on != "0"}
    limits = (core_list(facts.get(name, "")) for name in ("online", "permitted"))
    return sorted(there.intersection(*(limit for limit in limits if limit is not None)))


def core_list(text: str) -> set[int] | None:
    """Read a list of the kernel, like `0-3,6` (or `0-15:2/4`, the first two of every four); None if it is none."""
    cores: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4})(?::(\d{1,4})/(\d{1,4}))?)?", part.strip(), re.ASCII)
        if found is None:
            return None
        first, last, used, group = (int(number or 1) for number in (found[1], found[2] or found[1], *found.group(3, 4)))
        if last < first or not 0 < used <= group:
            return None
        cores.update(core for core in range(first, last + 1) if (core - first) % group < used)
    return cores


def _per_core(facts: Mapping[str, str], name: str) -> dict[int, int]:
    return {int(core): int(value) for core, value in _cores(facts, name).items() if _is_number(value)}


def _cores(facts: Mapping[str, str], name: str) -> dict[str, str]:
    found = {}
    for fact, value in facts.items():
        kind, _, core = fact.rpartition(".")
        if kind == name and _is_number(core):
            found[core] = value
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
