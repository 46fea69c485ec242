"""PyPI's `ofa`, the published code, as the reference that our networks are compared with."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from math import sqrt

import pytest
import torch
from torch import nn

from ofa_profiler.architecture import Architecture
from ofa_profiler.spaces import get_space

PUBLISHED = ("ofa-mbv3-w1.0", "ofa-mbv3-w1.2")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty torchvision modules: `ofa` imports them for its data loaders, which nothing here uses."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: type(name, (), {})
        return module

    def exec_module(self, module):
        pass


def networks():
    """The module with the published supernets, or skip the test."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIns())
    return pytest.importorskip(
        "ofa.imagenet_classification.elastic_nn.networks",
        reason="needs the reference code, PyPI's `ofa` (with pillow, gdown, thop, tqdm)",
        exc_type=ImportError,
    )


def supernet(space: str, seed: int) -> nn.Module:
    """The published supernet of the space, in eval mode: random weights, BatchNorm statistics and
    kernel transformations far from trivial.
    """
    elastic = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4], "dropout_rate": 0}
    match space:
        case "ofa-mbv3-w1.0" | "ofa-mbv3-w1.2":
            network = networks().OFAMobileNetV3(width_mult=float(space[-3:]), **elastic)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("_matrix"):
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
            elif name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(0.0, 0.2, generator=generator)
            elif not name.endswith("num_batches_tracked"):
                tensor.normal_(0.0, sqrt(2.0 / tensor[0].numel()), generator=generator)
    return network.eval()


def select(network: nn.Module, architecture: Architecture) -> None:
    """Make `architecture` the active subnet of the reference."""
    space = get_space(architecture.space)
    values = {"d": [], "ks": [], "e": []}
    for stage in architecture.stages:
        padding = [3] * (max(space.depths) - stage.depth)
        values["d"].append(stage.depth)
        values["ks"] += [*stage.kernel_sizes, *padding]
        values["e"] += [*stage.expand_ratios, *padding]
    network.set_active_subnet(**values)
