"""The worker process: loads the runtime and runs one model at a time.

Requests and answers are JSON lines. The first request is {"settings", "cores", "spare_core"}, and its answer is
{"ready", "runtime", "pinned"}. All others are visits: {"path", "sha256", "inputs", "visit_s", ...}. The answer has the
samples or an "error". With {"ask": "profile"}, it has the times of the kernels by the runtime's own profiler. {"alive"}
before an answer means that the worker is busy. {"fatal", "usage"} means that this worker cannot measure anything.
"""

import gc
import json
import os
import signal
import statistics
import sys
import time

from . import runtimes
from .core_use import CoreUse
from .cores import pin
from .errors import Damaged, Fatal
from .files import verified
from .inputs import with_data
from .reading import one_line

PROFILE_S = 1.0  # time for the runs with the profiler of the runtime
FEWEST_PROFILED, MOST_PROFILED = 5, 200


LONG_RUN_NS = 500000000  # from here on, a second run is no faster than the first


def sample(run, budget_s, fewest, most, alive):
    """Return the times of single runs in ns: at least `fewest`, at most `most`, for about `budget_s` seconds."""
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
    """Run until two consecutive windows agree within 5%, or for `budget_s` seconds. Return the samples in ns.

    A model that takes long is warm after one run.
    """
    deadline = time.perf_counter() + budget_s
    done = sample(run, 0, 1, 1, alive)
    if done[0] >= LONG_RUN_NS:
        return done
    window = done + sample(run, min(0.002, budget_s / 4), 2, 199, alive)
    done, before = list(window), None
    while True:
        median = statistics.median(window)
        if before is not None and (abs(median - before) <= 0.05 * before or time.perf_counter() > deadline):
            return done
        before = median
        window = sample(run, min(0.002, budget_s / 4), 3, 200, alive)
        done += window


def content(request):
    """Return the bytes of the model, and the descriptions of its inputs with theirs. Raises `Damaged`."""
    return verified(request["path"], request["sha256"]), with_data(request["inputs"])


def visit(runtime, request, settings, alive):
    """Load a model, warm it up and measure it. Return the answer."""
    begin = time.perf_counter_ns()
    runtime.spread_bytes, runtime.weight_bytes = request.get("spread_bytes", 0), request.get("weight_bytes", 0)
    run = runtime.load(*content(request))
    loaded = time.perf_counter_ns()
    alive()
    warm = warm_up(run, request["visit_s"], alive)
    use = CoreUse(settings["threads"])
    samples = sample(run, request["visit_s"], settings["min_visit_samples"], settings["max_visit_samples"], alive)
    answer = {"load_ns": loaded - begin, "warmup_ns": sum(warm), "warmup_runs": len(warm)}
    return dict(answer, samples_ns=samples, **use.fields())


def profile(runtime, request, alive):
    """Run a model with the runtime's own profiler. Return the answer: `kernels` is None if it has none."""
    if not hasattr(runtime, "profiling"):
        return {"kernels": None, "why": "%s has no profile of its own" % runtime.info["name"]}
    with runtime.profiling(*content(request)) as (run, kernels):
        alive()
        warm_up(run, PROFILE_S / 4, alive)
        samples = sample(run, PROFILE_S, FEWEST_PROFILED, MOST_PROFILED, alive)
        alive()
        found = kernels(len(samples))
    if not found:
        return {"kernels": None, "why": "the runtime's profile names no kernel"}
    return {"kernels": found, "runs": len(samples), "whole_ns": int(statistics.median(samples))}


class Service:
    """Answers requests with JSON lines on `responses`."""

    def __init__(self, responses, settings):
        self.responses, self.settings = responses, settings
        self.runtime = None

    def respond(self, response):
        """Send an answer."""
        self.responses.write(json.dumps(response).encode() + b"\n")
        self.responses.flush()

    def alive(self):
        """Report to the supervisor that the worker is busy."""
        self.respond({"alive": True})
        if hasattr(signal, "alarm"):
            # If a model hangs and the supervisor has ended, this timer ends the process.
            signal.alarm(int(self.settings["op_timeout_s"]) + 30)

    def start(self, cores, spare_core):
        """Load the runtime and report it."""
        pinned = bool(cores) and pin(cores)
        self.runtime = runtimes.load(self.settings, spare_core)
        self.respond({"ready": True, "runtime": self.runtime.info, "pinned": pinned})
        gc.disable()
        gc.freeze()  # makes the collection after each visit faster, because it skips the runtime's modules

    def answer(self, request):
        """Measure a model and return the answer."""
        try:
            self.alive()
            if request.get("ask") == "profile":
                return profile(self.runtime, request, self.alive)
            return visit(self.runtime, request, self.settings, self.alive)
        except Fatal:
            raise
        except Damaged as error:
            return {"error": str(error), "damaged": True}
        except Exception as error:
            return {"error": "%s: %s" % (type(error).__name__, one_line(error))}


def serve(requests, responses):
    """Answer requests until the stream ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor handles Ctrl-C
    start = json.loads(requests.readline().decode())
    service = Service(responses, start["settings"])
    try:
        service.start(start["cores"], start["spare_core"])
        for line in iter(requests.readline, b""):
            service.respond(service.answer(json.loads(line.decode())))
            if hasattr(signal, "alarm"):
                signal.alarm(0)
            gc.collect()
    except Fatal as error:
        service.respond({"fatal": str(error), "usage": error.usage, "cause": error.cause})


def main():
    """Run a worker in its own process. stdout is for answers only; all other output goes to stderr."""
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, responses)
    return 0
