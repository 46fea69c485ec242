"""A torch module as a graph of layers with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import INPUT, Graph
from ofa_profiler.networks.parameters import Array
from ofa_search.pruning.conversion import maps  # noqa: F401 (fills the table)
from ofa_search.pruning.conversion.draft import Draft
from ofa_search.pruning.conversion.merging import merge
from ofa_search.pruning.conversion.operators import OPERATORS
from ofa_search.pruning.conversion.steps import Pending, Step, Value, constants_of, exported, step_of

if TYPE_CHECKING:
    import torch


def as_inputs(example_inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The arguments of a module. Raises `UsageError` unless they are images or vectors of float32, with a batch."""
    inputs = tuple(example_inputs) if isinstance(example_inputs, (list, tuple)) else (example_inputs,)
    for tensor in inputs:
        if str(tensor.dtype) != "torch.float32" or tensor.dim() not in (2, 4):
            raise UsageError(
                f"networks are converted for inputs (N, C, H, W) or (N, C) of float32, not "
                f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
            )
    return inputs


def to_graph(
    module: torch.nn.Module, example_inputs: torch.Tensor | tuple[torch.Tensor, ...]
) -> tuple[Graph, dict[str, Array]]:
    """The layers of a module in eval mode, and their weights, float32 with the names of `parameters.py`.

    Nodes have the names of the modules. BatchNorm is folded into the convolutions. Raises `UsageError` that names the
    first operator for which there is no layer, and where it is.
    """
    inputs = as_inputs(example_inputs)
    program = exported(module, inputs)
    names = [str(name) for name in program.graph_signature.user_inputs]
    ours = [INPUT] if len(names) == 1 else names
    draft = Draft({name: tuple(tensor.shape) for name, tensor in zip(ours, inputs, strict=True)})
    values: dict[str, Any] = dict(constants_of(program))
    values |= {name: Value(own, draft.inputs[own]) for name, own in zip(names, ours, strict=True)}
    outputs: Any = ()
    for node in program.graph.nodes:
        if node.op == "call_function":
            values[node.name] = _converted(draft, node, values)
        elif node.op == "output":
            outputs = _resolved(node.args[0], values)
    draft.outputs = tuple(_output(module, draft, value) for value in outputs)
    merge(draft)
    return draft.finished()


def _resolved(argument: Any, values: dict[str, Any]) -> Any:
    """An argument with the values of the nodes in it."""
    if isinstance(argument, (list, tuple)):
        return [_resolved(each, values) for each in argument]
    return values[argument.name] if hasattr(argument, "op") else argument


def _converted(draft: Draft, node: Any, values: dict[str, Any]) -> Any:
    """The output of an operator. What has only constant inputs is computed here."""
    step = step_of(node, lambda argument: _resolved(argument, values))
    if step.operator == "getitem":
        found, index = step.arguments.values()
        return found[index]
    if not _reads_network(step):
        import torch

        with torch.no_grad():
            return node.target(
                *_resolved(node.args, values), **{k: _resolved(v, values) for k, v in node.kwargs.items()}
            )
    convert = OPERATORS.get(step.operator)
    return step.refuse() if convert is None else convert(draft, step)


def _reads_network(step: Step) -> bool:
    """Whether one of its inputs is computed by the network."""
    given = [each for value in step.arguments.values() for each in (value if isinstance(value, list) else [value])]
    return any(isinstance(each, (Value, Pending)) for each in given)


def _output(module: torch.nn.Module, draft: Draft, value: Any) -> str:
    """The node whose output is one of the network. Raises `UsageError` if there is none."""
    if not isinstance(value, Value) or value.name in draft.inputs:
        raise UsageError(f"{type(module).__name__} has an output that no layer computes")
    return value.name
