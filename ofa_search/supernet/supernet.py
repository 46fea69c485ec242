"""The supernet: every subnet of a search space in one set of shared weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_search.supernet.elastic import ElasticOp


class Supernet(nn.Module):
    """The elastic network of a space, one `ElasticOp` per slot.

    Its state_dict has the names of a static network's, plus the kernel transformations.
    """

    def __init__(self, space: SearchSpace | str) -> None:
        super().__init__()
        self.space = get_space(space) if isinstance(space, str) else space
        for slot in self.space.slots:
            self.add_module(slot.name, ElasticOp(self.space.slot_ops(slot)))

    def elastic_op(self, slot: str) -> ElasticOp:
        """The part that serves the slot of this name."""
        module = self.get_submodule(slot)
        assert isinstance(module, ElasticOp)
        return module

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        """Logits (N, classes) of the subnet `architecture` for images (N, 3, H, W).

        The size of the images is free; `architecture.resolution` says what the subnet is meant for.
        Nothing is remembered between calls, so several subnets can run before one backward pass.
        """
        # Convolutions train fastest in this format, on CPUs and GPUs; for inference the caller knows best.
        x = images.contiguous(memory_format=torch.channels_last) if self.training else images
        for slot, op in self.space.layout(architecture):
            x = self.elastic_op(slot)(x, op)
        return x

    def _static(self, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
        for slot, op in self.space.layout(architecture):
            for name, tensor in self.elastic_op(slot).static(op).items():
                yield f"{slot}.{name}", tensor

    @torch.no_grad()
    def weights(self, architecture: Architecture) -> dict[str, NDArray[np.float32]]:
        """Copies of the subnet's weights, named as in `StaticNetwork`: what the exporters take."""
        return {name: tensor.to("cpu", torch.float32, copy=True).numpy() for name, tensor in self._static(architecture)}

    def extract(self, architecture: Architecture) -> StaticNetwork:
        """The subnet as a plain module of its own, in eval mode, on the supernet's device.

        Its BatchNorm statistics are those of the supernet; see `recalibrate`.
        """
        device = next(self.parameters()).device
        network = StaticNetwork(self.space.layout(architecture))
        load_weights(network, self.weights(architecture))
        return network.to(device).eval()

    @staticmethod
    def from_checkpoint(path: str | Path, space: SearchSpace | str | None = None) -> Supernet:
        """Read a supernet from a file of ours, or from one that the OFA authors' code has saved.

        `space` is needed for the latter, which does not say it. Raises `InputFileError`.
        """
        from ofa_search.supernet.checkpoint import load_supernet

        return load_supernet(path, space)
