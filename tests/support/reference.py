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

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import get_space
from support.torchvision_operators import complete_torchvision

PUBLISHED = ("ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty torchvision modules: `ofa` imports them for its data loaders, which nothing here uses."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__file__ = None
        module.__getattr__ = lambda name: type(name, (), {})
        return module

    def exec_module(self, module):
        pass


def do_without_torchvision() -> None:
    """Let `ofa` be imported where torchvision is not installed, or does not fit torch."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIns())
    complete_torchvision()


def networks():
    """The module with the published supernets, or skip the test."""
    do_without_torchvision()
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
        case "ofa-proxyless-w1.3":
            network = networks().OFAProxylessNASNets(width_mult=1.3, **elastic)
        case "ofa-resnet50":
            network = networks().OFAResNets(
                dropout_rate=0,
                depth_list=[0, 1, 2],
                expand_ratio_list=[0.2, 0.25, 0.35],
                width_mult_list=[0.65, 0.8, 1.0],
            )
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


def choice(architecture: Architecture) -> dict:
    """The architecture as the reference writes it: lists over all blocks, the inactive ones included."""
    space = get_space(architecture.space)
    settings = {"d": [], "ks": [], "e": [], "w": []}
    if architecture.stem is not None:  # depths are counted from the smallest, widths by their position
        settings["d"].append(2 if architecture.stem.depth == 3 else 0)
        settings["w"] += [space.width_mults.index(width) for width in architecture.stem.width_mults]
    for stage, depths in zip(architecture.stages, space.stage_depths, strict=True):
        inactive = max(depths) - stage.depth
        settings["d"].append(stage.depth - min(depths) if architecture.stem else stage.depth)
        settings["ks"] += [*stage.kernel_sizes, *[3] * inactive]
        settings["e"] += [*stage.expand_ratios, *[space.expand_ratios[0]] * inactive]
        if stage.width_mult is not None:
            settings["w"].append(space.width_mults.index(stage.width_mult))
    return settings


def macs(architecture: Architecture, network: nn.Module) -> float:
    """MACs of the subnet as the reference counts them, in millions."""
    networks()
    from ofa.nas.efficiency_predictor import latency_lookup_table as tables

    network.set_active_subnet(**choice(architecture))
    family = {"OFAMobileNetV3": "MBv3", "OFAProxylessNASNets": "ProxylessNAS", "OFAResNets": "ResNet50"}
    table = getattr(tables, f"{family[type(network).__name__]}LatencyTable")
    return table.count_flops_given_config(network.get_active_net_config(), architecture.resolution)
