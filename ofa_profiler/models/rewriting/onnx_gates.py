"""onnxruntime: the gate of a squeeze-excite is enlarged to the size of the map before it is multiplied.

On x86 onnxruntime keeps maps in a blocked layout, which its Mul supports only for equal shapes. A plain gate costs two
changes of layout and a slow Mul. The size of the map must be fixed in the file: Resize stays in the layout only if its
scales are constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ofa_profiler.models.rewriting.base import IMAGE_AXES, Pattern, Site
from ofa_profiler.models.rewriting.onnx_document import OnnxDocument

#: Resize has `scales` since opset 11. Since 13 its second input, which this mode ignores, can be left out.
_RESIZE_SINCE, _REGION_IS_OPTIONAL_SINCE = 11, 13


@dataclass(frozen=True, eq=False)
class _Site(Site):
    node: onnx.NodeProto
    gate: str
    size: tuple[int, int]


class WideGate(Pattern[OnnxDocument, _Site]):
    """A map (N, C, H, W) times a gate (N, C, 1, 1) that depends on the input."""

    name, runtime, kinds = "gates of squeeze-and-excite", "onnxruntime", ("Mul",)

    def site(self, document: OnnxDocument, operator: onnx.NodeProto) -> _Site | None:
        return None if document.opset < _RESIZE_SINCE else _gated(document, operator)

    def edit(self, document: OnnxDocument, site: _Site) -> None:
        scales = document.constant_node(f"{site.place}_scales", np.array([1, 1, *site.size], np.float32))
        constants, region = [scales], ""
        if document.opset < _REGION_IS_OPTIONAL_SINCE:
            constants.append(document.constant_node(f"{site.place}_region", np.empty(0, np.float32)))
            region = constants[-1].output[0]
        wide = document.fresh(f"{site.place}_gate")
        resize = onnx.helper.make_node(
            "Resize",
            [site.gate, region, scales.output[0]],
            [wide],
            name=wide,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        product = onnx.NodeProto.FromString(site.node.SerializeToString())
        product.input[:] = [wide if name == site.gate else name for name in site.node.input]
        document.replace([site.node], [*constants, resize, product])


def _gated(document: OnnxDocument, node: onnx.NodeProto) -> _Site | None:
    for gate, image in (tuple(node.input), tuple(reversed(node.input))):
        if document.constant(gate) is not None or document.constant(image) is not None:
            continue
        small, large = document.shape(gate), document.shape(image)
        if small is None or large is None or not len(small) == len(large) == IMAGE_AXES:
            continue
        channels, height, width = small[1], large[2], large[3]
        fits = channels is not None and channels == large[1] and small[0] == large[0] and small[2:] == (1, 1)
        if fits and height and width and height * width > 1 and document.is_float(gate):
            return _Site(node.output[0], node, gate, (height, width))
    return None
