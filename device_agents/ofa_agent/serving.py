"""The worker: loads the runtime and runs one model at a time.

JSON lines in, JSON lines out. The first request is the start: {"settings", "cores", "spare_core"}; the answer is
{"ready", "runtime", "pinned"}. Every other request is a visit: {"path", "sha256", "inputs", "visit_s", ...}; the
answer has the samples, or an "error". {"alive"} in between means that the worker is busy. {"fatal", "usage"} means
that this worker cannot measure anything.
"""

import gc
import json
import os
import signal
import statistics
import sys
import time

from . import runtimes
from .cores import pin
from .errors import Damaged, Fatal
from .kit import verified
from .reading import one_line


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
    run = runtime.load(verified(request["path"], request["sha256"]), request["inputs"])
    loaded = time.perf_counter_ns()
    alive()
    warm = warm_up(run, request["visit_s"], alive)
    samples = sample(run, request["visit_s"], settings["min_visit_samples"], settings["max_visit_samples"], alive)
    return {"load_ns": loaded - begin, "warmup_ns": sum(warm), "warmup_runs": len(warm), "samples_ns": samples}


class Service:
    """A worker that has a runtime and answers requests with JSON lines on `responses`."""

    def __init__(self, responses, settings):
        self.responses, self.settings = responses, settings
        self.runtime = None

    def respond(self, response):
        """Send an answer."""
        self.responses.write(json.dumps(response).encode() + b"\n")
        self.responses.flush()

    def alive(self):
        """Tell the supervisor that the worker is busy."""
        self.respond({"alive": True})
        if hasattr(signal, "alarm"):
            # If the supervisor is gone when a model hangs, the kernel ends this process instead.
            signal.alarm(int(self.settings["op_timeout_s"]) + 30)

    def start(self, cores, spare_core):
        """Load the runtime."""
        pinned = bool(cores) and pin(cores)
        self.runtime = runtimes.find(self.settings["runtime"])(self.settings, spare_core)
        self.respond({"ready": True, "runtime": self.runtime.info, "pinned": pinned})
        gc.disable()
        gc.freeze()  # the collection after a visit need not look at the runtime's modules

    def answer(self, request):
        """Measure a model -> the answer."""
        try:
            self.alive()
            return visit(self.runtime, request, self.settings, self.alive)
        except Fatal:
            raise
        except Damaged as error:
            return {"error": str(error), "damaged": True}
        except Exception as error:
            return {"error": "%s: %s" % (type(error).__name__, one_line(error))}


def serve(requests, responses):
    """Answer requests until they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor to handle
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
        service.respond({"fatal": str(error), "usage": error.usage})


def main():
    """A worker in a process of its own: stdout carries the responses, whatever else is printed goes to stderr."""
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, responses)
    return 0
