"""The operators of a torch module in the order of execution, as `torch.export` finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ofa_profiler.base.extras import need
from ofa_profiler.errors import UsageError
from ofa_profiler.models.torch_export import evaluated
from ofa_profiler.networks.layers.any_conv import NO_MARGINS, Margins
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Shape

if TYPE_CHECKING:
    import torch

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Value:
    """The output of a layer, or an input of the network. `shape` is torch's, with the batch."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Pending:
    """A reshaped or padded tensor that becomes a layer together with the operators after it."""

    source: Value
    shape: Shape
    is_swapped: bool = False  # two axes of groups of channels, the second one first
    pads: Margins = NO_MARGINS  # of minus infinity


@dataclass(frozen=True)
class Step:
    """An operator with its arguments by name; tensors are `Value`s, or torch tensors if they are constant."""

    layer: str  # the module that called it, such as `layer1.0.conv1`; "" for the network itself
    operator: str  # such as `conv2d`
    arguments: Mapping[str, Any]
    shapes: tuple[Shape, ...]  # of its outputs, with the batch

    @property
    def shape(self) -> Shape:
        """The shape of its first output."""
        return self.shapes[0]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def source(self) -> Value:
        """Its first tensor. Raises `UsageError` if it is constant."""
        return self.value("input" if "input" in self.arguments else next(iter(self.arguments)))

    def value(self, name: str) -> Value:
        """A tensor that the network computes. Raises `UsageError` for others."""
        value = self.arguments[name]
        if isinstance(value, Pending):
            self.refuse(f"no layer takes an input of the shape {value.shape}")
        if not isinstance(value, Value):
            self.refuse("its input is constant")
        return value

    def constant(self, name: str) -> Array | None:
        """An argument as float64; None if it is left out. Raises `UsageError` if the network computes it."""
        value = self.arguments.get(name)
        if value is None:
            return None
        if isinstance(value, Value):
            self.refuse(f"its {name} is computed by the network")
        if isinstance(value, (int, float)):
            return np.array(value, np.float64)
        array: Array = value.detach().cpu().double().numpy()
        return array

    def pair(self, name: str) -> tuple[int, int]:
        """An argument of two sizes, where one may stand for both."""
        value = self.arguments[name]
        sizes = tuple(int(size) for size in (value if isinstance(value, Sequence) else (value,)))
        return (sizes[0], sizes[-1])

    def refuse(self, reason: str = "") -> NoReturn:
        """Raise the `UsageError` of an operator that cannot be converted."""
        where = f"layer {self.layer}" if self.layer else "the network"
        raise UsageError(
            f"{where}: the operator {self.operator} cannot be converted" + (f": {reason}" if reason else "")
        )


def exported(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """torch's exported program of a module, without operators that work in place. Raises `UsageError`."""
    need("torch", extra="train", purpose="the conversion of torch modules")
    import warnings

    import torch

    try:
        with evaluated(module), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, inputs).run_decompositions({})
    except Exception as error:  # anything can happen in a user's code
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]
        raise UsageError(f"torch cannot export {type(module).__name__}: {reason}") from error


def constants_of(program: Any) -> dict[str, torch.Tensor]:
    """Name of a placeholder -> parameter, buffer or other constant of a program."""
    signature = program.graph_signature
    held = {**program.state_dict, **program.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {placeholder: held[name] for placeholder, name in names.items()}


def layer_of(node: Any) -> str:
    """The path of the innermost module that called an operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).partition("@")[0] if stack else ""


def step_of(node: Any, resolve: Any) -> Step:
    """An operator of an exported program. `resolve` gives the value of an argument."""
    name = str(getattr(node.target, "_opname", getattr(node.target, "__name__", node.target)))
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # `getitem`
        arguments = {str(i): resolve(argument) for i, argument in enumerate(node.args)}
    else:
        names = [argument.name for argument in schema.arguments]
        defaults = {argument.name: argument.default_value for argument in schema.arguments}
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        arguments = {key: resolve(given.get(key, defaults[key])) for key in names}
    found = node.meta.get("val")
    outputs = found if isinstance(found, (list, tuple)) else (found,)
    shapes = tuple(tuple(int(size) for size in getattr(output, "shape", ())) for output in outputs)
    return Step(layer_of(node), name, arguments, shapes)
