"""Sorts channels by importance before narrower subnets are trained, so that these use the most important ones.

The importance of a channel is the L1 norm of the weights that read it (arXiv 1908.09791, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.layers import Conv, SqueezeExcite
from ofa_profiler.networks.op import Op
from ofa_search.supernet.elastic import ElasticBatchNorm, ElasticConv, ElasticKernel, ElasticOp, ElasticSqueezeExcite
from ofa_search.supernet.supernet import Supernet


@torch.no_grad()
def sort_channels(supernet: Supernet, keep: Sequence[Architecture] = ()) -> None:
    """Reorder the channels inside the blocks by falling importance.

    The largest network and the architectures in `keep` compute the same as before: two channels are swapped only
    if each kept architecture uses both or neither of them. Before a phase that adds a narrower expand ratio, `keep`
    must contain one architecture for each ratio that was trained before.
    """
    kept = [dict(supernet.space.layout(architecture)) for architecture in (supernet.space.largest, *keep)]
    for slot, op in kept[0].items():
        main = op.graph.branches[0]
        if len(main) > 1 and _is_dense(main[0].layer):
            _sort_op(supernet.elastic_op(slot), [ops[slot] for ops in kept if slot in ops])


def _is_dense(layer: object) -> bool:
    return isinstance(layer, Conv) and layer.groups == 1


def _sort_op(elastic: ElasticOp, kept: Sequence[Op]) -> None:
    """Go backwards: a dense convolution determines the order of its inputs, and the layers before it follow."""
    order: Tensor | None = None
    branches = [op.graph.branches[0] for op in kept]
    for position in reversed(range(len(branches[0]))):
        layers = [branch[position].layer for branch in branches]
        module = elastic.child(layers[0].name)
        if isinstance(module, ElasticConv):
            if order is not None:
                _permute(module.conv, 0, order)
                if module.bn is not None:
                    _permute_norm(module.bn, order)
            if position and _is_dense(layers[0]):
                order = _order(module.conv, (layer.in_channels for layer in layers if isinstance(layer, Conv)))
                _permute(module.conv, 1, order)
        elif isinstance(module, ElasticSqueezeExcite) and order is not None:
            _permute(module.reduce, 1, order)
            _permute(module.expand, 0, order)
            mids = (layer.mid_channels for layer in layers if isinstance(layer, SqueezeExcite))
            inner = _order(module.expand, mids)
            _permute(module.reduce, 0, inner)
            _permute(module.expand, 1, inner)


def _order(reader: ElasticKernel, widths: Iterable[int]) -> Tensor:
    """Return the input channels of `reader` by falling L1 norm, within each interval of neighbouring `widths`."""
    importance = reader.weight.abs().sum((0, 2, 3))
    edges = sorted({0, *widths, len(importance)})
    parts = [start + importance[start:end].argsort(descending=True, stable=True) for start, end in pairwise(edges)]
    return torch.cat(parts)


def _permute(kernel: ElasticKernel, dim: int, order: Tensor) -> None:
    kernel.weight.copy_(kernel.weight.index_select(dim, order))
    if dim == 0 and kernel.bias is not None:
        kernel.bias.copy_(kernel.bias[order])


def _permute_norm(norm: ElasticBatchNorm, order: Tensor) -> None:
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.copy_(tensor[order])
