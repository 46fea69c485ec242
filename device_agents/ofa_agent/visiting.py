"""Runs models in a worker, and replaces a worker that crashed or hung."""

import time

from . import reasons
from .errors import Fatal, WorkerLost

START_TIMEOUT_S = 300.0  # importing a runtime can take minutes on a slow SD card
ASK_TIMEOUT_S = 60.0
GIVE_UP_AFTER = 5  # consecutive crashes or hangs; then the runtime is broken, not a model


class Visitor:
    """Owns the worker. `new_worker(host)` starts a new one."""

    def __init__(self, host, new_worker):
        self.host, self.new_worker = host, new_worker
        self.worker = None
        self.start_message = None
        self.killed = set()  # models whose worker was killed from outside
        self.lost_in_a_row = 0

    def start(self, settings, cores, spare_core):
        """Start the worker, which loads the runtime, and return its answer. Raises `Fatal`."""
        self.start_message = {"settings": settings, "cores": cores, "spare_core": spare_core}
        return self._start()

    def _start(self):
        name = self.start_message["settings"]["runtime"]
        try:
            return self._running().ask(self.start_message, START_TIMEOUT_S)
        except WorkerLost as error:
            ended = str(error) or self.close()
            cause = reasons.MEMORY if "SIGKILL" in ended else reasons.RUNTIME
            raise Fatal("the runtime %s does not start: %s" % (name, ended), cause=cause) from error
        except Fatal as error:
            if error.cause != reasons.RUNTIME:
                raise
            reason, cause = reasons.explained(str(error), self.worker.words.read())
            raise Fatal("the runtime %s cannot be imported: %s" % (name, reason), cause=cause) from error

    def _running(self):
        if self.worker is None:
            self.worker = self.new_worker(self.host)
        return self.worker

    def ask(self, what, **more):
        """Ask the worker about the machine that it reaches, and return the answer. Raises `Fatal`."""
        try:
            return self._running().ask(dict(more, ask=what), ASK_TIMEOUT_S)
        except WorkerLost as error:
            why = str(error) or self.close()
            raise Fatal("the worker does not answer: %s" % why, transient=True) from error

    def visit(self, request, timeout_s, record):
        """Run a model in the worker. Return `record` with the result and the duration in seconds."""
        begin = time.monotonic()
        try:
            record.update(self._outcome(request, timeout_s))
        except WorkerLost as error:
            ended = self.close()
            if not str(error) and "SIGKILL" in ended and request["key"] not in self.killed:
                # SIGKILL comes from outside (out of memory, a user), so the model gets one more try.
                self.killed.add(request["key"])
                self.visit(request, timeout_s, record)
            else:
                record.update(status="failed", cause="timeout" if str(error) else "crash", error=str(error) or ended)
                self.lost_in_a_row += 1
        record["seconds"] = round(time.monotonic() - begin, 6)
        return record

    def _outcome(self, request, timeout_s):
        if self.worker is None:
            self._start()
        answer = self.worker.ask(request, timeout_s)
        if answer.pop("damaged", False) and self.host.repairs:
            raise Fatal(answer["error"], transient=True)
        self.lost_in_a_row = 0
        return dict({"status": "failed", "cause": "exception"} if "error" in answer else {}, **answer)

    def check_losses(self, record):
        """Raise `Fatal` if too many consecutive models have crashed or hung their worker."""
        if self.lost_in_a_row >= GIVE_UP_AFTER:
            raise Fatal("%d models in a row crashed or hung: %s" % (self.lost_in_a_row, record["error"]))

    def close(self):
        """End the worker, if there is one, and return how it ended, as a message."""
        worker, self.worker = self.worker, None
        return worker.close() if worker is not None else ""
