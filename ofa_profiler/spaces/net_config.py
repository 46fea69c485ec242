"""The `net.config` files of the OFA authors: a subnet as a list of layers with all their channels.

    {"name": "MobileNetV3", "first_conv": {…}, "blocks": [{"name": …, "conv": {…}, "shortcut": …}, …],
     "final_expand_layer": {…}, "feature_mix_layer": {…}, "classifier": {…}}

`ProxylessNASNets` has no `final_expand_layer`, and `ResNets` has `input_stem`, a list, instead of `first_conv`. Older
files call the body of a block `mobile_inverted_conv`. The resolution is not in the file: the authors put it into
`run.config` beside it, as `image_size`.

An architecture is found by building the ops of a space, slot by slot, until they are the layers of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import EPSILON, MOBILENETV3, PROXYLESS, RESNET
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import SearchSpace, Slot
from ofa_profiler.spaces.ofa_settings import resolution_of

#: Family of spaces -> name of the authors' class.
_CLASSES = {MOBILENETV3: "MobileNetV3", PROXYLESS: "ProxylessNASNets", RESNET: "ResNets"}
#: Slots outside the blocks -> the field of the layer.
_FIELDS = {
    "stem": "first_conv",
    "final_expand": "final_expand_layer",
    "feature_mix": "feature_mix_layer",
    "classifier": "classifier",
}
_POOLS = ("pool", "max_pool")
_NO_RESOLUTION = 'put the run.config beside it, or add "image_size", for example 224'


@dataclass(frozen=True)
class _Layer:
    """A layer of a file: where it is, and the values that must be those of an op."""

    where: str
    values: Mapping[str, Any]


def is_net_config(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object has this form."""
    return "blocks" in data and "classifier" in data


# --- writing ---------------------------------------------------------------------------------------------


