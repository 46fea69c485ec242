"""Measures the BatchNorm statistics of one subnet."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ofa_profiler.errors import UsageError


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the BatchNorm statistics of a network by those of `batches`, in place.

    The running statistics of a supernet mix those of all subnets. A subnet with them loses most of its
    accuracy. `batches` are images (N, 3, R, R), preprocessed as for inference, at the resolution of the
    subnet; a few hundred training images are enough. Mean and variance are averaged over the batches,
    each weighted by its size. The network is left in eval mode. Raises `UsageError` if there is no batch.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    device = next(network.parameters()).device
    network.eval()
    seen = 0
    try:
        for norm in norms:
            norm.train()
        for images in batches:
            seen += len(images)
            for norm in norms:
                norm.momentum = len(images) / seen
            network(images.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
    if seen == 0:
        raise UsageError("recalibration needs at least one batch of images")
