"""The names of the weights in the OFA authors' supernets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

#: Our slot -> their module. The blocks of all stages are one numbered list there.
_MODULES = {
    "stem": "first_conv",
    "first_block": "blocks.0.conv",
    "final_expand": "final_expand_layer",
    "feature_mix": "feature_mix_layer",
    "classifier": "classifier",
    # of the ResNet space
    "stem0": "input_stem.0",
    "stem1": "input_stem.1.conv",
    "stem2": "input_stem.2",
}


def simplified(name: str) -> str:
    """A name in the form that newer and older files share.

    Elastic layers wrap plain ones of the same name (`conv.conv.weight`): the repeated part is dropped.
    Blocks of older files call their body `mobile_inverted_conv`, those of newer files `conv`.
    """
    parts = ("conv" if part == "mobile_inverted_conv" else part for part in name.split("."))
    return ".".join(part for part, _ in groupby(parts))


def published_names(names: Iterable[str], slots: Iterable[str]) -> dict[str, str]:
    """Our name of every tensor of a supernet with these slots -> the authors' name, simplified."""
    slots = list(slots)
    blocks = [slot for slot in slots if slot.startswith("stage")]
    if "first_block" in slots:
        modules = _MODULES | {slot: f"blocks.{i}.conv" for i, slot in enumerate(blocks, start=1)}
    else:
        modules = _MODULES | {slot: f"blocks.{i}" for i, slot in enumerate(blocks)}

    def published(name: str) -> str:
        slot, layer, rest = name.split(".", 2)
        if layer == "se":
            layer = "depth_conv.se.fc"
        elif layer == "conv":  # an op of one convolution is that convolution there
            return simplified(f"{modules[slot]}.{rest}")
        return simplified(f"{modules[slot]}.{layer}.{rest}")

    return {name: published(name) for name in names}
