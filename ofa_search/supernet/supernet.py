"""The supernet: every subnet of a search space in one set of shared weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights, to_weights
from ofa_profiler.spaces import SearchSpace, as_space
from ofa_search.supernet.checkpoint import Calibration, Checkpoint, read_checkpoint, write_checkpoint
from ofa_search.supernet.elastic import ElasticOp
from ofa_search.supernet.subnet_weights import subnet_weights


class Supernet(nn.Module):
    """The elastic network of a space, one `ElasticOp` per slot.

    Its state_dict has the names of a static network's, plus the kernel transformations.
    """

    def __init__(self, space: SearchSpace | str) -> None:
        super().__init__()
        self.space = as_space(space)
        for slot in self.space.slots:
            self.add_module(slot.name, ElasticOp(self.space.slot_ops(slot)))

    def elastic_op(self, slot: str) -> ElasticOp:
        """Return the module that computes the slot of this name."""
        module = self.get_submodule(slot)
        assert isinstance(module, ElasticOp)
        return module

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        """Logits (N, classes) of the subnet `architecture` for images (N, 3, H, W).

        Images of any size are allowed; `architecture.resolution` is the size that the subnet is made for.
        A call keeps no state, so several subnets can run before one backward pass.
        """
        # Convolutions train fastest in this format. For inference, the caller chooses the format.
        x = images.contiguous(memory_format=torch.channels_last) if self.training else images
        for slot, op in self.space.layout(architecture):
            x = self.elastic_op(slot)(x, op)
        return x

    @torch.no_grad()
    def weights(self, architecture: Architecture) -> dict[str, Array]:
        """Return copies of the subnet's weights in numpy, named as in `StaticNetwork`, for the exporters."""
        tensors = subnet_weights(self.space.layout(architecture), self.state_dict())
        return {name: tensor.to("cpu", torch.float32, copy=True).numpy() for name, tensor in tensors.items()}

    def extract(self, architecture: Architecture) -> StaticNetwork:
        """Return the subnet as an independent plain module, in eval mode, on the supernet's device.

        It has the BatchNorm statistics of the supernet; see `recalibrate`.
        """
        device = next(self.parameters()).device
        network = StaticNetwork(self.space.layout(architecture))
        load_weights(network, self.weights(architecture))
        return network.to(device).eval()

    @staticmethod
    def from_checkpoint(path: str | Path, space: SearchSpace | str | None = None) -> Supernet:
        """Read a supernet from a file of this package, or from one that the OFA authors' code has saved.

        A file of the authors does not name its `space`, so the caller must. Raises `InputFileError`.
        """
        return load_trained(path, space).supernet


@dataclass(frozen=True, eq=False)
class TrainedSupernet:
    """A supernet in eval mode and the rest of its file: see `Checkpoint`."""

    supernet: Supernet
    description: Mapping[str, Any]
    calibration: Calibration | None
    ranges: Ranges | None = None


def load_trained(path: str | Path, space: SearchSpace | str | None = None) -> TrainedSupernet:
    """Read a supernet as `Supernet.from_checkpoint` does, and the description and calibration in its file."""
    return as_trained(read_checkpoint(path, space))


def as_trained(checkpoint: Checkpoint) -> TrainedSupernet:
    """Build the supernet with the tensors of a checkpoint."""
    supernet = Supernet(checkpoint.space)
    load_weights(supernet, checkpoint.tensors)
    return TrainedSupernet(supernet.eval(), checkpoint.description, checkpoint.calibration, checkpoint.ranges)


def save_supernet(
    supernet: Supernet,
    path: str | Path,
    *,
    dtype: DTypeLike = np.float32,
    metadata: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    ranges: Ranges | None = None,
) -> Path:
    """Write the supernet to a file; see `write_checkpoint`."""
    checkpoint = Checkpoint(supernet.space, to_weights(supernet), metadata or {}, calibration, ranges)
    return write_checkpoint(checkpoint, path, dtype=dtype)
