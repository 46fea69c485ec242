"""Heat, and throttling by heat."""

import glob
import re

from . import reading
from .zones import Thermometer

TOO_HOT_C = 95.0  # most chips throttle from 80 C on and report it; others count as throttled from this value on
THROTTLING_UNKNOWN = "throttling cannot be read here: %s"
THERMOMETER = Thermometer()  # of this machine: it remembers what the zones have shown


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


def firmware():
    """Return the flags of a Raspberry Pi for voltage and heat: now (bits 0-3), since its start (16-19); None elsewhere.

    The second value is a note if they cannot be read on a Raspberry Pi.
    """
    said = reading.run("vcgencmd", "get_throttled")
    if said is None:
        missing = "Raspberry Pi" in (reading.text("/proc/device-tree/model") or "")
        return None, THROTTLING_UNKNOWN % "vcgencmd is not installed" if missing else None
    found = re.search(r"^throttled=0x([0-9a-fA-F]{1,8})\s*$", said.output, re.MULTILINE)
    if found:
        return int(found.group(1), 16), None
    words = reading.one_line(said.output + " " + said.errors, 200)
    if re.search("VCHI|/dev/vc|denied|not permitted", words):
        return None, THROTTLING_UNKNOWN % "add the user to the group video"
    return None, THROTTLING_UNKNOWN % ("vcgencmd says: %s" % words if words else "vcgencmd says nothing")


def firmware_flags():
    """Return the flags of a Raspberry Pi, or None."""
    return firmware()[0]


def cooling():
    """Return kind and level of all cooling devices."""
    folders = sorted(glob.glob("/sys/class/thermal/cooling_device*"))
    return [(reading.text(folder + "/type") or "", reading.integer(folder + "/cur_state") or 0) for folder in folders]


def thermal_zones():
    """Return name, type and number of all thermal zones that can be read."""
    paths = sorted(glob.glob("/sys/class/thermal/thermal_zone*/temp"))
    zones = [(path, reading.text(path[: -len("temp")] + "type"), reading.integer(path)) for path in paths]
    return [zone for zone in zones if zone[2] is not None]


def temperature_c():
    """Return the temperature of the hottest zone that counts, or None."""
    return THERMOMETER.hottest_c(thermal_zones())


def processor_c():
    """Return the temperature of the processor, or else of the hottest zone, or None."""
    return THERMOMETER.processor_c(thermal_zones())
