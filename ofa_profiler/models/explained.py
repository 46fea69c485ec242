"""Which block a kernel in the runtime's own profile belongs to."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence

#: Name and operator of a kernel.
KernelName = tuple[str, str]

#: What onnxruntime adds to names, with numbers that differ from session to session.
_GENERATED = re.compile(r"(_token_\d+|_nchwc)$")
#: Changes to a blocked layout, and back from it.
REORDERS = ("ReorderInput", "ReorderOutput")


def match_profile(blocks: Sequence[Sequence[KernelName]], kernels: Sequence[KernelName]) -> list[int | None]:
    """The position of the block of each of `kernels`, which are in order of execution; None for unknown ones.

    Names decide. Kernels with generated names, or none, are matched by their operator, in order of execution. Changes
    of layout that only this machine has belong to their neighbours.
    """
    exact: dict[str, deque[int]] = defaultdict(deque)
    loose: dict[str, deque[int]] = defaultdict(deque)
    for position, names in enumerate(blocks):
        for name, kind in names:
            exact[name].append(position)
            loose[plain_name(name, kind)].append(position)
    found: list[int | None] = []
    for name, kind in kernels:
        plain = plain_name(name, kind)
        is_generated = plain == kind
        if exact[name] and not is_generated:
            position = exact[name].popleft()
            loose[plain].remove(position)
            found.append(position)
        else:
            found.append(loose[plain].popleft() if loose[plain] else None)
    return _with_neighbours(found, kernels)


def plain_name(name: str, kind: str) -> str:
    """A name without what the runtime adds; the operator if the runtime made up the whole name."""
    plain = _GENERATED.sub("", name)
    return kind if not plain or re.fullmatch(rf"{re.escape(kind)}(_\d+)?", plain) else plain


def _with_neighbours(found: list[int | None], kernels: Sequence[KernelName]) -> list[int | None]:
    """Give changes of layout without a block that of the kernel before (outputs) or after them (inputs)."""
    result = list(found)
    for i, (_, kind) in enumerate(kernels):
        if result[i] is None and kind == REORDERS[1] and i:
            result[i] = result[i - 1]
    for i in reversed(range(len(kernels))):
        if result[i] is None and kernels[i][1] == REORDERS[0] and i + 1 < len(kernels):
            result[i] = result[i + 1]
    return result
