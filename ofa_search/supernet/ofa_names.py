"""The names of the weights in the OFA authors' supernets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

#: Our slot -> the authors' module. Their code numbers the blocks of all stages in one list.
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
    """Return a name in a form that is the same for newer and older files.

    Elastic layers wrap plain ones of the same name (`conv.conv.weight`): the repeated part is dropped.
    Blocks of older files call their body `mobile_inverted_conv`, those of newer files `conv`.
    """
    parts = ("conv" if part == "mobile_inverted_conv" else part for part in name.split("."))
    return ".".join(part for part, _ in groupby(parts))


def published_names(names: Iterable[str], slots: Iterable[str]) -> dict[str, str]:
    """Map our name of each tensor of a supernet with these slots to the authors' name, simplified."""
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
        elif layer == "conv":  # the authors have no op around a single convolution
            return simplified(f"{modules[slot]}.{rest}")
        return simplified(f"{modules[slot]}.{layer}.{rest}")

    return {name: published(name) for name in names}
