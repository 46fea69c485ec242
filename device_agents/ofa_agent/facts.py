"""Facts about this machine. A value that cannot be read is None, never 0."""

import hashlib
import os
import platform
import re
import sys

from . import clocks, heat, reading
from .cores import allowed_cores, core_file, max_mhz


def cpuinfo(field):
    """Return the first value of a field of /proc/cpuinfo, or None."""
    for line in (reading.text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field and value.strip():
            return reading.one_line(value)
    return None


#: What a kernel for 8-bit integers can use -> its names in /proc/cpuinfo, on x86 and on ARM.
INSTRUCTIONS = {
    "vnni": ("avx512_vnni", "avx_vnni"),
    "avx512": ("avx512f",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
}


def instructions():
    """Return for each of `INSTRUCTIONS` whether all cores have it; None if unknown."""
    cores = []
    lines = (reading.text("/proc/cpuinfo") or "").splitlines()
    for line in lines[:-1]:  # that of many cores is cut off, perhaps inside a line
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            cores.append(set(value.split()))
    return {
        name: all(core.intersection(names) for core in cores) if cores else None for name, names in INSTRUCTIONS.items()
    }


def device_tree(name):
    """Return a property of the device tree, or None."""
    return reading.text("/proc/device-tree/" + name) or reading.text("/sys/firmware/devicetree/base/" + name)


def model_and_soc():
    """Return the names of the machine and of its chip. Each can be None."""
    tool = reading.output_of
    compatible = (device_tree("compatible") or "").split()
    model = device_tree("model") or tool("getprop", "ro.product.model") or tool("sysctl", "-n", "hw.model")
    soc = (
        (compatible[-1] if compatible else None)
        or tool("getprop", "ro.soc.model")
        or tool("getprop", "ro.board.platform")
        or tool("sysctl", "-n", "machdep.cpu.brand_string")
        or reading.text("/sys/devices/soc0/machine")
        or cpuinfo("Hardware")
        or cpuinfo("model name")
    )
    if sys.platform == "win32":
        soc = platform.processor() or None
    return model or soc, soc


def unit():
    """Return a number for this very machine among those of its model: a hash of its serial number; None without one."""
    serial = device_tree("serial-number") or reading.output_of("getprop", "ro.serialno") or ""
    is_real = re.search("[1-9A-Za-z]", serial) and serial.lower() not in ("unknown", "default string")
    return hashlib.sha256(serial.encode()).hexdigest()[:12] if is_real else None


def jetson_release():
    """Return the release of Jetson Linux, like `R35.4.1`; None on other machines."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", reading.text("/etc/nv_tegra_release") or "")
    return "R%s.%s" % found.groups() if found else None


def stored_power_mode():
    """Return the power mode that a Jetson has stored: its name, or its number if no name is known; or None."""
    kept = re.search(r"pmode:\s*(\d+)", reading.text("/var/lib/nvpmodel/status") or "")
    if kept is None:
        return None
    number = int(kept.group(1))
    named = re.search(r"POWER_MODEL\s+ID=%d\s+NAME=([^\s>]+)" % number, reading.text("/etc/nvpmodel.conf") or "")
    return named.group(1) if named else str(number)


def power_mode():
    """Return the power mode of a Jetson, and a note if its tool fails. Both are None on other machines.

    Without root, the tool may print the mode and then fail, or print errors only.
    """
    said = reading.run("nvpmodel", "-q")
    printed = re.search(r"NV Power Mode:[ \t]*(\S.*)", said.output) if said else None
    mode = reading.one_line(printed.group(1)) if printed else stored_power_mode()
    if said is None or (printed and said.exit_code == 0):
        return mode, None
    why = "nvpmodel failed (%s)" % (
        reading.one_line(said.errors or said.output, 200) or "exit code %s" % said.exit_code
    )
    if printed:
        return mode, "the power mode is what nvpmodel printed, but %s; it may need root" % why
    if mode is not None:
        return mode, "the power mode is the stored one: %s; it may need root" % why
    return None, "the power mode cannot be read: %s; it may need root" % why


def memory_mb():
    """Return the memory of the machine in MiB, or None."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1 << 20)
    except (AttributeError, OSError, ValueError):
        return None


def state(cores):
    """Return the values that change during a measurement. `cores` are the cores in use, None if unknown."""
    mhz = {}
    for core in cores or []:
        khz = reading.integer(core_file(core, "cpufreq/scaling_cur_freq"))
        mhz[str(core)] = khz / 1000 if khz and khz > 0 else None
    try:
        load = round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        load = None
    flags = heat.firmware_flags()
    return {
        "mhz": mhz,
        "temperature_c": heat.processor_c(),
        "load_average": load,
        "throttled": heat.throttled(),
        "firmware_flags": None if flags is None else "0x%x" % flags,
    }


def describe():
    """Return the constant facts: the first fields of a `device` record."""
    model, soc = model_and_soc()
    allowed = allowed_cores()
    mode, mode_note = power_mode()
    found = {
        "type": "device",
        "time": reading.now(),
        "model": reading.one_line(model) if model else None,
        "soc": reading.one_line(soc) if soc else None,
        "unit": unit(),
        "machine": platform.machine() or None,
        "os": reading.one_line(platform.platform()),
        "jetson_release": jetson_release(),
        "power_mode": mode,
        "python": platform.python_version(),
        "memory_mb": memory_mb(),
        "cores_allowed": allowed,
        "max_mhz": {str(core): max_mhz(core) for core in allowed} if allowed else None,
        "uncontrolled": [note for note in (mode_note, heat.firmware()[1]) if note],
    }
    found.update(instructions())
    return found


def uncontrolled(device):
    """Return notes about possible disturbances that the agent cannot control, from a `device` record."""
    notes = list(device.get("uncontrolled") or [])
    before = device["before"]
    if device["cores_used"] is None:
        notes.append("the process could not be pinned to its cores")
    if device["fixed_performance_mode"]:
        pass  # Android keeps the clocks constant, regardless of the governor
    elif device["governor"] is None:
        notes.append("the governor of the clock cannot be read")
    elif device["governor"] != clocks.STEADY:
        notes.append("the governor is %s, not performance: clocks may change" % device["governor"])
    flags = int(before.get("firmware_flags") or "0", 16)
    if flags & 0x10001:
        when = "now" if flags & 1 else "since the start"
        notes.append("the power supply is too weak (%s): the firmware lowers the clock, 0x%x" % (when, flags))
    if before["temperature_c"] is None:
        notes.append("no temperature can be read")
    load, cores = before.get("load_average"), len(device["cores_allowed"] or []) or os.cpu_count() or 1
    if load is not None and load > cores / 2:
        notes.append("other programs were running at the start: see load_average")
    return notes
