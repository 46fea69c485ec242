"""The memory that models take, each in a process of its own: `python -m ofa_agent.memory < request`.

The request is JSON: {"settings", "first", "models"}. A model is {"path", "inputs"}. The answer is a JSON list with the
bytes of each model, null where they are not known.

It is the peak of the resident memory (VmHWM of Linux) while the model is loaded and run, minus what the process had
before. The process has then run the model `first`, a tiny one, so the runtime itself and its code do not count.
"""

import gc
import json
import os
import sys

from . import runtimes

#: Writing 5 to this file sets the peak to the present memory (Linux 4.0 and later).
PEAK_FILE = "/proc/self/clear_refs"
RUNS = 3


def resident_kb(field):
    """Return a field of the status of this process: VmRSS is its memory, VmHWM its peak."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise OSError("no %s on this system" % field)


def run(runtime, model):
    """Load a model and run it."""
    with open(model["path"], "rb") as file:
        once = runtime.load(file.read(), model["inputs"])
    for _ in range(RUNS):
        once()


def added_bytes(runtime, first, model):
    """Return what a model adds to the memory of a process that has run the model `first`."""
    run(runtime, first)
    gc.collect()
    with open(PEAK_FILE, "w") as file:
        file.write("5")
    before = resident_kb("VmRSS")
    run(runtime, model)
    return 1024 * (resident_kb("VmHWM") - before)


def in_a_child(measure):
    """Return what `measure` returns in a copy of this process; None if that fails."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writable, json.dumps(measure()).encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as answer:
        words = answer.read()
    os.waitpid(child, 0)
    return json.loads(words.decode()) if words else None


def main():
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # runtimes print
    request = json.load(sys.stdin)
    runtime = runtimes.load(request["settings"], True)
    first = request["first"]
    json.dump(
        [in_a_child(lambda model=model: added_bytes(runtime, first, model)) for model in request["models"]], answers
    )
    answers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
