"""Training in several processes that torchrun starts, which average their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from ofa_profiler.errors import UsageError

#: The timeout for other processes. They also wait while one process decodes a large data set.
_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """This process is number `rank` of `size`, number `local_rank` on its host, and computes on `device`."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the leading process (rank 0), which writes files and messages."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes. All must pass the same shapes in the same order."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients of this step."""
        self.average(parameter.grad for parameter in module.parameters() if parameter.grad is not None)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the one of the leading process."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def agree(self, number: int) -> bool:
        """Return whether all processes pass the same number."""
        theirs = torch.tensor([number, -number], device=self.device)
        if self.size > 1:
            distributed.all_reduce(theirs, distributed.ReduceOp.MAX)
        return bool(theirs[0] == -theirs[1])

    def share(self, size: int) -> slice:
        """Return the part of this process in a batch of `size`."""
        return slice(self.rank * size // self.size, (self.rank + 1) * size // self.size)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Run the block on one process of each host first, then on the others, which use the cache of the first."""
        if self.local_rank:
            self.wait()
        yield
        if not self.local_rank:
            self.wait()


def pick_device(name: str, local_rank: int = 0, option: str = "--device") -> torch.device:
    """Convert `auto`, `cpu`, `cuda` or `cuda:N`, the value of `option`, to a device. Raises `UsageError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    index = int(number) if number.isdigit() else local_rank
    if kind != "cuda" or (":" in name and not number.isdigit()):
        raise UsageError(f"{option} {name} is not one of auto, cpu, cuda, cuda:N")
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise UsageError(f"{option} {name}: torch sees {torch.cuda.device_count()} GPUs here")
    return torch.device("cuda", index)


@contextmanager
def join_world(device: str, option: str = "--device") -> Iterator[World]:
    """Connect to the other processes that torchrun has started, if any. `option` names the device in messages."""
    size = _from_environment("WORLD_SIZE", 1)
    if size == 1:
        yield World(0, 1, pick_device(device, option=option))
        return
    local_rank = _from_environment("LOCAL_RANK", 0)
    where = pick_device(device, local_rank, option)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    try:
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise UsageError(f"cannot connect to the other {size - 1} processes: {reason}") from error
    try:
        yield World(distributed.get_rank(), size, where, local_rank)
    finally:
        distributed.destroy_process_group()


def _from_environment(name: str, otherwise: int) -> int:
    text = os.environ.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{name}={text!r} in the environment is not a whole number; torchrun sets it")
    return int(text)
