"""Which block a kernel in the runtime's own profile belongs to."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from math import inf

#: Name and operator of a kernel.
KernelName = tuple[str, str]

#: What onnxruntime adds to names, with numbers that differ from session to session.
_GENERATED = re.compile(r"(_token_\d+|_nchwc)$")
#: Changes to a blocked layout, and back from it.
REORDERS = ("ReorderInput", "ReorderOutput")


def match_profile(blocks: Sequence[Sequence[KernelName]], kernels: Sequence[KernelName]) -> list[int | None]:
    """The position of the block of each of `kernels`, which are in order of execution; None for unknown ones.

    Equal names decide, then names without what the runtime adds. The others, with generated names or none, are matched
    by their operator, in order of execution. Changes of layout that only this machine has belong to their neighbours.
    """
    ours = [(position, *kernel) for position, names in enumerate(blocks) for kernel in names]
    free = set(range(len(ours)))
    found: list[int | None] = [None] * len(kernels)
    for label in (_own_name, _stripped_name):
        waiting: dict[str, deque[int]] = defaultdict(deque)
        for i in sorted(free):
            waiting[label(*ours[i][1:])].append(i)
        for k, kernel in enumerate(kernels):
            if found[k] is None and (name := label(*kernel)) and waiting[name]:
                i = waiting[name].popleft()
                free.discard(i)
                found[k] = ours[i][0]
    _match_kinds(found, kernels, [(ours[i][0], ours[i][2]) for i in sorted(free)])
    return _with_neighbours(found, kernels)


def _own_name(name: str, kind: str) -> str:
    """The name, if it comes from the file; empty otherwise."""
    return "" if plain_name(name, kind) == kind else name


def _stripped_name(name: str, kind: str) -> str:
    plain = plain_name(name, kind)
    return "" if plain == kind else plain


def _match_kinds(found: list[int | None], kernels: Sequence[KernelName], free: Sequence[tuple[int, str]]) -> None:
    """Match what is left by operator. `free` are the positions of blocks, and the operators of their kernels.

    Where the runtime has as many kernels of an operator as the blocks, their order decides. Otherwise only those count
    that lie between the blocks of their neighbours.
    """
    ours: dict[str, deque[int]] = defaultdict(deque)
    for position, kind in free:
        ours[_plain_kind(kind)].append(position)
    theirs = Counter(_plain_kind(kind) for k, (_, kind) in enumerate(kernels) if found[k] is None)
    upper: list[float] = [inf] * (len(kernels) + 1)
    for k in reversed(range(len(kernels))):
        upper[k] = upper[k + 1] if (here := found[k]) is None else here
    lower, equal = 0, {kind for kind, count in theirs.items() if count == len(ours[kind])}
    for k, (_, kind) in enumerate(kernels):
        plain = _plain_kind(kind)
        if found[k] is None:
            while plain not in equal and ours[plain] and ours[plain][0] < lower:
                ours[plain].popleft()
            if ours[plain] and (plain in equal or ours[plain][0] <= upper[k]):
                found[k] = ours[plain].popleft()
        lower = lower if (here := found[k]) is None else here


def _plain_kind(kind: str) -> str:
    """The operator without the one that was fused into it."""
    return kind.removeprefix("Nhwc").removeprefix("Fused")


def plain_name(name: str, kind: str) -> str:
    """A name without what the runtime adds; the operator if the runtime made up the whole name."""
    plain = _GENERATED.sub("", name)
    return kind if not plain or re.fullmatch(rf"{re.escape(kind)}(_\d+)?", plain) else plain


def _with_neighbours(found: list[int | None], kernels: Sequence[KernelName]) -> list[int | None]:
    """Give changes of layout without a block that of the kernel before (outputs) or after them (inputs).

    A kernel between two of the same block belongs to that block, too.
    """
    result = list(found)
    for i, (_, kind) in enumerate(kernels):
        if result[i] is None and kind == REORDERS[1] and i:
            result[i] = result[i - 1]
    for i in reversed(range(len(kernels))):
        if result[i] is None and kernels[i][1] == REORDERS[0] and i + 1 < len(kernels):
            result[i] = result[i + 1]
    for i in range(1, len(kernels) - 1):
        if result[i] is None and result[i - 1] == result[i + 1]:
            result[i] = result[i - 1]
    return result
