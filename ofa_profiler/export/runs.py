"""Networks of mixed precision as runs: nodes in sequence that are computed in one precision.

Between two runs, tensors are float32. So each run of int8 is quantized as if it were a network, and a network of one
precision is one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

N = TypeVar("N")


@dataclass(frozen=True)
class Run(Generic[N]):
    """Nodes of a written graph, and the names of the tensors that enter and leave them."""

    precision: str
    nodes: list[N]
    inputs: list[str]
    outputs: list[str]


def runs_of(
    nodes: Sequence[tuple[str, N]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    names: Callable[[N], tuple[Sequence[str], Sequence[str]]],
) -> list[Run[N]]:
    """The runs of a written graph with these inputs and outputs.

    `nodes` are (precision, node), in the order of execution. `names` gives the tensors that a node reads and writes.
    """
    grouped = [(precision, [node for _, node in group]) for precision, group in groupby(nodes, lambda pair: pair[0])]
    if len(grouped) < 2:
        return [Run(precision, group, list(inputs), list(outputs)) for precision, group in grouped]
    made = [*inputs, *(name for _, node in nodes for name in names(node)[1])]
    read = [{name for node in group for name in names(node)[0]} for _, group in grouped]
    found = []
    for number, (precision, group) in enumerate(grouped):
        own = {name for node in group for name in names(node)[1]}
        wanted = set(outputs).union(*read[:number], *read[number + 1 :])
        entering = [name for name in made if name in read[number] and name not in own]
        found.append(Run(precision, group, entering, [name for name in made if name in own & wanted]))
    return found


def slot_precision(precisions: Mapping[str, str] | None, node: str, otherwise: str) -> str:
    """The precision of a node of a network, `SLOT.LAYER`: that of its slot, if the slots have their own."""
    return otherwise if precisions is None else precisions[node.partition(".")[0]]
