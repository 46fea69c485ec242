"""Heat, and throttling by heat."""

import glob
import re

from . import reading

TOO_HOT_C = 95.0  # most chips throttle from 80 C on and report it; others count as throttled from this value on


def why_slow(heat):
    """Return why heat throttles a machine, as a message; None if it does not, or does not report it.

    `heat` can have `thermal_status` (Android's number), `firmware_flags` (of a Raspberry Pi), `cooling` (pairs of kind
    and level of a cooling device) and `temperature_c`.
    """
    status = heat.get("thermal_status")
    if status is not None and status >= 2:  # 1 means light, without throttling
        return "Android reports thermal status %d" % status
    flags = heat.get("firmware_flags")
    if flags is not None and flags & 0b1110:
        return "the firmware reports throttled=0x%x" % flags
    for kind, level in heat.get("cooling") or []:
        if level > 0 and "cpu" in kind.lower() and "idle" not in kind.lower():
            return "%s limits the clock (level %d)" % (reading.one_line(kind, 40), level)
    degrees = heat.get("temperature_c")
    return "the hottest sensor is at %.0f C" % degrees if degrees is not None and degrees >= TOO_HOT_C else None


def throttled():
    """Return `why_slow` for this machine."""
    return why_slow(
        {
            "thermal_status": thermal_status(),
            "firmware_flags": firmware_flags(),
            "cooling": cooling(),
            "temperature_c": temperature_c(),
        }
    )


def thermal_status():
    """Return the thermal status of Android, 0 to 6; None on other systems."""
    line = reading.output_of("dumpsys", "thermalservice", containing="Thermal Status:") or ""
    status = line.rpartition(":")[2].strip()
    return int(status) if re.match("[0-6]$", status) else None


def firmware_flags():
    """Return the flags of a Raspberry Pi for voltage and heat: now (bits 0-3), since its start (16-19); or None."""
    words = reading.output_of("vcgencmd", "get_throttled")
    return int(words[10:], 16) if words is not None and re.match(r"throttled=0x[0-9a-fA-F]{1,8}$", words) else None


def cooling():
    """Return kind and level of all cooling devices."""
    folders = sorted(glob.glob("/sys/class/thermal/cooling_device*"))
    return [(reading.text(folder + "/type") or "", reading.integer(folder + "/cur_state") or 0) for folder in folders]


def temperature_c():
    """Return the temperature of the hottest zone. The kernel reports millidegrees, but a few phones report degrees."""
    zones = [reading.integer(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    degrees = [zone / 1000 if abs(zone) >= 200 else float(zone) for zone in zones if zone]
    return max((value for value in degrees if -50 < value < 200), default=None)
