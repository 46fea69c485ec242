"""The base class of exporters, which turn layers and weights into the bytes of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from ofa_profiler.errors import UsageError
from ofa_profiler.export.forms.base import writer_of
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Layer, LayerTable
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges, made_up_ranges
from ofa_profiler.networks.tensors import Shape, TensorSpec
from ofa_profiler.protocol.forms import PLAIN, AnyForms, Forms
from ofa_profiler.protocol.target import MIXED, Target

#: Names of the output of an op and of a network.
OP_OUTPUT_NAME = "output"
LOGITS_NAME = "logits"


class Exporter(ABC):
    """Builds models in one file format. It refuses a model with an unsupported layer."""

    #: Name of the file format in messages.
    format: str
    precisions: tuple[str, ...]
    #: Names of the encodings of int8 (`protocol/encodings.py`); empty if there is only one.
    encodings: tuple[str, ...] = ()
    #: Increase it if the same op gives other bytes. Cached models are then exported again.
    version: int
    #: What distinguishes the models of `for_release` from those for a current release; empty if nothing does.
    dialect: str = ""

    def for_release(self, release: str | None) -> Exporter:  # noqa: ARG002
        """Return the exporter of models that this release of the runtime can load; None for a current release.

        Raises `UsageError` if there are none.
        """
        return self

    @abstractmethod
    def build(
        self,
        graph: Graph,
        weights: Weights,
        target: Target,
        *,
        outputs: Sequence[str],
        metadata: Mapping[str, str],
        forms: AnyForms = PLAIN,
        ranges: Ranges | None = None,
        precisions: Mapping[str, str] | None = None,
    ) -> bytes:
        """The bytes of a model. The same arguments give the same bytes.

        `outputs` are the names of its outputs, in order. `weights` must match the graph (`check_weights`). `ranges` are
        for int8 and must match it, too (`check_ranges`); None: they are made up. `precisions` are those of the slots of
        a network of mixed precision, whose nodes are `SLOT.LAYER`. Raises `UsageError` if the format does not support
        the graph, the target or a form.
        """

    @staticmethod
    def writer(table: LayerTable[Callable[..., str]], layer: Layer, target: Target, forms: Forms) -> Callable[..., str]:
        """The function that writes a layer: that of its chosen form, or else that of the exporter's table."""
        return writer_of(target.runtime, layer, forms) or table[type(layer)]

    @staticmethod
    def ranges_for(graph: Graph, ranges: Ranges | None) -> Ranges:
        """The ranges for an int8 model: those given, or made up. Raises `UsageError` for inputs that are no numbers."""
        for tensor in graph.inputs:
            if tensor.dtype != "float32":
                raise UsageError(f"int8 models take float32 inputs, but {tensor.name} is {tensor.dtype}; use fp32")
        return made_up_ranges(graph) if ranges is None else ranges

    def check(self, target: Target) -> None:
        """Raise `UsageError` if this exporter does not support the precision or its encoding."""
        if target.precision == "fp16":
            raise UsageError(
                f"precision 'fp16' (XNNPACK on ARM with asimdhp, CUDA) is not built; choose from "
                f"{', '.join(self.precisions)}"
            )
        if target.precision not in self.precisions and not (target.precision == MIXED and "int8" in self.precisions):
            known = ", ".join(self.precisions)
            raise UsageError(
                f"precision {target.precision!r} is not supported with {target.runtime}; choose from {known}"
            )
        if target.encoding and not (target.has_integers and target.encoding in self.encodings):
            raise UsageError(
                f"{target.precision} for {target.runtime} has no encoding {target.encoding!r:.20}"
                f"; it has {', '.join(self.encodings) or 'none'}"
            )

    def inputs(self, graph: Graph, target: Target) -> tuple[TensorSpec, ...]:
        """The inputs of the model file, with axes in the order of the runtime (here batch, channels, height, width)."""
        return tuple(tensor._replace(shape=nchw(tensor.shape, target.batch)) for tensor in graph.inputs)


def nchw(shape: Shape, batch: int) -> Shape:
    """Add the batch, and move the channels of a map: (H, W, C) -> (N, C, H, W), but (T, C) -> (N, T, C)."""
    return (batch, shape[-1], *shape[:-1]) if len(shape) == 3 else (batch, *shape)
