#!/usr/bin/env python3
"""Measures the models of a kit on this machine.  By hand:  python3 agent.py --kit DIR

One file for every board: the standard library plus the runtime (onnxruntime, or LiteRT), Python 3.7 or newer.

Two processes. The *supervisor* reads the kit, decides what is measured next and writes the results;
it needs the standard library only. The *worker* loads the runtime and runs one model at a time. An
exception in a model travels back as data; a model that crashes or hangs its worker costs that worker,
fails alone, and the supervisor goes on with a new one.

What is written: JSON lines, appended to `KIT/results.jsonl` and repeated on stdout unless that is a
terminal. Run again, the agent goes on where the file ends.

    {"type": "run", ...}      what was asked: settings and the SHA-256 of every model (first line)
    {"type": "device", ...}   the machine, once per start
    {"type": "visit", ...}    one model measured once: every sample in ns, or status "failed" and why
    {"type": "reference", ...}  one model measured between the visits, to see whether the device is as fast
                              as it was: `drifted` if not, and `again` if the visits since the last such
                              look do not count and are made again
    {"type": "end", ...}      everything asked for is there, or the time is up

On stdout alone, never in the file: {"type": "waiting"} (another agent is measuring here, or the chip
cools down), {"type": "alive"} (the answer to a sign of life of the host) and {"type": "fatal"} (nothing
can be measured; the exit status is 1).
"""

from __future__ import annotations

import argparse
import array
import contextlib
import datetime
import functools
import gc
import glob
import hashlib
import importlib
import io
import json
import math
import os
import platform
import queue
import random
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
import zipfile

FORMAT = 1
START_TIMEOUT_S = 300.0  # importing a runtime takes minutes on a slow SD card
LOCK_TIMEOUT_S = 900.0
FSYNC_EVERY_S = 5.0
LOOK_FOR_HEAT_EVERY_S = 10.0
COOLING_STEP_S = 5.0
COOL_DOWN_S = 120.0  # at most; then what is hot is measured hot
STAYS_HOT_S = 600.0  # after that, the next pause comes this much later at the earliest
REFERENCE_MS = 1.0  # the reference op is the one nearest to this ...
REFERENCE_AMONG = 8  # ... of the first that were visited
LOOKS_AT_FIRST = 5  # at the reference op, to know how much its visits vary
REFERENCE_SHARE = 0.1  # of the time, at most: a slow reference op is looked at less often
SETTLING_STEP_S = 5.0
SETTLE_S = 60.0  # at most, of a whole run; then what drifts is measured drifting ...
SETTLE_SHARE = 0.1  # ... and of the time limit: whoever wants a quick look does not wait
CPUS = "/sys/devices/system/cpu"
STEADY = "performance"  # the governor that keeps the clock where it is
TOO_HOT_C = 95.0  # chips slow down somewhere from 80 C on, and say so; who does not say is believed until here
GIVE_UP_AFTER = 5  # crashed or hung workers in a row: the runtime is broken, not a model
CAN_FORK = hasattr(os, "fork") and sys.platform in ("linux", "android")


class Fatal(Exception):
    """Nothing can be measured. `usage`: another request could have worked; `transient`: starting again may help."""

    def __init__(self, message, usage=False, transient=False):
        super().__init__(message)
        self.usage = usage
        self.transient = transient


class Damaged(Exception):
    """A model's file is not what it should be."""


class WorkerLost(Exception):
    """The worker died or hung over a model."""


class HostGone(Exception):
    """Whoever started this agent and listened to it has died."""


def one_line(text, limit=500):
    """Text of unknown origin as one line of bounded length."""
    return " ".join(str(text).split())[:limit]


# --- the device: what can be read about it; what cannot is None, never 0 ------------------------------


def read_text(path):
    """The content of a small file, or None."""
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 16).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return None
    return text or None


def read_integer(path):
    """The whole number in a file, or None."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def output_of(*command, containing=""):
    """The first line, with `containing` in it, of what a small system tool prints; or None."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line for line in done.stdout.decode("utf-8", "replace").strip().splitlines() if containing in line]
    return one_line(lines[0]) if done.returncode == 0 and lines else None


def cpuinfo(field):
    """The first value of a field of /proc/cpuinfo, or None."""
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field and value.strip():
            return one_line(value)
    return None


def device_tree(name):
    """A property of the device tree, or None."""
    return read_text("/proc/device-tree/" + name) or read_text("/sys/firmware/devicetree/base/" + name)


def model_and_soc():
    """What the device calls itself, and its chip. Either may be None."""
    compatible = (device_tree("compatible") or "").split()
    model = device_tree("model") or output_of("getprop", "ro.product.model") or output_of("sysctl", "-n", "hw.model")
    soc = (
        (compatible[-1] if compatible else None)
        or output_of("getprop", "ro.soc.model")
        or output_of("getprop", "ro.board.platform")
        or output_of("sysctl", "-n", "machdep.cpu.brand_string")
        or read_text("/sys/devices/soc0/machine")
        or cpuinfo("Hardware")
        or cpuinfo("model name")
    )
    if sys.platform == "win32":
        soc = platform.processor() or None
    return model or soc, soc


def jetson_release():
    """The release of a Jetson's system, like `R35.4.1`; None elsewhere."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", read_text("/etc/nv_tegra_release") or "")
    return "R%s.%s" % found.groups() if found else None


def power_mode():
    """The power mode of a Jetson by its name, or by its number where the tool does not answer; None elsewhere."""
    name = (output_of("nvpmodel", "-q", containing="NV Power Mode:") or "").rpartition(":")[2].strip()
    kept = re.search(r"pmode:\s*(\d+)", read_text("/var/lib/nvpmodel/status") or "")
    return name or (str(int(kept.group(1))) if kept else None)


def memory_mb():
    """All memory of the machine in MiB, or None."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1 << 20)
    except (AttributeError, OSError, ValueError):
        return None


