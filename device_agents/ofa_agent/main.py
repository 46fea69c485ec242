"""The command line of the agent."""

import argparse
import functools
import json
import os
import signal
import sys

from . import runtimes, serving
from .errors import Fatal, HostGone
from .host import Host
from .kit import Kit
from .lock import Lock
from .machine import LocalMachine, WorkerMachine
from .results import Results
from .supervisor import Supervisor
from .visiting import Visitor
from .wheels import use_wheels
from .workers import CAN_FORK, ForkedWorker, SpawnedWorker

NETWORKS = "networks"  # the folder of a kit whose models are measured after the others, in the forms chosen for those
EXIT_TIMEOUT_S = 30.0  # a program of --worker-command may have to restore the state of the machine


def core_list(text):
    """Parse a list of cores like `2,3`, for argparse."""
    if not all(part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError("%r is not a list of cores like 2,3" % text)
    return sorted({int(part) for part in text.split(",")})


def command_list(text):
    """Parse a command as a JSON list, for argparse."""
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError('%r is not a command like ["program", "argument"]' % text)
    return words


def parse_arguments(argv):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure the models of a kit on this machine.")
    parser.add_argument("--kit", metavar="DIR", help="folder with manifest.json and models/")
    parser.add_argument("--describe", action="store_true", help="print what can be read about this device")
    parser.add_argument("--check", metavar="RUNTIME", help="import a runtime and print its version")
    parser.add_argument("--attached", action="store_true", help="end when the host closes stdin")
    parser.add_argument("--patience", type=int, default=0, metavar="S", help="or when it sends nothing for S seconds")
    parser.add_argument("--repair", action="store_true", help="end when a model is damaged; the host sends it again")
    parser.add_argument("--cores", type=core_list, metavar="N[,N...]", help="use these cores, not the fastest ones")
    parser.add_argument("--fixed-performance", action="store_true", help="Android's fixed performance mode is on")
    parser.add_argument("--seen", type=int, default=0, metavar="N", help="do not repeat the first N lines of results")
    parser.add_argument("--pause-after", type=int, metavar="N", help="pause after the round of the Nth visit")
    parser.add_argument("--lock", metavar="FILE", help="lock file (default: DIR/lock)")
    parser.add_argument("--no-fork", action="store_true", help="start workers as new processes")
    parser.add_argument(
        "--worker-command",
        type=command_list,
        metavar="JSON",
        help="measure another machine through this program; README.md describes the protocol",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not (arguments.kit or arguments.describe or arguments.check or arguments.worker):
        parser.error("--kit DIR is missing")
    return arguments


def to_stdout(line):
    """Write a line to stdout. Raises `HostGone` if it is closed."""
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        raise HostGone from error


def ignore(line):
    """Do nothing. A terminal does not get the lines, because the user has the file."""


def end_on_signals():
    """Make SIGTERM and SIGHUP end the agent like Ctrl-C."""

    def end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup
        signal.signal(signal.SIGHUP, end)


def make_visitor(arguments, say):
    """Return the host and the visitor, which runs models in workers."""
    spawn = arguments.no_fork or arguments.worker_command is not None or not CAN_FORK
    host = Host(arguments.attached, spawn, arguments.patience, say)
    host.repairs = arguments.repair
    new_worker = SpawnedWorker if spawn else ForkedWorker
    if arguments.worker_command is not None:
        new_worker = functools.partial(SpawnedWorker, command=arguments.worker_command, exit_timeout_s=EXIT_TIMEOUT_S)
    return host, Visitor(host, new_worker)


def measure_kit(arguments, stream):
    """Measure the models of the kit. The function `stream` also gets each line of the results."""
    end_on_signals()

    def say(record):
        stream(json.dumps(record).encode() + b"\n")

    host, visitor = make_visitor(arguments, say)
    kit = Kit(arguments.kit)
    if arguments.worker_command is None:
        runtimes.check(kit.runtime)
    lock = Lock(arguments.lock or os.path.join(arguments.kit, "lock"))
    lock.take(host, say)
    use_wheels(kit)
    results = Results(os.path.join(arguments.kit, "results.jsonl"), kit.run, arguments.seen, stream)
    here = arguments.worker_command is None
    machine = LocalMachine(lock.path + ".governors") if here else WorkerMachine(visitor)
    how = (arguments.cores, arguments.fixed_performance, None, arguments.pause_after)
    first = Supervisor(kit, host, results, visitor, machine, *how)
    if not first.run():
        return
    folder = os.path.join(arguments.kit, NETWORKS)
    if os.path.exists(os.path.join(folder, "manifest.json")):
        networks = Kit(folder)
        path = os.path.join(arguments.kit, "results-networks.jsonl")
        # stdout has the lines of results.jsonl only, because it may be kept as a file.
        more = Results(path, networks.run, 0, ignore)
        how = (first.cores, arguments.fixed_performance, results.forms)
        Supervisor(networks, host, more, visitor, machine, *how).run()


def describe(arguments, stream):
    """Print the first fields of a `device` record."""
    _, visitor = make_visitor(arguments, lambda record: stream(json.dumps(record).encode() + b"\n"))
    machine = LocalMachine(None) if arguments.worker_command is None else WorkerMachine(visitor)
    try:
        to_stdout(json.dumps(machine.describe()).encode() + b"\n")
    finally:
        visitor.close()


def check_runtime(arguments, stream):
    """Import a runtime in a worker, which may die of it, and print a `runtime` record. Raises `Fatal`."""
    end_on_signals()
    _, visitor = make_visitor(arguments, lambda record: stream(json.dumps(record).encode() + b"\n"))
    try:
        runtimes.check(arguments.check)
        ready = visitor.start({"runtime": arguments.check, "provider": None, "threads": 1}, None, True)
        to_stdout(json.dumps(dict(ready["runtime"], type="runtime")).encode() + b"\n")
    finally:
        visitor.close()


def main(argv=None):
    """Run the command. Exit codes: 0 everything is measured, 1 nothing can be measured, 130 interrupted."""
    arguments = parse_arguments(argv)
    if arguments.worker:
        return serving.main()
    stream = ignore if sys.stdout is None or sys.stdout.isatty() else to_stdout
    try:
        act = describe if arguments.describe else check_runtime if arguments.check else measure_kit
        act(arguments, stream)
    except Fatal as error:
        fatal = {"type": "fatal", "error": str(error), "usage": error.usage, "transient": error.transient}
        fatal.update({"cause": error.cause} if error.cause else {})
        stream(json.dumps(fatal).encode() + b"\n")
        sys.stderr.write("agent: %s\n" % error)
        return 1
    except (KeyboardInterrupt, HostGone):
        sys.stderr.write("agent: interrupted; run it again to resume\n")
        return 130
    return 0
