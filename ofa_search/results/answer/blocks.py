"""A network as a drawing: what its blocks are, from their layers, so that any space can be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.layers import Add, AvgPool, Conv, GlobalPool, Layer, Linear, MaxPool, SqueezeExcite
from ofa_profiler.networks.op import Op
from ofa_profiler.pages.drawings import Block, Stage, drawing
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace

#: Choices that the layers of a block show.
_SHOWN = {"depth", "kernel_size", "kernel", "se"}
_OTHER = {
    MaxPool: "max pooling",
    AvgPool: "mean pooling",
    GlobalPool: "mean of each channel",
    Linear: "fully connected",
}


def network_drawing(space: SearchSpace, architecture: Architecture, slot_ms: Mapping[str, float]) -> str:
    """The architecture as SVG, with the milliseconds of its slots, as far as they are known."""
    layout = space.layout(architecture)
    chosen = _own_choices(space, architecture)
    precisions = space.precisions(architecture) if isinstance(space, MixedSpace) else {}
    stages = []
    for title, members in _stages(layout):
        blocks = [
            _block(name, op, chosen.get(name, ()), precisions.get(name, ""), slot_ms.get(name)) for name, op in members
        ]
        stages.append(Stage(title, _size_words(members[-1][1]), blocks))
    first, last = layout[0][1], layout[-1][1]
    before = f"image of {'x'.join(map(str, first.input_shape[:2]))} pixels"
    marked = "int8" if "int8" in precisions.values() else ""
    return drawing(stages, before, f"{last.output_shape[-1]} classes", marked)


def _stages(layout: Sequence[tuple[str, Op]]) -> Iterator[tuple[str, list[tuple[str, Op]]]]:
    """Slots by stage: those of `stage0_block1` under `stage0`, those before, between and after stages in between."""
    groups: list[tuple[str, list[tuple[str, Op]]]] = []
    for name, op in layout:
        stage = stage_of(name)
        if not groups or groups[-1][0] != stage:
            groups.append((stage, []))
        groups[-1][1].append((name, op))
    for number, (stage, members) in enumerate(groups):
        other = "start" if number == 0 else "end" if number == len(groups) - 1 else "between"
        yield stage or (other if len(groups) > 1 else "layers"), members


def stage_of(name: str) -> str:
    """The stage of a slot; empty if it belongs to none."""
    stage, _, number = name.rpartition("_block")
    return stage if number.isdigit() else ""


def _block(name: str, op: Op, chosen: Sequence[str], precision: str, milliseconds: float | None) -> Block:
    layers = [node.layer for node in op.graph.nodes]
    first, last = op.input_shape[-1], op.output_shape[-1]
    inside = _inside(layers)
    kernel = max((layer.kernel_size for layer in layers if isinstance(layer, Conv)), default=0)
    time = "" if milliseconds is None else f"{milliseconds:.{3 if milliseconds >= 0.01 else 1}g} ms"
    return Block(
        name=name.removeprefix(f"{stage_of(name)}_") if stage_of(name) else name,
        # Lines break after commas alone.
        words=", ".join(part.replace(" ", "\u00a0") for part in (_kind(layers), *chosen, *_extras(op, layers)) if part),
        channels=(first, None if inside in (first, last) else inside, last),
        group=f"{kernel}x{kernel}" if kernel else "",
        note=" · ".join(filter(None, (precision, time))),
        is_marked=precision == "int8",
        adds_input=any(isinstance(layer, Add) for layer in layers) and op.input_shape == op.output_shape,
    )


def _kind(layers: Sequence[Layer]) -> str:
    """The kernels of convolutions, or what else the layers are."""
    kernels = sorted({layer.kernel_size for layer in layers if isinstance(layer, Conv)})
    if kernels:
        spatial = [kernel for kernel in kernels if kernel > 1] or kernels
        return " and ".join(f"{kernel}x{kernel}" for kernel in spatial)
    return next((words for kind, words in _OTHER.items() for layer in layers if isinstance(layer, kind)), "")


def _inside(layers: Sequence[Layer]) -> int | None:
    """The channels of the convolution with the largest kernel."""
    convolutions = [layer for layer in layers if isinstance(layer, Conv)]
    return max(convolutions, key=lambda layer: layer.kernel_size).out_channels if len(convolutions) > 1 else None


def _extras(op: Op, layers: Sequence[Layer]) -> Iterator[str]:
    if any(isinstance(layer, SqueezeExcite) for layer in layers):
        yield "SE"
    if len(op.input_shape) == 3 == len(op.output_shape) and op.output_shape[0] > 1:
        stride = round(op.input_shape[0] / op.output_shape[0])
        if stride > 1:
            yield f"stride {stride}"


def _own_choices(space: SearchSpace, architecture: Architecture) -> dict[str, list[str]]:
    """Slot -> the choices that it alone depends on, in words: `expand 4`."""
    plain = space.plain if isinstance(space, MixedSpace) else space
    at = plain.at(architecture.resolution)
    network = space.plain_architecture(architecture) if isinstance(space, MixedSpace) else architecture
    genome, named = at.encode([network])[0], dict(architecture.choices)
    uses = [gene for slot in at.slots for gene in slot.genes]
    switches = {gene.switch for gene in at.genes}
    found = {}
    for slot in at.slots:
        words = []
        for number in slot.genes:
            gene = at.genes[number]
            kind = gene.name.rpartition(".")[2]
            if uses.count(number) == 1 and number not in switches and kind not in _SHOWN:
                value = named.get(gene.name, gene.choices[int(genome[number])])
                words.append(f"{kind.removesuffix('_ratio').replace('_', ' ')} {value}")
        found[slot.name] = words
    return found


def _size_words(op: Op) -> str:
    shape = op.output_shape
    return f"{shape[0]}x{shape[1]}, {shape[2]} channels" if len(shape) == 3 and shape[0] > 1 else ""