def allowed_cores():
    """The cores that this process may use, or None where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def core_file(core, name):
    """Where the system tells something about a core."""
    return "%s/cpu%d/%s" % (CPUS, core, name)


def max_mhz(core):
    """The highest clock of a core, or None."""
    khz = read_integer(core_file(core, "cpufreq/cpuinfo_max_freq"))
    return khz / 1000 if khz and khz > 0 else None


def governor(core):
    """What sets the clock of a core, or None."""
    return read_text(core_file(core, "cpufreq/scaling_governor"))


def fastest_cores(cores, count):
    """`count` of `cores`: highest clock first, then the scheduler's capacity, then the last ones.

    Two threads of one physical core share its units, so the second comes after all other cores.
    """

    def speed(core):
        return (max_mhz(core) or 0, read_integer(core_file(core, "cpu_capacity")) or 0, core)

    chosen, twins, seen = [], [], set()
    for core in sorted(cores, key=speed, reverse=True):
        siblings = read_text(core_file(core, "topology/thread_siblings_list")) or str(core)
        (twins if siblings in seen else chosen).append(core)
        seen.add(siblings)
    return sorted((chosen + twins)[:count])


def temperature_c():
    """The hottest thermal zone. The kernel reports millidegrees; a few phones report degrees."""
    zones = [read_integer(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    degrees = [zone / 1000 if abs(zone) >= 200 else float(zone) for zone in zones if zone]
    return max((value for value in degrees if -50 < value < 200), default=None)


def firmware_flags():
    """What a Raspberry Pi's firmware says of voltage and heat, now (bits 0-3) and since its start (16-19); or None."""
    words = output_of("vcgencmd", "get_throttled")
    return int(words[10:], 16) if words is not None and re.match(r"throttled=0x[0-9a-fA-F]{1,8}$", words) else None


def throttled():
    """Why heat slows this device down right now, in words; None if it does not, or does not say."""
    status = output_of("dumpsys", "thermalservice", containing="Thermal Status:")
    if status is not None and status.rpartition(":")[2].strip() in ("2", "3", "4", "5", "6"):
        return "Android reports thermal status %s" % status.rpartition(":")[2].strip()  # 1 slows nothing yet
    flags = firmware_flags()
    if flags is not None and flags & 0b1110:
        return "the firmware reports throttled=0x%x" % flags
    for folder in sorted(glob.glob("/sys/class/thermal/cooling_device*")):
        kind, level = read_text(folder + "/type") or "", read_integer(folder + "/cur_state")
        if level and level > 0 and "cpu" in kind.lower() and "idle" not in kind.lower():
            return "%s limits the clock (level %d)" % (one_line(kind, 40), level)
    heat = temperature_c()
    return "the hottest sensor is at %.0f C" % heat if heat is not None and heat >= TOO_HOT_C else None


def state(cores):
    """What changes while one measures. `cores` are those in use, or None when they are not known."""
    mhz = {}
    for core in cores or []:
        khz = read_integer(core_file(core, "cpufreq/scaling_cur_freq"))
        mhz[str(core)] = khz / 1000 if khz and khz > 0 else None
    try:
        load = round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        load = None
    flags = firmware_flags()
    return {
        "mhz": mhz,
        "temperature_c": temperature_c(),
        "load_average": load,
        "throttled": throttled(),
        "firmware_flags": None if flags is None else "0x%x" % flags,
    }


def describe():
    """What does not change about this device, as the beginning of a `device` record."""
    model, soc = model_and_soc()
    allowed = allowed_cores()
    return {
        "type": "device",
        "time": now(),
        "model": one_line(model) if model else None,
        "soc": one_line(soc) if soc else None,
        "machine": platform.machine() or None,
        "os": one_line(platform.platform()),
        "jetson_release": jetson_release(),
        "power_mode": power_mode(),
        "python": platform.python_version(),
        "memory_mb": memory_mb(),
        "cores_allowed": allowed,
        "max_mhz": {str(core): max_mhz(core) for core in allowed} if allowed else None,
    }


def set_governor(core, name):
    """Ask the kernel for another governor -> whether it did it."""
    try:
        with open(core_file(core, "cpufreq/scaling_governor"), "w") as file:
            file.write(name)
    except OSError:
        return False
    return governor(core) == name


