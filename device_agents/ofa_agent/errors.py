"""The errors of the agent."""


class Fatal(Exception):
    """Nothing can be measured. `usage`: the request is wrong. `transient`: a retry may succeed."""

    def __init__(self, message, usage=False, transient=False):
        super().__init__(message)
        self.usage = usage
        self.transient = transient


class Damaged(Exception):
    """A file of the kit is missing or damaged."""


class WorkerLost(Exception):
    """The worker crashed or hung."""


class HostGone(Exception):
    """The host, which started this agent and reads its output, has ended."""
