"""The groups of a network: `find_groups(module, example_inputs)`."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ofa_profiler.errors import UsageError
from ofa_search.pruning.cutting.attention import PrunedAttention
from ofa_search.pruning.graph import elementwise, layers, movement, products, reductions, selection
from ofa_search.pruning.graph.analysis import Analysis
from ofa_search.pruning.graph.assembling import assemble, without
from ofa_search.pruning.graph.tracing import as_inputs, one_line, trace
from ofa_search.pruning.graph.trial import prepare, proven
from ofa_search.pruning.groups import Dependencies

_HANDLERS = {
    **layers.HANDLERS,
    **elementwise.HANDLERS,
    **movement.HANDLERS,
    **selection.HANDLERS,
    **reductions.HANDLERS,
    **products.HANDLERS,
}


def find_groups(module: nn.Module, example_inputs: Any, *, prove: bool = True) -> Dependencies:
    """What can be removed from a module, and what cannot, with the reasons. The module stays as it is.

    `example_inputs` is a tensor, or the arguments of `forward` as a sequence or a mapping. Every group has been cut for
    a trial, and did not change the outputs; that takes a few times as long as running the network. Raises `UsageError`
    if torch cannot trace the module.
    """
    try:
        copied = copy.deepcopy(module).eval()
    except Exception as error:  # anything can happen in a user's code
        raise UsageError(f"{type(module).__name__} cannot be copied: {one_line(error)}") from error
    for each in copied.modules():
        if isinstance(each, nn.MultiheadAttention):
            PrunedAttention.replace(each)
    inputs = as_inputs(example_inputs)
    analysis = Analysis(trace(copied, inputs), _HANDLERS)
    analysis.run()
    dependencies = assemble(analysis, copied)
    return without(dependencies, proven(prepare(copied, inputs), dependencies)) if prove else dependencies
