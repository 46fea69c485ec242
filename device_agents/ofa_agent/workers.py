"""The supervisor's side of the worker process, and the ways to start it."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback

from .errors import Fatal, WorkerLost
from .reasons import SIGNALS, Words, last_words
from .serving import serve

CAN_FORK = hasattr(os, "fork") and sys.platform in ("linux", "android")
CRASH_S = 0.5  # time for a crashed process to end


class Worker:
    """A worker process. Subclasses start it and transmit the messages."""

    def __init__(self, host):
        self.host = host
        self.words = Words()

    def send(self, message):
        """Send a message. Raises `WorkerLost` if the worker has ended."""
        raise NotImplementedError

    def receive(self, timeout_s):
        """Return the next message. Raises `WorkerLost` if none arrives within `timeout_s`."""
        raise NotImplementedError

    def close(self):
        """End the worker, and return how it ended, as a message with its last words."""
        ended = self.end()
        said = last_words(self.words.read())
        self.words.close()
        return "%s: %s" % (ended, said) if said else ended

    def end(self):
        """End the worker, and return how it ended."""
        raise NotImplementedError

    def ask(self, message, timeout_s):
        """Send a message and return the answer. Each `alive` or `waiting` restarts the timeout. Raises `WorkerLost`."""
        self.words.pass_on()
        self.send(message)
        while True:
            answer = self.receive(timeout_s)
            if "fatal" in answer:
                flags = (answer.get(name, False) for name in ("usage", "transient"))
                raise Fatal(answer["fatal"], *flags, cause=answer.get("cause"))
            if "waiting" in answer:
                self.host.say({"type": "waiting", "why": answer["waiting"]})
            elif "alive" not in answer:
                return answer


def how_it_ended(status):
    """Return a message about the status of `subprocess`: an exit code, or the negative number of a signal."""
    if status >= 0:
        return "the worker process ended with exit code %d" % status
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    hint = SIGNALS.get(name)
    return "the worker process was killed by signal %d (%s)%s" % (-status, name, ": " + hint if hint else "")


class ForkedWorker(Worker):
    """A fork of the supervisor, before a runtime is loaded.

    On a phone, the interpreter may have been started through its own loader. Then `sys.executable` cannot be started
    again.
    """

    def __init__(self, host):
        super().__init__(host)
        self.buffer = b""
        request_end, self.requests = os.pipe()
        self.responses, response_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(request_end, response_end)
        os.close(request_end)
        os.close(response_end)

    def _run(self, request_end, response_end):
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the timer also ends a process whose model hangs
            os.close(self.requests)
            os.close(self.responses)
            # Output of native code must not mix with the results.
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if self.words.file is not None:
                os.dup2(self.words.file.fileno(), 2)
            os.dup2(2, 1)
            serve(os.fdopen(request_end, "rb"), os.fdopen(response_end, "wb"))
            status = 0
        except BrokenPipeError:
            pass  # the supervisor has ended and reports the reason
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
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

    def end(self):
        os.close(self.requests)
        os.close(self.responses)
        done = reap(self.pid, CRASH_S)
        if done is None:
            os.kill(self.pid, signal.SIGKILL)
            done = os.waitpid(self.pid, 0)[1]
        return how_it_ended(-os.WTERMSIG(done) if os.WIFSIGNALED(done) else os.WEXITSTATUS(done))


def reap(pid, timeout_s):
    """Wait for a child and return its wait status; None if it is still running."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    return None


def own_command():
    """Return the command that starts a worker of this agent."""
    here = os.path.dirname(os.path.abspath(__file__))
    return [sys.executable, os.path.join(os.path.dirname(here), "agent.py"), "--worker"]


class SpawnedWorker(Worker):
    """A program with the protocol of workers on stdin and stdout.

    Without a `command`, it is a new process of this agent, for systems where forking is impossible or unsafe (Windows,
    macOS).
    """

    def __init__(self, host, command=None, exit_timeout_s=CRASH_S):
        super().__init__(host)
        self.exit_timeout_s = exit_timeout_s  # time to end after its stdin is closed
        # Another program may have something to tell the user; ours has not.
        words = self.words.file if command is None else None
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command or own_command(), stdin=pipe, stdout=pipe, stderr=words)
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

    def end(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(self.exit_timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return how_it_ended(self.process.wait())