def set_back(memory):
    """Give the cores the governors that the file `memory` names -> those that we may not give back.

    Who set another one in the meantime, or started the device anew, had reasons: that one stays.
    """
    try:
        with open(memory, encoding="utf-8") as file:
            found = {int(core): str(name) for core, name in json.load(file).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        found = {}
    left = {core: name for core, name in found.items() if governor(core) == STEADY and not set_governor(core, name)}
    if not left:
        with contextlib.suppress(OSError):
            os.unlink(memory)
    return left


def remember(memory, found):
    """Write down, to the disk, what is to be set back -> whether that worked."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(memory)  # a file is made, not followed: others may write in this folder, too
        with open(memory, "x", encoding="utf-8") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


@contextlib.contextmanager
def steady_clocks(cores, memory):
    """The governor of `cores` is `performance` within, where we may set it -> what was found, by core.

    The file `memory` says what is to be set back for as long as that is not done, so that after a kill
    that nobody can catch, the next run does it first.
    """
    left = set_back(memory)
    found = {core: governor(core) for core in cores or []}
    found.update(left)
    ours = [core for core in found if core not in left and found[core] not in (None, STEADY)]
    ours = [core for core in ours if os.access(core_file(core, "cpufreq/scaling_governor"), os.W_OK)]
    try:
        if ours and remember(memory, {core: found[core] for core in [*left, *ours]}):
            for core in ours:
                set_governor(core, STEADY)
        yield found
    finally:
        try:
            set_back(memory)
        finally:
            set_back(memory)  # should a signal have come in between; else nothing is left to do


def uncontrolled(device):
    """Sentences about what may have disturbed the measurement and could not be ruled out."""
    notes = []
    if device["cores_used"] is None:
        notes.append("the process could not be pinned to its cores on " + platform.system())
    if device["fixed_performance_mode"]:
        pass  # Android holds the clocks, whatever the governor is
    elif device["governor"] is None:
        notes.append("the governor of the clock cannot be read")
    elif device["governor"] != "performance":
        notes.append("the governor is %s, not performance: clocks may change" % device["governor"])
    flags = int(device["before"]["firmware_flags"] or "0", 16)
    if flags & 0x10001:
        when = "now" if flags & 1 else "since the start"
        notes.append("the power supply is too weak (%s): the firmware lowers the clock, 0x%x" % (when, flags))
    if device["before"]["temperature_c"] is None:
        notes.append("no temperature can be read")
    load, cores = device["before"]["load_average"], len(device["cores_allowed"] or []) or os.cpu_count() or 1
    if load is not None and load > cores / 2:
        notes.append("other programs were running at the start: see load_average")
    return notes


def now():
    """The time as this device has it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


# --- statistics: when is a median known well enough ---------------------------------------------------

#: 97.5% quantiles of Student's t distribution for 1, 2, ... degrees of freedom
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def half_width(medians, samples):
    """Half of the 95% confidence interval of a model's median, relative to it; None if unknown yet.

    The larger of two intervals, because each is blind to what the other sees:
    - rounds as clusters: a t interval over the medians of the rounds. It sees what drifts between
      rounds (clocks, heat, neighbours, memory layout), which any number of samples of one visit hides.
    - order statistics of all samples together, free of assumptions about their distribution. It sees
      that a few samples per visit are few, even when the medians of three visits agree by luck.
    """
    if len(medians) < 2 or len(samples) < 6:
        return None
    spread = statistics.stdev(medians) / math.sqrt(len(medians))
    clusters = spread * T_975[min(len(medians) - 1, len(T_975)) - 1] / statistics.mean(medians)
    ordered, count = sorted(samples), len(samples)
    low = int((count - 1.96 * math.sqrt(count)) / 2)
    pooled = (ordered[count - 1 - low] - ordered[low]) / 2 / statistics.median(ordered)
    return max(clusters, pooled)


# --- runtimes: how a model becomes a function that runs it once ---------------------------------------


#: how numpy calls the element types of onnxruntime
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxRuntime:
    """onnxruntime, with its values bound once so that a call measures the network and no copies."""

    def __init__(self, settings, spare_core):
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it must not run on people's devices
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        try:
            import numpy
            import onnxruntime
        except ImportError as error:
            raise Fatal("the runtime onnxruntime cannot be imported here: %s" % one_line(error)) from error
        self.ort, self.numpy = onnxruntime, numpy
        self.provider = settings["provider"] or "CPUExecutionProvider"
        available = onnxruntime.get_available_providers()
        if self.provider not in available:
            have = ", ".join(available)
            raise Fatal("onnxruntime has no provider %r on this device; it has %s" % (self.provider, have), usage=True)
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = settings["threads"]
        self.options.inter_op_num_threads = 1
        self.options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self.options.log_severity_level = 4
        if not spare_core:
            # Threads that spin between operators on every core leave none for the rest of the system.
            self.options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.provider != "CPUExecutionProvider":
            # Without this, operators that the provider lacks run on the CPU and nobody is told.
            self.options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self.info = {"name": "onnxruntime", "version": onnxruntime.__version__, "provider": self.provider}

    def load(self, model, shape):
        """Bytes of a model and its input's shape -> a function without arguments that runs it once."""
        session = self.ort.InferenceSession(model, self.options, providers=[self.provider])
        if self.provider not in session.get_providers():
            raise Fatal("onnxruntime dropped the provider %s: its libraries do not load here" % self.provider)
        binding = session.io_binding()
        bound = []  # a binding does not keep alive what is bound
        for value in session.get_inputs():
            if list(value.shape) != list(shape):
                raise ValueError("the model's input has the shape %s, the kit says %s" % (value.shape, shape))
            bound.append(self.ort.OrtValue.ortvalue_from_numpy(random_input(self.numpy, DTYPES[value.type], shape)))
            binding.bind_ortvalue_input(value.name, bound[-1])
        for value in session.get_outputs():
            if all(isinstance(size, int) for size in value.shape):
                dtype = self.numpy.dtype(DTYPES[value.type]).type
                bound.append(self.ort.OrtValue.ortvalue_from_shape_and_type(value.shape, dtype))
                binding.bind_ortvalue_output(value.name, bound[-1])
            else:
                binding.bind_output(value.name)
        run = functools.partial(session.run_with_iobinding, binding)
        run.bound = bound
        return run


class LiteRt:
    """LiteRT, or its predecessor tflite_runtime, with XNNPACK, which it uses by itself on most systems."""

    PACKAGES = ("ai_edge_litert", "tflite_runtime")

    def __init__(self, settings, spare_core):  # noqa: ARG002 (its threads always spin)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        package = self.find()
        self.threads = settings["threads"]
        # "default" is what a table says that was measured by Google's benchmark_model.
        self.provider = "XNNPACK" if settings["provider"] in (None, "default") else settings["provider"]
        self.options = {}
        if self.provider == "CPU":
            self.options["experimental_op_resolver_type"] = self.litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        elif self.provider != "XNNPACK":
            words = "litert has no provider %r on this device; it has XNNPACK, and CPU (without XNNPACK)"
            raise Fatal(words % self.provider, usage=True)
        version = package.__version__
        if package.__name__ != self.PACKAGES[0]:
            version = "%s %s" % (package.__name__, version)
        self.info = {"name": "litert", "version": version, "provider": self.provider}

    def find(self):
        """Import the first of the packages that there is -> it."""
        problems = []
        for name in self.PACKAGES:
            try:
                self.numpy = importlib.import_module("numpy")
                self.litert = importlib.import_module(name + ".interpreter")
                return importlib.import_module(name)
            except ImportError as error:  # noqa: PERF203
                problems.append(one_line(error))
        raise Fatal("the runtime litert (package ai-edge-litert) cannot be imported here: %s" % "; ".join(problems))

    def load(self, model, shape):
        """Bytes of a model and its input's shape -> a function without arguments that runs it once."""
        interpreter = self.litert.Interpreter(model_content=model, num_threads=self.threads, **self.options)
        interpreter.allocate_tensors()
        # What the provider does not take runs elsewhere, and nobody is told.
        names = [node["op_name"] for node in interpreter._get_ops_details()]
        if self.provider == "XNNPACK" and "DELEGATE" not in names:
            raise ValueError("XNNPACK does not run this model here; --provider CPU measures without it")
        for value in interpreter.get_input_details():
            if list(value["shape"]) != list(shape):
                raise ValueError("the model's input has the shape %s, the kit says %s" % (value["shape"], shape))
            dtype = self.numpy.dtype(value["dtype"]).name
            interpreter.set_tensor(value["index"], random_input(self.numpy, dtype, shape))
        return interpreter.invoke


def random_input(numpy, dtype, shape):
    """The same values every time, none of them denormal (those are slow on many chips)."""
    generator = numpy.random.RandomState(0)
    if dtype.startswith("float"):
        return generator.uniform(-1, 1, shape).astype(dtype)
    return generator.randint(0, 127, shape).astype(dtype)


RUNTIMES = {"onnxruntime": OnnxRuntime, "litert": LiteRt}


# --- the worker: one model at a time ------------------------------------------------------------------


def verified(path, sha256):
    """The bytes that will run, so that nothing can change between the check and the run."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Damaged("%s cannot be read: %s" % (os.path.basename(path), error.strerror)) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Damaged("%s is damaged: its SHA-256 is %s, not %s" % (os.path.basename(path), found, sha256))
    return data


def sample(run, budget_s, fewest, most, alive):
    """Times of single runs in ns: at least `fewest`, then until `budget_s` or `most` is reached."""
    clock = time.perf_counter_ns
    samples = []
    begin = spoken = clock()
    while True:
        start = clock()
        run()
        end = clock()
        samples.append(end - start)
        if len(samples) >= most or (len(samples) >= fewest and end - begin >= budget_s * 1e9):
            return samples
        if end - spoken > 1e9:
            spoken = end
            alive()


def warm_up(run, budget_s, alive):
    """Run until two windows in a row agree within 5% (or `budget_s` is spent) -> the samples so far."""
    done = []
    before = None
    deadline = time.perf_counter() + budget_s
    while True:
        window = sample(run, min(0.002, budget_s / 4), 3, 200, alive)
        done += window
        median = statistics.median(window)
        if before is not None and (abs(median - before) <= 0.05 * before or time.perf_counter() > deadline):
            return done
        before = median


def visit(runtime, request, settings, alive):
    """Load one model, warm it up, measure it, forget it."""
    begin = time.perf_counter_ns()
    run = runtime.load(verified(request["path"], request["sha256"]), request["input_shape"])
    loaded = time.perf_counter_ns()
    alive()
    warm = warm_up(run, request["visit_s"], alive)
    samples = sample(run, request["visit_s"], settings["min_visit_samples"], settings["max_visit_samples"], alive)
    return {"load_ns": loaded - begin, "warmup_ns": sum(warm), "warmup_runs": len(warm), "samples_ns": samples}


def pin(cores):
    """Keep this process and all its threads to come on `cores`; False where that is impossible."""
    try:
        os.sched_setaffinity(0, cores)
        return sorted(os.sched_getaffinity(0)) == sorted(cores)
    except (AttributeError, OSError, ValueError):
        return False


def raise_priority():
    """Ask the scheduler to prefer this process, so that other programs rarely come between two samples.

    Only root (or who was granted it) may; the nice value in force, None where there is no such thing.
    """
    if not hasattr(os, "setpriority"):
        return None
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        if os.getsid(0) == os.getpid():  # a session of our own: some schedulers weigh sessions, not processes
            with open("/proc/self/autogroup", "w") as file:
                file.write("-20")
    except OSError:
        pass  # not permitted, or there are no such groups: as it was
    return os.getpriority(os.PRIO_PROCESS, 0)


def serve(requests, responses):
    """The worker's life: JSON lines in, JSON lines out, until `requests` ends."""

    def respond(response):
        responses.write(json.dumps(response).encode() + b"\n")
        responses.flush()

    def alive():
        respond({"alive": True})
        if hasattr(signal, "alarm"):
            # Should the supervisor be gone when a model hangs, the kernel ends this process instead.
            signal.alarm(int(settings["op_timeout_s"]) + 30)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    start = json.loads(requests.readline().decode())
    settings = start["settings"]
    try:
        pinned = bool(start["cores"]) and pin(start["cores"])
        runtime = RUNTIMES[settings["runtime"]](settings, start["spare_core"])
        respond({"ready": True, "runtime": runtime.info, "pinned": pinned})
        gc.disable()
        gc.freeze()  # collecting what a visit left behind need not look at the runtime's modules
        for line in iter(requests.readline, b""):
            try:
                alive()
                respond(visit(runtime, json.loads(line.decode()), settings, alive))
            except Fatal:
                raise
            except Damaged as error:
                respond({"error": str(error), "damaged": True})
            except Exception as error:
                respond({"error": "%s: %s" % (type(error).__name__, one_line(error))})
            if hasattr(signal, "alarm"):
                signal.alarm(0)
            gc.collect()
    except Fatal as error:
        respond({"fatal": str(error), "usage": error.usage})


# --- the worker as the supervisor sees it -------------------------------------------------------------


class Host:
    """Whoever started this agent. An attached host holds our stdin open for as long as it lives.

    A link can die without a word: stdin stays open then, and what we write goes nowhere. A host that
    says how patient we may be gives signs of life; each is answered with `say`.
    """

    def __init__(self, attached, threaded, patience_s=0, say=None):
        self.attached = attached
        self.threaded = threaded  # where pipes cannot be waited for; never together with forks
        self.patience_s = patience_s
        self.repairs = False  # whether it brings a damaged model again
        self.say = say
        self.gone = threading.Event()
        if patience_s:

            def silent(*_):
                raise HostGone

            signal.signal(signal.SIGALRM, silent)
            signal.alarm(patience_s)
        if attached and threaded:
            threading.Thread(target=self._watch, daemon=True).start()

    def _hear(self):
        """Read what the host has sent -> False at the end."""
        heard = os.read(0, 4096)
        if heard and self.patience_s:
            signal.alarm(self.patience_s)  # the kernel counts, so a write that blocks for ever ends, too
            self.say({"type": "alive"})
        return bool(heard)

    def _watch(self):
        with contextlib.suppress(HostGone):
            while self._hear():
                pass
        self.gone.set()

    def check(self, timeout_s=0.0, also=None):
        """Wait until the descriptor `also` can be read, at most `timeout_s` -> whether it can."""
        deadline = time.monotonic() + timeout_s
        while not self.threaded:
            watched = ([0] if self.attached else []) + ([] if also is None else [also])
            ready = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))[0]
            if self.attached and 0 in ready and not self._hear():
                raise HostGone
            if also in ready or time.monotonic() >= deadline:
                return also in ready
        if self.gone.wait(timeout_s):
            raise HostGone
        return False


