"""The keys of ops in the tables of the OFA authors: writing and parsing."""

from __future__ import annotations

import re
from typing import Any

from ofa_profiler.networks.tensors import Shape

#: Kind -> prefix of its keys. There are no published tables of ResNets, so the last three prefixes are our own.
KEY_PREFIX = {
    "stem": "Conv",
    "mbconv": "expanded_conv",
    "final_expand": "Conv_1",
    "pool": "AvgPool2D",
    "feature_mix": "Conv_2",
    "classifier": "Logits",
    "conv": "Conv3x3",
    "max_pool": "MaxPool2D",
    "bottleneck": "bottleneck",
}

_SIZE = r"[1-9][0-9]{0,8}"
_KIND = {prefix: kind for kind, prefix in KEY_PREFIX.items()}
_KEY = re.compile(
    rf"(?P<prefix>{'|'.join(_KIND)})"
    rf"-input:(?P<input>{_SIZE}x{_SIZE}x{_SIZE})-output:(?P<output>{_SIZE}x{_SIZE}x{_SIZE}|{_SIZE})"
    rf"(?:-expand:(?P<expand>{_SIZE}))?"
    rf"(?P<spatial>-kernel:(?P<kernel>{_SIZE})-stride:(?P<stride>{_SIZE})-idskip:(?P<skip>[01]))?"
    r"(?P<flags>-se:(?P<se>[01])-hs:(?P<hs>[01]))?"
)


def key_of(
    kind: str,
    input_shape: Shape,
    output_shape: Shape,
    *,
    family: str,
    kernel_size: int,
    mid_channels: int,
    stride: int,
    skip: bool,
    se: bool,
    activation: str,
) -> str:
    """The key of an op."""
    key = f"{KEY_PREFIX[kind]}-input:{'x'.join(map(str, input_shape))}-output:{'x'.join(map(str, output_shape))}"
    proxyless = family == "proxyless"
    if kind in ("mbconv", "bottleneck"):
        # ProxylessNAS tables store the expand ratio, MobileNetV3 tables the number of channels.
        key += f"-expand:{mid_channels // input_shape[-1] if proxyless else mid_channels}"
    if kind in ("mbconv", "bottleneck", "conv"):
        key += f"-kernel:{kernel_size}-stride:{stride}-idskip:{skip:d}"
    if kind == "mbconv" and not proxyless:
        key += f"-se:{se:d}-hs:{activation == 'h_swish':d}"
    return key


def has_published_prefix(key: str) -> bool:
    """Whether a key begins like those of the published tables."""
    return key.partition("-input:")[0] in _KIND and "-input:" in key


def is_proxyless(key: str) -> bool:
    """Whether only ProxylessNAS tables contain this key."""
    return key.startswith(KEY_PREFIX["mbconv"] + "-") and "-se:" not in key


def parse_key(key: str, *, family: str = "mobilenetv3") -> dict[str, Any] | None:
    """The arguments of `blocks.block_op` for the op of this key; None if the text is not a key.

    Fields that a key does not contain get the values of `family`, for example a 3 x 3 stem. Except for blocks, the
    keys of both families have the same form.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    kind = _KIND[match["prefix"]]
    inputs, outputs = _shape(match["input"]), _shape(match["output"])
    if (kind == "classifier") != (len(outputs) == 1):
        return None
    return {"kind": kind, "input_shape": inputs, "output_shape": outputs, **_fields(kind, match, family)}


def _fields(kind: str, match: re.Match[str], family: str) -> dict[str, Any]:
    """The fields besides the shapes: from the key, or the defaults of the family."""
    inputs, outputs = _shape(match["input"]), _shape(match["output"])
    proxyless = family == "proxyless" or (kind == "mbconv" and not match["flags"])
    usual = "relu6" if proxyless else "h_swish"
    fields: dict[str, Any] = {"family": "proxyless"} if proxyless else {}
    if match["expand"]:
        ratio = kind == "mbconv" and proxyless
        fields["mid_channels"] = int(match["expand"]) * (inputs[-1] if ratio else 1)
    if match["spatial"]:
        fields |= {"kernel_size": int(match["kernel"]), "stride": int(match["stride"]), "skip": match["skip"] == "1"}
    match kind:
        case "mbconv" if match["flags"]:
            fields |= {"se": match["se"] == "1", "activation": "h_swish" if match["hs"] == "1" else "relu"}
        case "mbconv":
            fields["activation"] = "relu6"
        case "stem":
            fields |= {"kernel_size": 3, "stride": -(-inputs[0] // outputs[0]), "activation": usual}
        case "final_expand" | "feature_mix":
            fields["activation"] = usual
        case "conv" | "bottleneck":
            fields["activation"] = "relu"
        case "max_pool":
            fields |= {"kernel_size": 3, "stride": 2}
    return fields


def _shape(text: str) -> Shape:
    return tuple(map(int, text.split("x")))
