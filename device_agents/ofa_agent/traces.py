"""Reads the trace that onnxruntime's profiler writes: a JSON list with one event per line, in order of their ends."""

import collections
import json
import statistics

SUFFIX = "_kernel_time"
CONTROL = ("If", "Loop", "Scan", "SequenceMap")  # operators that run kernels of their own, which have events too

Event = collections.namedtuple("Event", "name kind index begin duration")  # in microseconds


def kernels_of(lines, count):
    """Return the kernels in the last `count` runs of a trace, in order of execution: `name`, `kind`, `ns`, `calls`.

    `calls` are those in one run, and `ns` is the median over the runs of the mean time of a call. Two kernels can have
    the same name. The time of a kernel includes the kernels that it runs itself, so those are left out.
    """
    runs = collections.deque(maxlen=count)
    current = []
    for event in _events(lines):
        if event.get("cat") == "Session" and event.get("name") == "model_run":
            runs.append(_in_one_run(current))
            current = []
        elif event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            _add(current, _node(event))
    names = list(dict.fromkeys(name for run in runs for name in run))
    found = []
    for name in names:
        times = [run[name] for run in runs if name in run]
        if 2 * len(times) > len(runs):
            name, kind, _ = name
            ns = int(1000 * statistics.median(duration / calls for duration, calls in times))
            calls = int(statistics.median(calls for _, calls in times))
            found.append({"name": name, "kind": kind, "ns": ns, "calls": calls})
    return found


def _events(lines):
    for line in lines:
        line = line.strip().rstrip(",")
        if line not in ("[", "]", ""):
            yield json.loads(line)


def _node(event):
    more = event.get("args", {})
    name = event["name"][: -len(SUFFIX)]
    return Event(name, more.get("op_name", ""), more.get("node_index"), int(event["ts"]), int(event["dur"]))


def _add(run, event):
    """Add a kernel to those of a run, and remove those that it ran itself: they began later and have ended.

    Times are whole microseconds, so a kernel can begin at the time of the kernel before it.
    """
    earliest = event.begin if event.kind in CONTROL else event.begin + 1
    while run and run[-1].begin >= earliest:
        run.pop()
    run.append(event)


def _in_one_run(events):
    """Return the time and the number of calls of each kernel."""
    times = {}
    for event in events:
        identity = (event.name, event.kind, event.index)
        duration, calls = times.get(identity, (0, 0))
        times[identity] = (duration + event.duration, calls + 1)
    return times