class Worker:
    """A worker process: `ask` it for a visit, `close` it. How it comes to life is the subclass's."""

    def send(self, message):
        raise NotImplementedError

    def receive(self, timeout_s):
        """The next message; raises `WorkerLost` when there is none within `timeout_s`."""
        raise NotImplementedError

    def close(self):
        """Kill the worker, if it still lives -> how it ended, in words."""
        raise NotImplementedError

    def start(self, settings, cores, spare_core):
        self.send({"settings": settings, "cores": cores, "spare_core": spare_core})
        return self.answer(START_TIMEOUT_S)

    def answer(self, timeout_s):
        """The answer to what was sent last; every sign of life starts `timeout_s` anew."""
        while True:
            message = self.receive(timeout_s)
            if "fatal" in message:
                raise Fatal(message["fatal"], message["usage"])
            if "alive" not in message:
                return message


def how_it_ended(status):
    """`status` as subprocess has it: an exit code, or minus the number of a signal."""
    if status >= 0:
        return "the worker process ended with exit code %d" % status
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    hint = ": probably out of memory" if name == "SIGKILL" else ""
    return "the worker process was killed by signal %d (%s)%s" % (-status, name, hint)


class ForkedWorker(Worker):
    """A fork of the supervisor, taken before any runtime is loaded.

    On a phone the interpreter may have been started through its own loader: there is no
    `sys.executable` that could be run again.
    """

    def __init__(self, host):
        self.host = host
        self.buffer = b""
        request_end, self.requests = os.pipe()
        self.responses, response_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(request_end, response_end)
        os.close(request_end)
        os.close(response_end)

    def _live(self, request_end, response_end):
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends us even inside a model that hangs
            os.close(self.requests)
            os.close(self.responses)
            # What native code prints must not end up between the results.
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            serve(os.fdopen(request_end, "rb"), os.fdopen(response_end, "wb"))
            status = 0
        except BrokenPipeError:
            pass  # the supervisor has ended, and says why
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def send(self, message):
        try:
            os.write(self.requests, json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise WorkerLost from error

    def receive(self, timeout_s):
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.buffer:
            if not self.host.check(max(0.0, deadline - time.monotonic()), self.responses):
                raise WorkerLost("no answer within %g s" % timeout_s)
            data = os.read(self.responses, 1 << 16)
            if not data:
                raise WorkerLost
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line.decode())

    def close(self):
        os.close(self.requests)
        os.close(self.responses)
        done = reap(self.pid, 0.5)  # let a crash be seen as what it was
        if done is None:
            os.kill(self.pid, signal.SIGKILL)
            done = os.waitpid(self.pid, 0)[1]
        return how_it_ended(-os.WTERMSIG(done) if os.WIFSIGNALED(done) else os.WEXITSTATUS(done))


