"""The order of the nodes of a graph that onnxruntime wrote, the same in every process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ofa_profiler.models.explained import REORDERS
from ofa_profiler.models.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    import onnx


def settle(model: onnx.ModelProto) -> None:
    """Bring the nodes into an order of execution that follows from the graph alone, if onnxruntime's does not.

    It adds the changes back from a blocked layout in the order of addresses in memory. Their names, and the order of
    parallel branches, then differ from process to process, and no measurement could be resumed.
    """
    if not any(node.op_type == REORDERS[1] for node in model.graph.node):
        return
    graph = OnnxGraph(model)
    order = list(_order(graph))
    order += sorted(set(range(len(graph.nodes))) - set(order))
    back: dict[str, list[onnx.NodeProto]] = {}
    for i in order:
        if graph.nodes[i].op_type == REORDERS[1]:
            graph.nodes[i].name = ""
            back.setdefault(graph.nodes[i].input[0], []).append(graph.nodes[i])
    settled = [node for i in order for node in _with_changes(graph.nodes[i], back)]
    copies = [type(node).FromString(node.SerializeToString()) for node in settled]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _order(graph: OnnxGraph) -> Iterator[int]:
    """The nodes that the outputs need, each behind those that it reads; branches in the order of its inputs."""
    done: set[int] = set()
    waiting = [graph.maker[name] for name in reversed(graph.outputs) if name in graph.maker]
    while waiting:
        i = waiting[-1]
        needed = [graph.maker[name] for name in graph.reads[i] if name in graph.maker]
        needed = [j for j in needed if j not in done]
        if needed and i not in done:
            waiting += reversed(needed)
            continue
        waiting.pop()
        if i not in done:
            done.add(i)
            yield i


def _with_changes(node: onnx.NodeProto, back: Mapping[str, list[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """A node, and the changes back of its outputs right behind it."""
    if node.op_type != REORDERS[1]:
        yield node
        for name in node.output:
            yield from sorted(back.get(name, ()), key=lambda each: str(each.output[0]))