def to_net_config(space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    """The `net.config` of an architecture of `space`, and its resolution as `image_size`.

    `build_from_config` of the authors' classes reads it. Raises `UsageError` for a space of another family.
    """
    if space.family not in _CLASSES:
        raise UsageError(f"space {space.name} has no net.config: it is not one of the OFA authors' families")
    ratios = _ratios(architecture)
    config: dict[str, Any] = {
        "name": _CLASSES[space.family],
        "bn": {"momentum": 0.1, "eps": EPSILON.get(space.family, EPSILON[MOBILENETV3])},
    }
    for slot, op in space.layout(architecture):
        layer = _config(op, ratios.get(slot))
        if slot in _FIELDS:
            config[_FIELDS[slot]] = layer
        elif op.kind not in _POOLS:
            config.setdefault("input_stem" if op.kind == "conv" else "blocks", []).append(layer)
    return config if architecture.resolution is None else {**config, "image_size": architecture.resolution}


def _ratios(architecture: Architecture) -> dict[str, float]:
    """Name of a block's slot -> its expand ratio."""
    return {
        f"stage{number}_block{block}": ratio
        for number, stage in enumerate(architecture.stages)
        for block, ratio in enumerate(stage.expand_ratios)
    }


def _config(op: Op, expand_ratio: float | None) -> dict[str, Any]:
    values = _values_of_op(op)
    if op.kind == "classifier":
        return {"name": "LinearLayer", **values, "out_features": op.output_shape[-1], "bias": True, "dropout_rate": 0}
    if op.kind == "bottleneck":
        return {"name": "ResNetBottleneckBlock", **values, "expand_ratio": expand_ratio, "groups": 1}
    if op.kind == "mbconv":
        mid = None if expand_ratio is None else values["mid_channels"]
        conv = {"name": "MBConvLayer", **values, "expand_ratio": expand_ratio or 1, "mid_channels": mid}
    else:
        conv = {"name": "ConvLayer", **values, "bias": False, "use_bn": op.kind != "feature_mix"}
    if op.kind != "mbconv" and not op.attributes["skip"]:
        return conv
    channels = {"in_channels": op.input_shape[-1], "out_channels": op.output_shape[-1]}
    shortcut = {"name": "IdentityLayer", **channels} if op.attributes["skip"] else None
    return {"name": "ResidualBlock", "conv": conv, "shortcut": shortcut}


def _values_of_op(op: Op) -> dict[str, Any]:
    """The values of an op that a file has too."""
    if op.kind == "classifier":
        return {"in_features": op.input_shape[-1]}
    attributes = op.attributes
    values: dict[str, Any] = {
        "in_channels": op.input_shape[-1],
        "out_channels": op.output_shape[-1],
        "kernel_size": attributes["kernel_size"],
        "stride": attributes["stride"],
        "act_func": attributes["activation"],
    }
    if op.kind in ("mbconv", "bottleneck"):
        values["mid_channels"] = attributes["mid_channels"]
    if op.kind == "mbconv":
        values["use_se"] = bool(attributes["se"])
    if op.kind == "bottleneck":
        values["downsample_mode"] = "avgpool_conv"
    return values


# --- reading ---------------------------------------------------------------------------------------------


def from_net_config(spaces: Sequence[SearchSpace], data: Mapping[str, Any]) -> Architecture:
    """The architecture of a `net.config`, of one of `spaces`. Raises `UsageError`, which names the wrong field."""
    name = data.get("name")
    if isinstance(name, str) and name.startswith("OFA"):
        raise UsageError(f"architecture: {name} is a supernet; give the net.config of a subnet (get_active_net_config)")
    named = [space for space in spaces if _CLASSES.get(space.family) == name]
    if not named:
        known = ", ".join(_CLASSES.values())
        raise UsageError(f"architecture: 'name' is {name!r:.60}, not a network of the OFA authors ({known})")
    layers = list(_layers(data))
    problems: list[tuple[int, str]] = []
    for space in named:
        choices = _Search(space, layers).run(problems)
        if choices is not None:
            if space.resolution_gene is not None:
                choices[space.resolution_gene] = resolution_of(space, data, _NO_RESOLUTION) or 0
            values = [choices.get(i, gene.choices[0]) for i, gene in enumerate(space.genes)]
            architecture = space.from_values(values)
            space.validate(architecture)
            return architecture
    raise UsageError(f"architecture: {max(problems, key=lambda problem: problem[0])[1]}")


def _layers(data: Mapping[str, Any]) -> Iterator[_Layer]:
    """The layers of a file in the order of execution. Raises `UsageError`."""
    if "input_stem" in data:
        yield from _listed(data, "input_stem")
    else:
        yield _layer(data.get("first_conv"), "first_conv")
    yield from _listed(data, "blocks")
    for field in list(_FIELDS.values())[1:]:
        if data.get(field) is not None:
            yield _layer(data[field], field)


def _listed(data: Mapping[str, Any], field: str) -> Iterator[_Layer]:
    if not isinstance(data[field], list):
        raise UsageError(f"architecture: {field!r} must be a list of layers")
    for number, block in enumerate(data[field]):
        where = f"{field}[{number}]"
        body = next((key for key in ("conv", "mobile_inverted_conv") if isinstance(block, dict) and key in block), None)
        yield _layer(block, where) if body is None else _layer(block[body], f"{where}.{body}")


def _layer(config: Any, where: str) -> _Layer:
    if not isinstance(config, Mapping):
        raise UsageError(f"architecture: {where} must be a layer, a JSON object")
    values = {"act_func": "", "downsample_mode": "avgpool_conv", "use_se": False, **config}
    kernel = values.get("kernel_size")
    if isinstance(kernel, list) and len(kernel) == 2 and kernel[0] == kernel[1]:
        values["kernel_size"] = kernel[0]
    if values.get("mid_channels") is None and "expand_ratio" in values:
        channels, ratio = values.get("in_channels"), values["expand_ratio"]
        if type(channels) is int and isinstance(ratio, int | float):
            values["mid_channels"] = round(channels * ratio)
    return _Layer(where, {name: value for name, value in values.items() if not isinstance(value, Mapping)})


class _Search:
    """Searches the choices of a space that give the layers of a file, slot by slot, with backtracking.

    A layer fits few choices, and a depth is decided by the first block of the next stage: the search never goes far
    back.
    """

    def __init__(self, space: SearchSpace, layers: Sequence[_Layer]) -> None:
        self._space, self._layers = space, layers
        #: The furthest layer that did not fit, and the ops that were tried there.
        self._furthest, self._tried = -1, list[Op]()

    def run(self, problems: list[tuple[int, str]]) -> dict[int, float] | None:
        """Position of a gene -> its value; or None, with the problem and the number of its layer in `problems`."""
        resolution = self._space.resolution_gene
        start = {} if resolution is None else {resolution: self._space.genes[resolution].choices[-1]}
        found = self._from(0, 0, start)
        if found is None:
            problems.append((self._furthest, self._problem()))
        return found

    def _from(self, slot: int, layer: int, chosen: dict[int, float]) -> dict[int, float] | None:
        if slot == len(self._space.slots):
            if layer == len(self._layers):
                return chosen
            self._failed(layer, None)
            return None
        for more, op in self._options(self._space.slots[slot], chosen):
            if op is None or op.kind in _POOLS:
                used = 0
            elif layer < len(self._layers) and _fits(op, self._layers[layer]):
                used = 1
            else:
                self._failed(layer, op)
                continue
            found = self._from(slot + 1, layer + used, {**chosen, **more})
            if found is not None:
                return found
        return None

    def _options(self, slot: Slot, chosen: Mapping[int, float]) -> Iterator[tuple[dict[int, float], Op | None]]:
        """The open choices of a slot with their ops; choices with equal ops once."""
        open_genes = [gene for gene in slot.genes if gene not in chosen]
        seen: set[Op | None] = set()
        for values in product(*(self._space.genes[gene].choices for gene in open_genes)):
            more = dict(zip(open_genes, values, strict=True))
            op = slot.build(*({**chosen, **more}[gene] for gene in slot.genes))
            depends = any(self._space.genes[gene].kind not in ("kernel_size", "expand_ratio") for gene in open_genes)
            if depends or op not in seen:
                seen.add(op)
                yield more, op

    def _failed(self, layer: int, op: Op | None) -> None:
        if layer > self._furthest:
            self._furthest, self._tried = layer, []
        if layer == self._furthest and op is not None:
            self._tried.append(op)

    def _problem(self) -> str:
        """What is wrong with the furthest layer: a value that no op has there."""
        name = self._space.name
        if self._furthest >= len(self._layers):
            return f"the network ends too early for {name}"
        layer = self._layers[self._furthest]
        if not self._tried:
            return f"{layer.where} is one layer too many for {name}"
        tried = [_values_of_op(op) for op in self._tried]
        for field in {field: None for values in tried for field in values}:
            possible = sorted({str(values[field]) for values in tried if field in values})
            if str(layer.values.get(field)) not in possible:
                value = f"{layer.values[field]!r:.60}" if field in layer.values else "missing"
                return f"{layer.where}.{field} is {value}, not {' or '.join(possible)} as in {name}"
        return f"{layer.where} is not a layer of {name} at this place"


def _fits(op: Op, layer: _Layer) -> bool:
    return all(layer.values.get(name) == value for name, value in _values_of_op(op).items())
