"""A torch module as a list of operators, by `torch.export`."""

from __future__ import annotations

import contextlib
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ofa_profiler.errors import UsageError
from ofa_search.pruning.cutting.cut import named_tensors
from ofa_search.pruning.graph.calls import Call, Name, arguments_of

_LONGEST_REASON = 300
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Trace:
    """The operators, and where tensors come from."""

    calls: tuple[Call, ...]
    #: Inputs of the graph -> the name in the state dict, or None for inputs of the network and constants.
    inputs: Mapping[str, str | None]
    shapes: Mapping[str, tuple[int, ...]]
    #: Those of the inputs of the graph whose elements are known.
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    #: Parameters and buffers -> their shape.
    state: Mapping[str, tuple[int, ...]]
    buffers: frozenset[str]


def as_inputs(example_inputs: Any) -> Inputs:
    """Positional and named arguments of `forward`: from a tensor, a sequence or a mapping."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs), {}


def trace(module: nn.Module, inputs: Inputs) -> Trace:
    """Trace a module in eval mode. Raises `UsageError` with torch's reason if it cannot be traced."""
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, inputs[0], inputs[1])
    except Exception as error:  # anything can happen in a user's code
        raise UsageError(f"torch.export cannot trace {type(module).__name__}: {one_line(error)}") from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    lifted = signature.inputs_to_lifted_tensor_constants
    known = named_tensors(module)
    first = {id(tensor): name for name, tensor in reversed(known.items())}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    tensors = {node.name: known[names[node.name]] for node in nodes if names.get(node.name) in known}
    tensors |= {name: program.constants[target] for name, target in lifted.items()}
    shapes = {node.name: tuple(getattr(node.meta.get("val"), "shape", ())) for node in nodes}
    (last,) = [node for node in program.graph.nodes if node.op == "output"]
    return Trace(
        calls=tuple(_call(node) for node in program.graph.nodes if node.op == "call_function"),
        inputs={node.name: first[id(known[name])] if (name := names.get(node.name)) else None for node in nodes},
        shapes=shapes,
        tensors={name: tensor.detach() for name, tensor in tensors.items()},
        outputs=tuple(node.name for node in last.all_input_nodes),
        state={name: tuple(tensor.shape) for name, tensor in known.items()},
        buffers=frozenset(signature.inputs_to_buffers.values()),
    )


def _call(node: torch.fx.Node) -> Call:
    results = node.meta.get("val")
    each = results if isinstance(results, list | tuple) else [results]
    shapes = tuple(tuple(result.shape) for result in each if isinstance(result, Tensor))
    path = _path(node)
    where = path or "the network"
    if node.target is operator.getitem:
        source, index = node.args
        assert isinstance(source, torch.fx.Node)
        given = {"list": Name(source.name), "index": index}
        return Call(node.name, "getitem", node.target, given, shapes, False, None, path, where)
    name = str(node.target).split(".")[1] if "." in str(node.target) else str(node.target)
    arguments = arguments_of(node)
    in_place = name.endswith("_") and not name.endswith("__")
    first = next(iter(arguments.values()), None)
    changed = first.text if in_place and isinstance(first, Name) else None
    kind = name.removesuffix("_") if in_place else name
    return Call(
        node.name, kind, node.target, arguments, shapes, isinstance(results, list | tuple), changed, path, where
    )


def _path(node: torch.fx.Node) -> str:
    """The module in whose forward a node is. A module that is called twice gets names like `block@1`."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((str(path) for path, _ in reversed(list(stack.values()))), "")
    path = path.removeprefix("L['self']").removeprefix(".")
    return ".".join(part.split("@")[0] for part in path.split("."))


def one_line(error: BaseException) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns and logs about itself."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
