"""The errors of the agent."""


class Fatal(Exception):
    """Nothing can be measured. `usage`: the request is wrong. `transient`: a retry may succeed.

    `cause`: "runtime" if the runtime does not load here and another release of it may, "noexec" and "memory" if no
    release can be loaded (`reasons.py`).
    """

    def __init__(self, message, usage=False, transient=False, cause=None):
        super().__init__(message)
        self.usage = usage
        self.transient = transient
        self.cause = cause


class Damaged(Exception):
    """A file of the kit is missing or damaged."""


class WorkerLost(Exception):
    """The worker crashed or hung."""


class HostGone(Exception):
    """The host, which started this agent and reads its output, has ended."""
