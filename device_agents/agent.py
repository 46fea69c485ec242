#!/usr/bin/env python3
"""Measures the models of a kit on this machine: python3 agent.py --kit DIR

The code is in the folder `ofa_agent` beside this file. It needs the standard library, the runtime, and Python 3.7 or
newer.

There are two processes. The *supervisor* reads the kit, selects the next model and writes the results. It needs only
the standard library. The *worker* loads the runtime and runs one model at a time. It reports an exception as data. If
a model crashes or hangs the worker, only this model fails: the supervisor replaces the worker and continues.

The results are JSON lines. They are appended to `KIT/results.jsonl`, and also written to stdout unless it is a
terminal. After an interruption, the agent resumes at the end of that file.

    {"type": "run", ...}        the request: settings and the SHA-256 of each model (first line)
    {"type": "device", ...}     the machine, once per start
    {"type": "visit", ...}      one visit of a model: all samples in ns, or the status "failed" with the reason
    {"type": "reference", ...}  a visit of the reference model, which shows whether the speed of the machine has
                                changed: then `drifted` is true. If `again` is true, the visits since the last
                                reference visit do not count and are repeated
    {"type": "end", ...}        everything is measured, or the time limit is reached

Six more records are written to stdout only: {"type": "waiting"} (for another agent, or for the chip to cool down),
{"type": "alive"} (the answer to a keep-alive of the host), {"type": "paused"} (after the visits of --pause-after),
{"type": "device"} for --describe, {"type": "runtime"} for --check, and {"type": "fatal"} (nothing can be measured; the
exit code is 1).
"""

import os
import sys

PACKAGE = "ofa_agent"


def search_last(folder):
    """Move `folder` and the working directory to the end of `sys.path`. A `queue.py` there must not hide Python's."""
    try:
        unsafe = {"", folder, os.path.realpath(folder), os.getcwd()}
    except OSError:  # the working directory was removed
        unsafe = {"", folder, os.path.realpath(folder)}
    sys.path.sort(key=lambda entry: entry in unsafe)


def load_package(folder):
    """Import the package from `folder` only. No bytecode is written, so the sent files are always the ones that run."""
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
