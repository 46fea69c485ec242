"""What can go wrong."""


class Fatal(Exception):
    """Nothing can be measured. `usage`: another request could work; `transient`: another start could work."""

    def __init__(self, message, usage=False, transient=False):
        super().__init__(message)
        self.usage = usage
        self.transient = transient


class Damaged(Exception):
    """A model's file is not what it should be."""


class WorkerLost(Exception):
    """The worker died or hung while it ran a model."""


class HostGone(Exception):
    """The program that started this agent, and reads its output, has died."""
