"""The time of each kernel in the trace that onnxruntime's profiler writes."""

import json
import statistics

SUFFIX = "_kernel_time"
WITH_BODY = ("If", "Loop", "Scan", "SequenceMap")


def read_trace(path):
    """Return the events of all kernels in the file, each as (begin, duration, name, kind), in microseconds.

    Kernels inside another one (the body of If, Loop or Scan) are left out, because that one's time includes them.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        events = json.load(file)
    found = []
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(SUFFIX):
            kind = event.get("args", {}).get("op_name") or ""
            found.append((event["ts"], event["dur"], name[: -len(SUFFIX)], kind))
    found.sort(key=lambda event: (event[0], -event[1]))
    outer, end = [], None
    for event in found:
        if end is not None and event[0] + event[1] <= end:
            continue
        outer.append(event)
        end = event[0] + event[1] if event[3] in WITH_BODY else None
    return outer


def by_kernel(events, runs):
    """Return the kernels of one run in order of execution: name, kind, median ns of a call, and calls per run.

    The calls of a kernel, the first runs of which are a warm-up, are those of all `runs`.
    """
    times = {}
    for _, microseconds, name, kind in events:
        times.setdefault((name, kind), []).append(microseconds)
    kernels = []
    for (name, kind), all_us in times.items():
        ns = int(1000 * statistics.median(all_us))
        kernels.append({"name": name, "kind": kind, "ns": ns, "calls": max(1, round(len(all_us) / runs))})
    return kernels
