#!/usr/bin/env python3
"""Measures the models of a kit on this machine.  By hand:  python3 agent.py --kit DIR

The code is in the folder `ofa_agent` beside this file: the standard library plus the runtime, Python 3.7 or newer.

Two processes do the work. The *supervisor* reads the kit, decides what is measured next and writes the
results; it needs the standard library only. The *worker* loads the runtime and runs one model at a time.
An exception in a model travels back as data. A model that crashes or hangs its worker fails alone: the
supervisor replaces the worker and continues with the other models.

The results are JSON lines. They are appended to `KIT/results.jsonl` and repeated on stdout unless stdout
is a terminal. Started again, the agent resumes at the end of that file.

    {"type": "run", ...}        the request: settings and the SHA-256 of every model (first line)
    {"type": "device", ...}     the machine, once per start
    {"type": "visit", ...}      one model measured once: every sample in ns, or status "failed" and why
    {"type": "reference", ...}  the reference model, measured between the visits to see whether the machine
                                still has the same speed: `drifted` if not; `again` if the visits since the
                                previous look do not count and are repeated
    {"type": "end", ...}        everything is measured, or the time is up

Four more records go to stdout only: {"type": "waiting"} (another agent is measuring here, or the chip cools
down), {"type": "alive"} (the answer to the host's sign of life), {"type": "device"} for --describe, and
{"type": "fatal"} (nothing can be measured; the exit status is 1).
"""

import os
import sys

PACKAGE = "ofa_agent"


def search_last(folder):
    """Let Python search `folder` and the working directory last: a `queue.py` there must not hide its own."""
    try:
        unsafe = {"", folder, os.path.realpath(folder), os.getcwd()}
    except OSError:  # the working directory is gone
        unsafe = {"", folder, os.path.realpath(folder)}
    sys.path.sort(key=lambda entry: entry in unsafe)


def load_package(folder):
    """Import the package from `folder`, whatever else has its name. No bytecode is kept: what was sent is what runs."""
    import importlib.util

    files = os.path.join(folder, PACKAGE)
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(files, "__init__.py"), submodule_search_locations=[files]
    )
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACKAGE])
        return importlib.import_module(PACKAGE + ".main")
    finally:
        sys.dont_write_bytecode = before


if __name__ == "__main__":
    if sys.version_info < (3, 7):
        sys.exit("agent: Python 3.7 or newer is needed, this is %d.%d" % sys.version_info[:2])
    here = os.path.dirname(os.path.abspath(__file__))
    search_last(here)
    sys.exit(load_package(here).main())