def reap(pid, timeout_s):
    """Wait for a child -> its wait status, or None when it still lives."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    return None


class SpawnedWorker(Worker):
    """This file started again, where forking is not possible or not safe (Windows, macOS)."""

    def __init__(self, host):
        self.host = host
        command = [sys.executable, os.path.abspath(__file__), "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(b"")

    def send(self, message):
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise WorkerLost from error

    def receive(self, timeout_s):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.host.check()
            try:
                line = self.lines.get(timeout=0.25)
            except queue.Empty:
                continue
            if not line:
                raise WorkerLost
            return json.loads(line.decode())
        raise WorkerLost("no answer within %g s" % timeout_s)

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return how_it_ended(self.process.wait())


# --- results and the order of visits ------------------------------------------------------------------


class Results:
    """`results.jsonl`: append-only, and repeated on `stream` from line `seen` on."""

    def __init__(self, path, run, seen, stream):
        self.stream = stream
        self.visits = []
        lines = self._read(path, seen)
        for line in lines:
            record = self._parse(line, path)
            if record["type"] in ("visit", "reference"):
                self.visits.append(record)
        if lines and not same_run(self._parse(lines[0], path), run):
            raise Fatal("%s holds the results of another kit: move it away" % path)
        with self._writing(path):
            self.file = open(path, "ab")  # noqa: SIM115
            self.file.truncate(sum(map(len, lines)))  # a line torn by a power cut or a kill
        self.synced = time.monotonic()
        for line in lines[seen:]:
            self.stream(line)
        if not lines:
            self.append(run)

    @classmethod
    def _read(cls, path, seen):
        if not os.path.exists(path):
            return []
        try:
            with open(path, "rb") as file:
                lines = [line for line in file if line.endswith(b"\n")]
        except OSError as error:
            raise Fatal("cannot read %s: %s" % (path, error.strerror)) from error
        # A power cut leaves rubbish at the end. A host has all that it saw, so what is behind can go;
        # without one, the file is all there is and its owner decides.
        for number in range(seen, len(lines) if seen else 0):
            try:
                cls._parse(lines[number], path)
            except Fatal:  # noqa: PERF203
                return lines[:number]
        return lines

    @staticmethod
    def _parse(line, path):
        try:
            record = json.loads(line.decode())
            record["type"]
            return record
        except (ValueError, TypeError, KeyError) as error:
            raise Fatal("%s is damaged: move it away" % path) from error

    def tell(self, record):
        """To the host alone."""
        self.stream(json.dumps(record).encode() + b"\n")

    def append(self, record):
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._writing(self.file.name):
            self.file.write(line)
            self.file.flush()
        self.stream(line)
        # The host syncs every line of its own copy; here, often enough not to lose much to a power
        # cut and seldom enough not to disturb the measurement on a slow card.
        if time.monotonic() - self.synced > FSYNC_EVERY_S or record["type"] not in ("visit", "reference"):
            with self._writing(self.file.name):
                os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    @staticmethod
    @contextlib.contextmanager
    def _writing(path):
        try:
            yield
        except OSError as error:
            raise Fatal("cannot write %s: %s" % (path, error.strerror)) from error


def same_run(one, other):
    """Whether two run records ask for the same thing; more or less time for it is still the same."""
    if not isinstance(one, dict):
        return False
    common = one.get("settings", {}).keys() & other["settings"].keys()  # later versions have more of them

    def essence(run):
        settings = {k: v for k, v in run.get("settings", {}).items() if k in common and k != "time_limit_s"}
        return run.get("format"), settings, run.get("models")

    return essence(one) == essence(other)


class Progress:
    """What is known of one model so far."""

    def __init__(self, settings):
        self.settings = settings
        self.failed = False
        self.medians = []
        self.samples = array.array("q")
        self.counts = []  # of the samples of each visit
        self.half_width = None

    def add(self, record):
        if record["status"] != "ok":
            self.failed = True
            return
        self.medians.append(statistics.median(record["samples_ns"]))
        self.samples.extend(record["samples_ns"])
        self.counts.append(len(record["samples_ns"]))
        self.half_width = half_width(self.medians, self.samples)

    def forget_last(self):
        """The last visit does not count."""
        self.medians.pop()
        del self.samples[len(self.samples) - self.counts.pop() :]
        self.half_width = half_width(self.medians, self.samples)

    @property
    def tight(self):
        return self.half_width is not None and self.half_width <= self.settings["target_half_width"]

    @property
    def wants_visit(self):
        rounds = len(self.medians)
        if self.failed or rounds >= self.settings["max_rounds"]:
            return False
        return rounds < self.settings["min_rounds"] or not self.tight


class Reference:
    """One model that tells whether the device is as fast as it was; None as `key` before it is chosen.

    Its level is the median of all looks, so a device that changes for good has a new level as soon as most
    of them agree. Of those made while we wait for it to settle, only the first counts, unless it never did.
    The settings' `drift_tolerance` is what a look may be off the level; on a noisy machine it is as much as
    they vary anyway (95% of them, by their median absolute deviation, which a few slow ones do not widen).
    """

    def __init__(self, settings):
        self.tolerance = settings.get("drift_tolerance", 0)
        self.key = None
        self.medians = []
        self.waiting = []  # medians of looks that count if the device does not settle
        self.is_off = False
        self.unfit = set()  # models that failed as a reference
        self.last_s = 0.0  # what the last look took
        self.since = []  # models visited since then ...
        self.since_s = 0.0  # ... for so long
        self.visits = self.repeated = self.kept = 0

    def add_visit(self, record):
        self.medians += self.waiting
        self.waiting = []
        self.since_s += record["seconds"]
        if record["status"] == "ok":
            self.since.append(record["key"])
        else:
            self.since = [key for key in self.since if key != record["key"]]

    def add(self, record):
        """Take in a look -> the models whose visits since the one before do not count."""
        self.visits += 1
        if record["status"] != "ok":
            self.unfit.add(record["key"])
            self.key = None
            return []
        if record["key"] != self.key:
            self.key, self.medians, self.waiting, self.is_off = record["key"], [], [], False
        still_off = self.is_off and record["drifted"] and not self.since
        self.waiting = self.waiting if still_off else []
        (self.waiting if still_off else self.medians).append(statistics.median(record["samples_ns"]))
        self.is_off = record["drifted"]
        void = self.since if record["again"] else []
        self.repeated += len(void)
        self.kept += len(self.since) if record["drifted"] and not record["again"] else 0
        self.last_s, self.since, self.since_s = record["seconds"], [], 0.0
        return void

    @property
    def well_known(self):
        return len(self.medians) >= LOOKS_AT_FIRST

    def drift(self, samples):
        """How far the median of `samples` is off the level, relative to it, and whether that is too far."""
        if not self.well_known:
            return None, False
        level, count = statistics.median(self.medians), len(self.medians)
        spread = 1.4826 * statistics.median(abs(median - level) for median in self.medians)
        varies = spread * T_975[min(count - 1, len(T_975)) - 1] * math.sqrt(1 + 1 / count)
        off = statistics.median(samples) - level
        return off / level, abs(off) > max(self.tolerance * level, varies)

    def choose(self, progress):
        """The model to look at, once enough of them are known; None before."""
        fit = {key: model for key, model in progress.items() if not model.failed and key not in self.unfit}
        known = [key for key, model in fit.items() if model.medians]
        if not known or len(known) < min(REFERENCE_AMONG, len(fit)):
            return None
        return min(known, key=lambda key: (abs(math.log(fit[key].medians[0] / 1e6 / REFERENCE_MS)), key))


class Supervisor:
    """Visits models in rounds, in a new random order each, until every median is known well enough.

    Shuffled and interleaved, because a machine that heats up or gets busy must not make the models
    slow that happened to be measured then: what drifts lands on all of them, and shows in their spread.
    """

    def __init__(self, kit, host, results, worker_class, memory, cores=None, fixed_performance=False):
        self.kit, self.host, self.results, self.worker_class = kit, host, results, worker_class
        self.memory = memory  # the file of `steady_clocks`
        self.wanted_cores = cores
        self.settings = kit.run["settings"]
        self.progress = {key: Progress(self.settings) for key in kit.models}
        self.used_s = 0.0
        self.reference = Reference(self.settings)
        for record in results.visits:
            self._take(record)
        self.returned = bool(results.visits)  # the device may be another one by now
        limit_s = self.settings["time_limit_s"]
        self.patience_s = SETTLE_S if limit_s is None else min(SETTLE_S, SETTLE_SHARE * limit_s)
        self.worker = None
        self.killed = set()  # models whose worker was killed from outside, once
        self.lost_in_a_row = 0
        self.nice = raise_priority()  # workers inherit it
        self.fixed_performance = fixed_performance
        self.look_again = 0.0  # for heat
        self.measured_hot = None

    def run(self):
        device = describe()
        self._take_cores(device["cores_allowed"])
        with steady_clocks(self.cores, self.memory) as found:
            try:
                self._meet_device(device, found)
                self._measure()
            finally:
                self._close_worker()
            self._end(device)

    def _end(self, device):
        unsure = [key for key, p in self.progress.items() if not p.failed and not p.tight]
        self.results.append(
            {
                "type": "end",
                "time": now(),
                "time_limit_s": self.settings["time_limit_s"],
                "cut_short": [key for key in unsure if self.progress[key].wants_visit],
                "noisy": [key for key in unsure if not self.progress[key].wants_visit],
                "measured_hot": self.measured_hot,
                "repeated": self.reference.repeated,
                "drifted": self.reference.kept,
                "after": state(device["cores_used"]),
            }
        )

    def _take_cores(self, allowed):
        threads = self.settings["threads"]
        count = len(allowed) if allowed else os.cpu_count() or threads
        self.cores = self._choose_cores(allowed, threads, count)
        self.spare_core = (len(self.cores) if self.cores else threads) < count

    def _meet_device(self, device, governors):
        ready = self._open_worker()
        if not ready["pinned"]:
            if self.wanted_cores:
                raise Fatal("this system does not let us choose our cores", usage=True)
            self.cores = None
        elif self.spare_core:
            pin(set(device["cores_allowed"]) - set(self.cores))  # the supervisor itself stays out of the way
        device["runtime"] = ready["runtime"]
        device["cores_used"] = self.cores
        device["nice"] = self.nice
        core = (self.cores or [0])[0]
        device["governor"] = governor(core)
        device["governor_found"] = governors.get(core, device["governor"])
        device["fixed_performance_mode"] = self.fixed_performance or None  # nobody can ask a system for it
        device["before"] = state(self.cores)
        device["uncontrolled"] = uncontrolled(device)
        self.results.append(device)

    def _choose_cores(self, allowed, threads, count):
        wanted = self.wanted_cores
        if wanted and not set(wanted) <= set(allowed or wanted):
            raise Fatal("cores %s were asked for, this device lets us use %s" % (wanted, allowed), usage=True)
        if threads > (len(wanted) if wanted else count):
            have = "%d cores were given" % len(wanted) if wanted else "this device lets us use %d cores" % count
            raise Fatal("%d threads were asked for, but %s" % (threads, have), usage=True)
        return wanted or (fastest_cores(allowed, threads) if allowed else None)

    def _measure(self):
        limit_s = self.settings["time_limit_s"]
        while True:
            wanting = [key for key, progress in self.progress.items() if progress.wants_visit]
            if not wanting:
                if self._has_drifted(at_end=True):
                    continue
                return
            rounds = min(len(self.progress[key].medians) for key in wanting)
            batch = [key for key in wanting if len(self.progress[key].medians) == rounds]
            random.Random("%d:%d" % (self.settings["seed"], rounds)).shuffle(batch)
            for key in batch:
                # A first look at every model comes before the limit: half a table is no table.
                if rounds and limit_s is not None and self.used_s >= limit_s:
                    self._has_drifted(at_end=True, may_repeat=False)
                    return
                self._cool_down()
                if self._has_drifted():
                    break
                self._visit(key, rounds)

    def _take(self, record):
        """Let a visit count, of this start or of one before."""
        self.used_s += record["seconds"]
        if record["type"] == "visit":
            self.progress[record["key"]].add(record)
            self.reference.add_visit(record)
        else:
            for key in self.reference.add(record):
                self.progress[key].forget_last()

    def _has_drifted(self, at_end=False, may_repeat=True):
        """Look at the reference op if it is time to -> whether models have to be visited again."""
        reference, every_s = self.reference, self.settings.get("reference_every_s")
        if not every_s or (at_end and not (reference.since and reference.well_known)):
            return False
        if reference.key is None or not reference.well_known:
            key = reference.key or reference.choose(self.progress)
            while key is not None and not reference.well_known and self._look(key)["status"] == "ok":
                pass
            return False
        due = reference.since_s >= max(every_s, reference.last_s / REFERENCE_SHARE)
        if not (due or at_end or self.returned):
            return False
        self.returned = False
        # Repeats cost as much as the least number of rounds, at most: a device may never settle.
        may_repeat = may_repeat and reference.repeated < len(self.progress) * self.settings["min_rounds"]
        look = self._look(reference.key, may_repeat and self.patience_s > 0)
        again = look.get("again", False)
        while look.get("drifted") and self.patience_s > 0 and may_repeat:
            percent = 100 * look["drift"]
            why = "the reference op takes %+.0f%%: waiting for the device to be as before" % percent
            self.results.tell({"type": "waiting", "why": why})
            step_s = min(SETTLING_STEP_S, self.patience_s)
            self.host.check(step_s)
            self.patience_s -= step_s
            look = self._look(reference.key)
        return again

    def _look(self, key, may_repeat=False):
        """Visit the reference op -> the record. One that is off is made sure of: anything may come between."""
        record = self._ask(key, {"type": "reference", "key": key, "status": "ok"})
        if record["status"] == "ok":
            record["drift"], record["drifted"] = self.reference.drift(record["samples_ns"])
            for _ in range(2 if record["drifted"] else 0):
                more = self._ask(key, {"status": "ok"})
                if more["status"] == "ok":
                    for name in ("samples_ns", "warmup_ns", "warmup_runs", "seconds"):
                        record[name] += more[name]
            record["drift"], record["drifted"] = self.reference.drift(record["samples_ns"])
            record["again"] = record["drifted"] and may_repeat and bool(self.reference.since)
        self._take(record)
        self.results.append(record)
        self._check_losses(record)
        return record

    def _cool_down(self):
        """Pause while heat slows the device down: what is measured then is the heat."""
        if time.monotonic() < self.look_again:
            return
        deadline = time.monotonic() + COOL_DOWN_S
        why = throttled()
        if why is not None:
            self.results.tell({"type": "waiting", "why": "the device cools down: " + why})
        while why is not None and time.monotonic() < deadline:
            self.host.check(COOLING_STEP_S)
            why = throttled()
        self.measured_hot = self.measured_hot or why
        self.look_again = time.monotonic() + (LOOK_FOR_HEAT_EVERY_S if why is None else STAYS_HOT_S)

    def _visit_s(self):
        """Time for the samples of one visit: shorter when the limit would not allow enough rounds."""
        visit_s, limit_s = self.settings["visit_s"], self.settings["time_limit_s"]
        if limit_s is None:
            return visit_s
        share_s = limit_s / (len(self.progress) * self.settings["min_rounds"])
        return min(visit_s, max(0.01, 0.6 * share_s))

    def _visit(self, key, rounds):
        record = self._ask(key, {"type": "visit", "key": key, "round": rounds, "status": "ok"})
        self._take(record)
        record["half_width"] = self.progress[key].half_width
        self.results.append(record)
        self._tell(rounds)
        self._check_losses(record)

    def _ask(self, key, record):
        """Let the worker run a model -> the record with what came of it, and the seconds that it took."""
        begin = time.monotonic()
        model = self.kit.models[key]
        request = dict(model, path=self.kit.path_of(model), visit_s=self._visit_s())
        try:
            if self.worker is None:
                self._open_worker()
            self.worker.send(request)
            answer = self.worker.answer(self.settings["op_timeout_s"])
            if answer.pop("damaged", False) and self.host.repairs:
                raise Fatal(answer["error"], transient=True)
            if "error" in answer:
                record.update(status="failed", cause="exception")
            record.update(answer)
            self.lost_in_a_row = 0
        except WorkerLost as error:
            ended = self._close_worker()
            if not str(error) and "SIGKILL" in ended and key not in self.killed:
                # No model does that to itself: the system did, for want of memory, or somebody. Once is no proof.
                self.killed.add(key)
                self.used_s += time.monotonic() - begin
                return self._ask(key, record)
            record.update(status="failed", cause="timeout" if str(error) else "crash", error=str(error) or ended)
            self.lost_in_a_row += 1
        record["seconds"] = round(time.monotonic() - begin, 6)
        return record

    def _check_losses(self, record):
        if self.lost_in_a_row >= GIVE_UP_AFTER:
            raise Fatal("%d models in a row crashed or hung: %s" % (self.lost_in_a_row, record["error"]))

    def _tell(self, rounds):
        if not self.host.attached and sys.stderr is not None and sys.stderr.isatty():
            done = sum(len(progress.medians) > rounds or progress.failed for progress in self.progress.values())
            sys.stderr.write("\rround %d: %d of %d models " % (rounds + 1, done, len(self.progress)))

    def _open_worker(self):
        self.worker = self.worker_class(self.host)
        try:
            return self.worker.start(self.settings, self.cores, self.spare_core)
        except WorkerLost as error:
            raise Fatal("the runtime does not start: %s" % (str(error) or self._close_worker())) from error

    def _close_worker(self):
        worker, self.worker = self.worker, None
        return worker.close() if worker is not None else ""


# --- the kit, the lock and the command line -----------------------------------------------------------


class Kit:
    """A folder with `manifest.json` and the models it names."""

    def __init__(self, folder):
        self.folder = folder
        path = os.path.join(folder, "manifest.json")
        try:
            with open(path, encoding="utf-8") as file:
                manifest = json.load(file)
            if manifest["format"] != FORMAT:
                raise Fatal(
                    "%s has the format %s, this agent reads %d" % (path, manifest["format"], FORMAT), usage=True
                )
            self.models = {model["key"]: model for model in manifest["models"]}
            self.run = {
                "type": "run",
                "format": FORMAT,
                "created": manifest["created"],
                "settings": manifest["settings"],
                "about": manifest["about"],
                "models": {key: model["sha256"] for key, model in self.models.items()},
            }
            wheels = manifest.get("wheels")
            self.wheels = None if wheels is None else (wheels["for"], dict(wheels["files"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Fatal("%s cannot be read: %s" % (path, one_line(error)), usage=True) from error
        if manifest["settings"]["runtime"] not in RUNTIMES:
            raise Fatal("this agent has no runtime %r" % manifest["settings"]["runtime"], usage=True)

    def path_of(self, model):
        return os.path.join(self.folder, "models", os.path.basename(model["file"]))


def python_tag():
    """Which wheels fit this Python: `aarch64-cp311`."""
    machine = platform.machine()
    if sys.maxsize < 1 << 32:  # many a 64-bit kernel carries a 32-bit system
        machine = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return "%s-cp%d%d" % (machine, sys.version_info[0], sys.version_info[1])


def use_wheels(kit):
    """Have the runtime that a kit brings along found first. It is unpacked once, into a folder of the kit."""
    if not kit.wheels:
        return
    meant, files = kit.wheels
    if meant != python_tag():
        words = "the wheels of this kit are for %s, this Python takes those for %s: give that to ofa-profile --wheels"
        raise Fatal(words % (meant, python_tag()), usage=True)
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    folder = os.path.abspath(os.path.join(kit.folder, "runtime-" + digest))
    if not os.path.isdir(folder):
        unpack_wheels(kit, files, folder)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])


def unpack_wheels(kit, files, folder):
    """All wheels into a folder, which gets its name when it is whole."""
    fresh = folder + ".incoming"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        for name, sha256 in sorted(files.items()):
            path = os.path.join(kit.folder, "wheels", os.path.basename(name))
            with zipfile.ZipFile(io.BytesIO(verified(path, sha256))) as wheel:
                for member in wheel.namelist():
                    place = installed(member)
                    if place is not None:
                        target = os.path.join(fresh, *place)
                        os.makedirs(os.path.dirname(target), exist_ok=True)
                        with wheel.open(member) as source, open(target, "wb") as file:
                            shutil.copyfileobj(source, file)
        os.rename(fresh, folder)
    except (OSError, Damaged, zipfile.BadZipFile) as error:
        raise Fatal("the wheels of this kit cannot be unpacked: %s" % one_line(error)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def installed(member):
    """Where a member of a wheel is installed (PEP 427), in parts; None for what is no part of a package."""
    parts = member.split("/")
    if parts[0].endswith(".data"):
        parts = parts[2:] if parts[1:2] in (["purelib"], ["platlib"]) else []
    return parts if parts and all(parts) and not {".", ".."}.intersection(parts) else None


class Lock:
    """Two agents that measure at once measure each other. The system drops the lock with its holder."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = open(path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise Fatal("cannot write %s: %s" % (path, error.strerror)) from error

    def take(self, host, say):
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        told = False
        while not self._try():
            if time.monotonic() > deadline:
                raise Fatal("another agent is measuring on this device (lock %s)" % self.path)
            if not told:
                say({"type": "waiting", "lock": self.path})
                told = True
            host.check(0.2)

    def _try(self):
        try:
            if sys.platform == "win32":
                import msvcrt

                self.file.seek(0)
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def core_list(text):
    """For `type=` of an option: `2,3`."""
    if not all(part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError("%r is not a list of cores like 2,3" % text)
    return sorted({int(part) for part in text.split(",")})


def parse_arguments(argv):
    """The command line of the agent."""
    parser = argparse.ArgumentParser(description="Measure the models of a kit on this machine.")
    parser.add_argument("--kit", metavar="DIR", help="folder with manifest.json and models/")
    parser.add_argument("--describe", action="store_true", help="print what is known of this device and stop")
    parser.add_argument("--attached", action="store_true", help="end when stdin closes: the host holds it open")
    parser.add_argument("--patience", type=int, default=0, metavar="S", help="... or is silent for S seconds")
    parser.add_argument("--repair", action="store_true", help="end when a model is damaged: the host brings it again")
    parser.add_argument("--cores", type=core_list, metavar="N[,N...]", help="use these cores, not the fastest ones")
    parser.add_argument("--fixed-performance", action="store_true", help="Android's mode of this name is on")
    parser.add_argument("--seen", type=int, default=0, metavar="N", help="do not repeat the first N lines of results")
    parser.add_argument("--lock", metavar="FILE", help="lock file (default: DIR/lock)")
    parser.add_argument("--no-fork", action="store_true", help="start workers as new processes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not (arguments.kit or arguments.describe or arguments.worker):
        parser.error("what to measure? give --kit DIR")
    return arguments


def worker_main():
    """A spawned worker: its stdout carries the responses; whatever else is printed goes to stderr."""
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, responses)
    return 0


def to_stdout(line):
    """Give a line to whoever reads our stdout."""
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        raise HostGone from error


def ignore(line):
    """A terminal is for people, and they have the file."""


def measure_kit(arguments, stream):
    """Measure what the kit asks for; every line of the results goes to the function `stream` too."""

    def end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup
        signal.signal(signal.SIGHUP, end)

    def say(record):
        stream(json.dumps(record).encode() + b"\n")

    spawn = arguments.no_fork or not CAN_FORK
    host = Host(arguments.attached, spawn, arguments.patience, say)
    host.repairs = arguments.repair
    kit = Kit(arguments.kit)
    lock = Lock(arguments.lock or os.path.join(arguments.kit, "lock"))
    lock.take(host, say)
    use_wheels(kit)
    results = Results(os.path.join(arguments.kit, "results.jsonl"), kit.run, arguments.seen, stream)
    worker_class = SpawnedWorker if spawn else ForkedWorker
    memory = lock.path + ".governors"
    Supervisor(kit, host, results, worker_class, memory, arguments.cores, arguments.fixed_performance).run()


def main(argv=None):
    """The command: 0 when everything was measured, 1 when nothing can be, 130 when interrupted."""
    arguments = parse_arguments(argv)
    if arguments.worker:
        return worker_main()
    if arguments.describe:
        print(json.dumps(describe()))
        return 0
    stream = ignore if sys.stdout is None or sys.stdout.isatty() else to_stdout
    try:
        measure_kit(arguments, stream)
    except Fatal as error:
        stream(
            json.dumps(
                {"type": "fatal", "error": str(error), "usage": error.usage, "transient": error.transient}
            ).encode()
            + b"\n"
        )
        sys.stderr.write("agent: %s\n" % error)
        return 1
    except (KeyboardInterrupt, HostGone):
        sys.stderr.write("agent: interrupted; run it again to go on\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
