"""The memory format in which a network of any origin is trained and tested."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def use_fastest_format(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Give the weights the format channels-last, about twice as fast on CPUs, unless the network cannot work in it.

    One that takes a map apart with `view` expects the plain format. `inputs` are (N, C, H, W), to try it out. Returns
    the network, changed in place.
    """
    training = network.training
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        network(inputs.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        # Another fault of the network shows itself when it is used.
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.train(training)


def memory_format_of(network: nn.Module) -> torch.memory_format:
    """The format of its weights, and so of its maps."""
    plain = all(weight.is_contiguous() for weight in network.parameters() if weight.ndim == 4)
    return torch.contiguous_format if plain else torch.channels_last
